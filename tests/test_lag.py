"""Norm against lag: the triangle's entries, the fitted line, its interval; a lag off by one is caught."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from agreement import CELLS
from elman.errors import OptionError
from elman.gradients import lag as home
from elman.gradients.lag import LagNorms, decay, lag_norms, mean_log, quantiles, vanished
from elman.gradients.unrolling import Unrolled, unroll
from elman.gradients.vanishing import Triangle, triangle
from test_vanishing import H, T, case


def wrong(found: LagNorms, whole: Triangle, lags: int) -> float:
    """The largest difference from the entries of the triangle."""
    pairs = [(found.x[0], whole.x), *zip((s[0] for s in found.states), whole.states, strict=True)]
    worst = 0.0
    for mine, theirs in pairs:
        for t in range(lags, T):
            for k in range(lags + 1):
                difference = mine[..., t - lags, k] - theirs[..., t, t - k]
                worst = max(worst, float(difference.abs().max()))
    return worst


@pytest.mark.parametrize("lags", range(T))
@pytest.mark.parametrize("cell", CELLS)
def test_norms_are_those_of_the_triangle(cell: str, lags: int) -> None:
    _, _, _, _, unrolled = case(cell, 2, 1)
    dhidden = torch.randn(T, H, dtype=torch.float64)
    found = lag_norms(unrolled, dhidden, lags)
    assert found.x.shape == (1, T - lags, lags + 1)
    assert found.states[0].shape == (1, 2, T - lags, lags + 1)
    assert wrong(found, triangle(unrolled, dhidden), lags) < 1e-12


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_lag_off_by_one_is_caught(shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, _, _, unrolled = case("lstm", 2, 1)
    dhidden = torch.randn(T, H, dtype=torch.float64)
    right = home.step_back
    monkeypatch.setattr(home, "step_back", lambda u, t, *rest: right(u, (t + shift) % T, *rest))
    assert wrong(lag_norms(unrolled, dhidden, 3), triangle(unrolled, dhidden), 3) > 1e-3


def rotating(radius: float, steps: int) -> Unrolled:
    """A tanh RNN at rest whose U is an orthogonal matrix times `radius`: every gradient changes by it."""
    module = nn.RNN(3, 5, bias=False, dtype=torch.float64)
    with torch.no_grad():
        nn.init.orthogonal_(module.weight_hh_l0).mul_(radius)
    return unroll(module, torch.zeros(steps, 1, 3, dtype=torch.float64))


@pytest.mark.parametrize("radius", [0.5, 1.0, 1.3])
def test_a_known_decay_is_found(radius: float) -> None:
    unrolled = rotating(radius, 40)
    pieces = [lag_norms(unrolled, torch.randn(40, 5, dtype=torch.float64), 25) for _ in range(4)]
    found = decay(LagNorms.join(pieces).of(), 2, 25)
    assert found.slope.value == pytest.approx(math.log(radius), abs=1e-12)
    assert found.slope.low == pytest.approx(math.log(radius), abs=1e-12)
    assert found.factor.value == pytest.approx(radius)
    if radius == 0.5:
        assert tuple(found.half_life) == pytest.approx((1, 1, 1))
        assert found.straightness == pytest.approx(1)
    if radius == 1.3:
        assert found.half_life.value == math.inf


def made(N: int, P: int, K: int) -> Tensor:
    """Norms that fall by a slope of the piece's own, with noise on each."""
    random = np.random.default_rng(5)
    slopes = -0.3 + 0.1 * random.normal(size=(N, 1, 1))
    logs = slopes * np.arange(K + 1) + random.normal(size=(N, P, 1)) + 0.1 * random.normal(size=(N, P, K + 1))
    return torch.from_numpy(np.exp(logs))


