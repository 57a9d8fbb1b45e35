"""Mixtures: probabilities, weights by EM against a brute-force grid, degenerate events, storage."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elman.errors import FormatError, OptionError, ProtocolError
from elman.language_model import select
from elman.mixture import TOLERANCE_NATS, Mixture, em_steps, fit_weights, mix_nats
from elman.neural.feedforward import FeedforwardConfig, FeedforwardModel
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.text.corpus import Text
from elman.text.tokenizers import get_tokenizer
from elman.text.vocabulary import Vocabulary
from neural_oracle import WORDS, assert_contract, drawn, ids_for, vocabulary
from table_model import TableModel
from tolerance import tolerance

V = 17


def models() -> list:
    """Unlike states: (h, c), one window, (h,), and a table's number."""
    words, sizes = vocabulary(V), {"embedding_size": 3, "hidden_size": 5}
    lstm = RecurrentModel(words, WORDS, RecurrentConfig(num_layers=2, **sizes))
    feedforward = FeedforwardModel(words, WORDS, FeedforwardConfig(window=4, **sizes))
    gru = RecurrentModel(words, WORDS, RecurrentConfig(cell="gru", num_layers=1, **sizes))
    return [drawn(lstm), drawn(feedforward), drawn(gru), TableModel(words.tokens[2:])]


def text(events: int = 60) -> Text:
    ids = np.random.default_rng(1).integers(0, V, events).astype(np.int32)
    ids[9::10] = 1
    sentences = int((ids == 1).sum())
    return Text(ids, np.full(sentences, 9, dtype=np.int32), np.full(sentences, 40, dtype=np.int32))


