"""Where dropout's random numbers come from: torch's generator, or one of a training's own.

torch keeps one generator for the whole process: two trainings in two threads that drew from it would
change each other's numbers. On a CPU a training draws from a generator of its own, in its own thread;
seeded alike, it gives the numbers that torch's would.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional


class _Here(threading.local):
    generator: torch.Generator | None = None


_here = _Here()


@contextmanager
def drawing_from(generator: torch.Generator | None) -> Iterator[None]:
    """Within, in this thread: dropout on a CPU draws from `generator` (None: from torch's)."""
    before, _here.generator = _here.generator, generator
    try:
        yield
    finally:
        _here.generator = before


def own(x: Tensor) -> torch.Generator | None:
    """The generator to draw from for a tensor like x; None is torch's."""
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return None
    return _here.generator


def are_own() -> bool:
    """Whether a training in this thread draws from a generator of its own."""
    return _here.generator is not None


def dropout(x: Tensor, p: float) -> Tensor:
    """torch.nn.functional.dropout in training; on a CPU from `own`, the same numbers for the same seed."""
    generator = own(x)
    if generator is None or not 0 < p < 1:
        return functional.dropout(x, p, training=True)
    # as torch's kernel: the mask is drawn, divided, and multiplied with
    return x * torch.empty_like(x).bernoulli_(1 - p, generator=generator).div_(1 - p)
