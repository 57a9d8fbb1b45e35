"""The recurrences once more, in float64 NumPy from the papers: what every other implementation must equal.

Written to share nothing with the code under test: no tensors, one sequence at a time (so there is no
batch, no padding and no packing to get wrong), one matrix per gate, one output unit after the other
named as in the paper. Gradients come from no derivation at all: a complex step of 1e-30 gives the
derivative of an analytic function to the last digit (Squire and Trapp 1998). Imports nothing of Elman.

T steps, D input size, H hidden size, K = layers · directions. Weights are named as in a state_dict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Weights = dict[str, Array]
GATES = {"rnn_tanh": "h", "rnn_relu": "h", "lstm": "ifgo", "gru": "rzn"}


def sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def relu(a: Array) -> Array:
    return np.where(a.real > 0, a, 0)


def elman(gate: dict[str, tuple[Array, ...]], x: Array, state: list[Array], squash: Callable) -> list[Array]:
    """Elman 1990, figure 2: the context units are a copy of the hidden units one step before."""
    W, U, b, c = gate["h"]
    return [squash(W @ x + b + U @ state[0] + c)]


def lstm(gate: dict[str, tuple[Array, ...]], x: Array, state: list[Array]) -> list[Array]:
    """Hochreiter and Schmidhuber 1997, section 4, with the forget gate of Gers et al. 2000, equation 3."""
    y, s = state  # the papers' y: what the block shows; s: the constant error carousel

    def net(name: str) -> Array:
        W, U, b, c = gate[name]
        return W @ x + b + U @ y + c

    s = sigmoid(net("f")) * s + sigmoid(net("i")) * np.tanh(net("g"))
    return [sigmoid(net("o")) * np.tanh(s), s]


def gru(gate: dict[str, tuple[Array, ...]], x: Array, state: list[Array]) -> list[Array]:
    """Cho et al. 2014, arXiv v1, equations 5 to 8, with biases: r acts on the product U h + c."""
    h = state[0]

    def half(name: str) -> tuple[Array, Array]:
        W, U, b, c = gate[name]
        return W @ x + b, U @ h + c

    r, z = (sigmoid(sum(half(name))) for name in "rz")
    from_x, from_h = half("n")
    return [z * h + (1 - z) * np.tanh(from_x + r * from_h)]


def cell(name: str, weights: Weights, suffix: str) -> Callable[[Array, list[Array]], list[Array]]:
    """The step of one layer and direction: (x [D], state) → state."""
    gates = GATES[name]
    weight_ih, weight_hh = weights["weight_ih_" + suffix], weights["weight_hh_" + suffix]
    H = weight_hh.shape[1]
    none = np.zeros(len(gates) * H)
    bias_ih, bias_hh = weights.get("bias_ih_" + suffix, none), weights.get("bias_hh_" + suffix, none)
    gate = {
        g: tuple(array[k * H : (k + 1) * H] for array in (weight_ih, weight_hh, bias_ih, bias_hh))
        for k, g in enumerate(gates)
    }
    if name == "lstm":
        return lambda x, state: lstm(gate, x, state)
    if name == "gru":
        return lambda x, state: gru(gate, x, state)
    squash = relu if name == "rnn_relu" else np.tanh
    return lambda x, state: elman(gate, x, state, squash)


def sequence(
    name: str, weights: Weights, x: Array, state: Sequence[Array], *, layers: int, bidirectional: bool
) -> tuple[Array, list[Array]]:
    """x [T, D], state (h, …) [K, H] → output [T, H · directions], last state (h, …) [K, H]."""
    last: list[list[Array]] = []
    for layer in range(layers):
        sides = []
        for k, direction in enumerate(["", "_reverse"][: 1 + bidirectional]):
            step = cell(name, weights, f"l{layer}{direction}")
            now = [part[layer * (1 + bidirectional) + k] for part in state]
            shown = []
            for x_t in x if k == 0 else x[::-1]:
                now = step(x_t, now)
                shown.append(now[0])
            sides.append(np.array(shown if k == 0 else shown[::-1]))
            last.append(now)
        x = np.concatenate(sides, axis=1)
    return x, [np.array([now[part] for now in last]) for part in range(len(state))]


def complex_step(loss: Callable[[Weights], complex], arrays: Weights) -> Weights:
    """d loss / d every entry of every array, by a complex step: no subtraction, so no cancellation."""
    h = 1e-30
    gradients = {}
    for name, array in arrays.items():
        gradient = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            moved = array.astype(complex)
            moved[index] += 1j * h
            gradient[index] = loss({**arrays, name: moved}).imag / h
        gradients[name] = gradient
    return gradients
