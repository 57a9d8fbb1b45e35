"""The spectral sweep: theory at rest, less under tanh, the bound kept, clipping before and after."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from elman.errors import OptionError
from elman.gradients import sweep as home
from elman.gradients.sweep import (
    Growth,
    SweepOptions,
    at_initialization,
    last_step_norms,
    radius_at_rest,
    scaled,
    sweep,
)
from elman.gradients.unrolling import unroll

SMALL = SweepOptions(
    cells=("rnn_tanh", "rnn_relu", "gru", "lstm"), hidden_size=40, lags=60, radii=(0.6, 1.0, 1.4), sequences=3
)


@pytest.fixture(scope="module")
def points() -> dict[tuple[str, float, float], Growth]:
    return {(p.cell, p.radius, p.inputs): p for p in sweep(SMALL)}


def test_at_rest_the_rate_is_the_theorys(points: dict[tuple[str, float, float], Growth]) -> None:
    """log ρ of U for tanh, and log of the Jacobian's radius with half-open gates for GRU and LSTM."""
    for radius in SMALL.radii:
        tanh = points["rnn_tanh", radius, 0.0]
        assert tanh.theory == pytest.approx(math.log(radius), abs=1e-9)
        assert tanh.mean_field == pytest.approx(math.log(radius), abs=1e-9)
        for cell in ("rnn_tanh", "gru", "lstm"):
            point = points[cell, radius, 0.0]
            # a matrix drawn at random is not normal: 60 steps are not yet the long run
            assert point.rate.slope.value == pytest.approx(point.theory, abs=0.02), (cell, radius)


def test_an_orthogonal_recurrence_grows_by_its_radius_exactly() -> None:
    for radius in (0.5, 1.0, 1.5):
        module = nn.RNN(7, 7, bias=False, dtype=torch.float64)
        nn.init.orthogonal_(module.weight_hh_l0)
        unrolled = unroll(scaled(module, radius), torch.zeros(50, 2, 7, dtype=torch.float64))
        norms = last_step_norms(unrolled, torch.ones(2, 7, dtype=torch.float64))
        expected = math.sqrt(7) * radius ** torch.arange(50.0, dtype=torch.float64)
        assert torch.allclose(norms[1, 0], expected, rtol=1e-9, atol=0)


def test_under_tanh_and_relu_it_is_less(points: dict[tuple[str, float, float], Growth]) -> None:
    for radius in SMALL.radii:
        rest, little, much = (points["rnn_tanh", radius, x].rate.slope.value for x in SMALL.inputs)
        assert rest > little > much
        for cell in ("rnn_tanh", "rnn_relu"):
            for inputs in (0.1, 1.0):
                point = points[cell, radius, inputs]
                assert point.rate.slope.value < point.theory - 0.01
                assert point.rate.slope.value == pytest.approx(point.mean_field, abs=0.1)


def test_no_curve_is_above_pascanus_bound(points: dict[tuple[str, float, float], Growth]) -> None:
    for point in points.values():
        if point.cell.startswith("rnn") and not np.isnan(point.curve).any():
            lags = np.arange(len(point.curve))
            assert (point.curve <= lags * math.log(point.norm) + 1e-9).all()
            assert point.norm > point.radius


def test_a_relu_at_rest_has_no_gradient(points: dict[tuple[str, float, float], Growth]) -> None:
    point = points["rnn_relu", 1.0, 0.0]
    assert math.isnan(point.rate.slope.value)
    assert math.isnan(point.mean_field)


def test_clipping_on_and_off(points: dict[tuple[str, float, float], Growth]) -> None:
    for point in points.values():
        assert point.by_norm.after <= SMALL.clip * (1 + 1e-9)
        assert point.by_norm.after == pytest.approx(min(point.by_norm.before, SMALL.clip))
        assert point.by_value.before == pytest.approx(point.by_norm.before)
        assert point.by_value.after <= point.by_value.before * (1 + 1e-9)
        if point.by_norm.before > 0:
            assert point.by_norm.cosine == pytest.approx(1)
    exploding = points["rnn_tanh", 1.4, 0.0]
    assert exploding.by_norm.before > 1e6
    # at a large input the gradient vanishes: a shorter step, of which clipping leaves the more
    assert points["rnn_tanh", 1.4, 1.0].by_norm.before < 1e3


