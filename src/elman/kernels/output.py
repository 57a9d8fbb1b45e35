"""The fused output layer: linear, softmax and cross-entropy with their gradients, without the logits.

    nats = -log softmax(h Wᵀ + b)[target]

The gradients are made in the forward pass, while the probabilities are at hand, and so for the gradient that
will come from above. `expect_gradient` announces it; what really comes is always what counts: where it
differs, the results are scaled (one common factor) or made anew.

N rows, H hidden size, V vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from elman.errors import OptionError
from elman.kernels import native

_expected: ContextVar[Tensor | float] = ContextVar("expected", default=1.0)


@contextmanager
def expect_gradient(gradient: Tensor | float) -> Iterator[None]:
    """Announce d loss / d nats of the calls inside: one number for every row, or a tensor [N].

    It saves a pass over the gradients when right and costs one when wrong; it never changes a result
    beyond rounding.
    """
    token = _expected.set(gradient)
    try:
        yield
    finally:
        _expected.reset(token)


def expected_rows(rows: Tensor) -> Tensor | float:
    """What is expected for some of the rows (indices)."""
    gradient = _expected.get()
    return gradient[rows] if isinstance(gradient, Tensor) else gradient


def linear_nats(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """hidden [N, H], weight [V, H], bias [V] or None, targets [N] int64 → nats [N]; differentiable once.

    All float32 on the CPU, but hidden may be bfloat16 (autocast). IndexError for a target outside 0..V-1.
    """
    hidden, weight, targets = hidden.float().contiguous(), weight.contiguous(), targets.contiguous()
    bias = None if bias is None else bias.contiguous()
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < len(weight):
        raise IndexError(f"a target is outside the vocabulary of {len(weight)} tokens")
    bf16 = native.rounds_to_bf16()
    tensors = (hidden, weight, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        expected = _expected.get()
        with torch.no_grad():
            gradient = torch.as_tensor(expected, dtype=torch.float32).expand(len(targets)).contiguous()
        nats: Tensor = _LinearNats.apply(hidden, weight, bias, targets, gradient, bf16)  # type: ignore[no-untyped-call]
        return nats
    alone: Tensor = _nats(hidden, weight, bias, targets, bf16)
    return alone


@torch.library.custom_op("elman::output_nats", mutates_args=(), device_types="cpu")
def _nats(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, bf16: bool) -> Tensor:
    nats = hidden.new_empty(len(targets))
    _call((hidden, weight, bias, targets), nats, None, (None, None, None), bf16)
    return nats


@_nats.register_fake
def _(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, bf16: bool) -> Tensor:
    return hidden.new_empty(targets.shape)


@torch.library.custom_op("elman::output_nats_and_gradients", mutates_args=(), device_types="cpu")
def _nats_and_gradients(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    gradient: Tensor,
    wanted: list[bool],
    bf16: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """nats [N] and the gradients wanted of hidden, weight, bias; empty tensors for the others."""
    nats = hidden.new_empty(len(targets))
    results = _allocate(hidden, weight, wanted, native.memory)
    given = [result if want else None for result, want in zip(results, wanted, strict=True)]
    _call((hidden, weight, bias, targets), nats, gradient, (given[0], given[1], given[2]), bf16)
    return nats, *results


@_nats_and_gradients.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    gradient: Tensor,
    wanted: list[bool],
    bf16: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return hidden.new_empty(targets.shape), *_allocate(hidden, weight, wanted, hidden.new_empty)


def _allocate(
    hidden: Tensor, weight: Tensor, wanted: list[bool], empty: Callable[[Sequence[int]], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (hidden.shape, weight.shape, weight.shape[:1])
    made = [empty(shape if want else (0,)) for shape, want in zip(shapes, wanted, strict=True)]
    return made[0], made[1], made[2]


def _call(
    inputs: tuple[Tensor, Tensor, Tensor | None, Tensor],
    nats: Tensor,
    gradient: Tensor | None,
    results: tuple[Tensor | None, Tensor | None, Tensor | None],
    bf16: bool,
) -> None:
    hidden, weight, bias, targets = inputs
    if not len(targets):
        for result in results:
            if result is not None:
                result.zero_()
        return
    native.require().output_nats(
        *hidden.shape,
        len(weight),
        *(native.address(t) for t in (hidden, weight, bias, targets, nats, gradient, *results)),
        torch.get_num_threads(),
        bf16,
    )


class _LinearNats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        gradient: Tensor,
        bf16: bool,
    ) -> Any:
        ctx.wanted, ctx.bf16 = list(ctx.needs_input_grad[:3]), bf16
        nats, *ctx.results = _nats_and_gradients(hidden, weight, bias, targets, gradient, ctx.wanted, bf16)
        ctx.save_for_backward(hidden, weight, bias, targets, gradient)
        return nats

    @staticmethod
    def backward(ctx: Any, dnats: Tensor) -> Any:
        if torch.is_grad_enabled():  # create_graph=True
            raise OptionError(
                "the fused output layer has no second derivative.",
                reason="create_graph=True asks for a gradient of the gradient.",
                remedy="use backend='torch'.",
            )
        # taken, not kept: the parameter's .grad can be this very memory. A second backward makes them anew.
        results, ctx.results = ctx.results, None
        hidden, weight, bias, targets, gradient = ctx.saved_tensors
        factor = None if results is None else _common_factor(dnats, gradient)
        if factor is None:
            _, *results = _nats_and_gradients(
                hidden, weight, bias, targets, dnats.contiguous(), ctx.wanted, ctx.bf16
            )
        elif factor != 1.0:
            for result in results:
                result.mul_(factor)
        return (*(r if want else None for r, want in zip(results, ctx.wanted, strict=True)), None, None, None)


def _common_factor(dnats: Tensor, gradient: Tensor) -> float | None:
    """c with dnats = c · gradient, or None; both [N]."""
    if not len(dnats) or torch.equal(dnats, gradient):
        return 1.0
    first, other = dnats[0], gradient[0]
    uniform = bool((dnats == first).all()) and bool((gradient == other).all())
    return float(first / other) if uniform and float(other) != 0.0 else None
