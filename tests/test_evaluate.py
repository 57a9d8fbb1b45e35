"""Scores and breakdowns against sums in plain Python; invariance on real recurrent models."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch

from elman.errors import ElmanError, OptionError, TextError
from elman.evaluate import breakdown, by_frequency, by_position, evaluate, event_nats, protocol_of, score
from elman.language_model import Protocol
from elman.text.vocabulary import Vocabulary
from table_model import TableModel, close, oracle, random_text

WORDS = [f"w{k}" for k in range(40)]
MODEL = TableModel(WORDS)
LENGTHS = [int(k) for k in np.random.default_rng(5).integers(0, 90, size=60)]
TEXT = random_text(len(MODEL.vocabulary), LENGTHS)
NATS = np.array(oracle(MODEL, TEXT.ids, carry=True))


@pytest.mark.parametrize("state", ["carry", "reset"])
@pytest.mark.parametrize("unknown", ["word", "skip"])
def test_the_score_is_the_oracles_sum(state: str, unknown: str) -> None:
    expected = [
        nats
        for nats, token in zip(oracle(MODEL, TEXT.ids, carry=state == "carry"), TEXT.ids, strict=True)
        if unknown == "word" or token != 0
    ]
    found = evaluate(MODEL, TEXT, unknown=unknown, state=state)  # type: ignore[arg-type]
    assert close(found.nats, math.fsum(expected))
    assert found.events == len(expected)
    every = oracle(MODEL, TEXT.ids, carry=state == "carry")
    known = [nats for nats, token in zip(every, TEXT.ids, strict=True) if token != 0]
    assert close(found.known_nats, math.fsum(known))
    assert close(found.known_perplexity, math.exp(math.fsum(known) / len(known)))
    assert found.unknown == int((TEXT.ids == 0).sum()) > 0
    assert found.words == sum(LENGTHS)
    assert found.bytes == sum(5 * k + 1 for k in LENGTHS)
    assert found.protocol == Protocol(unit="word", unknown=unknown, state=state)  # type: ignore[arg-type]


def test_dividing_by_one_more_event_is_caught() -> None:
    found = evaluate(MODEL, TEXT)
    for wrong in (found.events - 1, found.events + 1, found.words):
        assert abs(math.exp(found.nats / wrong) - found.perplexity) > 1e-4


def test_scores_of_parts_add_to_the_whole() -> None:
    parts = [
        evaluate(MODEL, TEXT.part(a, b), state="reset") for a, b in itertools.pairwise((0, 7, 8, 31, 60))
    ]
    whole = evaluate(MODEL, TEXT, state="reset")
    added = parts[0] + parts[1] + parts[2] + parts[3]
    assert close(added.nats, whole.nats)
    assert (added.events, added.words, added.bytes, added.unknown) == (
        whole.events,
        whole.words,
        whole.bytes,
        whole.unknown,
    )


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("state", ["carry", "reset"])
def test_a_recurrent_models_score_does_not_depend_on_the_cut(cell: str, state: str) -> None:
    recurrent = pytest.importorskip("elman.neural.recurrent")
    torch.manual_seed(5)
    config = recurrent.RecurrentConfig(
        cell=cell, embedding_size=12, hidden_size=15, num_layers=2, dropout=0.3, init_scale=0.7
    )
    model = recurrent.RecurrentModel(MODEL.vocabulary, MODEL.tokenizer, config).train()
    text = TEXT.part(0, 24)
    whole = evaluate(model, text, state=state, batch_size=1)  # type: ignore[arg-type]
    per_event = np.concatenate(list(event_nats(model, text, state=state, batch_size=1)))  # type: ignore[arg-type]
    for batch_size, chunk in itertools.product((1, 7, 32), (1, 37, None)):
        parts = event_nats(model, text, state=state, batch_size=batch_size, chunk=chunk)  # type: ignore[arg-type]
        nats = np.concatenate(list(parts))
        np.testing.assert_allclose(nats, per_event, rtol=2e-5)
        found = score(nats, text, whole.protocol)
        assert found.events == whole.events
        assert math.isclose(found.nats, whole.nats, rel_tol=1e-6)


def test_a_score_takes_chunks_of_any_size() -> None:
    protocol = protocol_of(MODEL)
    whole = score(NATS, TEXT, protocol)
    for size in (1, 17, 4096):
        chunks = (NATS[k : k + size] for k in range(0, len(NATS), size))
        assert close(score(chunks, TEXT, protocol).nats, whole.nats)


def test_an_impossible_event_gives_an_infinite_perplexity() -> None:
    nats = NATS.copy()
    nats[5] = math.inf
    assert score(nats, TEXT, protocol_of(MODEL)).perplexity == math.inf


@pytest.mark.parametrize("wrong", [NATS[:-1], np.append(NATS, 1.0), NATS[:0]])
def test_numbers_of_another_text_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ElmanError, match=f"{len(wrong):,} numbers for a text of {TEXT.events:,} events"):
        score(wrong, TEXT, protocol_of(MODEL))


def test_an_unknown_policy_and_an_empty_text_are_refused() -> None:
    with pytest.raises(OptionError, match="'drop'"):
        evaluate(MODEL, TEXT, unknown="drop")  # type: ignore[arg-type]
    with pytest.raises(TextError, match="empty"):
        evaluate(MODEL, random_text(9, []))


def frequency_label(token: int) -> str:
    """The bucket of a token, as a person would say it."""
    if token == 0:
        return "unknown"
    if token == 1:
        return "</s>"
    assert MODEL.vocabulary.counts is not None
    count = int(MODEL.vocabulary.counts[token])
    for first, last in ((1, 5), (6, 20), (21, 100), (101, 1000), (1001, 10000)):
        if first <= count <= last:
            return f"{first:,}-{last:,}"
    return "0" if count == 0 else "10,001+"


def place_label(place: int) -> str:
    for first, last in ((1, 1), (2, 2), (3, 3), (4, 5), (6, 10), (11, 20), (21, 50)):
        if first <= place <= last:
            return f"{first}" if first == last else f"{first}-{last}"
    return "51+"


def tables(unknown: str = "word") -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    by_count: dict[str, list[float]] = defaultdict(list)
    by_place: dict[str, list[float]] = defaultdict(list)
    place = 1
    for token, nats in zip(TEXT.ids.tolist(), NATS.tolist(), strict=True):
        if unknown == "word" or token != 0:
            by_count[frequency_label(token)].append(nats)
            by_place[place_label(place)].append(nats)
        place = 1 if token == 1 else place + 1
    return by_count, by_place


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("unknown", ["word", "skip"])
def test_breakdowns_are_the_oracles_and_add_to_the_whole(size: int, unknown: str) -> None:
    chunks = (NATS[k : k + size] for k in range(0, len(NATS), size))
    protocol = protocol_of(MODEL, unknown=unknown)  # type: ignore[arg-type]
    found = breakdown(chunks, TEXT, MODEL.vocabulary, protocol)
    assert found.score == score(NATS, TEXT, protocol) or close(
        found.score.nats, score(NATS, TEXT, protocol).nats
    )
    for buckets, expected in zip((found.by_frequency, found.by_position), tables(unknown), strict=True):
        assert {bucket.label for bucket in buckets if bucket.events} == set(expected)
        for bucket in buckets:
            assert bucket.events == len(expected[bucket.label])
            assert close(bucket.nats, math.fsum(expected[bucket.label]), relative=1e-11)
        assert sum(bucket.events for bucket in buckets) == found.score.events
        assert close(math.fsum(bucket.nats for bucket in buckets), found.score.nats, relative=1e-11)


def test_the_two_tables_alone_are_those_of_the_breakdown() -> None:
    whole = breakdown(NATS, TEXT, MODEL.vocabulary, protocol_of(MODEL))
    assert by_frequency(NATS, TEXT, MODEL.vocabulary) == whole.by_frequency
    assert by_position(NATS, TEXT) == whole.by_position
    assert [bucket.label for bucket in whole.by_frequency] == [
        "unknown",
        "0",
        "1-5",
        "6-20",
        "21-100",
        "101-1,000",
        "1,001-10,000",
        "10,001+",
        "</s>",
    ]
    assert [bucket.label for bucket in whole.by_position] == [
        "1",
        "2",
        "3",
        "4-5",
        "6-10",
        "11-20",
        "21-50",
        "51+",
    ]


def test_a_bucket_is_ready_for_json_and_an_empty_one_has_no_perplexity() -> None:
    (first, *_) = by_position(NATS, TEXT)
    document = first.as_json()
    assert (document["label"], document["events"]) == ("1", len(LENGTHS))
    assert document["perplexity"] == pytest.approx(math.exp(first.nats / first.events))
    (empty,) = (bucket for bucket in by_frequency(NATS, TEXT, MODEL.vocabulary) if bucket.label == "10,001+")
    assert math.isnan(empty.perplexity)


def test_a_vocabulary_without_counts_has_no_table_by_frequency() -> None:
    bare = Vocabulary(MODEL.vocabulary.tokens)
    with pytest.raises(ElmanError, match="no training counts"):
        by_frequency(NATS, TEXT, bare)
    assert breakdown(NATS, TEXT, bare, protocol_of(MODEL)).by_frequency == []
