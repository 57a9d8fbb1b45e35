"""Calls of Elman's operators, changed from valid ones: each must be answered or refused, in its own process.

    python operator_calls.py 5000 17      five thousand calls from seed 17; prints how many were answered

The number of the call is written before it is made, so that a crash names what crashed: `made(seed)`.
"""

from __future__ import annotations

import random
import resource
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import elman.kernels.output  # noqa: F401  # which registers an operator
from elman.kernels import native

CELLS = {"rnn_tanh": (1, 1), "rnn_relu": (1, 1), "lstm": (4, 2), "gru": (3, 1)}
"""name → gates, states"""
INTEGERS = (-(2**63), -(2**31), -1, 0, 1, 2, 7, 2**20, 2**31, 2**40, 2**62, 2**63 - 1)
STRINGS = (
    "",
    "vax",
    "LSTM",
    "lstm",
    "gru",
    "rnn_relu",
    "rnn_tanh",
    "portable",
    "avx2",
    "best",
    "\0",
    "ł" * 99,
)
MORE_MEMORY = 4 << 30
"""Bytes that a call may take; what asks for more is refused by the system, as on any machine."""


@dataclass
class Call:
    operator: str
    arguments: list[Any]

    def answer(self) -> Any:
        return getattr(torch.ops.elman, self.operator)(*self.arguments)


