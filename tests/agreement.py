"""The one check of a recurrent module: the right ones pass it on every backend, the mutants fail it.

`disagreement` runs a module and its torch.nn namesake in float64 on one never-degenerate case (every
parameter and state drawn, all sizes different, a random upstream gradient for the output and for the
last state) and returns the largest error over output, last state and every gradient.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import elman
from elman.cells import Parameters
from elman.kernels import Pass, fused
from tolerance import error, tolerance

LAYOUTS = ("time first", "batch first", "unbatched", "packed sorted", "packed unsorted")
CELLS = ("rnn_tanh", "rnn_relu", "lstm", "gru")


@dataclass(frozen=True)
class Case:
    """One point of the product of options. T steps, B batch, D input size, H hidden size."""

    cell: str
    layout: str = "time first"
    layers: int = 2
    bias: bool = True
    bidirectional: bool = False
    initial: bool = True  # False: the state is None
    dropout: float = 0.0
    training: bool = True
    T: int = 4
    B: int = 5
    D: int = 11
    H: int = 7

    def module(self, home: Any, dtype: torch.dtype, **extra: Any) -> nn.RNNBase:
        """elman's or torch.nn's module for this case, with torch's own initial values."""
        kind = "RNN" if self.cell.startswith("rnn") else self.cell.upper()
        if kind == "RNN":
            extra["nonlinearity"] = self.cell.removeprefix("rnn_")
        options = {"bias": self.bias, "bidirectional": self.bidirectional, "dropout": self.dropout}
        first = self.layout in ("batch first", "packed unsorted")
        made = getattr(home, kind)(
            self.D, self.H, self.layers, batch_first=first, dtype=dtype, **options, **extra
        )
        return made.train(self.training)  # type: ignore[no-any-return]

    def lengths(self) -> Tensor:
        """[B] from 1 to T, each of them present where B allows, in no order unless sorted."""
        lengths = (torch.arange(self.B) * 2 + 1) % self.T + 1
        return lengths.sort(descending=True).values if self.layout == "packed sorted" else lengths

    def input(self, x: Tensor) -> Tensor | PackedSequence:
        """x [T, B, D] in the layout of the case."""
        if self.layout == "unbatched":
            return x[:, 0]
        if self.layout == "batch first":
            return x.transpose(0, 1)
        if self.layout.startswith("packed"):
            unsorted = self.layout == "packed unsorted"
            x = x.transpose(0, 1) if unsorted else x
            return pack_padded_sequence(x, self.lengths(), batch_first=unsorted, enforce_sorted=not unsorted)
        return x

    def tolerance(self, dtype: torch.dtype) -> float:
        """T steps forward and T back through each layer, each a sum over inputs, states and gates."""
        gates = {"lstm": 4, "gru": 3}.get(self.cell, 1)
        widest = max(self.D, self.H * (2 if self.bidirectional else 1)) + self.H
        return tolerance(dtype, 2 * self.T, self.layers, max(widest, gates * self.H, self.T * self.B))


def fused_layer(one: Any, p: Parameters, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    """One layer by the fused kernels, with states [B, H]."""
    output, last = fused.layers(Pass(*one), [p], x, tuple(s[None] for s in state))
    return output, tuple(s[0] for s in last)


def product(cell: str, layout: str, **sizes: int) -> Iterator[Case]:
    """Layers 1 to 3, with and without biases, second direction and initial state."""
    for layers, bias, both, initial in itertools.product((1, 2, 3), *[(True, False)] * 3):
        yield Case(cell, layout, layers, bias, both, initial, **sizes)


def outcome(module: nn.RNNBase, case: Case, seed: int = 7) -> dict[str, Tensor]:
    """Output, last state and every gradient of a loss that weighs each entry of both at random."""
    dtype = module.weight_ih_l0.dtype
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:  # float32 values, so that both precisions see the same numbers
        return torch.randn(*shape, generator=random).to(dtype)

    x = draw(case.T, case.B, case.D).requires_grad_()
    K = case.layers * (2 if case.bidirectional else 1)
    state = [draw(K, case.B, case.H).requires_grad_() for _ in range(2 if case.cell == "lstm" else 1)]
    given = [s[:, 0] for s in state] if case.layout == "unbatched" else state
    hx = (tuple(given) if case.cell == "lstm" else given[0]) if case.initial else None
    torch.manual_seed(seed)  # the dropout's draws
    output, last = module(case.input(x), hx)
    found = {"output": output.data if isinstance(output, PackedSequence) else output}
    for name, part in zip("hc", last if isinstance(last, tuple) else (last,), strict=False):
        found[f"last {name}"] = part
    sum((draw(*part.shape) * part).sum() for part in list(found.values())).backward()
    found["dx"] = x.grad
    if case.initial:
        found |= {f"dstate {name}": s.grad for name, s in zip("hc", state, strict=False)}
    return found | {f"d{name}": p.grad for name, p in module.named_parameters()}


Reference = tuple[dict[str, Tensor], dict[str, Tensor]]


def torchs(case: Case) -> Reference:
    """Parameters (float64, exactly representable in float32) and outcome of torch.nn in float64."""
    torch.manual_seed(case.layers)
    theirs = case.module(nn, torch.float32).double()
    return theirs.state_dict(), outcome(theirs, case)


def disagreement(
    case: Case, backend: str, dtype: torch.dtype = torch.float64, reference: Reference | None = None
) -> dict[str, float]:
    """The error of each quantity of elman's module against torch.nn's, in units of the tolerance."""
    weights, expected = reference or torchs(case)
    ours = case.module(elman, dtype, backend=backend)
    ours.load_state_dict(weights, strict=True)
    actual = outcome(ours, case)
    assert actual.keys() == expected.keys()
    allowed = case.tolerance(dtype)
    return {name: error(actual[name], expected[name]) / allowed for name in expected}


def agrees(case: Case, backend: str, dtype: torch.dtype = torch.float64) -> bool:
    return max(disagreement(case, backend, dtype).values()) <= 1
