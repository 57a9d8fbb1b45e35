"""A stack of recurrent layers over a whole sequence: the one seam between modules and what computes them.

    torch       torch's own kernels (oneDNN, cuDNN), the whole stack in one call
    fused       compiled code, all layers in one call where nothing stands between them, float32 on the CPU
    reference   the cells' `step` and `step_backward` over time, one layer at a time, any device and dtype
    auto        the fastest that supports the call

A backend is one `Layer` or `Layers` function and one row of `BACKENDS`; the modules in `recurrence` do not
change. This file knows nothing of modules, batch_first or unbatched input.

T steps, B batch, N = sum of batch_sizes rows (N = T·B when no sequence is packed), D input size, H hidden
size, L layers, K = L · directions. Rows are ordered by time, then batch: the layout of PackedSequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding

from elman.cells import Gradients, Parameters
from elman.cells.functions import CELLS, Cell, States
from elman.errors import OptionError
from elman.kernels import fused, native
from elman.kernels.draws import dropout, own
from elman.kernels.fused import Layers, Pass


@dataclass(frozen=True)
class Stack:
    """What a call needs to know of the module: its options and its parameters.

    weights  as torch.nn keeps them: for each layer, for each direction, weight_ih, weight_hh, then
             bias_ih, bias_hh if `bias`, then weight_hr if `proj_size`
    """

    cell: Cell
    weights: Sequence[Tensor]
    num_layers: int
    bias: bool
    bidirectional: bool
    dropout: float  # probability, between layers
    training: bool
    proj_size: int = 0
    rows: Tensor | None = None  # [T, B] int64: the first layer's input is x[rows], x a table [U, D]


Layer = Callable[[Pass, Parameters, Tensor, States], tuple[Tensor, States]]
"""(pass, parameters, x [N, D], state (h, …) [B, H]) → (output [N, H], last state [B, H]); differentiable."""
Backend = Callable[[Stack, Tensor, States, Tensor | None], tuple[Tensor, States]]
"""(stack, x, state, batch_sizes) → (output, last state), as `run` has them."""


def choose(backend: str, *, proj_size: int = 0) -> str:
    """The name, if there is such a backend here and it can do this; OptionError otherwise."""
    if backend == "fused":
        native.require()
    if backend not in BACKENDS:
        raise OptionError(
            f"there is no backend {backend!r}.",
            remedy=f"choose one of {', '.join(BACKENDS)}.",
        )
    if proj_size and backend not in ("auto", "torch"):
        raise OptionError(
            f"backend {backend!r} has no LSTM with projections (proj_size={proj_size}).",
            reason="projections are not part of the LSTM as the papers here have it.",
            remedy="use backend='torch', or proj_size=0.",
        )
    return backend


def computes(backend: str, weights: Sequence[Tensor], state: States, x: Tensor, rows: int) -> bool:
    """Whether Elman computes a call over so many rows; else it is torch's. OptionError as `choose`, and where
    the backend that was asked for cannot."""
    if backend == "auto":
        return rows >= FEW_ROWS and x.numel() > 0 and fused.takes(weights, state, x)
    if choose(backend) == "fused" and not fused.takes(weights, state, x):
        raise OptionError(
            f"backend 'fused' computes in float32 on the CPU, not in {weights[0].dtype} on {x.device}."
            if native.plain()
            else "backend 'fused' is not traced, compiled or transformed.",
            remedy="use backend='auto' or 'torch'.",
        )
    return backend != "torch" and rows > 0 and x.numel() > 0


def run(
    backend: str, stack: Stack, x: Tensor, state: States, batch_sizes: Tensor | None = None
) -> tuple[Tensor, States]:
    """x [T, B, D] and state [K, B, H] → output [T, B, H · directions], last state [K, B, H].

    With `batch_sizes` [T] int64 (CPU), x is the data of a PackedSequence [N, D] and so is the output. The
    rows of the state are in the order of the packed batch. Differentiable in x, state and weights.
    """
    choose(backend, proj_size=stack.proj_size)
    rows = prod(x.shape[:-1]) if stack.rows is None else stack.rows.numel()
    if stack.proj_size or not computes(backend, stack.weights, state, x, rows):
        backend = "torch"
    if stack.rows is not None and backend not in ("auto", "fused"):
        x = embedding(stack.rows, x)
    return BACKENDS[backend](stack, x, state, batch_sizes)


FEW_ROWS = 8
"""Below so many rows the weights are not worth the packing that makes the fused product of them fast."""


def _torch(stack: Stack, x: Tensor, state: States, batch_sizes: Tensor | None) -> tuple[Tensor, States]:
    """All layers in one call of torch's own kernels; one by one where dropout must not draw from torch's
    generator."""
    if stack.dropout and stack.training and stack.num_layers > 1 and own(x) is not None:
        each = len(stack.weights) // stack.num_layers
        width, last = len(state[0]) // stack.num_layers, []
        for level in range(stack.num_layers):
            weights = stack.weights[level * each : (level + 1) * each]
            one = replace(stack, weights=weights, num_layers=1, dropout=0.0)
            begin = tuple(s[level * width : (level + 1) * width] for s in state)
            x, ends = _torch(one, dropout(x, stack.dropout) if level else x, begin, batch_sizes)
            last.append(ends)
        return x, tuple(torch.cat(s) for s in zip(*last, strict=True))
    function: Any = getattr(torch, stack.cell)
    hx = list(state) if stack.cell == "lstm" else state[0]
    options = (stack.bias, stack.num_layers, stack.dropout, stack.training, stack.bidirectional)
    if batch_sizes is None:
        output, *last = function(x, hx, stack.weights, *options, False)
    else:
        output, *last = function(x, batch_sizes, hx, stack.weights, *options)
    return output, tuple(last)


def layer_by_layer(layer: Layer) -> Backend:
    """A backend out of a `Layer`: the stack as a loop over it, with dropout between the layers.

    On a CPU the dropout draws the same numbers from the same generator as torch's own kernel does.
    Under autocast everything is computed in the dtype of the parameters, and so is the output.
    """
    return partial(_run_layers, _in_turn(layer))


def _in_turn(layer: Layer) -> Layers:
    def layers(
        one: Pass, parameters: Sequence[Parameters], x: Tensor, state: States
    ) -> tuple[Tensor, States]:
        places, x, last = x.shape[:-1], x.flatten(0, -2), []
        for k, p in enumerate(parameters):
            x, ends = layer(one, p, x, tuple(s[k] for s in state))
            last.append(ends)
        return x.reshape(*places, x.shape[-1]), tuple(torch.stack(s) for s in zip(*last, strict=True))

    return layers


def _run_layers(
    layers: Layers, stack: Stack, x: Tensor, state: States, batch_sizes: Tensor | None
) -> tuple[Tensor, States]:
    """One call of `layers` for all of the stack, or for each layer and direction where something stands
    between them."""
    places = x.shape[:-1] if stack.rows is None else stack.rows.shape
    if not places[0]:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")  # as torch.nn
    sizes = [places[1]] * places[0] if batch_sizes is None else batch_sizes.tolist()
    if _autocasts(x):
        x, state = x.to(stack.weights[0].dtype), tuple(s.to(stack.weights[0].dtype) for s in state)
    directions, each = (2 if stack.bidirectional else 1), (4 if stack.bias else 2)
    drops = stack.dropout > 0 and stack.training
    p = [Parameters(*stack.weights[k : k + each]) for k in range(0, len(stack.weights), each)]
    one = Pass(stack.cell, sizes, False, stack.rows)
    if not drops and directions == 1:
        return layers(one, p, x, state)
    last: list[States] = []
    for level in range(0, len(p), directions):
        x = dropout(x, stack.dropout) if drops and level else x
        outputs = []
        for k in range(level, level + directions):
            here = one._replace(reverse=k > level, rows=None if level else one.rows)
            output, ends = layers(here, p[k : k + 1], x, tuple(s[k : k + 1] for s in state))
            outputs.append(output)
            last.append(ends)
        x = torch.cat(outputs, dim=-1)  # [..., H · directions]
    return x, tuple(torch.cat(s) for s in zip(*last, strict=True))


def sequence_forward(
    one: Pass, p: Parameters, x: Tensor, state: States
) -> tuple[Tensor, States, list[tuple[Tensor, ...]]]:
    """x [N, D], state [B, H] → output [N, H], last state [B, H], the cache of each step in the order taken.

    At a step with fewer rows than the batch the other rows keep their state: forward, they have ended;
    in reverse, they have not begun.
    """
    cell, sizes = CELLS[one.cell], one.batch_sizes
    inputs, outputs = torch.split(x, sizes), [x] * len(sizes)
    caches = []
    for t in _order(one):
        new, cache = cell.step(p, inputs[t], cell.state(*(s[: sizes[t]] for s in state)))
        outputs[t] = new[0]
        state = _keep_the_rest(new, state)
        caches.append(cache)
    return torch.cat(outputs), state, caches


def sequence_backward(
    one: Pass, p: Parameters, caches: list[tuple[Tensor, ...]], doutput: Tensor, dlast: States
) -> tuple[Tensor, States, Gradients]:
    """doutput [N, H], dlast [B, H] → dx [N, D], gradient of the first state [B, H], of the parameters.

    Backpropagation through time: the steps of `sequence_forward` in the other order.
    """
    cell, sizes = CELLS[one.cell], one.batch_sizes
    doutputs, dinputs = torch.split(doutput, sizes), [doutput] * len(sizes)
    dstate = dlast
    dp = [None if w is None else torch.zeros_like(w) for w in p]
    for t, cache in zip(reversed(_order(one)), reversed(caches), strict=True):
        dh, *dothers = (d[: sizes[t]] for d in dstate)
        # forward: outputs[t] = h, and h goes on to the next step
        dnew = cell.state(dh + doutputs[t], *dothers)
        dinputs[t], dprev, gradients = cell.step_backward(p, cell.cache(*cache), dnew)
        dstate = _keep_the_rest(dprev, dstate)
        for total, gradient in zip(dp, gradients, strict=True):
            if total is not None and gradient is not None:
                total += gradient
    return torch.cat(dinputs), dstate, Gradients(*dp)  # type: ignore[arg-type]  # only biases may be None


_fused_and_again: Layers = partial(fused.layers, again=_in_turn(lambda *call: sequence_forward(*call)[:2]))
"""The fused layers, which can be differentiated twice: the gradient's gradient is the reference's."""


def _order(one: Pass) -> list[int]:
    steps = list(range(len(one.batch_sizes)))
    return steps[::-1] if one.reverse else steps


def _keep_the_rest(new: States, old: States) -> States:
    """new [n, H] in the first n rows of old [B, H]."""
    rows = len(new[0])
    if rows == len(old[0]):
        return tuple(new)
    return tuple(torch.cat([a, b[rows:]]) for a, b in zip(new, old, strict=True))


class _ReferenceLayer(torch.autograd.Function):
    """The two functions above as one differentiable function; autocast, which would round, is kept out."""

    @staticmethod
    def forward(ctx: Any, one: Pass, states: int, x: Tensor, *tensors: Tensor) -> Any:
        p = Parameters(*tensors[states:])
        with _no_autocast(x):
            output, last, caches = sequence_forward(one, p, x, tensors[:states])
        ctx.one, ctx.width = one, len(caches[0])
        ctx.save_for_backward(*p, *(tensor for cache in caches for tensor in cache))
        return output, *last

    @staticmethod
    def backward(ctx: Any, doutput: Tensor, *dlast: Tensor) -> Any:
        if torch.is_grad_enabled():  # create_graph=True; what follows would count as a constant
            raise OptionError(
                "backend 'reference' has no second derivative.",
                reason="create_graph=True asks for a gradient of the gradient; the backward step is by hand.",
                remedy="use backend='torch' (on a GPU, with torch.backends.cudnn.enabled = False).",
            )
        p, saved = Parameters(*ctx.saved_tensors[:4]), ctx.saved_tensors[4:]
        caches = [saved[k : k + ctx.width] for k in range(0, len(saved), ctx.width)]
        with _no_autocast(doutput):
            dx, dstate, dp = sequence_backward(ctx.one, p, caches, doutput, dlast)
        return None, None, dx, *dstate, *dp


def _autocasts(x: Tensor) -> bool:
    return torch.amp.is_autocast_available(x.device.type) and torch.is_autocast_enabled(x.device.type)


def _no_autocast(x: Tensor) -> AbstractContextManager[Any]:
    return torch.autocast(x.device.type, enabled=False) if _autocasts(x) else nullcontext()


def reference_layer(one: Pass, p: Parameters, x: Tensor, state: States) -> tuple[Tensor, States]:
    """A `Layer`: the cells of `elman.cells` as they stand. It has a first derivative only."""
    output, *last = _ReferenceLayer.apply(one, len(state), x, *state, *p)  # type: ignore[no-untyped-call]
    return output, tuple(last)


BACKENDS: dict[str, Backend] = {
    "auto": partial(_run_layers, _fused_and_again),
    "torch": _torch,
    "fused": partial(_run_layers, fused.layers),
    "reference": layer_by_layer(reference_layer),
}
