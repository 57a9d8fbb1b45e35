"""What a trained recurrent model computes over a text: every state, gate and candidate, window by window.

The states h come from the fastest recurrence that there is. Given them all steps are independent, so the
gates of a window are one call of the cell's own equations, as if time were a batch; and c, a sum that is
forgotten by f, is added up last. So a text of any length is read at the speed of a forward pass, in
bounded memory.

N rows (tokens) of a window, T steps, B sequences side by side, D input size, H hidden size.
Not here: one short text with everything kept for the way back (gradients/unrolling.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elman.cells import Parameters
from elman.cells.functions import CELLS, Cell, States
from elman.errors import ElmanError, OptionError
from elman.event_nats import evaluating
from elman.gradients.reading import require_unrollable
from elman.kernels import backends
from elman.language_model import LanguageModel, StatePolicy
from elman.neural.recurrent import STREAM_CELLS, RecurrentModel

WINDOW = 4096  # rows, so that the gates of a window take some 30 MB with 256 units
LANES = 64  # sentences side by side, where each starts afresh
GATES: dict[str, tuple[str, ...]] = {
    "lstm": ("i", "f", "g", "o"),
    "gru": ("r", "z", "n"),
    "rnn_tanh": (),
    "rnn_relu": (),
}
"""Of each cell, as its file in cells/ names them; g and n are candidates, between -1 and 1."""

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class LayerActivations:
    """One layer over a window; everything asked of it is [N, H], row by row as in `Window.places`.

    x       [T, B, D] what it read; h [T, B, H] what it showed; before: its state (h, …) [B, H] at the start
    chosen  [T, B] which steps are tokens, not padding
    """

    cell: Cell
    parameters: Parameters
    x: Tensor
    h: Tensor
    before: States
    chosen: Tensor

    def gate(self, name: str) -> Tensor:
        """[N, H] of one of `GATES[cell]`."""
        return self._gates[name][self.chosen]

    def state(self, part: str) -> Tensor:
        """[N, H] after each token: h, or the LSTM's c."""
        return (self._c if part == "c" else self.h)[self.chosen]

    @cached_property
    def _gates(self) -> dict[str, Tensor]:
        """Each [T, B, H]. No gate depends on c_prev, so that its place is filled with h_prev."""
        h_prev = torch.cat([self.before[0][None], self.h[:-1]]).flatten(0, 1)
        functions = CELLS[self.cell]
        state = functions.state(*(h_prev for _ in self.before))
        cache = functions.step(self.parameters, self.x.flatten(0, 1), state)[1]
        return {name: getattr(cache, name).view(self.h.shape) for name in GATES[self.cell]}

    @cached_property
    def _c(self) -> Tensor:
        gates, c = self._gates, self.before[1]
        cells = gates["i"] * gates["g"]
        for f, cell in zip(gates["f"], cells, strict=True):  # c = f * c_prev + i * g
            c = cell.addcmul_(f, c)
        return cells


@dataclass(frozen=True)
class Window:
    """places  [N] of the text, of the tokens that the rows predict: row p has read what stands before p
    layers  from the one that reads the embedding
    """

    places: Ids
    layers: tuple[LayerActivations, ...]


def activations(
    model: LanguageModel,
    ids: NDArray[np.integer],
    *,
    state: StatePolicy = "carry",
    window: int = WINDOW,
) -> Iterator[Window]:
    """ids [N] of a text, `</s>` after each sentence → every layer's states and gates, each token once.

    The first token of the text is predicted after `</s>`. state "carry": one stream; "reset": every
    sentence starts from zeros, and the windows come in no order. Dropout is off.
    Raises OptionError for a model without a recurrence, ElmanError for ids outside its vocabulary and for
    a state that is NaN or infinite.
    """
    recurrent = require_unrollable(model)
    if len(ids) and int(np.max(ids)) >= len(model.vocabulary):
        raise ElmanError(
            f"token id {int(np.max(ids))} is outside the model's vocabulary of {len(model.vocabulary)}.",
            remedy="encode the text with the vocabulary of this model.",
        )
    end = model.vocabulary.eos_id
    for places in _lanes(ids, end, state):
        now, steps = recurrent.start(places.shape[1]), max(1, window // places.shape[1])
        for first in range(0, len(places), steps):
            rows = places[first : first + steps]  # [T, B], -1 where a lane has ended
            read = np.where(rows > 0, ids[np.maximum(rows - 1, 0)], end)  # what stands before each place
            with evaluating(recurrent):
                layers, now = _run(recurrent, torch.from_numpy(read.astype(np.int64)), rows >= 0, now)
            if not all(bool(layer.h.isfinite().all()) for layer in layers):
                raise ElmanError(
                    "the model's state is not finite at some tokens.",
                    reason="its weights are damaged or its training diverged.",
                    remedy="train again with a smaller --lr or --clip, or take an earlier checkpoint.",
                )
            yield Window(rows[rows >= 0], layers)


def _lanes(ids: NDArray[np.integer], end: int, state: StatePolicy) -> Iterator[Ids]:
    """[T, B] places of what is read side by side; -1 fills up."""
    if state not in ("carry", "reset"):
        raise OptionError(f"state policy {state!r} is unknown.", remedy='use "carry" or "reset".')
    if state == "carry":
        yield np.arange(len(ids))[:, None]
        return
    starts = np.concatenate([[0], np.flatnonzero(ids == end) + 1])
    lengths = np.diff(np.append(starts, len(ids)))
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    for first in range(0, len(order), LANES):
        some = order[first : first + LANES]
        steps = np.arange(lengths[some[0]])[:, None]
        yield np.where(steps < lengths[some], starts[some] + steps, -1)


def _run(
    model: RecurrentModel, read: Tensor, chosen: NDArray[np.bool_], state: States
) -> tuple[tuple[LayerActivations, ...], States]:
    """read [T, B] → each layer over these steps, and the state [L, B, H] after them."""
    cell: Cell = STREAM_CELLS[model.config.cell]  # type: ignore[assignment]
    recurrence, device = model.recurrence, state[0].device
    x = model.embedding(read.to(device))
    layers, ends = [], []
    for layer in range(recurrence.num_layers):
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        p = Parameters(*(getattr(recurrence, f"{kind}_l{layer}").detach() for kind in kinds))
        before = tuple(part[layer] for part in state)
        stack = backends.Stack(cell, [w for w in p if w is not None], 1, True, False, 0.0, False)
        h, after = backends.run("auto", stack, x, tuple(part[None] for part in before))
        tokens = torch.from_numpy(chosen).to(device)
        layers.append(LayerActivations(cell, p, x, h, before, tokens))
        ends.append(tuple(part[0] for part in after))
        x = h
    return tuple(layers), tuple(torch.stack(parts) for parts in zip(*ends, strict=True))
