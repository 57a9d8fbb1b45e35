"""An embedding whose gradient is made by the compiled kernels: each token's row of the table from its places.
And the distinct tokens of a text.

    forward: x[n] = W[tokens[n]]        so: dW[v] = Σ_{n: tokens[n] = v} dx[n]

What it saves beside torch's own is fresh memory: the gradient is as large as the table and nearly all zeros.

N tokens, V vocabulary size, E embedding size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from elman.kernels import native


def lookup(tokens: Tensor, weight: Tensor) -> Tensor:
    """tokens [...] int64, weight [V, E] float32 on the CPU → their rows [..., E].

    Differentiable any number of times. IndexError for a token outside 0..V-1.
    """
    rows: Tensor = _Lookup.apply(tokens, weight)  # type: ignore[no-untyped-call]
    return rows


def distinct(ids: Tensor, vocabulary_size: int) -> tuple[Tensor, Tensor]:
    """ids [...] int64 on the CPU → (tokens [U], rows [...]): the distinct ids, rising; tokens[rows] = ids.

    As torch.unique with return_inverse, which sorts. IndexError for an id outside 0..V-1.
    """
    found: tuple[Tensor, Tensor] = torch.ops.elman.distinct(ids, vocabulary_size)
    return found


_library: Any = torch.library.Library("elman", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define("distinct(Tensor ids, int vocabulary_size) -> (Tensor, Tensor)")
_library.define("embedding_gradient(Tensor doutput, Tensor tokens, int vocabulary_size) -> Tensor")


def _distinct(ids: Tensor, vocabulary_size: int) -> tuple[Tensor, Tensor]:
    ids, tokens = ids.contiguous(), ids.new_empty(ids.numel())
    rows = torch.empty_like(ids)
    addresses = [native.address(t) for t in (ids, tokens, rows)]
    return tokens[: native.require().distinct(addresses, ids.numel(), vocabulary_size)], rows


def _gradient(doutput: Tensor, tokens: Tensor, vocabulary_size: int) -> Tensor:
    """doutput [..., E], tokens [...] → dweight [V, E]; the tokens are known to be in the vocabulary."""
    doutput, tokens = doutput.contiguous(), tokens.contiguous()
    dweight = native.memory((vocabulary_size, doutput.shape[-1]))
    addresses = [native.address(t) for t in (tokens, doutput, dweight)]
    threads = torch.get_num_threads()
    native.require().embedding_gradient(addresses, tokens.numel(), dweight.shape[1], vocabulary_size, threads)
    return dweight


_library.impl("distinct", _distinct, "CPU")
_library.impl("embedding_gradient", _gradient, "CPU")


def _fake_distinct(ids: Tensor, vocabulary_size: int) -> tuple[Tensor, Tensor]:
    return ids.new_empty(torch.library.get_ctx().new_dynamic_size()), torch.empty_like(ids)


def _fake_gradient(doutput: Tensor, tokens: Tensor, vocabulary_size: int) -> Tensor:
    return doutput.new_empty(vocabulary_size, doutput.shape[-1])


torch.library.register_fake("elman::distinct", _fake_distinct)
torch.library.register_fake("elman::embedding_gradient", _fake_gradient)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.size = len(weight)
        return torch.embedding(weight, tokens)

    @staticmethod
    def backward(ctx: Any, doutput: Tensor) -> Any:
        (tokens,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True
            return None, torch.ops.aten.embedding_dense_backward(doutput, tokens, ctx.size, -1, False)
        return None, torch.ops.elman.embedding_gradient(doutput, tokens, ctx.size)
