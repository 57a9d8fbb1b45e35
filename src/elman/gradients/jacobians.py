"""Jacobians of the state through time, ∂state_t/∂state_s, and what bounds them.

The state of a layer is h, in the LSTM h and c, in this order; of a whole stack all layers', from the first
up. Pascanu, Mikolov & Bengio (2013): the gradient is carried back by the product of the Jacobians of single
steps; its norm is at most the product of their norms.

Rows of the identity go back through `step_back`, so a Jacobian costs one backward pass of S gradients.
T steps, H hidden size, L layers, S size of the state: H or 2 H in a layer, L times that in the stack.
States are numbered as steps are: state t is what step t made, state -1 the one before the first step.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from elman.cells import Parameters
from elman.errors import OptionError
from elman.gradients.unrolling import Unrolled, step_back


def step_jacobian(unrolled: Unrolled, t: int, layer: int | None = None) -> Tensor:
    """∂state_t/∂state_{t-1} [S, S]: row i is the gradient of component i of state t.

    layer  one layer on its own, its input held fixed; None: the whole stack
    Raises OptionError unless one sequence was unrolled, and for a step or a layer that is not there.
    """
    return jacobian(unrolled, t, t - 1, layer)


def jacobian(unrolled: Unrolled, t: int, s: int, layer: int | None = None) -> Tensor:
    """∂state_t/∂state_s [S, S], -1 <= s <= t: the product of the step Jacobians t, t-1, … s+1."""
    if not -1 <= s <= t < unrolled.steps:
        raise OptionError(f"there is no way from state {t} back to {s} in {unrolled.steps} steps.")
    return next(found for place, found in products(unrolled, t, layer) if place == s)


@torch.no_grad()
def products(unrolled: Unrolled, t: int, layer: int | None = None) -> Iterator[tuple[int, Tensor]]:
    """(s, ∂state_t/∂state_s [S, S]) for s = t (the identity), t-1, … -1: a product that grows by a step."""
    layers = _one_sequence(unrolled, layer)
    if not 0 <= t < unrolled.steps:
        raise OptionError(f"there is no step {t} among {unrolled.steps}.")
    H, parts = unrolled.states[0].shape[-1], len(unrolled.states)
    size = len(layers) * parts * H
    identity = torch.eye(size).to(unrolled.states[0])
    later = unrolled.no_gradient(size)
    blocks = iter(identity.view(size, -1, H).unbind(1))
    for each in layers:
        later[each] = tuple(next(blocks) for _ in range(parts))
    yield t, identity
    for s in reversed(range(-1, t)):
        later = step_back(unrolled, s + 1, later, None, below=layer is None).dprev
        yield s, torch.cat([part for each in layers for part in later[each]], dim=1)


def spectral_radius(jacobian: Tensor) -> float:
    """The largest modulus of an eigenvalue: what powers of one matrix grow by in the long run."""
    return float(torch.linalg.eigvals(jacobian.double()).abs().max())


def singular_values(jacobian: Tensor) -> Tensor:
    """[S] float64, falling: how much the matrix stretches each of its own directions. The first is its
    spectral norm."""
    found: Tensor = torch.linalg.svdvals(jacobian.double())
    return found


def weight_bound(unrolled: Unrolled, layer: int) -> float:
    """‖U‖ · max|σ'| of a simple RNN's layer, in the spectral norm: no step Jacobian's norm is larger.

    Pascanu et al. (2013), section 2.2 with γ = max|σ'| = 1 for tanh and relu: below 1 the gradient must
    vanish; above 1 it may explode, and need not. Their x is the sum before σ; ours the state after it, for
    which the factors of each step stand in the other order and the bound is the same.
    Raises OptionError for gated cells: nothing but the data bounds the LSTM's cell, and with it the Jacobian.
    """
    if not unrolled.cell.startswith("rnn"):
        raise OptionError(
            f"the Jacobian of the {unrolled.cell} has no bound by its weights alone.",
            remedy="use `step_bounds`, which takes the gates of the text.",
        )
    return float(torch.linalg.matrix_norm(unrolled.parameters[layer].weight_hh.double(), 2))


def step_bounds(unrolled: Unrolled, layer: int) -> Tensor:
    """[T] float64: an upper bound of each step Jacobian's spectral norm in one layer, from the slopes of the
    gates that the text met. The product over steps bounds the norm of ∂state_t/∂state_s.

    RNN: ‖U‖ max|σ'(a_t)|. GRU and LSTM: the triangle inequality over the summands of the Jacobian, each a
    diagonal times one gate's U; in the LSTM over the four blocks of (h, c), whose norms make a 2 × 2 matrix
    of no smaller norm.
    """
    _one_sequence(unrolled, layer)
    caches, p = unrolled.caches[layer], unrolled.parameters[layer]
    bounds = {"lstm": _lstm_bounds, "gru": _gru_bounds}.get(unrolled.cell)
    if bounds is not None:
        return bounds(p, unrolled, layer)
    h = torch.stack([cache[2] for cache in caches]).double()[:, 0]  # [T, H]
    slope = 1 - h * h if unrolled.cell == "rnn_tanh" else (h > 0).double()
    return slope.amax(1) * _gate_norms(p, 1)[0]


def _gru_bounds(p: Parameters, unrolled: Unrolled, layer: int) -> Tensor:
    r, z, n, h_n = (unrolled.gate(layer, name)[:, 0].double() for name in ("r", "z", "n", "h_n"))
    norm_r, norm_z, norm_n = _gate_norms(p, 3)
    h_prev = unrolled.states[0][layer, :-1, 0].double()
    # h = (1 - z) * n + z * h_prev: by h_prev itself, by z, by n past r, by r
    slope_n = (1 - z) * (1 - n * n)
    return (
        z.amax(1)
        + ((h_prev - n) * z * (1 - z)).abs().amax(1) * norm_z
        + (slope_n * r).amax(1) * norm_n
        + (slope_n * h_n * r * (1 - r)).abs().amax(1) * norm_r
    )


def _lstm_bounds(p: Parameters, unrolled: Unrolled, layer: int) -> Tensor:
    names = ("i", "f", "g", "o", "tanh_c")
    i, f, g, o, tanh_c = (unrolled.gate(layer, name)[:, 0].double() for name in names)
    norm_i, norm_f, norm_g, norm_o = _gate_norms(p, 4)
    c_prev = unrolled.states[1][layer, :-1, 0].double()
    # c = f * c_prev + i * g; h = o * tanh(c), through `shown` from c and through o from h_prev
    shown = o * (1 - tanh_c * tanh_c)
    to_i, to_f, to_g = g * i * (1 - i), c_prev * f * (1 - f), i * (1 - g * g)

    def by_h(outer: Tensor) -> Tensor:
        terms = zip((to_i, to_f, to_g), (norm_i, norm_f, norm_g), strict=True)
        return torch.stack([(outer * to).abs().amax(1) * norm for to, norm in terms]).sum(0)

    h_by_h = by_h(shown) + (tanh_c * o * (1 - o)).abs().amax(1) * norm_o
    h_by_c, c_by_h, c_by_c = (shown * f).amax(1), by_h(torch.ones_like(shown)), f.amax(1)
    blocks = torch.stack([h_by_h, h_by_c, c_by_h, c_by_c], dim=1).view(-1, 2, 2)
    found: Tensor = torch.linalg.matrix_norm(blocks, 2)
    return found


def _gate_norms(p: Parameters, gates: int) -> list[float]:
    return [float(torch.linalg.matrix_norm(u.double(), 2)) for u in p.weight_hh.chunk(gates)]


def _one_sequence(unrolled: Unrolled, layer: int | None) -> list[int]:
    """The layers asked for, counted from the first."""
    if unrolled.states[0].shape[2] != 1:
        raise OptionError(
            f"{unrolled.states[0].shape[2]} sequences side by side have no one Jacobian.",
            remedy="unroll one sequence: x of the shape [T, 1, D].",
        )
    if layer is None:
        return list(range(unrolled.layers))
    if not -unrolled.layers <= layer < unrolled.layers:
        raise OptionError(f"there is no layer {layer} among {unrolled.layers}.")
    return [layer % unrolled.layers]
