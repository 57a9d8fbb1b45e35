"""Usable context: every cut against one event at a time in plain Python; a model of known memory."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import elman.memory.context as context
from elman.errors import ElmanError, OptionError, TextError
from elman.event_nats import evaluating
from elman.language_model import LanguageModel, State, read
from elman.memory.context import Cut, UsableContext, usable_context
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from table_model import TableModel, random_text

WORDS = [f"w{k}" for k in range(19)]
TABLE = TableModel(WORDS)
TEXT = random_text(len(TABLE.vocabulary), (5, 0, 17, 1, 90, 2, 9, 64, 33, 3, 28, 7))
EVENTS = 40


def recurrent(cell: str = "lstm") -> RecurrentModel:
    torch.manual_seed(4)
    options = {"cell": cell, "hidden_size": 7, "embedding_size": 5, "num_layers": 2, "dropout": 0.4}
    return RecurrentModel(TABLE.vocabulary, TABLE.tokenizer, RecurrentConfig(**options, init_scale=0.9))


def one_at_a_time(model: LanguageModel, history: int | None) -> list[float]:
    """The chosen events by `advance`, each from its own tokens; None: from the beginning of the text."""
    chosen = np.random.default_rng(1).permutation(len(TEXT.ids) - 11)[:EVENTS] + 11
    found = []
    for place in sorted(chosen):
        tokens = [*TEXT.ids[place - history : place]] if history else [1, *TEXT.ids[:place]]
        state = model.start(1)
        for token in tokens:
            with evaluating(model):
                state, log_probs = model.advance(state, torch.tensor([int(token)]))
        found.append(-float(log_probs[0, int(TEXT.ids[place])]))
    return found


def agrees(model: LanguageModel) -> bool:
    histories = (1, 2, 4, 11)
    found = usable_context(model, TEXT, histories, events=EVENTS)
    expected = [one_at_a_time(model, k) for k in (*histories, None)]
    return np.allclose(found.nats, expected, rtol=2e-5, atol=0)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "table"])
def test_each_event_from_its_own_tokens(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "BATCH", 13)
    model: LanguageModel = TABLE if cell == "table" else recurrent(cell).train()
    assert agrees(model)
    if isinstance(model, RecurrentModel):
        assert model.training  # as it was


def forgets_the_first(model: LanguageModel, ids: torch.Tensor, state: State) -> State:
    return read(model, ids[1:], state) if len(ids) > 1 else state


def reads_one_too_far(model: LanguageModel, ids: torch.Tensor, state: State) -> State:
    return read(model, torch.cat([ids, ids[-1:]]), state)


@pytest.mark.parametrize("wrong", [forgets_the_first, reads_one_too_far])
def test_a_history_of_another_length_is_noticed(wrong: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "read", wrong)
    assert not agrees(TABLE)
    assert not agrees(recurrent())


def test_reading_is_predicting_without_the_prediction() -> None:
    ids = torch.randint(len(TABLE.vocabulary), (9, 4), generator=torch.Generator().manual_seed(2))
    for model in (recurrent("gru").eval(), TABLE):
        start = model.start(4)
        expected = model.token_nats(torch.cat([ids, ids[:1]]), start)[1]
        for found, wanted in zip(read(model, ids, start), expected, strict=True):
            assert torch.equal(found, wanted)


def test_an_ngram_uses_what_its_order_allows() -> None:
    """A trigram never sees more than two tokens: from there on nothing changes, to the bit."""
    words = random_text(len(TABLE.vocabulary), (30,) * 40, seed=8)
    model = estimate(words, TABLE.vocabulary, TABLE.tokenizer, KneserNeySettings(order=3))
    found = usable_context(model, TEXT, (1, 2, 3, 9), events=90)
    assert found.cuts[0].loss != 0
    assert all(cut.loss == cut.low == cut.high == 0 for cut in found.cuts[1:])
    assert np.array_equal(found.nats[1], found.nats[-1])


def test_figures_of_a_cut() -> None:
    found = usable_context(TABLE, TEXT, (1, 3), events=30)
    assert found.events == 30
    assert found.perplexity == pytest.approx(math.exp(found.nats[2].mean()))
    for cut, nats in zip(found.cuts, found.nats, strict=False):
        more = nats - found.nats[2]
        assert cut.loss == pytest.approx(more.mean())
        assert cut.perplexity == pytest.approx(math.exp(nats.mean()))
        assert cut.high - cut.loss == pytest.approx(1.96 * more.std(ddof=1) / math.sqrt(30))
        assert cut.loss - cut.low == pytest.approx(cut.high - cut.loss)
    assert found.as_json()["usable"] == found.usable()
    again = usable_context(TABLE, TEXT, (1, 3), events=30, seed=2)
    assert not np.array_equal(found.nats[2], again.nats[2])


def test_usable_is_where_all_longer_histories_lose_little() -> None:
    cut = Cut(1, 10.0, 0.3, 0.2, 0.4)
    losses = {1: 0.3, 2: 0.005, 5: 0.02, 10: 0.009, 20: -0.001}
    cuts = tuple(replace(cut, history=k, loss=loss) for k, loss in losses.items())
    found = UsableContext(9, 10.0, cuts, np.zeros((6, 9)))
    assert found.usable() == 10
    assert found.usable(0.5) == 1
    assert replace(found, cuts=cuts[:1]).usable() is None


def test_the_range_of_the_usable_history_is_that_of_the_intervals() -> None:
    cut = Cut(1, 10.0, 0.0, 0.0, 0.0)
    rows = {
        1: (0.1, 0.05, 0.2),
        2: (0.02, 0.004, 0.04),
        5: (0.01, 0.0, 0.02),
        9: (0.008, 0.002, 0.014),
        20: (0, 0, 0),
    }
    cuts = tuple(replace(cut, history=k, loss=m, low=a, high=b) for k, (m, a, b) in rows.items())
    found = UsableContext(9, 10.0, cuts, np.zeros((6, 9)))
    assert (found.usable_range()[0], found.usable(), found.usable_range()[1]) == (2, 9, 20)
    assert replace(found, cuts=cuts[:-1]).usable_range() == (2, None)
    one = replace(cut, low=math.nan, high=math.nan)  # one event has no interval
    assert replace(found, cuts=(one,)).usable_range() == (None, None)
    assert found.as_json()["usable_range"] == [2, 20]


def test_progress_counts_all_tokens() -> None:
    seen: list[tuple[int, int]] = []
    usable_context(TABLE, TEXT, (1, 4), events=25, progress=lambda done, work: seen.append((done, work)))
    work = len(TEXT.ids) + 25 * 5
    assert seen[-1] == (work, work)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_refusals() -> None:
    with pytest.raises(OptionError, match="do not rise"):
        usable_context(TABLE, TEXT, (2, 2))
    with pytest.raises(OptionError, match="do not rise"):
        usable_context(TABLE, TEXT, (0, 2))
    with pytest.raises(OptionError, match="0 events"):
        usable_context(TABLE, TEXT, (1,), events=0)
    with pytest.raises(TextError, match=r"none has 5,000 before it"):
        usable_context(TABLE, TEXT, (1, 5000))
    assert usable_context(TABLE, TEXT, (1, len(TEXT.ids) - 1)).events == 1


def test_impossible_events_have_no_perplexity_and_a_diverged_model_says_so() -> None:
    class Never(TableModel):
        def token_nats(self, ids, state):
            nats, state = super().token_nats(ids, state)
            return torch.where(ids[1:] == 3, torch.inf, nats), state

    class Lost(TableModel):
        def token_nats(self, ids, state):
            nats, state = super().token_nats(ids, state)
            return torch.where(ids[1:] == 3, torch.nan, nats), state

    class Far(TableModel):
        def token_nats(self, ids, state):
            nats, state = super().token_nats(ids, state)
            return 900 * nats, state

    with pytest.raises(ElmanError, match="of 40 events impossible"):
        usable_context(Never(WORDS), TEXT, (1, 2), events=EVENTS)
    with pytest.raises(ElmanError, match="NaN"):
        usable_context(Lost(WORDS), TEXT, (1, 2), events=EVENTS)
    assert usable_context(Far(WORDS), TEXT, (1, 2), events=EVENTS).perplexity == math.inf
