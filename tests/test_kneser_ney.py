"""Kneser-Ney against the definition, against KenLM's own files, and against published figures."""

from __future__ import annotations

import gzip
import math
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elman.errors import OptionError
from elman.ngram.backoff import NgramModel
from elman.ngram.kneser_ney import KneserNeySettings, estimate, estimate_discounts
from elman.text.tokenizers import Words
from ngram_oracle import (
    EOS,
    GOLDEN,
    MUTANTS,
    START,
    KneserNey,
    listed,
    read_golden,
    read_plain_arpa,
    read_words,
    text_of,
    vocabulary_of,
)
from tolerance import tolerance

SIZE = 8  # token 7 is never seen
SENTENCES = st.lists(st.lists(st.sampled_from([0, 2, 3, 4, 5, 6]), max_size=6), min_size=1, max_size=12)
KENLM_PARITY = 1e-5  # log10; KenLM computes in float32

GOLDEN_MODELS = [
    ("order2", "rhyme.txt", KneserNeySettings(order=2)),
    ("order3", "rhyme.txt", KneserNeySettings(order=3)),
    ("order4", "rhyme.txt", KneserNeySettings(order=4)),
    ("order5", "rhyme.txt", KneserNeySettings(order=5)),
    ("order4-prune-0-0-1", "rhyme.txt", KneserNeySettings(order=4, prune=(0, 0, 1))),
    (
        "order3-no-interpolated-unigrams",
        "rhyme.txt",
        KneserNeySettings(order=3, interpolate_unigrams=False),
    ),
    ("characters-order4", "characters.txt", KneserNeySettings(order=4)),
]


def fit(sentences: list[list[int]], order: int, **options: object) -> NgramModel:
    chosen = KneserNeySettings(order=order, **options)  # type: ignore[arg-type]
    return estimate(text_of(sentences), vocabulary_of(SIZE), Words(), chosen)


def require_equal(model: NgramModel, oracle: KneserNey, contexts: list[list[int]]) -> None:
    """Every distribution of the model is the oracle's. Each context begins a sentence."""
    for context in contexts:
        state = model.start(1)
        for token in (EOS, *context):
            state, found = model.advance(state, torch.tensor([token]))
        expected = np.array(oracle.log_probs([START, *context]))
        allowed = tolerance(torch.float32, oracle.order) * np.abs(expected).max()
        np.testing.assert_allclose(found[0].numpy(), expected, rtol=0, atol=allowed)


@given(
    SENTENCES,
    st.integers(1, 5),
    st.sampled_from([(0,), (0, 1), (0, 0, 1), (0, 1, 2)]),
    st.booleans(),
    st.lists(st.lists(st.sampled_from([0, 2, 3, 4, 5, 6, 7]), max_size=6), min_size=1, max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_equals_the_definition(
    sentences: list[list[int]],
    order: int,
    prune: tuple[int, ...],
    interpolate: bool,
    contexts: list[list[int]],
) -> None:
    prune = prune[:order]
    model = fit(sentences, order, prune=prune, interpolate_unigrams=interpolate)
    oracle = KneserNey(sentences, SIZE, order, prune=prune, interpolate_unigrams=interpolate)
    require_equal(model, oracle, [*contexts, *sentences[:2]])


def rhyme_sentences() -> list[list[int]]:
    text, _ = read_golden("rhyme.txt")
    ends = [0, *(text.ends + 1).tolist()]
    return [text.ids[a : b - 1].tolist() for a, b in pairwise(ends)]


@pytest.mark.parametrize("mutant", ["", *MUTANTS])
def test_known_mistakes_are_caught(mutant: str) -> None:
    text, vocabulary = read_golden("rhyme.txt")
    sentences = rhyme_sentences()
    model = estimate(text, vocabulary, Words(), KneserNeySettings(order=3))
    oracle = KneserNey(sentences, len(vocabulary), 3, mutant=mutant)
    contexts = [sentences[0][:2], sentences[3][:7], [5, 0]]
    if not mutant:
        require_equal(model, oracle, contexts)
        return
    with pytest.raises(AssertionError):
        require_equal(model, oracle, contexts)


def require_parity(model: NgramModel, path: Path) -> None:
    for found, expected in zip(listed(model), read_plain_arpa(path), strict=True):
        assert found.keys() == expected.keys()
        grams = list(found)
        difference = np.array([found[gram] for gram in grams]) - np.array([expected[gram] for gram in grams])
        assert np.abs(difference).max() <= KENLM_PARITY


@pytest.mark.parametrize(("name", "source", "chosen"), GOLDEN_MODELS, ids=[row[0] for row in GOLDEN_MODELS])
def test_every_ngram_is_kenlms(name: str, source: str, chosen: KneserNeySettings) -> None:
    text, vocabulary = read_golden(source)
    require_parity(estimate(text, vocabulary, Words(), chosen), GOLDEN / f"{name}.arpa")


def token_scores(model: NgramModel, ids: list[int]) -> tuple[list[float], list[int]]:
    """log10 probability and matched length of each token of one sentence."""
    stream = torch.tensor([EOS, *ids, EOS])[:, None]
    nats, _ = model.token_nats(stream, model.start(1))
    lengths = model.matched_lengths(stream, model.start(1))
    return (-nats[:, 0] / math.log(10)).tolist(), lengths[:, 0].tolist()


def test_sentence_scores_are_kenlms() -> None:
    text, vocabulary = read_golden("rhyme.txt")
    model = estimate(text, vocabulary, Words(), KneserNeySettings(order=4))
    rows = [line.split("\t") for line in (GOLDEN / "order4.scores").read_text().splitlines()]
    for sentence in dict.fromkeys(row[0] for row in rows):
        expected = [(float(row[2]), int(row[3])) for row in rows if row[0] == sentence]
        scores, lengths = token_scores(model, vocabulary.ids(sentence.split()).tolist())
        assert lengths == [length for _, length in expected]
        np.testing.assert_allclose(scores, [score for score, _ in expected], atol=KENLM_PARITY)


def test_the_fallback_says_what_it_did() -> None:
    text, vocabulary = read_golden("characters.txt")
    model = estimate(text, vocabulary, Words(), KneserNeySettings(order=4))
    assert [line[:7] for line in model.report] == ["order 2", "order 4"]
    assert "0.5 / 1 / 1.5" in model.report[0]
    own = estimate(text, vocabulary, Words(), KneserNeySettings(order=4, discount_fallback=(0.3, 0.6, 0.9)))
    assert own.details["orders"][1]["discounts"] == [0.3, 0.6, 0.9]
    with pytest.raises(OptionError, match="order 2 cannot be estimated"):
        estimate(text, vocabulary, Words(), KneserNeySettings(order=4, discount_fallback="never"))


@pytest.mark.parametrize("sentences", [[[]], [[2]], [[2, 2, 2]], [[0]], [[2, 3]] * 40, [[2], [3], [4]]])
@pytest.mark.parametrize("order", [1, 2, 10])
def test_no_text_is_too_small(sentences: list[list[int]], order: int) -> None:
    for interpolate in (True, False):
        model = fit(sentences, order, interpolate_unigrams=interpolate)
        assert model.order == order
        _, log_probs = model.advance(model.start(1), torch.tensor([2]))
        assert torch.isfinite(log_probs).all()
        assert log_probs.exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_a_discount_of_zero_is_refused() -> None:
    adjusted = np.array([1] * 2 + [2] * 3 + [3] * 8)  # D2 = 2 - 3 · 2/8 · 8/3 = 0
    assert estimate_discounts(adjusted) == ((), "the discount for adjusted count 2 would be 0.000")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 0}, "order 0"),
        ({"order": 11}, "order 11"),
        ({"order": 2, "prune": (0, 0, 1)}, "not possible for order 2"),
        ({"prune": ()}, "not possible"),
        ({"prune": (0, 2, 1)}, "never fall"),
        ({"prune": (0, -1)}, "not possible"),
        ({"prune": (1,)}, "min-count"),
        ({"discount_fallback": (0.5, 1.0)}, "0.5, 1.0"),
        ({"discount_fallback": (1.5, 1.0, 0.5)}, "D1 < 1"),
        ({"discount_fallback": "sometimes"}, "auto or never"),
    ],
)
def test_settings_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        KneserNeySettings(**options)  # type: ignore[arg-type]
    assert message in str(caught.value)


