"""RNN, LSTM and GRU: cells over time and layers, drop-in for torch.nn.RNN, LSTM and GRU.

Each class extends its namesake: the constructor, the parameters with their names, shapes, gate order and
initialisation, `state_dict` and `repr` are torch's own, and `isinstance(m, torch.nn.LSTM)` holds. New is
`backend=`: which of the kernels in `elman.kernels` computes it. How a model initialises its weights and
where it drops out beyond torch's dropout between layers is not decided here.

T steps, B batch, D input size, H hidden size, L layers, K = L · directions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.rnn import PackedSequence

from elman import kernels
from elman.kernels import Cell, Stack, States, draws, native

_CELLS: dict[str, Cell] = {"RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu", "LSTM": "lstm", "GRU": "gru"}
Device = torch.device | str | int | None


class Lookup(NamedTuple):
    """The input of a recurrence as what it is looked up in: x = table[rows].

    W x is then made once for each row that is read, and looked up itself: a character model reads thousands
    of places and a hundred different characters.
    """

    table: Tensor  # [U, D]
    rows: Tensor  # [T, B] int64, each in 0..U-1


class _Call(NamedTuple):
    """A call as the kernels want it: x [T, B, D], or [N, D] with batch_sizes, and the state [K, B, H]."""

    x: Tensor
    state: States
    batch_sizes: Tensor | None


class _Recurrence(nn.RNNBase):
    """What the three classes share: the backend, and which calls Elman's kernels compute.

    All others are torch.nn's own forward: another device or dtype, a few rows, tensors that do not fit (so
    that its errors are torch's), and whatever is traced, compiled or transformed.
    """

    backend: str = "auto"
    keeps_float32: bool = False
    """Under autocast: output and state in float32, as they are computed, also where torch gives bfloat16."""

    def _choose(self, backend: str) -> None:
        kernels.choose(backend, proj_size=self.proj_size)  # refuse now rather than at the first call
        self.backend = backend

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, backend={self.backend}"

    def forward(self, input: Tensor | PackedSequence | Lookup, hx: Any = None) -> tuple[Any, Any]:
        """input [T, B, D], or [B, T, D] with batch_first, or [T, D], or packed → (output, last state).

        hx and the last state are h [K, B, H], in the LSTM (h, c) (without B for an unbatched input);
        None is zeros. The output has the layout of the input, H · directions wide. Tensors of a wrong
        shape or dtype raise what torch.nn raises.

        Beyond torch.nn, input can be a `Lookup`: (table [U, D], rows [T, B], or [B, T] with batch_first) for
        table[rows]. IndexError for a row that the table does not have.
        """
        if isinstance(input, Lookup):
            return self._looked_up(*input, hx)
        traced: Any = input
        if isinstance(traced, fx.Proxy):  # torch.fx.symbolic_trace: a leaf, as torch.nn's modules are
            tracer: Any = traced.tracer
            given = (traced,) if hx is None else (traced, hx)
            return tracer.create_proxy("call_module", tracer.path_of_module(self), given, {})  # type: ignore[no-any-return]
        call = self._call(input, hx)
        if call is None:
            return self._torchs(input, hx)
        output, last = self._run(*call)
        if isinstance(input, PackedSequence):
            _, batch_sizes, order, order_back = input
            packed = PackedSequence(output, batch_sizes, order, order_back)
            return packed, self.permute_hidden(last, order_back)
        if input.dim() == 2:
            return output.squeeze(1), _each(last, lambda s: s.squeeze(1))
        return output.transpose(0, 1) if self.batch_first else output, last

    def _torchs(self, input: Any, hx: Any) -> tuple[Any, Any]:
        if isinstance(input, PackedSequence) and self.mode == "LSTM" and hx is not None and native.plain():
            self.check_forward_args(input.data, hx, input.batch_sizes)  # torch's LSTM does not look
        return super().forward(input, hx)  # type: ignore[no-any-return]  # of nn.RNN, LSTM or GRU

    def _call(self, input: Tensor | PackedSequence, hx: Any) -> _Call | None:
        """The call that Elman's kernels compute; None where torch.nn is to answer or refuse."""
        if self.proj_size or (self.backend in ("auto", "torch") and not native.plain()):
            return None
        # torch.nn draws from torch's generator: it computes no dropout of a training with one of its own
        apart = self.dropout > 0 and self.training and self.num_layers > 1 and draws.are_own()
        if self.backend == "torch" and not apart:
            return None
        self._update_flat_weights()
        packed = isinstance(input, PackedSequence)
        x = input.data if isinstance(input, PackedSequence) else input
        state, lstm = _states(hx), self.mode == "LSTM"
        weights: list[Tensor] = self._flat_weights  # type: ignore[assignment]  # none is None once constructed
        if (
            not (isinstance(x, Tensor) and 2 <= x.dim() <= 3 - packed and x.shape[-1] == self.input_size)
            or not (hx is None or (isinstance(hx, Tensor) != lstm and len(state) == 1 + lstm))
            or not _same_dtype(weights[0], x, *state)
            or not (kernels.computes(self.backend, weights, state, x, x.shape[:-1].numel()) or apart)
        ):
            return None
        batch_sizes = input.batch_sizes if isinstance(input, PackedSequence) else None
        if batch_sizes is None:
            if x.dim() == 2:
                x, state = x.unsqueeze(1), tuple(s.unsqueeze(1) for s in state if s.dim() == 2)
            elif self.batch_first:
                x = x.transpose(0, 1)
        batch = x.shape[1] if batch_sizes is None else int(batch_sizes[0])
        shape = (self.num_layers * (1 + self.bidirectional), batch, self.hidden_size)
        if hx is None:
            return _Call(x, tuple(x.new_zeros(shape) for _ in range(1 + lstm)), batch_sizes)
        if len(state) != 1 + lstm or any(s.shape != shape for s in state):
            return None
        if isinstance(input, PackedSequence):
            state = _states(self.permute_hidden(hx, input.sorted_indices))
        return _Call(x, state, batch_sizes)

    def _looked_up(self, table: Tensor, rows: Tensor, hx: Any) -> tuple[Any, Any]:
        if rows.dim() != 2:
            raise RuntimeError(f"rows must have 2 dimensions, got {rows.dim()}")
        self._update_flat_weights()
        state = _states(hx)
        weights: list[Tensor] = self._flat_weights  # type: ignore[assignment]  # none is None once constructed
        if (
            self.backend not in ("auto", "fused")
            or self.proj_size
            or not kernels.computes(self.backend, weights, state, table, rows.numel())
        ):
            return self.forward(nn.functional.embedding(rows, table), hx)
        batch = rows.shape[0 if self.batch_first else 1]
        if hx is None:
            shape = (self.num_layers * (1 + self.bidirectional), batch, self.hidden_size)
            state = tuple(table.new_zeros(shape) for _ in range(1 + (self.mode == "LSTM")))
            hx = state if self.mode == "LSTM" else state[0]
        self.check_forward_args(table, hx, [batch])  # type: ignore[arg-type]  # as data of a packed batch
        output, last = self._run(table, state, None, rows.T if self.batch_first else rows)
        return output.transpose(0, 1) if self.batch_first else output, last

    def _run(
        self, x: Tensor, state: States, batch_sizes: Tensor | None, rows: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        stack = Stack(
            cell=_CELLS[self.mode],
            weights=self._flat_weights,  # type: ignore[arg-type]  # none is None once constructed
            num_layers=self.num_layers,
            bias=self.bias,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
            training=self.training,
            rows=rows,
        )
        output, last = kernels.run(self.backend, stack, x, state, batch_sizes)
        if torch.is_autocast_enabled("cpu") and self.backend != "reference" and not self.keeps_float32:
            first, *others = kernels.torchs_dtypes(stack.cell, batch_sizes, x, state)
            output, last = output.to(first), tuple(s.to(d) for s, d in zip(last, others, strict=True))
        return output, last if self.mode == "LSTM" else last[0]

    def __prepare_scriptable__(self) -> nn.Module:
        """What torch.jit.script compiles: the namesake in torch.nn, on the same parameters."""
        namesake: type[nn.RNNBase] = next(c for c in type(self).__mro__ if c in (nn.RNN, nn.LSTM, nn.GRU))
        twin = namesake.__new__(namesake)
        twin.__dict__.update(self.__dict__)
        return twin


def _states(hx: Any) -> States:
    """The tensors of a state as it is given, if they are some."""
    found = (hx,) if isinstance(hx, Tensor) else tuple(hx) if isinstance(hx, tuple | list) else ()
    return found if all(isinstance(s, Tensor) for s in found) else ()


def _same_dtype(*tensors: Tensor) -> bool:
    return torch.is_autocast_enabled("cpu") or all(t.dtype == tensors[0].dtype for t in tensors)


def _each(hx: Any, change: Any) -> Any:
    return change(hx) if isinstance(hx, Tensor) else tuple(change(s) for s in hx)


class RNN(_Recurrence, nn.RNN):
    """The simple RNN of Elman (1990), tanh or relu, over time and layers: torch.nn.RNN, and `backend`.

    backend is "auto", "fused", "torch" or "reference"; OptionError for another. The rest is as in torch,
    its errors too. The equations: `elman.cells.rnn`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
        **unknown: Any,
    ) -> None:
        sizes, placed = (input_size, hidden_size, num_layers), {"device": device, "dtype": dtype, **unknown}
        options = (bias, batch_first, dropout, bidirectional)
        nn.RNN.__init__(self, *sizes, nonlinearity, *options, **placed)
        self._choose(backend)


class LSTM(_Recurrence, nn.LSTM):
    """The LSTM (Hochreiter & Schmidhuber 1997, Gers et al. 2000): torch.nn.LSTM, and `backend`.

    backend is "auto", "fused", "torch" or "reference"; OptionError for another, and for proj_size with
    "fused" or "reference". Everything else is as in torch, its errors too. The equations: `elman.cells.lstm`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
        **unknown: Any,
    ) -> None:
        sizes, placed = (input_size, hidden_size, num_layers), {"device": device, "dtype": dtype, **unknown}
        options = (bias, batch_first, dropout, bidirectional)
        nn.LSTM.__init__(self, *sizes, *options, proj_size, **placed)
        self._choose(backend)


class GRU(_Recurrence, nn.GRU):
    """The GRU, reset gate after the product (Cho et al. 2014): torch.nn.GRU, and `backend`.

    backend is "auto", "fused", "torch" or "reference"; OptionError for another. The rest is as in torch,
    its errors too. The equations: `elman.cells.gru`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
        **unknown: Any,
    ) -> None:
        sizes, placed = (input_size, hidden_size, num_layers), {"device": device, "dtype": dtype, **unknown}
        options = (bias, batch_first, dropout, bidirectional)
        nn.GRU.__init__(self, *sizes, *options, **placed)
        self._choose(backend)
