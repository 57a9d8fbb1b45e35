"""The dtypes that torch's own recurrences give under autocast, which Elman's modules give too."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from elman.cells.functions import Cell, States
from elman.kernels.backends import Stack, run


def torchs_dtypes(
    cell: Cell, batch_sizes: Tensor | None, x: Tensor, state: States
) -> tuple[torch.dtype, ...]:
    """Of output and last state, as torch's own kernels make them under the autocast that is on."""
    sizes = None if batch_sizes is None else (2, 1 + int(batch_sizes[0] == batch_sizes[-1]))
    return _torchs_dtypes(cell, sizes, tuple(t.dtype for t in (x, *state)), torch.get_autocast_dtype("cpu"))


@cache
def _torchs_dtypes(
    cell: Cell, sizes: tuple[int, int] | None, given: tuple[torch.dtype, ...], autocast: torch.dtype
) -> tuple[torch.dtype, ...]:
    """Asked of torch, once for each kind of call: cells, layouts and versions differ."""
    gates = {"lstm": 4, "gru": 3}.get(cell, 1)
    x, *state = (torch.zeros(n, 2, 1, dtype=d, device="cpu") for n, d in zip((2, 1, 1), given, strict=False))
    weights = [torch.zeros(gates, *rest, device="cpu", dtype=torch.float32) for rest in ((1,), (1,), (), ())]
    stack = Stack(cell, weights, 1, True, False, 0.0, False)
    with torch.no_grad(), torch.autocast("cpu", autocast):
        if sizes is None:
            output, last = run("torch", stack, x, tuple(state))
        else:
            data, batch_sizes = x.view(4, 1)[: sum(sizes)], torch.tensor(sizes, device="cpu")
            output, last = run("torch", stack, data, tuple(state), batch_sizes)
    return tuple(t.dtype for t in (output, *last))
