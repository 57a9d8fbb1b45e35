"""The streaming step: one call per token for embedding, layers and what is wanted of the next token.

A `Stream` holds a recurrent model as the step reads it: packed (a copy, from float32, bfloat16 or int8), or
in place (float32, read from the tensors themselves, so that a change of theirs counts at once).

T steps, B batch, L layers, E embedding size, H hidden size, G gates, V vocabulary size. Nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from elman.kernels import native

Weights = Literal["float32", "bfloat16", "int8"]

CELLS = ("rnn_tanh", "rnn_relu", "lstm", "gru")
KINDS = ("float32", "bfloat16", "int8", "in_place")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8, "in_place": torch.float32}
WORTH_A_THREAD = 1 << 17
"""Bytes of weights: reading so many takes as long as a thread takes to join in."""

States = tuple[Tensor, ...]


class Matrix(NamedTuple):
    """data [R, K]; in int8, row r stands for scale[r] · data[r], else there is no scale."""

    data: Tensor
    scale: Tensor | None = None


@dataclass(frozen=True)
class StreamLayer:
    """input [G·H, D], recurrent [G·H, H], biases [G·H] float32, in torch's gate order."""

    input: Matrix
    recurrent: Matrix
    bias_input: Tensor
    bias_recurrent: Tensor


@dataclass(frozen=True)
class StreamSource:
    """A recurrent language model as tensors on the CPU, each contiguous.

    cell       rnn_tanh, rnn_relu, lstm or gru
    embedding  [V, E], kept and read where it lies; output [V, H], bias [V] float32
    """

    cell: str
    embedding: Matrix
    layers: tuple[StreamLayer, ...]
    output: Matrix
    output_bias: Tensor

    @property
    def matrices(self) -> list[Matrix]:
        """In the order in which the kernels want them."""
        inside = [m for layer in self.layers for m in (layer.input, layer.recurrent)]
        return [self.embedding, *inside, self.output]

    @property
    def biases(self) -> list[Tensor]:
        inside = [b for layer in self.layers for b in (layer.bias_input, layer.bias_recurrent)]
        return [*inside, self.output_bias]


