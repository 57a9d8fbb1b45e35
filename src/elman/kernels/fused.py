"""The fused recurrence: one direction of some layers over a whole sequence, in one call of compiled code.

Equal to `backends.sequence_forward` and `sequence_backward` with the cells of `elman.cells`, in float32 on
the CPU: any number of rows at each step, either direction, with or without biases. Under autocast the
products are in bfloat16 where that is faster (`native.rounds_to_bf16`), and so is what is saved for
backward; sums, gates and states are float32.

T steps, B batch, N = sum of batch_sizes rows, L layers, D input size, H hidden size, G gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elman.cells import Parameters
from elman.cells.functions import Cell, States
from elman.errors import OptionError
from elman.kernels import embedding, native, operators

MOST_DISTINCT = 0.75
"""Where at most this share of the places of a looked up x read different rows, each row is multiplied by the
first layer's weights once; else each place."""


class Pass(NamedTuple):
    """One direction over one sequence."""

    cell: Cell
    batch_sizes: list[int]  # rows at each step, never growing
    reverse: bool  # from the last step to the first
    rows: Tensor | None = None  # [...] int64: what place n reads is row rows[n] of x, a table [U, D]


Layers = Callable[[Pass, Sequence[Parameters], Tensor, States], tuple[Tensor, States]]
"""(pass, parameters of each layer, x [..., D], state (h, …) [L, B, H]) → (output [..., H], last state
[L, B, H]): each layer reads what the one before it gives; differentiable."""


def takes(weights: Sequence[Tensor], state: Sequence[Tensor], x: Tensor) -> bool:
    """Whether the kernels are there and can compute this: float32 on the CPU, or what autocast made of it."""
    if not native.takes(*weights):
        return False
    if not torch.is_autocast_enabled("cpu"):
        return all(map(native.is_float32, (x, *state)))
    dtypes = (torch.float32, torch.bfloat16)
    return all(t.dtype in dtypes and t.is_cpu for t in (x, *state))


def layers(
    one: Pass, parameters: Sequence[Parameters], x: Tensor, state: States, *, again: Layers | None = None
) -> tuple[Tensor, States]:
    """x [..., D] with N rows in all, or a table [U, D] and one.rows [...]; see `Layers`. N and T at least 1.

    Differentiable; a second time (create_graph=True) by way of `again`, OptionError without it. ValueError
    for tensors that do not fit together, IndexError for a row that x does not have.
    """
    weights = [w for p in parameters for w in p if w is not None]
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, *state, *weights)):
        output, *last = _Layers.apply(one, again, len(state), x, *state, *weights)  # type: ignore[no-untyped-call]
    else:
        output, last, _ = torch.ops.elman.recurrence(*_what(one), weights, x, state, False)
    return output, tuple(last)


def _what(one: Pass) -> tuple[Any, ...]:
    cell, sizes, reverse, rows = one
    return native.require().instruction_set(), cell, sizes, reverse, native.rounds_to_bf16(), rows


