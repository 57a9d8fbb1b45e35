"""A recurrence unrolled over a text, every step's gates kept, and one step back through it by hand.

What the instruments of this folder share: full and truncated BPTT, Jacobians, the triangle ∂L_t/∂h_s. It
takes Elman's recurrences and torch.nn's, and computes in the dtype of their parameters with the cells' own
equations.

T steps, B sequences, D input size, H hidden size, L layers, R gradients carried back at once: B of them, one
for each sequence, or any number through one sequence, whose gates every row then sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from elman.cells import Parameters, lstm
from elman.cells.functions import CELLS, Cell, CellFunctions, States
from elman.errors import OptionError

CELL_OF: dict[str, Cell] = {"RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu", "LSTM": "lstm", "GRU": "gru"}


@dataclass(frozen=True)
class Unrolled:
    """The forward pass of a stack, kept.

    parameters  of each layer
    caches      [L][T] what each step's backward needs: the gates, under the cell's own names
    states      h, in the LSTM h and c: [L, T+1, B, H]; [:, 0] is the state before the first step
    masks       [L-1, T, B, H] factors between the layers (dropout: 0 or 1 / (1 - p)); None: none
    """

    cell: Cell
    parameters: tuple[Parameters, ...]
    caches: tuple[tuple[tuple[Tensor, ...], ...], ...]
    states: States
    masks: Tensor | None = None

    @property
    def functions(self) -> CellFunctions:
        """The equations of the cell."""
        return CELLS[self.cell]

    @property
    def layers(self) -> int:
        return len(self.parameters)

    @property
    def steps(self) -> int:
        return len(self.caches[0])

    @property
    def output(self) -> Tensor:
        """[T, B, H]: h of the last layer, before any dropout behind it."""
        return self.states[0][-1, 1:]

    def gate(self, layer: int, name: str) -> Tensor:
        """[T, B, H] of one gate or candidate: i, f, g, o in the LSTM; r, z, n in the GRU."""
        return torch.stack([getattr(cache, name) for cache in self.caches[layer]])

    def double(self) -> Unrolled:
        """The same pass in float64, for ways back that are longer than float32's exponents reach."""

        def wide(tensor: Tensor | None) -> Any:
            return None if tensor is None else tensor.double()

        return replace(
            self,
            parameters=tuple(Parameters(*map(wide, p)) for p in self.parameters),
            caches=tuple(tuple(self.functions.cache(*map(wide, c)) for c in steps) for steps in self.caches),
            states=tuple(map(wide, self.states)),
            masks=wide(self.masks),
        )

    def no_gradient(self, rows: int) -> list[States]:
        """For each layer, zeros [rows, H] for every part of its state."""
        like = self.states[0]
        return [tuple(like.new_zeros(rows, like.shape[-1]) for _ in self.states) for _ in range(self.layers)]


@torch.no_grad()
def unroll(
    recurrence: nn.RNNBase, x: Tensor, state: States | None = None, masks: Tensor | None = None
) -> Unrolled:
    """x [T, B, D] (time first, whatever the module's batch_first), state (h, …) [L, B, H] → the forward pass.

    Takes any elman.RNN, LSTM, GRU or torch.nn.RNN, LSTM, GRU of one direction. state None is zeros. The
    dropout of the module is not drawn: what it would multiply by is `masks`. Raises OptionError for two
    directions, for projections, for another module, and for shapes that do not fit.
    """
    cell, parameters = _parameters(recurrence)
    functions, (layers, H) = CELLS[cell], (len(parameters), recurrence.hidden_size)
    if x.dim() != 3 or x.shape[2] != recurrence.input_size or not len(x):
        raise OptionError(
            f"the input has the shape {tuple(x.shape)}, not [T, B, {recurrence.input_size}], T at least 1.",
            remedy="give time first, then the batch; unsqueeze(1) makes one sequence a batch.",
        )
    T, B, _ = x.shape
    parts = 2 if cell == "lstm" else 1
    first = state if state is not None else tuple(x.new_zeros(layers, B, H) for _ in range(parts))
    if [part.shape for part in first] != [(layers, B, H)] * parts:
        raise OptionError(f"the state is not {parts} tensors of the shape {[layers, B, H]}.")
    if masks is not None and masks.shape != (layers - 1, T, B, H):
        raise OptionError(f"the masks have the shape {tuple(masks.shape)}, not {[layers - 1, T, B, H]}.")
    x = x.to(parameters[0].weight_ih)
    kept: list[list[States]] = []
    caches: list[tuple[tuple[Tensor, ...], ...]] = []
    for layer, p in enumerate(parameters):
        now = functions.state(*(part[layer].to(x) for part in first))
        states, steps = [now], []
        for x_t in x:
            now, cache = functions.step(p, x_t, now)
            states.append(now)
            steps.append(cache)
        kept.append(states)
        caches.append(tuple(steps))
        x = torch.stack([h for h, *_ in states[1:]])  # [T, B, H]: what the next layer reads
        if masks is not None and layer + 1 < layers:
            x = x * masks[layer]
    stacked = tuple(
        torch.stack([torch.stack([now[part] for now in states]) for states in kept]) for part in range(parts)
    )
    return Unrolled(cell, parameters, tuple(caches), stacked, masks)


