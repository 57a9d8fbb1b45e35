"""Truncation bias: cosines and ratios from plain gradients, and known-wrong versions that are caught."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from agreement import CELLS
from elman.errors import OptionError
from elman.gradients import truncation as home
from elman.gradients.bptt import Window, truncated_bptt
from elman.gradients.resampling import Estimate, draws, estimate
from elman.gradients.truncation import ALL, truncation_bias
from elman.gradients.unrolling import Unrolled, unroll
from test_vanishing import B, H, T, drawn, stack


def example(cell: str) -> tuple[list[Unrolled], Unrolled, Tensor]:
    """Each of B sequences alone, all side by side, doutput [T, B, H]."""
    module = stack(cell, 2)
    x, state, masks = drawn(cell, 2, B)
    doutput = torch.randn(T, B, H, dtype=torch.float64)
    alone = [
        unroll(module, x[:, b : b + 1], tuple(p[:, b : b + 1] for p in state), masks[:, :, b : b + 1])
        for b in range(B)
    ]
    return alone, unroll(module, x, state, masks), doutput


def by_hand(alone: list[Unrolled], doutput: Tensor, k: int, k1: int, name: str) -> tuple[float, ...]:
    """(cosine, ratio, alone) from every sequence's whole gradient."""

    def gradient(b: int, k1: int, k: int) -> np.ndarray:
        named = truncated_bptt(alone[b], doutput[:, b : b + 1], k1, k).named()
        chosen = named.values() if name == ALL else [named[name]]
        return torch.cat([part.flatten() for part in chosen]).numpy()

    cut = np.stack([gradient(b, k1, k) for b in range(B)])
    full = np.stack([gradient(b, T, T) for b in range(B)])

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    mean_cut, mean_full = cut.mean(0), full.mean(0)
    ratio = float(np.linalg.norm(mean_cut) / np.linalg.norm(mean_full))
    return (
        cosine(mean_cut, mean_full),
        ratio,
        float(np.mean([cosine(*pair) for pair in zip(cut, full, strict=True)])),
    )


def disagreement(cell: str, **options: int) -> float:
    alone, unrolled, doutput = example(cell)
    worst = 0.0
    for bias in truncation_bias(unrolled, doutput, [2, 3, T], **options):
        k1 = options.get("update_interval", bias.steps)
        expected = by_hand(alone, doutput, bias.steps, k1, bias.parameter)
        found = (bias.cosine.value, bias.ratio.value, bias.alone.value)
        worst = max(worst, *(abs(mine - theirs) for mine, theirs in zip(found, expected, strict=True)))
    return worst


@pytest.mark.parametrize("block", [1, 1 << 23])
@pytest.mark.parametrize("cell", CELLS)
def test_cosines_and_ratios_are_those_of_the_gradients(
    cell: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, "BLOCK", block)
    assert disagreement(cell) < 1e-9
    assert disagreement(cell, update_interval=1) < 1e-9


@pytest.mark.parametrize("cell", CELLS)
def test_every_length_and_parameter_is_there_and_the_whole_length_is_no_truncation(cell: str) -> None:
    _, unrolled, doutput = example(cell)
    seen: list[tuple[int, int]] = []
    found = truncation_bias(unrolled, doutput, progress=lambda done, work: seen.append((done, work)))
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    names = [ALL, *(f"{kind}_l{layer}" for layer in range(2) for kind in kinds)]
    assert [(b.steps, b.parameter) for b in found] == [(k, name) for k in range(1, T + 1) for name in names]
    assert seen == [(k, T) for k in range(1, T + 1)]
    for bias in found[-len(names) :]:
        for each in (bias.cosine, bias.ratio, bias.alone):
            assert tuple(each) == pytest.approx((1, 1, 1), abs=1e-12)
    first = found[0].cosine
    assert -1 <= first.low < first.high <= 1
    assert first.value < 1 - 1e-3
    assert found[0].as_json()["cosine"] == [first.value, first.low, first.high]


def keeps_the_full(unrolled: Unrolled, doutput: Tensor, over: list[Window]) -> object:
    return right(unrolled, doutput, [Window(0, 0, unrolled.steps)])


def cuts_one_later(unrolled: Unrolled, doutput: Tensor, over: list[Window]) -> object:
    return right(unrolled, doutput, [Window(max(0, w.begin - 1), w.scored, w.end) for w in over])


right = home.deltas


@pytest.mark.parametrize("mutant", [keeps_the_full, cuts_one_later])
def test_wrong_truncations_are_caught(mutant: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "deltas", mutant)
    assert disagreement("lstm") > 1e-4


def test_a_gradient_of_zero_has_no_direction() -> None:
    _, unrolled, doutput = example("gru")
    bias = truncation_bias(unrolled, torch.zeros_like(doutput), [2])[0]
    assert all(math.isnan(figure) for each in (bias.cosine, bias.ratio, bias.alone) for figure in each)


def test_one_sequence_has_no_interval() -> None:
    alone, _, doutput = example("gru")
    bias = truncation_bias(alone[0], doutput[:, :1], [2])[0]
    assert bias.cosine.value == pytest.approx(bias.alone.value)
    assert math.isnan(bias.ratio.low)
    assert math.isnan(bias.ratio.high)


def test_intervals_cover_the_mean_as_often_as_they_say() -> None:
    random = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        values = random.exponential(size=60)
        found = estimate(60, lambda counts, values=values: counts @ values / counts.sum(1))
        assert found.value == pytest.approx(values.mean())
        hits += found.low <= 1.0 <= found.high
    assert 0.90 <= hits / 300 <= 0.98
    assert draws(7).sum(1).tolist() == [7.0] * 1000


def test_estimates_of_functions_of_a_figure() -> None:
    assert Estimate(2.0, 1.0, 4.0).map(lambda x: 1 / x) == Estimate(0.5, 0.25, 1.0)
    single = Estimate(2.0, math.nan, math.nan).map(lambda x: x + 1)
    assert single.value == 3
    assert math.isnan(single.low)


def test_mistakes() -> None:
    _, unrolled, doutput = example("gru")
    for wrong in ([0], [T + 1]):
        with pytest.raises(OptionError, match="cannot be truncated after"):
            truncation_bias(unrolled, doutput, wrong)
    with pytest.raises(OptionError, match="cannot go"):
        truncation_bias(unrolled, doutput, [2], update_interval=3)