def _forward(
    instruction_set: str, cell: str, sizes: list[int], reverse: bool, bf16: bool, *rest: Any
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Output, last h (and c), and with `keep` what backward needs: what stands between the layers, what
    each of them saved, and what was looked up."""
    rows, weights, x, state, keep = rest
    weights, state, x = [w.contiguous() for w in weights], [s.contiguous() for s in state], x.contiguous()
    looked_up = [] if rows is None else _look_up(x, rows)
    places = x.shape[:-1] if rows is None else rows.shape
    what = (instruction_set, cell, sizes, reverse, bf16, torch.get_num_threads())
    one = _checked(what, weights, *(looked_up[::2] or (x, None)))
    L, N, _, H = one.sizes
    made = [native.memory((N, H)) for _ in range(L - 1 if keep else min(L - 1, 2))]
    between = [made[k % len(made)] for k in range(L - 1)]  # the layers: each writes one, the next reads it
    saved = [native.memory((floats,)) for floats in [_saved_floats(what, H)] * L] if keep else []
    output, last = x.new_empty(*places, H), [torch.empty_like(s) for s in state]
    fresh = native.fresh
    one.forward(
        _given(state), [*map(fresh, between)], fresh(output), [*map(fresh, last)], [*map(fresh, saved)]
    )
    return output, last, [*between, *saved, *looked_up] if keep else []


def _checked(what: tuple[Any, ...], weights: Sequence[Tensor], x: Tensor, places: Tensor | None) -> Any:
    """The compiled recurrence, which has found that all of these fit together; ValueError, IndexError."""
    rows = places if _shared(x, places) else None
    return native.require().Recurrence(
        what, _given(weights), native.given(x), native.given(rows, torch.int64)
    )


def _given(tensors: Sequence[Tensor | None]) -> list[native.Given]:
    return [native.given(t) for t in tensors]


def _saved_floats(what: tuple[Any, ...], hidden_size: int) -> int:
    floats: int = native.require().recurrence_saved_floats(what, hidden_size)
    return floats


def _look_up(table: Tensor, rows: Tensor) -> list[Tensor]:
    """x, the distinct rows that are read [U], and which of these each place reads [...].

    x is [U, D], so that a row is multiplied once however many places read it, or, where nearly every place
    has its own, [N, D]: see `_shared`.
    """
    tokens, places = native.distinct(rows, len(table))
    read = tokens if len(tokens) <= MOST_DISTINCT * rows.numel() else rows.flatten().contiguous()
    return [native.gather(read, table), tokens, places]


def _shared(x: Tensor, places: Tensor | None) -> bool:
    """Whether places share rows of x, as `_look_up` made it."""
    return places is not None and len(x) < places.numel()


def _backward(
    instruction_set: str, cell: str, sizes: list[int], reverse: bool, bf16: bool, *rest: Any
) -> list[Tensor]:
    """d x, h (and c), weights; empty where not wanted. gradients: of output, last h (and c).

    sparse: where x was looked up, the gradient of the rows that were read, instead of all of the table.
    """
    rows, weights, table, saved, gradients, wanted, sparse = rest
    weights, states = [w.contiguous() for w in weights], len(gradients) - 1
    if len(wanted) != 1 + states + len(weights) or len(saved) < (1 if rows is None else 4):
        raise ValueError(f"{len(wanted)} results of {len(weights)} weights and {len(saved)} saved tensors")
    *saved, x, tokens, places = [*saved, table.contiguous(), None, None] if rows is None else saved
    gradients = [None if g is None else native.contiguous(g) for g in gradients]
    what = (instruction_set, cell, sizes, reverse, bf16, torch.get_num_threads())
    one = _checked(what, weights, x, places)
    L, N, B, H = one.sizes
    between, saved = saved[: L - 1], [_aligned(s) for s in saved[L - 1 :]]
    shapes = [x.shape, *[(L, B, H)] * states, *(w.shape for w in weights)]
    results = [native.memory(shape if want else (0,)) for shape, want in zip(shapes, wanted, strict=True)]
    # below this layer nothing is wanted
    first = next((n for n, want in enumerate(wanted[1 + states :]) if want), 0)
    lowest = 0 if any(wanted[: 1 + states]) else first * L // len(weights)
    made = [native.memory((N, H)) for _ in range(min(L - 1 - lowest, 2))]
    one.backward(
        _given(saved),
        _given(between),
        _given(gradients),
        lowest,
        [*map(native.fresh, made)],
        [native.fresh(r) if want else native.NOTHING for r, want in zip(results, wanted, strict=True)],
    )
    if tokens is not None and wanted[0]:
        if not _shared(x, places):
            results[0] = native.embedding_gradient(results[0], places.flatten(), len(tokens))
        if not sparse:
            results[0] = native.embedding_gradient(results[0], tokens, len(table))
    return results


def _aligned(saved: Tensor) -> Tensor:
    """Itself, or a copy at a line of the cache, where the kernels want it: a hook may have moved it."""
    if saved.data_ptr() % 64 == 0 and saved.is_contiguous():
        return saved
    return native.memory(saved.shape).copy_(saved)


def _forward_shapes(
    instruction_set: str, cell: str, sizes: list[int], reverse: bool, bf16: bool, *rest: Any
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    rows, _, x, state, keep = rest
    L, _, H = state[0].shape
    output = x.new_empty(*(x.shape[:-1] if rows is None else rows.shape), H)
    last = [s.new_empty(s.shape) for s in state]
    if not keep:
        return output, last, []
    floats = _saved_floats((instruction_set, cell, sizes, reverse, bf16, 1), H)
    saved = [x.new_empty(sum(sizes), H) for _ in range(L - 1)] + [x.new_empty(floats) for _ in range(L)]
    if rows is not None:
        read, distinct = (torch.library.get_ctx().new_dynamic_size() for _ in range(2))
        saved += [x.new_empty(read, x.shape[-1]), rows.new_empty(distinct), rows.new_empty(rows.shape)]
    return output, last, saved


def _backward_shapes(
    instruction_set: str, cell: str, sizes: list[int], reverse: bool, bf16: bool, *rest: Any
) -> list[Tensor]:
    rows, weights, table, saved, gradients, wanted, sparse = rest
    H, each = weights[1].shape[1], 4 if len(weights) > 2 and weights[2].dim() == 1 else 2
    x = (len(saved[-2]), table.shape[-1]) if sparse and rows is not None else table.shape
    state = (len(weights) // each, sizes[0], H)
    shapes = [x, *[state] * (len(gradients) - 1), *(w.shape for w in weights)]
    return [table.new_empty(shape if want else (0,)) for shape, want in zip(shapes, wanted, strict=True)]


_PASS = "str instruction_set, str cell, int[] sizes, bool reverse, bool bf16, Tensor? rows, "
_PASS += "Tensor[] weights, Tensor x, "
operators.define(
    f"recurrence({_PASS} Tensor[] state, bool keep) -> (Tensor output, Tensor[] last, Tensor[] saved)",
    _forward,
    _forward_shapes,
)
operators.define(
    f"recurrence_backward({_PASS} Tensor[] saved, Tensor?[] gradients, bool[] wanted, bool sparse)"
    " -> Tensor[]",
    _backward,
    _backward_shapes,
)


class _Layers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, one: Pass, again: Layers | None, states: int, *tensors: Tensor) -> Any:
        x, state, weights = tensors[0], tensors[1 : 1 + states], tensors[1 + states :]
        ctx.one, ctx.again, ctx.states, ctx.what = one, again, states, _what(one)
        ctx.sparse = one.rows is not None and embedding.are_sparse()
        output, last, saved = torch.ops.elman.recurrence(*ctx.what, weights, x, state, True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *saved)
        return output, *last

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        need = ctx.needs_input_grad[3:]
        kept = ctx.saved_tensors  # read once: each reading unpacks anew, and a checkpoint allows one
        tensors, saved = kept[: len(need)], kept[len(need) :]
        if torch.is_grad_enabled() or any(map(native.is_batch_of_gradients, gradients)):
            return None, None, None, *_differentiably(ctx, tensors, saved, need, gradients)
        x, weights, sparse = tensors[0], tensors[1 + ctx.states :], ctx.sparse
        results = torch.ops.elman.recurrence_backward(*ctx.what, weights, x, saved, gradients, need, sparse)
        if sparse and need[0]:
            results[0] = embedding.of_rows(results[0], saved[-2], len(x))
        return None, None, None, *(r if want else None for r, want in zip(results, need, strict=True))


def _differentiably(
    ctx: Any,
    tensors: tuple[Tensor, ...],
    saved: tuple[Tensor, ...],
    need: tuple[bool, ...],
    gradients: tuple[Tensor | None, ...],
) -> list[Tensor | None]:
    """The gradients by torch's operators, for create_graph=True (the gradient of a gradient) and for
    is_grads_batched=True (many at once)."""
    if ctx.again is None:
        raise OptionError(
            "backend 'fused' has no second derivative.",
            reason="create_graph=True asks for a gradient of the gradient, is_grads_batched=True for many at "
            "once; the backward step is by hand.",
            remedy="use backend='auto' or 'torch'.",
        )
    x, state, weights = tensors[0], tensors[1 : 1 + ctx.states], tensors[1 + ctx.states :]
    each = len(weights) // len(state[0])
    parameters = [Parameters(*weights[k : k + each]) for k in range(0, len(weights), each)]
    written_out = x if ctx.one.rows is None else x[saved[-2][saved[-1]]]
    with torch.enable_grad():
        output, last = ctx.again(ctx.one._replace(rows=None), parameters, written_out, state)
    pairs = [(o, g) for o, g in zip((output, *last), gradients, strict=True) if g is not None]
    asked = [t for t, wanted in zip(tensors, need, strict=True) if wanted]
    found = iter(
        torch.autograd.grad(
            [o for o, _ in pairs],
            asked,
            [g for _, g in pairs],
            create_graph=torch.is_grad_enabled(),
            allow_unused=True,
        )
    )
    return [next(found) if wanted else None for wanted in need]