class StepBack(NamedTuple):
    """One step of the whole stack, backward.

    dx      [R, D] gradient of what the first layer read
    dstate  of each layer: of the state that this step made [R, H], by every way from it to the loss
    dprev   of each layer: of the state before the step [R, H], as far as it comes through this step
    da      of each layer: (da_ih, da_hh) [R, G·H], gradients of W x + b and of U h + c
    """

    dx: Tensor
    dstate: list[States]
    dprev: list[States]
    da: list[tuple[Tensor, Tensor]]


def step_back(
    unrolled: Unrolled, t: int, later: Sequence[States], doutput: Tensor | None, *, below: bool = True
) -> StepBack:
    """Gradients of step t's states and inputs out of those that come from later steps and from its output.

    later    of each layer [R, H]: the gradient of the state at t that the steps after t send back
    doutput  [R, H] or None: of the last layer's h at t, by the loss of this very step
    below    False: a layer sends nothing to the one below, as if each stood alone (Jacobians of one layer)
    """
    dstates: list[States] = []
    dprevs: list[States] = []
    das = []
    from_above = doutput
    for layer in reversed(range(unrolled.layers)):
        p, cache = unrolled.parameters[layer], unrolled.caches[layer][t]
        dh, *dothers = later[layer]
        # forward: h goes to the next step and to what stands above
        dstate = unrolled.functions.state(dh if from_above is None else dh + from_above, *dothers)
        da_ih, da_hh, (dh_prev, *dc_prev) = unrolled.functions.gates_backward(cache, dstate)
        # forward: a_ih = W x + b, a_hh = U h_prev + c
        dx = da_ih @ p.weight_ih
        dh_prev = dh_prev + da_hh @ p.weight_hh
        if unrolled.cell == "lstm":
            dstates.append((dstate.h, lstm.cell_gradient(lstm.Cache(*cache), dstate)))
        else:
            dstates.append(dstate)
        dprevs.append((dh_prev, *dc_prev))
        das.append((da_ih, da_hh))
        if layer:
            from_above = None if not below else dx
            if from_above is not None and unrolled.masks is not None:
                from_above = from_above * unrolled.masks[layer - 1, t]
    return StepBack(dx, dstates[::-1], dprevs[::-1], das[::-1])


def backward(
    unrolled: Unrolled, doutput: Tensor, dlast: Sequence[States] | None = None
) -> Iterator[tuple[int, StepBack]]:
    """Every step from the last to the first: (t, its gradients). Backpropagation through time.

    doutput [T, R, H] of the last layer's h, dlast of each layer's last state [R, H] (None: zeros).
    """
    later = list(dlast) if dlast is not None else unrolled.no_gradient(doutput.shape[1])
    for t in reversed(range(unrolled.steps)):
        back = step_back(unrolled, t, later, doutput[t])
        yield t, back
        later = back.dprev


def _parameters(recurrence: nn.RNNBase) -> tuple[Cell, tuple[Parameters, ...]]:
    if not isinstance(recurrence, nn.RNN | nn.LSTM | nn.GRU):
        raise OptionError(
            f"a {type(recurrence).__name__} cannot be unrolled.",
            remedy="give an RNN, LSTM or GRU of torch.nn or of Elman.",
        )
    if recurrence.bidirectional or recurrence.proj_size:
        raise OptionError(
            "a recurrence with two directions or with projections cannot be unrolled here.",
            reason="backpropagation through time is followed in one direction, state to state.",
            remedy="give one with bidirectional=False and proj_size=0.",
        )
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if recurrence.bias else 2]
    return CELL_OF[recurrence.mode], tuple(
        Parameters(*(getattr(recurrence, f"{kind}_l{layer}").detach() for kind in kinds))
        for layer in range(recurrence.num_layers)
    )
