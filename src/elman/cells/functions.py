"""The four cells as one table, for what runs any of them: over time (kernels), or back (gradients)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

from torch import Tensor

from elman.cells import gru, lstm, rnn

Cell = Literal["rnn_tanh", "rnn_relu", "lstm", "gru"]
States = tuple[Tensor, ...]
"""(h,) or (h, c): [B, H] each in one layer, [K, B, H] each in a stack."""


class CellFunctions(NamedTuple):
    """What a cell's file defines, under the names that it has there."""

    step: Callable[..., tuple[States, tuple[Tensor, ...]]]
    step_backward: Callable[..., tuple[Tensor, States, tuple[Tensor | None, ...]]]
    gates_backward: Callable[..., tuple[Tensor, Tensor, States]]
    state: type[Any]  # a NamedTuple: `_fields` names its parts, h and in the LSTM c
    cache: type[Any]


CELLS: dict[str, CellFunctions] = {
    "rnn_tanh": CellFunctions(rnn.step, rnn.step_backward, rnn.gates_backward, rnn.State, rnn.Cache),
    "rnn_relu": CellFunctions(
        partial(rnn.step, nonlinearity="relu"),
        partial(rnn.step_backward, nonlinearity="relu"),
        partial(rnn.gates_backward, nonlinearity="relu"),
        rnn.State,
        rnn.Cache,
    ),
    "lstm": CellFunctions(lstm.step, lstm.step_backward, lstm.gates_backward, lstm.State, lstm.Cache),
    "gru": CellFunctions(gru.step, gru.step_backward, gru.gates_backward, gru.State, gru.Cache),
}
