"""n-gram models keep the contract of every language model, whatever estimated them, and survive storage."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elman.errors import FormatError
from elman.language_model import select
from elman.ngram.arpa import read_arpa
from elman.ngram.backoff import NgramModel
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.ngram.smoothing import add_k, stupid_backoff
from elman.text.tokenizers import Words
from ngram_oracle import EOS, GOLDEN, read_golden, text_of, vocabulary_of

RHYME = read_golden("rhyme.txt")
ESTIMATORS: dict[str, Callable[[], NgramModel]] = {
    **{
        f"kneser-ney {n}": partial(estimate, *RHYME, Words(), KneserNeySettings(order=n))
        for n in (1, 2, 3, 6)
    },
    "pruned": partial(estimate, *RHYME, Words(), KneserNeySettings(order=4, prune=(0, 1, 2))),
    "not interpolated": partial(
        estimate, *RHYME, Words(), KneserNeySettings(order=2, interpolate_unigrams=False)
    ),
    "add-k 1": partial(add_k, *RHYME, Words(), order=1, k=0.5),
    "add-k 3": partial(add_k, *RHYME, Words(), order=3, k=0.01),
    "stupid backoff": partial(stupid_backoff, *RHYME, Words(), order=4),
    "read": partial(read_arpa, GOLDEN / "order3.arpa"),
}
V = len(RHYME[1])


@pytest.fixture(scope="module", params=ESTIMATORS)
def model(request: pytest.FixtureRequest) -> NgramModel:
    return ESTIMATORS[request.param]()


def streams(steps: int, batch: int, seed: int) -> Tensor:
    """[steps, batch]: stretches of the rhyme from various places, some words replaced at random."""
    random = np.random.default_rng(seed)
    stream = RHYME[0].stream()
    begin = random.integers(0, len(stream) - steps, batch)
    ids = np.stack([stream[at : at + steps] for at in begin], axis=1).astype(np.int64)
    noise = random.random(ids.shape) < 0.2
    ids[noise] = random.integers(0, V, int(noise.sum()))
    return torch.from_numpy(ids)


def test_every_context_has_a_distribution(model: NgramModel) -> None:
    state = model.start(9)
    for token in streams(31, 9, seed=1):
        state, log_probs = model.advance(state, token)
        assert log_probs.shape == (9, V)
        np.testing.assert_allclose(log_probs.exp().sum(1), 1, rtol=0, atol=1e-6)


def test_token_nats_is_advance_step_by_step(model: NgramModel) -> None:
    ids = streams(24, 5, seed=2)
    nats, after = model.token_nats(ids, model.start(5))
    state = model.start(5)
    for t, token in enumerate(ids[:-1]):
        state, log_probs = model.advance(state, token)
        assert torch.equal(-log_probs[torch.arange(5), ids[t + 1]], nats[t])
    assert torch.equal(state[0], after[0])
    assert nats.shape == (23, 5)
    assert after[0].shape == (5, model.order - 1)


@pytest.mark.parametrize("cut", [1, 2, 7, 22])
def test_windows_join(model: NgramModel, cut: int) -> None:
    ids = streams(24, 3, seed=3)
    whole, end = model.token_nats(ids, model.start(3))
    first, between = model.token_nats(ids[: cut + 1], model.start(3))
    second, last = model.token_nats(ids[cut:], between)
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(last[0], end[0])
    lengths = [
        model.matched_lengths(part, s) for part, s in ((ids[: cut + 1], model.start(3)), (ids[cut:], between))
    ]
    assert torch.equal(torch.cat(lengths), model.matched_lengths(ids, model.start(3)))


def test_a_batch_is_its_streams(model: NgramModel) -> None:
    ids = streams(12, 4, seed=4)
    together, after = model.token_nats(ids, model.start(4))
    for b in range(4):
        alone, state = model.token_nats(ids[:, b : b + 1], model.start(1))
        assert torch.equal(alone[:, 0], together[:, b])
        assert torch.equal(select(after, torch.tensor([b]))[0], state[0])


def test_an_empty_window_changes_nothing(model: NgramModel) -> None:
    _, state = model.token_nats(streams(6, 2, seed=5), model.start(2))
    nats, same = model.token_nats(torch.tensor([[3, 4]]), state)
    assert nats.shape == (0, 2)
    assert torch.equal(same[0], state[0])


def test_the_end_of_a_sentence_wipes_the_history() -> None:
    model = ESTIMATORS["kneser-ney 3"]()
    long, _ = model.advance(model.token_nats(streams(9, 1, seed=6), model.start(1))[1], torch.tensor([EOS]))
    fresh, _ = model.advance(model.start(1), torch.tensor([EOS]))
    assert torch.equal(long[0], fresh[0])
    assert fresh[0].tolist() == [[-1, V]]


@given(
    st.lists(st.lists(st.integers(2, 6), max_size=5), min_size=1, max_size=6), st.integers(1, 5), st.data()
)
@settings(max_examples=40, deadline=None)
def test_sums_to_one_on_any_text(sentences: list[list[int]], order: int, data: st.DataObject) -> None:
    made = (text_of(sentences), vocabulary_of(8), Words())
    models = [
        estimate(*made, KneserNeySettings(order=order)),
        add_k(*made, order=order, k=data.draw(st.floats(1e-3, 10))),
        stupid_backoff(*made, order=order, alpha=data.draw(st.floats(0.05, 1))),
    ]
    context = data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7]), min_size=1, max_size=6))
    for model in models:
        state = model.start(1)
        for token in context:
            state, log_probs = model.advance(state, torch.tensor([token]))
            assert log_probs.exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_parts_round_trip(model: NgramModel) -> None:
    config = json.loads(json.dumps(model.config_json()))
    again = NgramModel.from_parts(config, model.arrays(), model.vocabulary, model.tokenizer)
    assert again.config_json() == config
    assert again.describe() == json.loads(json.dumps(model.describe()))
    ids = streams(12, 2, seed=7)
    assert torch.equal(again.token_nats(ids, again.start(2))[0], model.token_nats(ids, model.start(2))[0])


def test_describe_counts() -> None:
    described = ESTIMATORS["pruned"]().describe()
    assert described["kind"] == "ngram"
    assert described["ngrams"] == {str(n): row["kept"] for n, row in enumerate(described["orders"], start=1)}
    assert described["orders"][2]["kept"] < described["orders"][2]["distinct"] == 193
    assert len(described["orders"][3]["discounts"]) == 3


DAMAGE: list[tuple[str, Callable[[dict[str, Tensor]], object], str]] = [
    ("absent", lambda a: a.pop("2.keys"), "not those of order 3"),
    ("surplus", lambda a: a.update({"4.keys": a["2.keys"]}), "not those of order 3"),
    ("type", lambda a: a.update({"3.log10_prob": a["3.log10_prob"].double()}), "not those of order 3"),
    ("short", lambda a: a.update({"2.keys": a["2.keys"][:-1]}), "differ in length"),
    ("flat", lambda a: a.update({"2.keys": a["2.keys"][:, None]}), "differ in length"),
    ("unigrams", lambda a: a.update({"1.log10_prob": a["1.log10_prob"][1:]}), "differ in length"),
    ("unsorted", lambda a: a.update({"2.keys": a["2.keys"].flip(0)}), "not sorted|does not exist"),
    ("twice", lambda a: a["2.keys"].__setitem__(3, int(a["2.keys"][2])), "twice"),
    ("beyond", lambda a: a["3.keys"].__setitem__(-1, 2**60), "does not exist"),
    ("negative", lambda a: a["3.keys"].__setitem__(0, -1), "does not exist"),
    ("start inside", lambda a: a["2.keys"].__setitem__(-1, (V + 1) ** 2 - 1), "<s> after"),
    ("infinite", lambda a: a["2.log10_prob"].__setitem__(5, torch.nan), "above 0 or NaN"),
    ("backoff", lambda a: a["1.log10_backoff"].__setitem__(5, torch.inf), "backoff weight that is infinite"),
    ("positive", lambda a: a["2.log10_prob"].__setitem__(5, 0.1), "above 0"),
    (
        "nan",
        lambda a: a["1.log10_backoff"].__setitem__(5, torch.nan),
        "backoff weight that is infinite or NaN",
    ),
]


@pytest.mark.parametrize(("damage", "message"), [row[1:] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_damaged_arrays(damage: Callable[[dict[str, Tensor]], object], message: str) -> None:
    model = ESTIMATORS["kneser-ney 3"]()
    arrays = {name: array.clone() for name, array in model.arrays().items()}
    damage(arrays)
    with pytest.raises(FormatError, match=message):
        NgramModel.from_parts(model.config_json(), arrays, model.vocabulary, model.tokenizer)


@pytest.mark.parametrize(
    "change", [{"order": 0}, {"order": 11}, {"order": "3"}, {"method": 3}, {"details": []}, {"report": "x"}]
)
def test_damaged_configurations(change: dict[str, object]) -> None:
    model = ESTIMATORS["kneser-ney 3"]()
    with pytest.raises(FormatError):
        NgramModel.from_parts(
            {**model.config_json(), **change}, model.arrays(), model.vocabulary, model.tokenizer
        )


def test_another_vocabulary_is_refused() -> None:
    model = ESTIMATORS["kneser-ney 3"]()
    with pytest.raises(FormatError, match="differ in length"):
        NgramModel.from_parts(model.config_json(), model.arrays(), vocabulary_of(V - 1), model.tokenizer)


def test_stored_by_checkpoint(tmp_path: Path) -> None:
    from elman.checkpoint import load_model, save_model

    model = ESTIMATORS["kneser-ney 3"]()
    save_model(model, tmp_path / "kn3")
    again = load_model(tmp_path / "kn3")
    ids = streams(12, 2, seed=8)
    assert torch.equal(again.token_nats(ids, again.start(2))[0], model.token_nats(ids, model.start(2))[0])
