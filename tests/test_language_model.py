"""Score and Protocol: sums add, unlike protocols refuse, derived figures are the formulas."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elman.errors import ProtocolError
from elman.language_model import Protocol, Score, detach, exponential, perplexity, select

WORD = Protocol(unit="word")


def a_score(nats: float = 12.5, events: int = 7, **changes: object) -> Score:
    fields = {"nats": nats, "events": events, "words": 5, "bytes": 31, "unknown": 2, "protocol": WORD}
    fields["known_nats"] = 8.25
    return Score(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_figures_are_the_formulas() -> None:
    score = a_score()
    assert score.perplexity == pytest.approx(math.exp(12.5 / 7), rel=1e-15)
    assert score.word_perplexity == pytest.approx(math.exp(12.5 / 5), rel=1e-15)
    assert score.bits_per_token == pytest.approx(math.log2(score.perplexity), rel=1e-14)
    assert score.bits_per_byte == pytest.approx(12.5 / math.log(2) / 31, rel=1e-15)


def test_what_unknown_words_take() -> None:
    score = a_score()
    assert score.known_perplexity == pytest.approx(math.exp(8.25 / (7 - 2)), rel=1e-15)
    assert score.unknown_share == pytest.approx((12.5 - 8.25) / 12.5, rel=1e-15)
    skipped = a_score(8.25, 5, protocol=Protocol(unit="word", unknown="skip"))
    assert skipped.known_perplexity == skipped.perplexity == score.known_perplexity
    assert skipped.unknown_share == 0.0
    impossible = a_score(math.inf)  # an n-gram read from a file without room for <unk>
    assert impossible.known_perplexity == score.known_perplexity
    assert impossible.unknown_share == 1.0


def test_what_leaves_events_out_is_not_divided_by_the_whole_text() -> None:
    skip = Protocol(unit="word", unknown="skip")
    left_out, none_left_out = a_score(protocol=skip), a_score(protocol=skip, unknown=0)
    assert math.isnan(left_out.word_perplexity)
    assert math.isnan(left_out.bits_per_byte)
    assert left_out.perplexity == a_score().perplexity
    assert none_left_out.word_perplexity == a_score().word_perplexity
    assert none_left_out.bits_per_byte == a_score().bits_per_byte


def test_no_exponential_overflows() -> None:
    assert perplexity(1e6, 3) == perplexity(math.inf, 3) == exponential(710.0) == math.inf
    assert exponential(709.7) == math.exp(709.7)  # the largest are still numbers
    assert math.isnan(perplexity(math.nan, 3))
    assert math.isnan(perplexity(0.0, 0))
    assert a_score(nats=math.inf).perplexity == a_score(nats=7e5).perplexity == math.inf


def test_no_figure_is_another_one() -> None:
    """Dividing by n+1, by words for events, or mixing up bits and nats shows."""
    score = a_score()
    figures = [score.perplexity, score.word_perplexity, score.bits_per_token, score.bits_per_byte]
    wrong = [math.exp(12.5 / 8), math.exp(12.5 / 6), 12.5 / 7, 12.5 / 31]
    for one, other in itertools.combinations(figures + wrong, 2):
        assert abs(one - other) > 1e-3


counts = st.integers(min_value=0, max_value=10**9)
scores = st.builds(
    Score,
    nats=st.integers(min_value=0, max_value=2**40).map(float),  # whole numbers: their sums are exact
    events=counts,
    words=counts,
    bytes=counts,
    unknown=counts,
    protocol=st.just(WORD),
    known_nats=st.integers(min_value=0, max_value=2**40).map(float),
)


@given(scores, scores, scores)
def test_scores_add_in_any_order(a: Score, b: Score, c: Score) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    whole = a + b
    assert (whole.nats, whole.events, whole.words) == (
        a.nats + b.nats,
        a.events + b.events,
        a.words + b.words,
    )
    assert (whole.bytes, whole.unknown) == (a.bytes + b.bytes, a.unknown + b.unknown)


def test_a_sum_is_not_a_mean_of_means() -> None:
    a, b = a_score(nats=2.0, events=2), a_score(nats=90.0, events=30)
    assert (a + b).perplexity == pytest.approx(math.exp(92 / 32))
    assert (a + b).perplexity != pytest.approx((a.perplexity + b.perplexity) / 2, rel=1e-2)


@pytest.mark.parametrize(
    "other",
    [
        Protocol(unit="character"),
        Protocol(unit="word", unknown="skip"),
        Protocol(unit="word", state="reset"),
        Protocol(unit="word", end_of_sentence=False),
    ],
)
def test_unlike_scores_do_not_add(other: Protocol) -> None:
    with pytest.raises(ProtocolError, match="unlike protocols") as caught:
        a_score() + a_score(protocol=other)
    assert str(other) in str(caught.value)
    assert "Remedy" in str(caught.value)


def test_adding_something_else_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        a_score() + 3  # type: ignore[operator]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (Protocol(unit="byte"), "unit=word with unit=byte"),
        (Protocol(unit="word", unknown="skip"), "unknown=word with unknown=skip"),
        (Protocol(unit="word", end_of_sentence=False), "end_of_sentence=True with end_of_sentence=False"),
    ],
)
def test_unlike_protocols_say_why_they_do_not_compare(other: Protocol, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        WORD.require_comparable(other)
    with pytest.raises(ProtocolError):
        other.require_comparable(WORD)


def test_carried_and_reset_states_compare() -> None:
    WORD.require_comparable(Protocol(unit="word", state="reset"))


def test_a_protocol_reads_as_a_line() -> None:
    assert str(WORD) == "per word, unknown=word, state=carry, </s> counted"
    other = Protocol(unit="byte", unknown="skip", state="reset", end_of_sentence=False)
    assert str(other) == "per byte, unknown=skip, state=reset, </s> not counted"


def test_an_empty_score_has_no_figure_and_an_impossible_event_an_infinite_one() -> None:
    empty = a_score(nats=0.0, events=0, words=0, bytes=0)
    assert math.isnan(empty.perplexity)
    assert math.isnan(empty.word_perplexity)
    assert math.isnan(empty.bits_per_byte)
    assert a_score(nats=math.inf).perplexity == math.inf
    assert a_score(nats=1e6, events=1).perplexity == math.inf  # beyond float64, not an OverflowError


def test_json_holds_counts_figures_and_protocol() -> None:
    document = json.loads(json.dumps(a_score().as_json()))
    assert document["nats"] == 12.5
    assert document["events"] == 7
    assert document["perplexity"] == pytest.approx(math.exp(12.5 / 7))
    assert document["protocol"] == {
        "unit": "word",
        "unknown": "word",
        "state": "carry",
        "end_of_sentence": True,
        "normalized": False,
    }


def test_select_takes_streams_of_both_state_shapes() -> None:
    state = (torch.arange(6).reshape(3, 2), torch.arange(24.0).reshape(2, 3, 4))
    flat, deep = select(state, torch.tensor([2, 0, 2, 1]))
    assert flat.tolist() == [[4, 5], [0, 1], [4, 5], [2, 3]]
    assert torch.equal(deep, state[1][:, [2, 0, 2, 1]])


def test_detach_cuts_the_graph_and_keeps_the_numbers() -> None:
    h = torch.randn(2, 3, requires_grad=True) * 2
    (cut,) = detach((h,))
    assert not cut.requires_grad
    assert torch.equal(cut, h)
