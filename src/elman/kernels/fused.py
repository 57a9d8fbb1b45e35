"""The fused recurrence: one direction of one layer over a whole sequence, in compiled code.

Equal to `backends.sequence_forward` and `sequence_backward` with the cells of `elman.cells`, in float32 on
the CPU: any number of rows at each step, either direction, with or without biases. Under autocast the
products are in bfloat16 where that is faster (`native.rounds_to_bf16`), and so is what is saved for
backward; sums, gates and states are float32.

T steps, B batch, N = sum of batch_sizes rows, U rows of x, D input size, H hidden size, G gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from elman.cells import Parameters
from elman.errors import OptionError
from elman.kernels import native

_CELLS = {"rnn_tanh": (0, 1), "rnn_relu": (1, 1), "lstm": (2, 4), "gru": (3, 3)}
"""name → (number in native/recurrence.hpp, gates)"""

Again = Callable[[Parameters, Tensor, tuple[Tensor, ...]], Sequence[Tensor]]
"""(parameters, x, state) → (output, *last state), differentiable any number of times."""


def takes(weights: Sequence[Tensor], state: Sequence[Tensor], x: Tensor) -> bool:
    """Whether the kernels are there and can compute this: float32 on the CPU, or what autocast made of it."""
    if not native.takes(*weights):
        return False
    dtypes = (torch.float32, torch.bfloat16) if torch.is_autocast_enabled("cpu") else (torch.float32,)
    return all(t.dtype in dtypes and t.device.type == "cpu" for t in (x, *state))


def layer(
    one: tuple[str, list[int], bool] | tuple[str, list[int], bool, Tensor | None],
    p: Parameters,
    x: Tensor,
    state: tuple[Tensor, ...],
    *,
    again: Again | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """(cell, batch_sizes, reverse, rows), x [U, D], state h (and c) [B, H] → output [N, H], last state.

    rows [N] int64: x is a table, of which place n reads row rows[n]; None or left out: its own, and U = N.
    N and T at least 1. Differentiable; a second time (create_graph=True) by way of `again`, OptionError
    without it. ValueError for tensors that do not fit together, IndexError for a row that x does not have.
    """
    cell, sizes, reverse, *rest = one
    rows = rest[0] if rest else None
    _check(cell, sizes, p, x if rows is None else _places(rows, x), state)
    what = (native.require().instruction_set(), cell, sizes, reverse, native.rounds_to_bf16(), rows)
    if again is not None and rows is not None:
        of_places = again
        again = lambda p, x, state: of_places(p, x[rows], state)  # noqa: E731
    tensors = (x, *state, *p)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        output, *last = _Layer.apply(what, again, *tensors)  # type: ignore[no-untyped-call]
    else:
        weights = [w for w in p if w is not None]
        output, *last, _ = torch.ops.elman.recurrence(*what, weights, x, list(state), False)
    return output, tuple(last[: len(state)])


def _places(rows: Tensor, x: Tensor) -> Tensor:
    """A tensor of the shape and dtype of x[rows], in no memory of its own."""
    if rows.dim() != 1 or rows.dtype != torch.int64 or rows.device.type != "cpu" or not len(rows):
        raise ValueError(f"rows is {rows.dtype} {tuple(rows.shape)}, not the rows of a table, int64 [N]")
    if not 0 <= int(rows.min()) <= int(rows.max()) < len(x):
        raise IndexError(f"a row is outside a table of {len(x)}")
    return x[:1].expand(len(rows), -1)


def _check(cell: str, sizes: list[int], p: Parameters, x: Tensor, state: tuple[Tensor, ...]) -> None:
    """What the kernels take on trust."""
    gates, (B, H), (N, D) = _CELLS[cell][1], state[0].shape, x.shape
    rows = gates * H
    shapes = [(rows, D), (rows, H)] + [None if b is None else (rows,) for b in (p.bias_ih, p.bias_hh)]
    fits = (
        sum(sizes) == N
        and sizes[0] == B
        and sizes[-1] >= 1
        and all(a >= b for a, b in pairwise(sizes))
        and len(state) == (2 if cell == "lstm" else 1)
        and all(s.shape == (B, H) for s in state)
        and [None if w is None else tuple(w.shape) for w in p] == shapes
        and (p.bias_ih is None) == (p.bias_hh is None)
    )
    if not (fits and native.takes(x, *state, *p)):
        raise ValueError(
            f"{cell} with x {tuple(x.shape)}, state {[tuple(s.shape) for s in state]}, "
            f"weights {[None if w is None else tuple(w.shape) for w in p]}: shapes or dtypes do not fit"
        )


_library: Any = torch.library.Library("elman", "FRAGMENT")  # type: ignore[no-untyped-call]
_PASS = "str instruction_set, str cell, int[] sizes, bool reverse, bool bf16, Tensor? rows, "
_PASS += "Tensor[] weights, Tensor x, "
_library.define(
    f"recurrence({_PASS} Tensor[] state, bool keep) -> (Tensor output, Tensor h, Tensor c, Tensor saved)"
)
_library.define(f"recurrence_backward({_PASS} Tensor saved, Tensor?[] gradients, bool[] wanted) -> Tensor[]")


def _forward(
    instruction_set: str, cell: str, sizes: list[int], reverse: bool, bf16: bool, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, last h, last c (empty without), what backward needs (empty without `keep`)."""
    rows, weights, x, state, keep = rest
    weights, state, x = [w.contiguous() for w in weights], [s.contiguous() for s in state], x.contiguous()
    module, (number, _) = native.require(), _CELLS[cell]
    (U, D), (B, H) = x.shape, state[0].shape
    rows = None if rows is None else rows.contiguous()
    output, h = x.new_empty(sum(sizes), H), x.new_empty(B, H)
    c = x.new_empty(B if len(state) == 2 else 0, H)
    floats = module.recurrence_saved_floats(instruction_set, number, sizes, (D, H, U), bf16) if keep else 0
    saved = native.memory((floats,))
    last_c = c if len(state) == 2 else None
    tensors = (*_four(weights), x, *_two(state), output, h, last_c, saved if keep else None, rows)
    addresses = [native.address(t) for t in tensors]
    threads = torch.get_num_threads()
    module.recurrence_forward(instruction_set, number, sizes, (D, H, U), reverse, addresses, threads, bf16)
    return output, h, c, saved


