"""Exchanges against one changed text at a time, gradients against autograd, n-grams against their order."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import elman.memory.connectivity as connectivity_module
from elman.errors import OptionError, TextError
from elman.event_nats import evaluating
from elman.language_model import LanguageModel, select
from elman.memory.connectivity import Connectivity, connectivity, drawn_others
from elman.mixture import Mixture
from elman.neural.feedforward import FeedforwardConfig, FeedforwardModel
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.text.vocabulary import Vocabulary
from memory_oracle import TEXT, recurrent
from neural_oracle import WORDS, drawn, vocabulary
from table_model import TableModel, random_text

IDS = TEXT.ids[4:16].astype(np.int64)  # 12 tokens, no `</s>` among them: a sentence without its end
SPLIT = np.concatenate([IDS[:5], [1], IDS[5:]])  # and one with `</s>` inside
K = 3
EXACT = 1e-9


def trigram() -> LanguageModel:
    words = random_text(17, (30,) * 40, seed=8)
    return estimate(words, vocabulary(17), WORDS, KneserNeySettings(order=3))


def feedforward() -> LanguageModel:
    config = FeedforwardConfig(embedding_size=5, hidden_size=7, window=4)
    return drawn(FeedforwardModel(vocabulary(17), WORDS, config))


MODELS = {
    "lstm": lambda: recurrent("lstm"),
    "gru": lambda: recurrent("gru"),
    "rnn": lambda: recurrent("rnn"),
    "table": lambda: TableModel([f"w{k}" for k in range(15)]),
    "trigram": trigram,
    "feedforward": feedforward,
    "mixture": lambda: Mixture([recurrent("gru"), trigram()], [0.3, 0.7]),
}


def last_logs(model: LanguageModel, read: list[int]) -> np.ndarray:
    """[V] log-probabilities after these tokens, one by one from the start."""
    state = model.start(1)
    for token in read:
        with evaluating(model):
            state, logs = model.advance(state, torch.tensor([token]))
    return logs[0].double().numpy()


def one_at_a_time(model: LanguageModel, ids: np.ndarray) -> np.ndarray:
    read = [1, *map(int, ids[:-1])]
    others = drawn_others(model.vocabulary, np.array(read), K, 1)
    found = np.zeros((len(ids), len(ids)))
    for t in range(len(ids)):
        plain = last_logs(model, read[: t + 1])
        for s in range(t + 1):
            for other in map(int, others[s]):
                changed = last_logs(model, [*read[:s], other, *read[s + 1 : t + 1]])
                found[t, s] += float(np.sum(np.exp(plain) * (plain - changed))) / K
    return found


def disagreement(model: LanguageModel, ids: np.ndarray = IDS) -> float:
    return float(np.abs(connectivity(model, ids, exchanges=K).exchanged - one_at_a_time(model, ids)).max())


@pytest.mark.parametrize("ids", [IDS, SPLIT], ids=["one sentence", "two"])
@pytest.mark.parametrize("name", list(MODELS))
def test_each_exchange_is_a_text_of_its_own(
    name: str, ids: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connectivity_module, "ROWS", 5)
    model = MODELS[name]()
    assert disagreement(model, ids) < EXACT
    found = connectivity(model, ids, exchanges=K)
    assert (np.diagonal(found.exchanged) > 100 * EXACT).all()
    assert not np.triu(found.exchanged, 1).any()


def test_an_ngram_depends_on_nothing_beyond_its_order() -> None:
    """A trigram sees two tokens: to the bit nothing further back counts; a window of four, four."""
    found = connectivity(trigram(), IDS).exchanged
    assert (np.diagonal(found, -1) > 0).any()
    assert not np.tril(found, -2).any()
    found = connectivity(feedforward(), IDS).exchanged
    assert (np.diagonal(found, -3) > 100 * EXACT).all()
    assert np.tril(found, -4).max() < EXACT  # rows of a matrix product may round differently
    found = connectivity(recurrent("lstm"), IDS).exchanged
    assert (found[np.tril_indices(len(IDS))] > 0).all()


def test_the_state_policy_is_one_stream_but_an_ngram_stops_at_a_sentence() -> None:
    """`</s>` is the context `<s>`: what stands before it cannot matter to a trigram, to an RNN it does."""
    end = 5
    assert SPLIT[end] == 1
    found = connectivity(trigram(), SPLIT).exchanged
    assert not found[end + 2, : end + 1].any()
    assert connectivity(recurrent("gru"), SPLIT).exchanged[end + 2, : end + 1].all()


def test_known_wrong_versions_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    advance = connectivity_module._advance
    model = recurrent("gru")

    def backwards(model: LanguageModel, state: object, tokens: torch.Tensor) -> object:
        """The divergence of the changed from the plain distribution."""
        after, logs = model.advance(state, tokens)
        terms = logs[1:].exp() * (logs[1:] - logs[0])
        return after, terms.sum(dim=1)

    def forgetful(model: LanguageModel, state: object, tokens: torch.Tensor) -> object:
        """The streams go back to the text's own state: an exchange counts only where it is made."""
        after, changes = advance(model, state, tokens)
        return select(after, torch.zeros(len(tokens), dtype=torch.int64)), changes

    def shifted(model: LanguageModel, state: object, tokens: torch.Tensor) -> object:
        after, changes = advance(model, state, tokens)
        return after, changes.roll(1)

    for wrong in (backwards, forgetful, shifted):
        with monkeypatch.context() as patch:
            patch.setattr(connectivity_module, "_advance", wrong)
            assert disagreement(model) > 1e4 * EXACT
    assert disagreement(model) < EXACT


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "rnn-relu"])
def test_gradients_are_autograds(cell: str) -> None:
    model = recurrent(cell).train()
    found = connectivity(model, IDS, exchanges=1)
    assert model.training
    model.eval()
    stream = torch.tensor([1, *IDS])[:, None]
    x = model.embedding(stream[:-1]).detach().requires_grad_()
    hidden = model.recurrence(x)[0]
    nats = model.output.token_nats(hidden.flatten(0, 1), stream[1:].flatten())
    assert found.gradients is not None
    for t in range(len(IDS)):
        (grad,) = torch.autograd.grad(nats[t], x, retain_graph=True)
        assert found.gradients[t] == pytest.approx(grad[:, 0].norm(dim=1).numpy(), abs=EXACT)
    assert connectivity(trigram(), IDS, exchanges=1).gradients is None


