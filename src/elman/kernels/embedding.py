"""An embedding whose gradient is made by the compiled kernels: each token's row of the table from its places.

    forward: x[n] = W[tokens[n]]        so: dW[v] = Σ_{n: tokens[n] = v} dx[n]

What it saves beside torch's own is fresh memory: the gradient is as large as the table and nearly all zeros.
Within `sparse_gradients` those zeros are not even there, as with torch.nn.Embedding(sparse=True).

N tokens, U of them distinct, V vocabulary size, E embedding size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from elman.kernels import native, operators

_sparse: ContextVar[bool] = ContextVar("sparse", default=False)


@contextmanager
def sparse_gradients(wanted: bool = True) -> Iterator[None]:
    """Look-ups inside have a sparse gradient: a COO tensor of the rows that were read.

    For updates that leave a row without a gradient as it is: SGD without momentum and weight decay.
    """
    token = _sparse.set(wanted)
    try:
        yield
    finally:
        _sparse.reset(token)


def are_sparse() -> bool:
    """Whether `sparse_gradients` are wanted here."""
    return _sparse.get()


def of_rows(drows: Tensor, tokens: Tensor, size: int) -> Tensor:
    """drows [U, E], tokens [U], distinct and rising → the sparse dweight [V, E]."""
    shape = (size, drows.shape[-1])
    return torch.sparse_coo_tensor(tokens[None], drows, shape, is_coalesced=True, check_invariants=False)


def lookup(tokens: Tensor, weight: Tensor) -> Tensor:
    """tokens [...] int64 (or int32), weight [V, E] float32 on the CPU → their rows [..., E].

    Differentiable any number of times. IndexError for a token outside 0..V-1.
    """
    tokens = tokens.long() if tokens.dtype == torch.int32 else tokens
    rows: Tensor = _Lookup.apply(tokens, weight)  # type: ignore[no-untyped-call]
    return rows


def _shapes(doutput: Tensor, tokens: Tensor, vocabulary_size: int) -> Tensor:
    return doutput.new_empty(vocabulary_size, doutput.shape[-1])


operators.define(
    "embedding_gradient(Tensor doutput, Tensor tokens, int vocabulary_size) -> Tensor",
    native.embedding_gradient,
    _shapes,
)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.size, ctx.sparse = len(weight), are_sparse()
        return torch.nn.functional.embedding(tokens, weight)

    @staticmethod
    def backward(ctx: Any, doutput: Tensor) -> Any:
        (tokens,) = ctx.saved_tensors
        if torch.is_grad_enabled() or native.is_batch_of_gradients(doutput):  # create_graph=True
            return None, torch.ops.aten.embedding_dense_backward(doutput, tokens, ctx.size, -1, False)
        if ctx.sparse:
            distinct, places = native.distinct(tokens, ctx.size)
            drows = torch.ops.elman.embedding_gradient(doutput, places, len(distinct))
            return None, of_rows(drows, distinct, ctx.size)
        return None, torch.ops.elman.embedding_gradient(doutput, tokens, ctx.size)