def folder(variable: str) -> Path:
    path = Path(os.environ.get(variable, ""))
    if not os.environ.get(variable) or not path.is_dir():
        pytest.skip(f"set {variable} to the folder with the reference data")
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "source", "chosen", "perplexity"),
    [
        ("order2", "train.txt", KneserNeySettings(order=2), 126.939),
        ("order3", "train.txt", KneserNeySettings(order=3), 106.645),
        ("order4", "train.txt", KneserNeySettings(order=4), 102.445),
        ("order5", "train.txt", KneserNeySettings(order=5), 101.928),
        ("order3-prune-0-0-1", "train.txt", KneserNeySettings(order=3, prune=(0, 0, 1)), None),
        (
            "order3-no-interpolated-unigrams",
            "train.txt",
            KneserNeySettings(order=3, interpolate_unigrams=False),
            None,
        ),
        ("characters-order5-discount-fallback", "train-characters.txt", KneserNeySettings(order=5), None),
    ],
)
def test_kenlm_on_a_large_text(
    name: str, source: str, chosen: KneserNeySettings, perplexity: float | None, tmp_path: Path
) -> None:
    where = folder("ELMAN_KENLM")
    text, vocabulary = read_words(where / source)
    model = estimate(text, vocabulary, Words(), chosen)
    plain = tmp_path / "kenlm.arpa"
    plain.write_bytes(gzip.decompress((where / f"{name}.arpa.gz").read_bytes()))
    require_parity(model, plain)
    if perplexity is None:
        return
    held_out, _ = read_words(where / "heldout.txt", vocabulary)
    scores, lengths = [], []
    for row in gzip.decompress((where / f"heldout-{name}.scores.gz").read_bytes()).decode().splitlines():
        for field in row.split("\t"):
            if "=" in field and len(parts := field.split("Total:")[0].split()) == 3:
                lengths.append(int(parts[1]))
                scores.append(float(parts[2]))
    stream = torch.from_numpy(held_out.stream())[:, None]
    nats, _ = model.token_nats(stream, model.start(1))
    assert model.matched_lengths(stream, model.start(1))[:, 0].tolist() == lengths
    np.testing.assert_allclose(-nats[:, 0].numpy() / math.log(10), scores, atol=KENLM_PARITY)
    assert math.exp(nats.mean().item()) == pytest.approx(perplexity, abs=6e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("order", "valid", "test"), [(3, 157.77, 148.28), (5, 148.01, 141.19)])
def test_penn_treebank(order: int, valid: float, test: float) -> None:
    where = folder("ELMAN_PTB")
    text, vocabulary = read_words(where / "train.txt")
    model = estimate(text, vocabulary, Words(), KneserNeySettings(order=order))
    for split, published in (("valid", valid), ("test", test)):
        ids = torch.from_numpy(read_words(where / f"{split}.txt", vocabulary)[0].stream())[:, None]
        nats, _ = model.token_nats(ids, model.start(1))
        assert math.exp(nats.mean().item()) == pytest.approx(published, abs=0.03)
