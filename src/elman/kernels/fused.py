"""The fused recurrence: one direction of some layers over a whole sequence, in one call of compiled code.

Equal to `backends.sequence_forward` and `sequence_backward` with the cells of `elman.cells`, in float32 on
the CPU: any number of rows at each step, either direction, with or without biases. Under autocast the
products are in bfloat16 where that is faster (`native.rounds_to_bf16`), and so is what is saved for
backward; sums, gates and states are float32.

T steps, B batch, N = sum of batch_sizes rows, L layers, D input size, H hidden size, G gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elman.cells import Parameters
from elman.cells.functions import Cell, States
from elman.errors import OptionError
from elman.kernels import embedding, native

_CELLS = {"rnn_tanh": (0, 1), "rnn_relu": (1, 1), "lstm": (2, 4), "gru": (3, 3)}
"""name → (number in native/recurrence.hpp, gates)"""

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
    dtypes = (torch.float32, torch.bfloat16) if torch.is_autocast_enabled("cpu") else (torch.float32,)
    return all(t.dtype in dtypes and t.is_cpu for t in (x, *state))


def layers(
    one: Pass, parameters: Sequence[Parameters], x: Tensor, state: States, *, again: Layers | None = None
) -> tuple[Tensor, States]:
    """x [..., D] with N rows in all, or a table [U, D] and one.rows [...]; see `Layers`. N and T at least 1.

    Differentiable; a second time (create_graph=True) by way of `again`, OptionError without it. ValueError
    for tensors that do not fit together, IndexError for a row that x does not have.
    """
    _check(one, parameters, x, state)
    weights = [w for p in parameters for w in p if w is not None]
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, *state, *weights)):
        output, *last = _Layers.apply(one, again, len(state), x, *state, *weights)  # type: ignore[no-untyped-call]
    else:
        output, last, _ = torch.ops.elman.recurrence(*_what(one), weights, x, state, False)
    return output, tuple(last)


def _check(one: Pass, parameters: Sequence[Parameters], x: Tensor, state: States) -> None:
    """What the kernels take on trust; that the table has each row they see for themselves."""
    cell, sizes, _, rows = one
    if rows is not None and (x.dim() != 2 or rows.dtype != torch.int64 or not rows.is_cpu):
        raise ValueError(
            f"rows is {rows.dtype} {tuple(rows.shape)}, not the rows of a table, int64 on the CPU"
        )
    gates, (L, B, H), D = _CELLS[cell][1], state[0].shape, x.shape[-1]
    bias = None if parameters[0].bias_ih is None else (gates * H,)
    shapes: list[Any] = [((gates * H, H if k else D), (gates * H, H), bias, bias) for k in range(L)]
    fits = (
        sum(sizes) == (prod(x.shape[:-1]) if rows is None else rows.numel())
        and sizes[0] == B
        and sizes[-1] >= 1
        and all(a >= b for a, b in pairwise(sizes))
        and len(state) == (2 if cell == "lstm" else 1)
        and all(s.shape == (L, B, H) for s in state)
        and [tuple(None if w is None else w.shape for w in p) for p in parameters] == shapes
    )
    if not (fits and native.takes(x, *state, *(w for p in parameters for w in p))):
        raise ValueError(
            f"{cell} with x {tuple(x.shape)}, state {[tuple(s.shape) for s in state]}, "
            f"weights {[None if w is None else tuple(w.shape) for p in parameters for w in p]}: "
            "shapes or dtypes do not fit"
        )


def _what(one: Pass) -> tuple[Any, ...]:
    cell, sizes, reverse, rows = one
    return native.require().instruction_set(), cell, sizes, reverse, native.rounds_to_bf16(), rows


_library: Any = torch.library.Library("elman", "FRAGMENT")  # type: ignore[no-untyped-call]
_PASS = "str instruction_set, str cell, int[] sizes, bool reverse, bool bf16, Tensor? rows, "
_PASS += "Tensor[] weights, Tensor x, "
_library.define(
    f"recurrence({_PASS} Tensor[] state, bool keep) -> (Tensor output, Tensor[] last, Tensor[] saved)"
)
_library.define(
    f"recurrence_backward({_PASS} Tensor[] saved, Tensor?[] gradients, bool[] wanted, bool sparse)"
    " -> Tensor[]"
)


def _forward(
    instruction_set: str, cell: str, sizes: list[int], reverse: bool, bf16: bool, *rest: Any
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Output, last h (and c), and with `keep` what backward needs: what stands between the layers, what
    each of them saved, and what was looked up."""
    rows, weights, x, state, keep = rest
    weights, state, x = [w.contiguous() for w in weights], [s.contiguous() for s in state], x.contiguous()
    module, (L, _, H) = native.require(), state[0].shape
    one = module.Pass(_CELLS[cell][0], sizes, reverse, bf16, torch.get_num_threads())
    count = L - 1 if keep else min(L - 1, 2)
    made = [x.new_empty(sum(sizes), H) for _ in range(count)]
    between = [made[k % count] for k in range(L - 1)]  # the layers: each writes one, the next reads it
    output = x.new_empty(*(x.shape[:-1] if rows is None else rows.shape), H)
    last = [torch.empty_like(s) for s in state]
    looked_up = [] if rows is None else _look_up(x, rows)
    x, _, places = looked_up or (x, None, None)
    rows = places if _shared(x, places) else None
    calls, saved = [], []
    for k, (reads, writes) in enumerate(zip([x, *between], [*between, output], strict=True)):
        shape = (reads.shape[-1], H, prod(reads.shape[:-1]))
        if keep:
            saved.append(native.memory((module.recurrence_saved_floats(instruction_set, one, shape),)))
        addresses = [*_weights(weights, k, L), native.address(reads), *_two(state, k), native.address(writes)]
        addresses += [*_two(last, k), native.address(saved[k] if keep else None)]
        calls.append((shape, [*addresses, native.address(rows if k == 0 else None)]))
    module.recurrence_forward(instruction_set, one, calls)
    return output, last, [*between, *saved, *looked_up] if keep else []


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
    weights = [w.contiguous() for w in weights]
    *saved, x, tokens, places = [*saved, table.contiguous(), None, None] if rows is None else saved
    rows = places if _shared(x, places) else None
    doutput, *dlast = [None if g is None else g.contiguous() for g in gradients]
    module, L, H = native.require(), (len(saved) + 1) // 2, weights[1].shape[1]
    one = module.Pass(_CELLS[cell][0], sizes, reverse, bf16, torch.get_num_threads())
    shapes = [x.shape, *[(L, sizes[0], H)] * len(dlast), *(w.shape for w in weights)]
    results = [native.memory(shape if want else (0,)) for shape, want in zip(shapes, wanted, strict=True)]
    dx, *given = [r if want else None for r, want in zip(results, wanted, strict=True)]
    dstate, dweights = given[: len(dlast)], given[len(dlast) :]
    # below this layer nothing is wanted
    first = next((n for n, d in enumerate(dweights) if d is not None), 0)
    lowest = 0 if any(wanted[: 1 + len(dlast)]) else first * L // len(weights)
    made = [native.memory((sum(sizes), H)) for _ in range(min(L - 1 - lowest, 2))]
    above, calls = doutput, []
    for k in reversed(range(lowest, L)):
        reads = saved[k - 1] if k else x
        below = dx if k == 0 else made[k % len(made)] if k > lowest else None
        shape = (reads.shape[-1], H, prod(reads.shape[:-1]))
        addresses = [*_weights(weights, k, L), *map(native.address, (reads, saved[L - 1 + k], above))]
        addresses += [*_two(dlast, k), native.address(below), *_two(dstate, k), *_weights(dweights, k, L)]
        calls.append((shape, [*addresses, native.address(rows if k == 0 else None)]))
        above = below
    module.recurrence_backward(instruction_set, one, calls)
    if tokens is not None and wanted[0]:
        if not _shared(x, places):
            results[0] = native.embedding_gradient(results[0], places, len(tokens))
        if not sparse:
            results[0] = native.embedding_gradient(results[0], tokens, len(table))
    return results