def test_open_gates_carry_the_gradient_further() -> None:
    shut, ajar, wide = (
        [
            p.rate.slope.value
            for p in sweep(
                SweepOptions(
                    cells=("gru", "lstm"),
                    hidden_size=20,
                    lags=40,
                    radii=(0.5,),
                    inputs=(0.1,),
                    gate_bias=bias,
                )
            )
        ]
        for bias in (-1.0, 0.0, 2.0)
    )
    assert all(a < b < c < 0 for a, b, c in zip(shut, ajar, wide, strict=True))


def test_the_radius_at_rest_of_gates_half_open() -> None:
    """h = c / 2, c' = c / 2 + U_g h / 2: eigenvalues 1/2 + λ/4, as in the GRU with z = r = 1/2."""
    for module, gates in ((nn.LSTM(4, 6, bias=False), 4), (nn.GRU(4, 6, bias=False), 3)):
        content = scaled(module, 0.9).get_parameter("weight_hh_l0").detach().chunk(gates)[2]  # g, n
        eigenvalues = torch.linalg.eigvals(content.double())
        assert radius_at_rest(module) == pytest.approx(float((0.5 + eigenvalues / 4).abs().max()), abs=1e-6)


def test_scaling_gives_every_gate_and_layer_the_radius() -> None:
    module = scaled(nn.GRU(3, 5, 2, dtype=torch.float64), 0.7)
    for layer in range(2):
        for block in module.get_parameter(f"weight_hh_l{layer}").detach().chunk(3):
            assert float(torch.linalg.eigvals(block).abs().max()) == pytest.approx(0.7)


def test_at_initialization_everything_vanishes_and_an_open_gate_holds_it_up() -> None:
    small = SweepOptions(hidden_size=50, lags=40, sequences=2)
    found = list(at_initialization(small))
    assert [p.cell for p in found] == list(small.cells)
    for point in found:
        assert point.rate.slope.value < -0.1
        assert point.curve[0] == 0
        assert len(point.curve) == 41
    biased = [(p.cell, p.gate_bias, p.rate.slope.value) for p in at_initialization(small, (0.0, 3.0))]
    assert [each[:2] for each in biased] == [
        ("rnn_tanh", 0.0),
        ("gru", 0.0),
        ("gru", 3.0),
        ("lstm", 0.0),
        ("lstm", 3.0),
    ]
    assert [slope for _, bias, slope in biased if bias == 0] == [p.rate.slope.value for p in found]
    assert all(slope > -0.1 for _, bias, slope in biased if bias == 3)


def test_the_same_seed_gives_the_same_points_and_json_holds_them() -> None:
    tiny = SweepOptions(cells=("lstm",), hidden_size=4, lags=12, radii=(0.9,), inputs=(1.0,), sequences=2)
    seen: list[tuple[int, int]] = []
    first, second = (next(iter(sweep(tiny, lambda *done: seen.append(done)))).as_json() for _ in range(2))
    assert str(first) == str(second)
    assert first["curve"][-1][0] == 12
    assert first["rate"]["lags"] == [1, 12]
    assert set(first) == set(Growth.__dataclass_fields__)


def test_norms_counted_from_the_wrong_end_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant: the curve runs from the oldest step to the newest."""
    right = home.backward
    monkeypatch.setattr(home, "backward", lambda u, d: reversed(list(right(u, d))))
    tiny = SweepOptions(cells=("rnn_tanh",), hidden_size=20, lags=40, radii=(0.6,), inputs=(0.0,))
    point = next(iter(sweep(tiny)))
    assert abs(point.rate.slope.value - point.theory) > 0.5


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"hidden_size": 1}, "too few"),
        ({"lags": 5}, "too few"),
        ({"radii": (0.0,)}, "out of range"),
        ({"inputs": (-1.0,)}, "out of range"),
        ({"cells": ("mamba",)}, "no cell 'mamba'"),
    ],
    ids=str,
)
def test_mistakes(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        next(iter(sweep(SweepOptions(**wrong))))  # type: ignore[arg-type]