class Drawing(NamedTuple):
    """How a token is drawn; as `GenerationSettings` has it. top_k 0: all; excluded -1: none."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    excluded: int = -1


class Stream:
    """The kernels' own model. Its calls are safe from several threads at once; none has a gradient.

    Raises OptionError without compiled kernels, ValueError for tensors that do not belong together.
    """

    def __init__(self, source: StreamSource, *, in_place: bool = False) -> None:
        module = native.require()
        self.source = source  # keeps the embedding, and in place everything, alive
        dtype = source.embedding.data.dtype
        kind = "in_place" if in_place else next(k for k, d in DTYPES.items() if d == dtype)
        self.hidden_size = _check(source, kind)
        self.vocabulary_size, embedding_size = source.embedding.data.shape
        self.layers, self.lstm = len(source.layers), source.cell == "lstm"
        self._bytes = sum(m.data.numel() * m.data.element_size() for m in source.matrices[1:])
        self._native: Any = module.Stream(
            CELLS.index(source.cell),
            KINDS.index(kind),
            self.vocabulary_size,
            embedding_size,
            self.hidden_size,
            [(native.address(m.data), native.address(m.scale)) for m in source.matrices],
            [native.address(b) for b in source.biases],
        )

    def advance(self, state: States, token: Tensor) -> tuple[States, Tensor]:
        """token [B] int64 → the state after it, next-token log-probabilities [B, V]. IndexError."""
        state, after, addresses = self._states(state, len(token))
        log_probs = _floats(len(token), self.vocabulary_size)
        if len(token):
            self._native.advance(
                1, len(token), addresses, _ids(token), log_probs.data_ptr(), 0, 0, self._threads(len(token))
            )
        return after, log_probs

    def token_nats(self, ids: Tensor, state: States) -> tuple[Tensor, States]:
        """ids [T+1, B] int64 → -log P of ids[1:] [T, B], state after ids[T-1]. IndexError."""
        steps, batch = len(ids) - 1, ids.shape[1]
        nats = _floats(steps, batch)
        if not nats.numel():
            return nats, state
        state, after, addresses = self._states(state, batch)
        ids = ids.contiguous()
        first, threads = _ids(ids), self._threads(steps * batch)
        targets = first + 8 * batch
        self._native.advance(steps, batch, addresses, first, 0, targets, nats.data_ptr(), threads)
        return nats, after

    def draw(
        self, state: States, token: Tensor, how: Drawing, uniform: Tensor
    ) -> tuple[States, Tensor, Tensor]:
        """token [B], uniform [B] float64 in [0, 1) → state, tokens [B], their nats [B] before any filter.

        A token of -1 where none that may be drawn has a probability above zero, or one is NaN.
        """
        state, after, addresses = self._states(state, len(token))
        drawn, nats = _places(len(token)), _floats(len(token))
        if uniform.shape != token.shape:
            raise ValueError(
                f"uniform is {list(uniform.shape)}, not one number for each of {len(token)} tokens"
            )
        uniform = uniform.contiguous()
        numbers, _ = native.given(uniform, torch.float64)
        if len(token):
            written = numbers, drawn.data_ptr(), nats.data_ptr()
            self._native.draw(
                len(token), addresses, _ids(token), tuple(how), *written, self._threads(len(token))
            )
        return after, drawn, nats

    def best(self, state: States, token: Tensor, k: int) -> tuple[States, Tensor, Tensor]:
        """token [B] → state, the k best next tokens [B, k], best first, their log-probabilities [B, k].

        Ties are broken by the smaller id.
        """
        if not 1 <= k <= self.vocabulary_size:
            raise ValueError(f"{k} tokens of {self.vocabulary_size}")
        state, after, addresses = self._states(state, len(token))
        best, log_probs = _places(len(token), k), _floats(len(token), k)
        if len(token):
            written = best.data_ptr(), log_probs.data_ptr()
            self._native.best(len(token), addresses, _ids(token), k, *written, self._threads(len(token)))
        return after, best, log_probs

    def _states(self, state: States, batch: int) -> tuple[States, States, tuple[int, int, int, int]]:
        """The state to read (to be held while it is), one to write, and the addresses of both."""
        shape = (self.layers, batch, self.hidden_size)
        if len(state) != 1 + self.lstm:
            raise ValueError(f"a state of {len(state)} tensors, not {1 + self.lstm}")
        for tensor in state:
            if tensor.shape != shape or tensor.dtype != torch.float32 or tensor.device.type != "cpu":
                raise ValueError(f"a state of {tensor.dtype} {list(tensor.shape)}, not float32 {list(shape)}")
        state = tuple(tensor.contiguous() for tensor in state)
        after = tuple(map(torch.empty_like, state))
        if not self.lstm:
            return state, after, (state[0].data_ptr(), 0, after[0].data_ptr(), 0)
        places = tuple(tensor.data_ptr() for tensor in (*state, *after))
        return state, after, places  # type: ignore[return-value]  # four of them

    def _threads(self, rows: int) -> int:
        threads = torch.get_num_threads()
        return threads if threads == 1 else max(1, min(threads, self._bytes * rows // WORTH_A_THREAD))


def _floats(*shape: int) -> Tensor:
    """What the kernels write to: float32 on the CPU, whatever torch's defaults are."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def _places(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.int64, device="cpu")


def _ids(tokens: Tensor) -> int:
    if tokens.dtype != torch.int64 or tokens.device.type != "cpu" or not tokens.is_contiguous():
        raise ValueError("token ids must be int64, on the CPU and contiguous")
    return tokens.data_ptr()


def _check(source: StreamSource, kind: str) -> int:
    """The hidden size; ValueError where a tensor is not what the kernels will take it for."""
    vocabulary_size, size = source.embedding.data.shape
    hidden = source.output.data.shape[1]
    rows = {"lstm": 4, "gru": 3}.get(source.cell, 1) * hidden
    shapes: list[tuple[int, ...]] = [(vocabulary_size, size)]
    for level in range(len(source.layers)):
        shapes += [(rows, hidden if level else size), (rows, hidden)]
    shapes.append((vocabulary_size, hidden))
    quantized = kind == "int8"
    for matrix, shape in zip(source.matrices, shapes, strict=True):
        right = matrix.data.shape == shape and matrix.data.dtype == DTYPES[kind]
        scale = matrix.scale
        if not right or quantized != (scale is not None) or (scale is not None and scale.shape != shape[:1]):
            found = f"{matrix.data.dtype} {list(matrix.data.shape)}"
            raise ValueError(f"a matrix {found}, not {kind} {list(shape)}")
    for bias, length in zip(source.biases, [rows] * 2 * len(source.layers) + [vocabulary_size], strict=True):
        if bias.shape != (length,):
            raise ValueError(f"a bias {list(bias.shape)}, not {[length]}")
    floats: Sequence[Tensor | None] = [*source.biases, *(m.scale for m in source.matrices)]
    if any(t is not None and (t.dtype != torch.float32 or t.device.type != "cpu") for t in floats):
        raise ValueError("biases and scales must be float32 on the CPU")
    return hidden
