"""The embedding: a row of numbers for each token, looked up."""

from __future__ import annotations

from torch import Tensor, nn

from elman.kernels import native
from elman.kernels.embedding import lookup


class Embedding(nn.Embedding):
    """x = W[token], W [V, E], as torch.nn.Embedding(V, E); its gradient comes from the compiled kernels.

    `backend`: auto, fused, torch or reference, as everywhere; the last two leave it to torch.
    """

    def __init__(self, vocabulary_size: int, embedding_size: int, *, backend: str = "auto") -> None:
        super().__init__(vocabulary_size, embedding_size)
        self.backend = backend

    def forward(self, input: Tensor) -> Tensor:
        """tokens [...] int64 → [..., E]. IndexError for a token outside 0..V-1."""
        if self.backend in ("auto", "fused") and native.takes(self.weight):
            return lookup(input, self.weight)
        return super().forward(input)