def test_others_are_drawn_as_the_training_text_has_them() -> None:
    counts = [5, 10, 0, 20, 65]
    words = Vocabulary(["<unk>", "</s>", "never", "some", "many"], counts)
    found = drawn_others(words, np.array([4, 3]), 4000, 1)
    shares = np.bincount(found[0], minlength=5) / 4000
    assert shares == pytest.approx([5 / 35, 10 / 35, 0, 20 / 35, 0], abs=0.03)
    assert np.bincount(found[1], minlength=5)[3] == 0
    assert not np.array_equal(found, drawn_others(words, np.array([4, 3]), 4000, 2))
    alike = drawn_others(Vocabulary(words.tokens), np.array([4]), 4000, 1)
    assert np.bincount(alike[0], minlength=5) / 4000 == pytest.approx([0.25] * 4 + [0], abs=0.03)
    only = Vocabulary(["<unk>", "</s>", "one"], [0, 0, 9])
    assert set(drawn_others(only, np.array([2]), 50, 1)[0]) == {0, 1}


def test_a_word_that_is_never_possible_costs_nothing() -> None:
    model = TableModel(["a", "b", "c"])
    model.table[:, 3] = -torch.inf  # never: before and after
    found = connectivity(model, np.array([2, 4, 2]), exchanges=K).exchanged
    assert np.isfinite(found).all()
    assert found[2, 0] > 0


def test_distances_json_and_progress() -> None:
    seen: list[tuple[int, int]] = []
    found = connectivity(recurrent("gru"), IDS, progress=lambda done, work: seen.append((done, work)))
    assert seen == [(k + 1, 12) for k in range(12)]
    names = [vocabulary(17).tokens[k] for k in IDS]
    assert found.tokens == tuple(names)
    assert found.inputs == ("</s>", *names[:-1])
    distances = found.by_distance()
    assert distances[0] == pytest.approx(np.mean([found.exchanged[t, t] for t in range(12)]))
    assert distances[9] == pytest.approx(
        np.mean([found.exchanged[9, 0], found.exchanged[11, 2], found.exchanged[10, 1]])
    )
    told = json.loads(json.dumps(found.as_json()))
    assert [len(row) for row in told["exchanged"]] == list(range(1, 13))
    assert told["gradients"][7][3] == pytest.approx(found.gradients[7, 3], rel=1e-3)
    assert told["by_distance"] == pytest.approx(list(distances), rel=1e-3)
    assert Connectivity(("a",), ("</s>",), np.ones((1, 1)), None).as_json()["gradients"] is None


def test_refusals() -> None:
    with pytest.raises(TextError, match="empty"):
        connectivity(TableModel(["a"]), IDS[:0])
    with pytest.raises(OptionError, match="201 tokens are too many"):
        connectivity(TableModel(["a"]), np.zeros(201, dtype=np.int64))
    with pytest.raises(OptionError, match="0 exchanges"):
        connectivity(TableModel(["a"]), IDS[:2], exchanges=0)