def made(seed: int) -> Call:
    """The call of this number: a valid one, then changed in up to three places."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    call = draw.choice((recurrence, recurrence_backward, recurrence_backward, output_nats, gradient))(draw)
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3))):
        mutate(draw, call.arguments)
    return call


def recurrence(draw: random.Random, *, keep: bool | None = None) -> Call:
    cell = draw.choice(list(CELLS))
    gates, states = CELLS[cell]
    D, H, L, B = draw.randint(1, 20), draw.randint(1, 35), draw.randint(1, 3), draw.randint(1, 6)
    sizes = sorted((draw.randint(1, B) for _ in range(draw.randint(0, 6))), reverse=True)
    sizes, table = [B, *sizes], draw.randint(1, 9)
    rows = torch.randint(table, (sum(sizes),)) if draw.random() < 0.4 else None
    shapes: list[tuple[int, ...]] = []
    bias = draw.random() < 0.7
    for k in range(L):
        shapes += [(gates * H, H if k else D), (gates * H, H), *([(gates * H,)] * 2 if bias else [])]
    return Call("recurrence", [
        draw.choice(native.instruction_sets()), cell, sizes, draw.random() < 0.4, draw.random() < 0.2, rows,
        [torch.randn(shape) for shape in shapes], torch.randn(table if rows is not None else sum(sizes), D),
        [torch.randn(L, B, H) for _ in range(states)], draw.random() < 0.6 if keep is None else keep,
    ])  # fmt: skip


def recurrence_backward(draw: random.Random) -> Call:
    forward = recurrence(draw, keep=True)
    output, last, saved = forward.answer()
    *what, weights, x, _, _ = forward.arguments
    gradients = [torch.randn_like(t) if draw.random() < 0.8 else None for t in (output, *last)]
    wanted = [draw.random() < 0.8 for _ in range(1 + len(last) + len(weights))]
    return Call("recurrence_backward", [*what, weights, x, saved, gradients, wanted, draw.random() < 0.3])


def output_nats(draw: random.Random) -> Call:
    N, H, V = draw.randint(0, 9), draw.randint(1, 33), draw.randint(1, 40)
    places = draw.choice(((N,), (N, 2), ()))
    gradient = torch.randn(places) if draw.random() < 0.6 else None
    return Call("output_nats", [
        torch.randn(*places, H), torch.randn(V, H), torch.randn(V) if draw.random() < 0.7 else None,
        torch.randint(V, places), gradient,
        [] if gradient is None else [draw.random() < 0.8 for _ in range(3)], draw.random() < 0.3,
    ])  # fmt: skip


def gradient(draw: random.Random) -> Call:
    V, E, places = draw.randint(1, 30), draw.randint(1, 20), (draw.randint(0, 5), draw.randint(1, 5))
    return Call("embedding_gradient", [torch.randn(*places, E), torch.randint(V, places), V])


def mutate(draw: random.Random, arguments: list[Any]) -> None:
    """Change one argument, or one member of one."""
    pool = [t for a in arguments for t in (a if isinstance(a, list) else [a]) if isinstance(t, Tensor)]
    place = draw.randrange(len(arguments))
    chosen = arguments[place]
    if isinstance(chosen, list) and chosen and draw.random() < 0.7:
        inside = draw.randrange(len(chosen))
        arguments[place] = [*chosen]
        arguments[place][inside] = other(draw, chosen[inside], pool)
    elif isinstance(chosen, list):
        arguments[place] = draw.choice(
            (chosen[:-1], chosen[1:], [*chosen, *chosen], chosen[::-1], [], [*chosen, *pool[:1]])
        )
    else:
        arguments[place] = other(draw, chosen, pool)


def other(draw: random.Random, one: Any, pool: list[Tensor]) -> Any:
    if isinstance(one, bool):
        return not one
    if isinstance(one, int):
        return draw.choice((*INTEGERS, one - 1, one + 1))
    if isinstance(one, str):
        return draw.choice(STRINGS)
    if isinstance(one, Tensor) and one.is_cpu and one.layout == torch.strided and _lacks_memory(one):
        return one
    if one is None:
        return draw.choice(pool) if pool else torch.randn(3)
    try:
        return draw.choice(TENSORS)(draw, one, pool)
    except Exception:  # noqa: BLE001  # what an earlier change has made of it cannot be changed so
        return one


def _resized(draw: random.Random, t: Tensor, pool: list[Tensor]) -> Tensor:
    shape = [draw.choice((n, n, n + 1, max(n - 1, 0), 0, 2 * n)) for n in t.shape]
    return torch.zeros(shape, dtype=t.dtype) if t.dtype == torch.int64 else torch.randn(shape).to(t.dtype)


def _without_memory(draw: random.Random, t: Tensor, pool: list[Tensor]) -> Tensor:
    """Torch's own operators crash on such a tensor, so that nothing may be done to it but hand it over."""
    t = t.detach().resolve_neg().clone()
    t.untyped_storage().resize_(draw.choice((0, 4, t.nbytes // 2)))
    return t


def _lacks_memory(t: Tensor) -> bool:
    last = sum((n - 1) * stride for n, stride in zip(t.shape, t.stride(), strict=True))
    return t.numel() > 0 and t.untyped_storage().nbytes() < (t.storage_offset() + last + 1) * t.itemsize


def _elsewhere(draw: random.Random, t: Tensor, pool: list[Tensor]) -> Tensor:
    """The same numbers at an address that is no multiple of 64."""
    longer = torch.empty(t.numel() + 1, dtype=t.dtype)
    return longer[1:].copy_(t.flatten()).view(t.shape)


class Subclass(Tensor):
    """Somebody's own kind of tensor."""


TENSORS: tuple[Callable[[random.Random, Tensor, list[Tensor]], Any], ...] = (
    _resized,
    _resized,
    _without_memory,
    _elsewhere,
    lambda draw, t, pool: draw.choice(pool),
    lambda draw, t, pool: None,
    lambda draw, t, pool: t.to("meta"),
    lambda draw, t, pool: t.to(draw.choice((torch.float64, torch.bfloat16, torch.int32, torch.bool))),
    lambda draw, t, pool: t.to(torch.complex64),
    lambda draw, t, pool: t.T if t.dim() == 2 else t.flip(0) if t.dim() else t[None],
    lambda draw, t, pool: t.flatten(),
    lambda draw, t, pool: t[None],
    lambda draw, t, pool: t[:1].expand(t.shape) if t.dim() and len(t) else t,
    lambda draw, t, pool: torch.stack([t, t], -1)[..., 0],
    lambda draw, t, pool: torch._neg_view(t) if t.dtype == torch.float32 else -t,
    lambda draw, t, pool: t + draw.choice((1, 1000, -1000)),
    lambda draw, t, pool: t * float("nan") if t.dtype == torch.float32 else t * 2**40,
    lambda draw, t, pool: t.to_sparse() if t.dim() else t,
    lambda draw, t, pool: torch.empty(0),
    lambda draw, t, pool: torch.tensor(3.0),
    lambda draw, t, pool: t.as_subclass(Subclass),
    lambda draw, t, pool: t.detach().clone().requires_grad_() if t.dtype == torch.float32 else t,
)


def main(count: int, first: int) -> None:
    torch.set_num_threads(2)
    warnings.simplefilter("ignore")  # of sparse tensors, and of gradients that a bare operator does not have
    used = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_MEMORY, resource.RLIM_INFINITY))
    answered = 0
    for seed in range(first, first + count):
        sys.stderr.write(f"{seed}\n")
        call = made(seed)
        try:
            call.answer()
        except SystemError:
            raise
        except Exception:  # noqa: BLE001  # refused, in whatever words
            continue
        answered += 1
    print(answered)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