def test_slope_and_interval_are_those_of_the_pieces_slopes() -> None:
    norms = made(30, 4, 12)
    found = decay(norms, 3, 12)
    each = [np.polyfit(np.arange(3, 13), np.log(piece.numpy()).mean(0)[3:], 1)[0] for piece in norms]
    assert found.slope.value == pytest.approx(np.mean(each), abs=1e-12)
    error = np.std(each) / math.sqrt(30)
    assert found.slope.low == pytest.approx(np.mean(each) - 1.96 * error, abs=0.3 * error)
    assert found.slope.high == pytest.approx(np.mean(each) + 1.96 * error, abs=0.3 * error)
    low, high = found.half_life.low, found.half_life.high
    assert 0 < low < found.half_life.value < high
    line = np.log(norms.numpy()).mean((0, 1))[3:]
    assert found.straightness == pytest.approx(np.corrcoef(line, np.arange(3, 13))[0, 1] ** 2)


def test_a_curve_that_bends_is_said_to() -> None:
    k = torch.arange(101.0).double()
    power = (1 / (1 + k)).expand(3, 2, -1)
    assert decay(power, 0, 100).straightness < 0.9
    assert decay(torch.exp(-k).expand(3, 2, -1), 0, 100).straightness == pytest.approx(1)


def test_zeros_are_counted_and_not_averaged() -> None:
    norms = made(6, 3, 8)
    norms[:, 0, 4:] = 0
    norms[:, :, 8] = 0
    assert vanished(norms).tolist() == pytest.approx([0, 0, 0, 0, 1 / 3, 1 / 3, 1 / 3, 1 / 3, 1])
    mean = mean_log(norms)
    assert mean[5] == pytest.approx(float(norms[:, 1:, 5].log().mean()))
    assert math.isnan(mean[8])
    assert math.isfinite(decay(norms, 0, 8).slope.value)
    assert quantiles(norms)[0, 8] == 0
    assert math.isnan(decay(torch.zeros(3, 2, 5), 0, 4).slope.value)
    assert math.isnan(decay(torch.zeros(3, 2, 5), 0, 4).half_life.value)


def test_quantiles_are_over_all_losses() -> None:
    norms = torch.arange(1.0, 12.0).view(1, 11, 1).expand(1, 11, 2)
    assert quantiles(norms, (0.0, 0.5, 1.0))[:, 1].tolist() == [1, 6, 11]


def test_mistakes() -> None:
    _, _, _, _, unrolled = case("gru", 2, 1)
    dhidden = torch.randn(T, H, dtype=torch.float64)
    for lags in (-1, T):
        with pytest.raises(OptionError, match="have no lag"):
            lag_norms(unrolled, dhidden, lags)
    with pytest.raises(OptionError, match="not one and"):
        lag_norms(unrolled, dhidden[1:], 2)
    _, _, _, _, several = case("gru", 2, 3)
    with pytest.raises(OptionError, match="3 sequences"):
        lag_norms(several, dhidden, 2)
    for first, last in ((3, 3), (-1, 2), (0, 9)):
        with pytest.raises(OptionError, match="no line goes through"):
            decay(made(2, 2, 8), first, last)


def test_the_example_of_the_package_runs(capsys: pytest.CaptureFixture[str]) -> None:
    from elman import gradients
    from elman.gradients.bptt import truncated_bptt
    from elman.gradients.jacobians import jacobian, spectral_radius

    example = [line[4:] for line in str(gradients.__doc__).splitlines() if line.startswith("    ")]
    names = {
        each.__name__: each for each in (unroll, lag_norms, decay, jacobian, spectral_radius, truncated_bptt)
    }
    module = nn.LSTM(3, 5)
    given = {"module": module, "x": torch.randn(130, 1, 3), "dhidden": torch.randn(130, 5)}
    exec("\n".join(example), names | given)
    half_life, radius, norm = capsys.readouterr().out.splitlines()
    assert half_life.startswith("Estimate(value=")
    assert float(radius) < 1
    assert norm.startswith("tensor(")
