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
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from elman import kernels
from elman.kernels import Cell, Stack, States

_CELLS: dict[str, Cell] = {"RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu", "LSTM": "lstm", "GRU": "gru"}
Device = torch.device | str | int | None


class Lookup(NamedTuple):
    """The input of a recurrence as what it is looked up in: x = table[rows].

    W x is then made once for each row that is read, and looked up itself: a character model reads thousands
    of places and a hundred different characters.
    """

    table: Tensor  # [U, D]
    rows: Tensor  # [T, B] int64, each in 0..U-1


class _Recurrence(nn.RNNBase):
    """What the three classes share: the backend, and one forward for every layout of the input."""

    backend: str

    def _choose(self, backend: str) -> None:
        kernels.choose(backend, proj_size=self.proj_size)  # refuse now rather than at the first call
        self.backend = backend

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, backend={self.backend}"

    def forward(self, input: Tensor | PackedSequence | Lookup, hx: Any = None) -> tuple[Any, Any]:
        """input [T, B, D], or [B, T, D] with batch_first, or [T, D], or packed → (output, last state).

        hx and the last state are h [K, B, H], in the LSTM (h, c) (without B for an unbatched input);
        None is zeros. The output has the layout of the input, H · directions wide. Tensors of a wrong
        shape or dtype raise what torch.nn raises (RuntimeError, ValueError).

        Beyond torch.nn, input can be a `Lookup`: (table [U, D], rows [T, B], or [B, T] with batch_first) for
        table[rows]. IndexError for a row that the table does not have.
        """
        self._update_flat_weights()
        if isinstance(input, Lookup):
            table, rows = input
            if rows.dim() != 2:
                raise RuntimeError(f"rows must have 2 dimensions, got {rows.dim()}")
            batch = rows.shape[0 if self.batch_first else 1]
            hx = self._zeros(table, batch) if hx is None else hx
            self.check_forward_args(table, hx, [batch])  # type: ignore[arg-type]  # as data of a packed batch
            output, last = self._run(table, hx, None, rows.T if self.batch_first else rows)
            return output.transpose(0, 1) if self.batch_first else output, last
        if isinstance(input, PackedSequence):
            data, batch_sizes, order, order_back = input
            hx = self._zeros(data, int(batch_sizes[0])) if hx is None else self.permute_hidden(hx, order)
            self.check_forward_args(data, hx, batch_sizes)
            output, last = self._run(data, hx, batch_sizes)
            return PackedSequence(output, batch_sizes, order, order_back), self.permute_hidden(
                last, order_back
            )

        if input.dim() not in (2, 3):
            name = type(self).__name__
            raise ValueError(f"{name}: Expected input to be 2D or 3D, got {input.dim()}D tensor instead")
        batched, batch_axis = input.dim() == 3, 0 if self.batch_first else 1
        if hx is not None:
            wrong = [s.dim() for s in _states(hx) if s.dim() != input.dim()]
            if wrong:
                raise RuntimeError(
                    f"For {'batched' if batched else 'unbatched'} {input.dim()}-D input, "
                    f"hx should also be {input.dim()}-D but got {wrong[0]}-D tensor"
                )
        if not batched:
            input = input.unsqueeze(batch_axis)
            hx = None if hx is None else _each(hx, lambda s: s.unsqueeze(1))
        if hx is None:
            hx = self._zeros(input, input.size(batch_axis))
        self.check_forward_args(input, hx, None)
        output, last = self._run(input.transpose(0, 1) if self.batch_first else input, hx, None)
        output = output.transpose(0, 1) if self.batch_first else output
        if not batched:
            return output.squeeze(batch_axis), _each(last, lambda s: s.squeeze(1))
        return output, last

    def _run(
        self, x: Tensor, hx: Any, batch_sizes: Tensor | None, rows: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        stack = Stack(
            cell=_CELLS[self.mode],
            weights=self._flat_weights,  # type: ignore[arg-type]  # none is None once constructed
            num_layers=self.num_layers,
            bias=self.bias,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
            training=self.training,
            proj_size=self.proj_size,
            rows=rows,
        )
        output, last = kernels.run(self.backend, stack, x, _states(hx), batch_sizes)
        return output, last if self.mode == "LSTM" else last[0]

    def _zeros(self, x: Tensor, batch: int) -> Any:
        """The state before the first step: h, in the LSTM (h, c)."""
        layers = self.num_layers * (2 if self.bidirectional else 1)
        h = x.new_zeros(layers, batch, self.proj_size or self.hidden_size)
        return (h, x.new_zeros(layers, batch, self.hidden_size)) if self.mode == "LSTM" else h


def _states(hx: Any) -> States:
    return (hx,) if isinstance(hx, Tensor) else tuple(hx)


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
    ) -> None:
        sizes, placed = (input_size, hidden_size, num_layers), {"device": device, "dtype": dtype}
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
    ) -> None:
        sizes, placed = (input_size, hidden_size, num_layers), {"device": device, "dtype": dtype}
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
    ) -> None:
        sizes, placed = (input_size, hidden_size, num_layers), {"device": device, "dtype": dtype}
        options = (bias, batch_first, dropout, bidirectional)
        nn.GRU.__init__(self, *sizes, *options, **placed)
        self._choose(backend)