def mixed_mean(nats: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean nats of a mixture, the definition: [..., M] weights → [...]."""
    return -np.log(weights @ np.exp(-nats)).mean(axis=-1)


def test_contract() -> None:
    mixture = Mixture(models()[:3], [0.5, 0.3, 0.2])
    assert_contract(mixture)
    nested = Mixture([mixture, models()[0]], [0.75, 0.25])
    assert_contract(nested)


def test_probabilities_are_the_weighted_sum() -> None:
    parts, weights = models(), [0.4, 0.3, 0.0, 0.3]
    mixture = Mixture(parts, weights)
    ids = ids_for(mixture, 6, 3)
    with torch.no_grad():
        own = [model.token_nats(ids, model.start(3))[0].double() for model in parts]
        nats, state = mixture.token_nats(ids, mixture.start(3))
        expected = sum(weight * torch.exp(-one) for weight, one in zip(weights, own, strict=True))
        allowed = tolerance(torch.float64, V, 4)
        torch.testing.assert_close(nats, -torch.log(expected), rtol=allowed, atol=allowed)
        assert nats.dtype == torch.float64
        log_probs = mixture.advance(state, ids[-1])[1]
        assert log_probs.dtype == torch.float64
        # beams: picked rows of the state are the picked streams
        rows = torch.tensor([2, 0, 2, 1])
        again = mixture.advance(select(state, rows), ids[-1][rows])[1]
        torch.testing.assert_close(again, log_probs[rows], rtol=allowed, atol=allowed)


def test_models_are_put_in_evaluation_mode() -> None:
    model = RecurrentModel(vocabulary(V), WORDS, RecurrentConfig(hidden_size=5, dropout=0.5))
    assert model.training
    mixture = Mixture([model, models()[1]], [1, 1])
    assert not model.training
    assert mixture.weights == (0.5, 0.5)


def test_impossible_events_stay_impossible() -> None:
    class Never(TableModel):
        def token_nats(self, ids, state):
            nats, state = super().token_nats(ids, state)
            return torch.full_like(nats, torch.inf), state

    words = vocabulary(V).tokens[2:]
    ids = ids_for(models()[3], 4, 2)
    both = Mixture([Never(words), Never(words, seed=4)], [0.5, 0.5])
    assert torch.isposinf(both.token_nats(ids, both.start(2))[0]).all()
    one = Mixture([Never(words), TableModel(words)], [0.25, 0.75])
    alone = TableModel(words).token_nats(ids, one.models[1].start(2))[0]
    torch.testing.assert_close(one.token_nats(ids, one.start(2))[0], alone - np.log(0.75))


def test_mixed_nats_are_those_of_the_mixed_probabilities() -> None:
    draw = np.random.default_rng(2)
    nats, weights = draw.gamma(2.0, 2.0, size=(3, 41)), np.array([0.2, 0.5, 0.3])
    expected = -np.log((weights[:, None] * np.exp(-nats)).sum(axis=0))
    np.testing.assert_allclose(mix_nats(list(nats), weights), expected, rtol=1e-13)
    far = mix_nats([np.array([2_000.0]), np.array([3_000.0])], np.array([0.0, 1.0]))
    np.testing.assert_allclose(far, [3_000.0])
    # known wrong: the mean of the nats, which is the geometric mixture
    assert np.abs((weights[:, None] * nats).sum(axis=0) - expected).max() > 0.1


@pytest.mark.parametrize("weights", [[0.25, 0.75], [0.0, 1.0]])
def test_one_owner_mixes_impossible_events(weights: list[float]) -> None:
    nats = np.array([[np.inf, np.inf, 1.0], [np.inf, 2.0, np.inf]])
    found = mix_nats(nats, np.array(weights))
    with np.errstate(divide="ignore"):
        expected = -np.log(np.array(weights) @ np.exp(-nats))
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert np.isposinf(found[0])  # impossible for all: infinite, never NaN
    assert np.isnan(mix_nats(np.array([[np.nan], [1.0]]), np.array([0.5, 0.5]))).all()


@pytest.mark.parametrize("seed", range(4))
def test_em_finds_what_a_grid_finds(seed) -> None:
    random = np.random.default_rng(seed)
    nats = random.gamma(2.0, 1.5, size=(2, 500)) + np.array([[0.0], [0.3 * seed]])
    grid = np.linspace(0, 1, 2001)
    means = np.array([mixed_mean(nats, np.array([w, 1 - w])) for w in grid])
    weights = fit_weights(nats)
    assert abs(weights[0] - grid[means.argmin()]) <= 1e-3
    assert mixed_mean(nats, weights) <= means.min() + TOLERANCE_NATS


@given(st.integers(2, 6), st.integers(1, 80), st.integers(0, 10_000), st.floats(0.1, 30))
@settings(max_examples=60, deadline=None)
def test_em_never_rises_and_ends_at_the_optimum(count, events, seed, spread) -> None:
    random = np.random.default_rng(seed)
    nats = random.gamma(1.0, spread, size=(count, events))
    steps = list(em_steps(nats))
    means = [mean for _, mean in steps]
    rounding = tolerance(torch.float64, events) * max(1.0, means[0])
    assert all(later <= earlier + rounding for earlier, later in pairwise(means))
    weights = steps[-1][0]
    assert weights.min() >= 0
    assert abs(weights.sum() - 1) <= tolerance(torch.float64, count)
    assert means[-1] <= nats.mean(axis=1).min() + TOLERANCE_NATS + rounding
    for other in random.dirichlet(np.ones(count), size=40):
        assert means[-1] <= mixed_mean(nats, other) + TOLERANCE_NATS + rounding


def test_em_with_impossible_events() -> None:
    random = np.random.default_rng(5)
    nats = random.gamma(2.0, 1.0, size=(3, 200))
    nats[0, 3] = np.inf  # one model finds it impossible: that model cannot have all the weight
    nats[0] = np.where(np.isfinite(nats[0]), 0.01, np.inf)
    weights = fit_weights(nats)
    assert 0.9 < weights[0] < 1
    with_hole = np.insert(nats, 7, np.inf, axis=1)  # impossible for all: says nothing
    np.testing.assert_allclose(fit_weights(with_hole), weights, rtol=1e-12)
    always = np.vstack([nats, np.full(200, np.inf)])
    assert fit_weights(always)[3] == 0


def test_em_does_not_underflow() -> None:
    nats = np.array([[1000.0, 1001.0, 1000.0], [1001.0, 1000.0, 1001.0]])
    np.testing.assert_allclose(fit_weights(nats), fit_weights(nats - 1000), rtol=1e-9)


@pytest.mark.parametrize(
    ("nats", "message"),
    [
        (np.full((2, 3), np.inf), "no event"),
        (np.full((2, 3), np.nan), "NaN"),
        (np.zeros((2, 0)), "shape"),
        (np.zeros(4), "shape"),
    ],
)
def test_em_refuses(nats, message) -> None:
    with pytest.raises(OptionError, match=message):
        fit_weights(nats)


def test_one_model_and_equal_models() -> None:
    nats = np.random.default_rng(1).gamma(2.0, 1.0, size=(1, 50))
    assert fit_weights(nats).tolist() == [1.0]
    np.testing.assert_allclose(fit_weights(np.repeat(nats, 4, axis=0)), 0.25)


def test_fit_scores_the_text_as_one_stream() -> None:
    parts, tuning = models(), text()
    seen: list[tuple[int, int]] = []
    mixture = Mixture.fit(parts, tuning, progress=lambda done, total: seen.append((done, total)))
    ids = torch.from_numpy(tuning.stream().astype(np.int64))[:, None]
    with torch.no_grad():
        nats = np.stack([model.token_nats(ids, model.start(1))[0][:, 0].numpy() for model in parts])
        np.testing.assert_allclose(mixture.weights, fit_weights(nats), rtol=1e-9)
        mean = float(mixture.token_nats(ids, mixture.start(1))[0].mean())
    assert abs(mean - mixed_mean(nats, np.array(mixture.weights))) < 1e-12 * V * 60
    assert mean <= nats.mean(axis=1).min() + TOLERANCE_NATS
    assert seen[-1] == (240, 240)
    assert seen == sorted(seen)


def test_unlike_models_are_refused() -> None:
    with pytest.raises(ProtocolError, match="cut text differently"):
        Mixture([TableModel(["a", "b"]), TableModel(["a", "b"], tokenizer="characters")], [1, 1])
    with pytest.raises(OptionError, match="0 models"):
        Mixture([], [])


@pytest.mark.parametrize("weights", [[1.0], [0, 0], [-0.1, 1.1], [float("nan"), 1], [float("inf"), 1]])
def test_unusable_weights_are_refused(weights) -> None:
    with pytest.raises(OptionError, match="weights"):
        Mixture([TableModel(["a"]), TableModel(["a"], seed=2)], weights)


@given(st.lists(st.floats(1e-9, 1), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_weights_come_back_bit_for_bit(weights) -> None:
    parts = [TableModel(["a", "b"], seed=seed) for seed in range(len(weights))]
    mixture = Mixture(parts, weights)
    words = Vocabulary(parts[0].vocabulary.tokens)
    again = Mixture.from_parts(mixture.config_json(), mixture.arrays(), words, get_tokenizer("words"), parts)
    assert again.weights == mixture.weights
    assert abs(sum(again.weights) - 1) < 1e-12


@pytest.mark.parametrize(
    "config",
    [{}, {"weights": [1, 1], "more": 1}, {"weights": ["1", 1]}, {"weights": [1]}, {"weights": [9**999, 1]}],
)
def test_damaged_mixtures_are_refused(config) -> None:
    parts = [TableModel(["a"]), TableModel(["a"], seed=2)]
    with pytest.raises(FormatError, match="mixture is not valid"):
        Mixture.from_parts(config, {}, parts[0].vocabulary, parts[0].tokenizer, parts)
    with pytest.raises(FormatError, match="another vocabulary"):
        Mixture.from_parts({"weights": [1, 1]}, {}, vocabulary(9), parts[0].tokenizer, parts)


def test_describe() -> None:
    described = Mixture(models(), [1, 1, 1, 1]).describe()
    kinds = [part["kind"] for part in described["models"]]
    assert kinds == ["recurrent", "feedforward", "recurrent", "TableModel"]
    assert described["models"][1]["weight"] == 0.25