def _backward(
    instruction_set: str, cell: str, sizes: list[int], reverse: bool, bf16: bool, *rest: Any
) -> list[Tensor]:
    """d x, h, c, weight_ih, weight_hh, bias_ih, bias_hh; empty where not wanted."""
    rows, weights, x, saved, gradients, wanted = rest
    weights, x = [w.contiguous() for w in weights], x.contiguous()
    gradients = [None if g is None else g.contiguous() for g in gradients]
    module, (number, gates) = native.require(), _CELLS[cell]
    (U, D), H = x.shape, weights[1].shape[1]
    rows = None if rows is None else rows.contiguous()
    shapes = (
        (U, D),
        (sizes[0], H),
        (sizes[0], H),
        *((gates * H, n) for n in (D, H)),
        *((gates * H,),) * 2,
    )
    results = [native.memory(shape if want else (0,)) for shape, want in zip(shapes, wanted, strict=True)]
    given = [r if want else None for r, want in zip(results, wanted, strict=True)]
    addresses = [native.address(t) for t in (*_four(weights), x, saved, *gradients, *given, rows)]
    threads = torch.get_num_threads()
    module.recurrence_backward(instruction_set, number, sizes, (D, H, U), reverse, addresses, threads, bf16)
    return results


def _four(weights: list[Tensor]) -> list[Tensor | None]:
    return [*weights, *[None] * (4 - len(weights))]


def _two(state: list[Tensor]) -> list[Tensor | None]:
    return [*state, *[None] * (2 - len(state))]


_library.impl("recurrence", _forward, "CPU")
_library.impl("recurrence_backward", _backward, "CPU")


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, what: tuple[Any, ...], again: Again | None, x: Tensor, *rest: Tensor | None) -> Any:
        states = len(rest) - 4
        weights = [w for w in rest[states:] if w is not None]
        output, h, c, saved = torch.ops.elman.recurrence(*what, weights, x, list(rest[:states]), True)
        ctx.what, ctx.again, ctx.states = what, again, states
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *rest, saved)
        return (output, h, c)[: 1 + states]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        x, *rest, saved = ctx.saved_tensors
        need = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            return None, None, *_differentiably(ctx, x, rest, need, gradients)
        wanted = [need[0], need[1], need[2] if ctx.states == 2 else False, *need[1 + ctx.states :]]
        weights = [w for w in rest[ctx.states :] if w is not None]
        results = torch.ops.elman.recurrence_backward(*ctx.what, weights, x, saved, _three(gradients), wanted)
        found = [r if want else None for r, want in zip(results, wanted, strict=True)]
        return None, None, found[0], *found[1 : 1 + ctx.states], *found[3:]


def _three(gradients: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    return [*gradients, *[None] * (3 - len(gradients))]


def _differentiably(
    ctx: Any, x: Tensor, rest: list[Tensor], need: tuple[bool, ...], gradients: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    """The gradients as functions of everything: create_graph=True asks for the gradient of a gradient."""
    if ctx.again is None:
        raise OptionError(
            "backend 'fused' has no second derivative.",
            reason="create_graph=True asks for a gradient of the gradient; the backward step is by hand.",
            remedy="use backend='auto' or 'torch'.",
        )
    inputs = [x, *rest]
    outputs = ctx.again(Parameters(*rest[ctx.states :]), x, tuple(rest[: ctx.states]))
    pairs = [(o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None]
    asked = [t for t, wanted in zip(inputs, need, strict=True) if wanted]
    found = iter(
        torch.autograd.grad(
            [o for o, _ in pairs], asked, [g for _, g in pairs], create_graph=True, allow_unused=True
        )
    )
    return [next(found) if wanted else None for wanted in need]
