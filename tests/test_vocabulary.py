"""Ids, order, limits and the stored form of a vocabulary."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman.errors import FormatError, OptionError
from elman.text.vocabulary import BOS, EOS, UNK, Vocabulary

WORDS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=" \t\n\r\v\f"), min_size=1, max_size=5
)
COUNTS = st.dictionaries(
    WORDS.filter(lambda word: word not in (UNK, EOS, BOS)), st.integers(1, 9), max_size=12
)


def test_build_orders_by_count_then_code_point() -> None:
    made = Vocabulary.build({"b": 2, "é": 2, "a": 2, "zz": 7, "rare": 1}, sentences=5)
    assert made.tokens == (UNK, EOS, "zz", "a", "b", "é", "rare")
    assert made.counts is not None
    assert made.counts.tolist() == [0, 5, 7, 2, 2, 2, 1]
    assert (made.unk_id, made.eos_id, made.bos_id, len(made)) == (0, 1, 7, 7)
    assert made.token(made.bos_id) == BOS
    assert BOS not in made


def test_size_and_min_count_cut_into_the_unknown() -> None:
    counts = {"a": 9, "b": 4, "c": 4, "d": 1, UNK: 3}
    by_size = Vocabulary.build(counts, sentences=2, size=4)
    assert by_size.tokens == (UNK, EOS, "a", "b")
    assert by_size.counts is not None
    assert by_size.counts.tolist() == [3 + 4 + 1, 2, 9, 4]
    by_count = Vocabulary.build(counts, sentences=2, min_count=2)
    assert by_count.tokens == (UNK, EOS, "a", "b", "c")
    assert by_count.counts is not None
    assert by_count.counts.tolist() == [3 + 1, 2, 9, 4, 4]


@pytest.mark.parametrize(
    ("counts", "size", "kept", "unknown"),
    [
        ({"a": 9, "b": 4, "c": 1, "d": 1}, None, ["a", "b"], 2),  # words seen once are unknown
        ({"a": 9, "b": 4, "c": 1, "d": 1}, 5, ["a", "b", "c"], 1),  # the size leaves some already
        ({"a": 9, "b": 4, "c": 1, "d": 1, UNK: 3}, None, ["a", "b", "c", "d"], 3),  # so does the text
        ({"a": 5998, "b": 2999, "c": 3, "d": 3}, None, ["a", "b"], 6),  # none seen once: the rarest, if rare
        ({"a": 5991, "b": 2999, "c": 5, "d": 5}, None, ["a", "b", "c", "d"], 0),  # 10 of 9,000 are not
        ({"a": 3, "b": 3}, None, ["a", "b"], 0),  # nothing would be left
        ({"a": 1, "b": 1}, None, ["a", "b"], 0),
        ({}, None, [], 0),
    ],
)
def test_the_rarest_train_the_unknown_where_nothing_else_does(
    counts: dict[str, int], size: int | None, kept: list[str], unknown: int
) -> None:
    made = Vocabulary.build(counts, sentences=2, size=size, min_count=None)
    assert list(made.tokens[2:]) == kept
    assert made.trained_unknown == unknown
    assert Vocabulary(made.tokens).trained_unknown is None


def test_a_closed_alphabet_leaves_nothing_to_the_unknown() -> None:
    made = Vocabulary.build({"a": 2, "c": 1}, sentences=2, min_count=None, alphabet=["a", "b", "c"])
    assert made.tokens == (UNK, EOS, "a", "c", "b")
    assert made.trained_unknown == 0


@given(counts=COUNTS, size=st.integers(3, 9), floor=st.integers(1, 5), sentences=st.integers(0, 4))
def test_no_event_is_lost(counts: dict[str, int], size: int, floor: int, sentences: int) -> None:
    made = Vocabulary.build(counts, sentences=sentences, size=size, min_count=floor)
    assert len(made) <= size
    assert made.counts is not None
    assert made.counts.sum() == sum(counts.values()) + sentences
    again = Vocabulary.build(dict(reversed(counts.items())), sentences=sentences, size=size, min_count=floor)
    assert again == made
    stored = Vocabulary.from_json(json.loads(json.dumps(made.as_json())))
    assert stored == made
    assert stored.digest == made.digest
    assert hash(stored) == hash(made)
    assert np.array_equal(stored.counts if stored.counts is not None else [], made.counts)
    assert [made.token(made.id(token)) for token in made.tokens] == list(made.tokens)


def test_tokens_with_count_zero_never_enter() -> None:
    assert "testonly" not in Vocabulary.build(Counter(a=1, testonly=0), sentences=1)


def test_ids() -> None:
    made = Vocabulary([UNK, EOS, "a", "b"])
    found = made.ids(["b", "x", UNK, EOS, "a"])
    assert found.dtype == np.int32
    assert found.tolist() == [3, 0, 0, 1, 2]
    assert made.id("nothing") == 0
    assert "a" in made
    assert 3 not in made
    assert made != object()
    assert "4 tokens" in repr(made)
    with pytest.raises(IndexError):
        made.token(-1)
    with pytest.raises(IndexError):
        made.token(5)


def test_digest_is_of_the_tokens_alone() -> None:
    made = Vocabulary([UNK, EOS, "a"], [1, 2, 3])
    assert made.digest == hashlib.sha256(b"<unk>\n</s>\na").hexdigest()[:12]
    assert made.digest == Vocabulary([UNK, EOS, "a"]).digest
    assert made.digest != Vocabulary([UNK, EOS, "A"]).digest


def test_counts_cannot_be_changed() -> None:
    made = Vocabulary([UNK, EOS], [1, 2])
    assert made.counts is not None
    with pytest.raises(ValueError):
        made.counts[0] = 7


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "first two"),
        ([EOS, UNK], "first two"),
        ([UNK, EOS, "a", "b", "a"], "'a' occurs twice"),
        ([UNK, EOS, UNK], "twice"),
        ([UNK, EOS, ""], "empty"),
        ([UNK, EOS, "a b"], "blank"),
        ([UNK, EOS, "a\n"], "blank"),
        ([UNK, EOS, "x" * 100_001], "too long"),
        ([UNK, EOS, BOS], "never predicted"),
        ([UNK, EOS, 7], "not a string"),
        ([UNK, EOS, "\ud800"], "surrogate"),
    ],
)
def test_what_is_no_vocabulary(tokens: list[str], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Vocabulary(tokens)


@pytest.mark.parametrize("counts", [[1, 2], [1, 2, -3], [[1, 2, 3]]])
def test_counts_must_fit(counts: list[int]) -> None:
    with pytest.raises(FormatError, match="counts"):
        Vocabulary([UNK, EOS, "a"], counts)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"counts": [1, 2]},
        {"tokens": "ab"},
        {"tokens": [UNK, EOS], "counts": "12"},
        {"tokens": [UNK, EOS], "counts": [1.5, 2]},
        {"tokens": [UNK, EOS], "counts": [True, 2]},
        {"tokens": [UNK, EOS], "counts": [2**70, 2]},
        {"tokens": [UNK, EOS], "extra": 1},
        {"tokens": [UNK, EOS, None]},
    ],
)
def test_what_is_no_stored_vocabulary(value: object) -> None:
    with pytest.raises(FormatError, match="vocabulary"):
        Vocabulary.from_json(value)


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="no room"):
        Vocabulary.build({"a": 1}, sentences=1, size=2)
    with pytest.raises(OptionError, match="min_count"):
        Vocabulary.build({"a": 1}, sentences=1, min_count=0)
    monkeypatch.setattr("elman.text.vocabulary.MAX_TOKENS", 4)
    with pytest.raises(OptionError, match="3 different tokens; the limit is 4") as caught:
        Vocabulary.build({"a": 1, "b": 1, "c": 1}, sentences=1)
    assert "--vocabulary-size" in caught.value.remedy
    with pytest.raises(FormatError, match="limit"):
        Vocabulary([UNK, EOS, "a", "b", "c"])


def test_a_no_break_space_stays_in_a_token() -> None:
    assert "10\u00a0000" in Vocabulary([UNK, EOS, "10\u00a0000"])


def test_an_alphabet_belongs_to_the_vocabulary_whatever_the_text_holds() -> None:
    made = Vocabulary.build({"b": 1, "c": 3, "d": 1}, sentences=2, min_count=2, alphabet=["z", "b", "a"])
    assert made.tokens == ("<unk>", "</s>", "c", "b", "a", "z")
    assert made.counts is not None
    assert made.counts.tolist() == [1, 2, 3, 1, 0, 0]