def _weights(weights: Sequence[Tensor | None], k: int, L: int) -> list[int]:
    """The addresses of layer k's four; 0 for what is not there."""
    each = len(weights) // L
    found = [native.address(w) for w in weights[k * each : (k + 1) * each]]
    return found + [0] * (4 - each)


def _two(state: Sequence[Tensor | None], k: int) -> list[int]:
    """The addresses of layer k's h and c in tensors [L, B, H]; 0 for what is not there."""
    found = [0 if s is None else native.address(s) + k * (s.nbytes // len(s)) for s in state]
    return found + [0] * (2 - len(state))


_library.impl("recurrence", _forward, "CPU")
_library.impl("recurrence_backward", _backward, "CPU")


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
        tensors, saved = ctx.saved_tensors[: len(need)], ctx.saved_tensors[len(need) :]
        if torch.is_grad_enabled():
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
    """The gradients as functions of everything: create_graph=True asks for the gradient of a gradient."""
    if ctx.again is None:
        raise OptionError(
            "backend 'fused' has no second derivative.",
            reason="create_graph=True asks for a gradient of the gradient; the backward step is by hand.",
            remedy="use backend='auto' or 'torch'.",
        )
    x, state, weights = tensors[0], tensors[1 : 1 + ctx.states], tensors[1 + ctx.states :]
    each = len(weights) // len(state[0])
    parameters = [Parameters(*weights[k : k + each]) for k in range(0, len(weights), each)]
    written_out = x if ctx.one.rows is None else x[saved[-2][saved[-1]]]
    output, last = ctx.again(ctx.one._replace(rows=None), parameters, written_out, state)
    pairs = [(o, g) for o, g in zip((output, *last), gradients, strict=True) if g is not None]
    asked = [t for t, wanted in zip(tensors, need, strict=True) if wanted]
    found = iter(
        torch.autograd.grad(
            [o for o, _ in pairs], asked, [g for _, g in pairs], create_graph=True, allow_unused=True
        )
    )
    return [next(found) if wanted else None for wanted in need]
