"""Dropout: how often, by how much, and that it is torch's wherever nothing is drawn."""

from __future__ import annotations

import math

import pytest
import torch

import elman
from elman.kernels.draws import drawing_from
from elman.neural.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_share_and_scale(p: float) -> None:
    torch.manual_seed(3)
    x = torch.full((401, 503), 1.7, requires_grad=True)
    y = Dropout(p)(x)
    dropped = float((y == 0).double().mean())
    assert abs(dropped - p) < 5 * math.sqrt(p * (1 - p) / x.numel())
    kept = y.detach()[y != 0]
    assert torch.equal(kept, kept[0].expand_as(kept))
    assert float(kept[0]) == pytest.approx(1.7 / (1 - p), rel=1e-6)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad == 0, y == 0), "the gradient passes where the value did"
    # neighbours come out of one draw, and are independent all the same
    both = float(((y[:, :-1] == 0) & (y[:, 1:] == 0)).double().mean())
    assert abs(both - p * p) < 5 * math.sqrt(p * p / x.numel())


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 7), (0, 4)])
def test_any_shape_and_dtype(shape: tuple[int, ...]) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        y = Dropout(0.5)(torch.ones(shape, dtype=dtype))
        assert y.shape == shape
        assert y.dtype == dtype


def test_the_same_seed_the_same_mask() -> None:
    x = torch.ones(7, 9)
    torch.manual_seed(8)
    first, other = Dropout(0.4)(x), Dropout(0.4)(x)
    torch.manual_seed(8)
    assert torch.equal(first, Dropout(0.4)(x))
    assert not torch.equal(first, other)


def test_nothing_is_drawn_where_nothing_is_dropped() -> None:
    x = torch.randn(4, 5)
    before = torch.get_rng_state()
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(torch.get_rng_state(), before)
    assert (Dropout(1e-9)(torch.ones(9)) <= 1.001).all()


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
@pytest.mark.parametrize("rows", [1, 9])
def test_dropout_between_layers_is_drawn_from_a_trainings_own_generator(backend: str, rows: int) -> None:
    """Whoever computes, torch's generator stays as it is, and the same seed gives the same output."""
    module, x = elman.LSTM(3, 5, 2, dropout=0.5, backend=backend), torch.randn(rows, 1, 3)
    before, outputs = torch.get_rng_state(), []
    for _ in range(2):
        with drawing_from(torch.Generator().manual_seed(4)):
            outputs.append(module(x)[0])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[0], module.eval()(x)[0])
