"""The fused output layer: linear, softmax and cross-entropy with their gradients, without the logits.

    nats = -log softmax(h Wᵀ + b)[target]

The gradients are made in the forward pass, while the probabilities are at hand, and so for the gradient that
will come from above. `expect_gradient` announces it; what really comes is always what counts: where it
differs, the results are scaled (one common factor) or made anew.

N rows (of any shape: [T, B] as well), H hidden size, V vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from elman.errors import OptionError
from elman.kernels import native, operators

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
    """hidden [..., H], weight [V, H], bias [V] or None, targets [...] int64 → nats [...].

    All float32 on the CPU, but hidden may be bfloat16 (autocast). Differentiable once. ValueError for shapes
    that do not fit together, IndexError for a target outside 0..V-1.
    """
    hidden, bf16 = hidden.float(), native.rounds_to_bf16()
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (hidden, weight, bias)):
        nats: Tensor = _LinearNats.apply(hidden, weight, bias, targets, _expected.get(), bf16)  # type: ignore[no-untyped-call]
        return nats
    alone: Tensor = torch.ops.elman.output_nats(hidden, weight, bias, targets, None, [], bf16)[0]
    return alone


def _nats(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    gradient: Tensor | None,
    wanted: list[bool],
    bf16: bool,
) -> tuple[Tensor, list[Tensor]]:
    """nats; given their gradient, those wanted of hidden, weight, bias, and empty ones for the others."""
    if len(wanted) not in (0, 3):
        raise ValueError(f"{len(wanted)} results of three")
    hidden, weight, targets = hidden.contiguous(), weight.contiguous(), targets.contiguous()
    bias, gradient = (None if t is None else native.contiguous(t) for t in (bias, gradient))
    nats = native.memory(targets.shape)
    results = _results(hidden, weight, wanted, native.memory)
    written = [result if want else None for result, want in zip(results, wanted, strict=True)]
    native.require().output_nats(
        *(native.given(t) for t in (hidden, weight, bias)),
        native.given(targets, torch.int64),
        native.given(gradient),
        [native.given(t) for t in (nats, *(written or [None] * 3))],
        torch.get_num_threads(),
        bf16,
    )
    return nats, results if targets.numel() else [result.zero_() for result in results]


def _results(
    hidden: Tensor, weight: Tensor, wanted: list[bool], empty: Callable[[Sequence[int]], Tensor]
) -> list[Tensor]:
    shapes = (hidden.shape, weight.shape, weight.shape[:1])
    return [empty(shape if want else (0,)) for shape, want in zip(shapes, wanted, strict=False)]


def _shapes(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    gradient: Tensor | None,
    wanted: list[bool],
    bf16: bool,
) -> tuple[Tensor, list[Tensor]]:
    return hidden.new_empty(targets.shape), _results(hidden, weight, wanted, hidden.new_empty)


operators.define(
    "output_nats(Tensor hidden, Tensor weight, Tensor? bias, Tensor targets, Tensor? gradient, "
    "bool[] wanted, bool bf16) -> (Tensor, Tensor[])",
    _nats,
    _shapes,
)


class _LinearNats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        expected: Tensor | float,
        bf16: bool,
    ) -> Any:
        if isinstance(expected, Tensor):
            gradient = expected.float().reshape(targets.shape).contiguous()
        else:
            gradient = torch.full(targets.shape, expected, dtype=torch.float32)
        inputs = (hidden, weight, bias, targets)
        ctx.wanted, ctx.bf16 = list(ctx.needs_input_grad[:3]), bf16
        nats, ctx.results = torch.ops.elman.output_nats(*inputs, gradient, ctx.wanted, bf16)
        ctx.save_for_backward(*inputs, gradient)
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
        *inputs, gradient = ctx.saved_tensors
        factor = None if results is None else _common_factor(dnats, gradient)
        if factor is None:
            _, results = torch.ops.elman.output_nats(*inputs, dnats.contiguous(), ctx.wanted, ctx.bf16)
        elif factor != 1.0:
            for result in results:
                result.mul_(factor)
        return (*(r if want else None for r, want in zip(results, ctx.wanted, strict=True)), None, None, None)


def _common_factor(dnats: Tensor, gradient: Tensor) -> float | None:
    """c with dnats = c · gradient, or None."""
    if not dnats.numel() or torch.equal(dnats, gradient):
        return 1.0
    first, other = dnats.flatten()[0], gradient.flatten()[0]
    uniform = bool((dnats == first).all()) and bool((gradient == other).all())
    return float(first / other) if uniform and float(other) != 0.0 else None
