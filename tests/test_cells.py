"""The cells: one step against the oracle, the backward step against autograd and against complex steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor

import oracle
from agreement import CELLS
from elman.cells import Parameters, gru, lstm, rnn
from strategies import QUICK, shapes
from tolerance import error, tolerance

MODULES: dict[str, ModuleType] = {"rnn_tanh": rnn, "rnn_relu": rnn, "lstm": lstm, "gru": gru}


def functions(cell: str) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """step, step_backward and State of a cell."""
    home = MODULES[cell]
    if home is rnn:
        how = cell.removeprefix("rnn_")
        return partial(rnn.step, nonlinearity=how), partial(rnn.step_backward, nonlinearity=how), rnn.State
    return home.step, home.step_backward, home.State


def drawn(cell: str, sizes: dict[str, int], *, bias: bool = True) -> tuple[Parameters, Tensor, list[Tensor]]:
    """Parameters, x [B, D] and state [B, H], every entry drawn, in float64."""
    B, D, H, gates = sizes["B"], sizes["D"], sizes["H"], len(oracle.GATES[cell])
    draw = partial(torch.randn, dtype=torch.float64)
    biases = [draw(gates * H), draw(gates * H)] if bias else []
    p = Parameters(draw(gates * H, D), draw(gates * H, H), *biases)
    return p, draw(B, D), [draw(B, H) for _ in range(2 if cell == "lstm" else 1)]


def allowed(cell: str, sizes: dict[str, int]) -> float:
    return tolerance(torch.float64, len(oracle.GATES[cell]) * sizes["H"] + sizes["D"] + sizes["B"])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", CELLS)
@QUICK
@given(sizes=shapes())
def test_one_step_is_the_oracles(cell: str, bias: bool, sizes: dict[str, int]) -> None:
    p, x, state = drawn(cell, sizes, bias=bias)
    step, _, State = functions(cell)
    new, _ = step(p, x, State(*state))
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    weights = {name: w.numpy() for name, w in zip(names, p, strict=True) if w is not None}
    one = oracle.cell(cell, weights, "l0")
    for b in range(sizes["B"]):
        expected = one(x[b].numpy(), [s[b].numpy() for s in state])
        for part, value in zip(new, expected, strict=True):
            assert error(part[b], torch.from_numpy(value)) <= allowed(cell, sizes)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", CELLS)
@QUICK
@given(sizes=shapes())
def test_the_hand_written_backward_is_autograds(cell: str, bias: bool, sizes: dict[str, int]) -> None:
    p, x, state = drawn(cell, sizes, bias=bias)
    step, step_backward, State = functions(cell)
    leaves = [tensor.requires_grad_() for tensor in (x, *state, *p) if tensor is not None]
    new, cache = step(p, x, State(*state))
    dstate = State(*(torch.randn_like(part) for part in new))
    expected = torch.autograd.grad(list(new), leaves, list(dstate))
    with torch.no_grad():
        dx, dprev, dp = step_backward(p, cache, dstate)
    assert (dp.dbias_ih is None) == (dp.dbias_hh is None) == (not bias)
    found = [tensor for tensor in (dx, *dprev, *dp) if tensor is not None]
    for name, ours, theirs in zip(("dx", *"hc", *p._fields), found, expected, strict=False):
        assert error(ours, theirs) <= allowed(cell, sizes), name


@pytest.mark.parametrize("cell", CELLS)
def test_the_hand_written_backward_is_the_complex_step_of_the_oracle(cell: str) -> None:
    sizes = {"B": 1, "D": 3, "H": 4}
    p, x, state = drawn(cell, sizes)
    step, step_backward, State = functions(cell)
    new, cache = step(p, x, State(*state))
    dstate = State(*(torch.randn_like(part) for part in new))
    dx, dprev, dp = step_backward(p, cache, dstate)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    arrays = dict(
        zip((*names, "x", *"hc"), [t.numpy() for t in (*p, x[0], *(s[0] for s in state))], strict=False)
    )
    parts = "hc"[: len(state)]

    def loss(a: oracle.Weights) -> complex:
        shown = oracle.cell(cell, a, "l0")(a["x"], [a[part] for part in parts])
        return sum((d[0].numpy() * s).sum() for d, s in zip(dstate, shown, strict=True))

    expected = oracle.complex_step(loss, arrays)
    for name, ours in zip((*names, "x", *parts), (*dp, dx[0], *(s[0] for s in dprev)), strict=True):
        assert error(ours, torch.from_numpy(expected[name])) <= allowed(cell, sizes), name


def test_relu_has_slope_zero_at_zero_as_in_torch() -> None:
    zero = torch.zeros(1, 1)
    p = Parameters(torch.ones(1, 1), torch.ones(1, 1))
    _, cache = rnn.step(p, zero, rnn.State(zero), nonlinearity="relu")
    dx, _, _ = rnn.step_backward(p, cache, rnn.State(torch.full((1, 1), torch.inf)), nonlinearity="relu")
    assert dx == 0
