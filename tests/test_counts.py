"""n-gram counts against collections.Counter."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elman.errors import OptionError, TextError
from elman.ngram.counts import Counts, count
from ngram_oracle import EOS, START, text_of

SIZE = 7
SENTENCES = st.lists(st.lists(st.sampled_from([0, 2, 3, 4, 5]), max_size=7), min_size=1, max_size=9)


def grams(counts: Counts) -> list[list[tuple[int | str, ...]]]:
    """The words of every row of every order."""
    names = [*range(counts.vocabulary_size), START]
    found: list[list[tuple[int | str, ...]]] = [[(name,) for name in names]]
    for own in counts.orders[1:]:
        prefix, word = np.divmod(own.keys, counts.vocabulary_size + 1)
        found.append([(*found[-1][p], names[w]) for p, w in zip(prefix.tolist(), word.tolist(), strict=True)])
    return found


@given(SENTENCES, st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_a_dictionary(sentences: list[list[int]], order: int) -> None:
    counts = count(text_of(sentences).ids, order, SIZE)
    named = grams(counts)
    for n, own in enumerate(counts.orders, start=1):
        expected = Counter[tuple[int | str, ...]]()
        for sentence in sentences:
            padded = (START, *sentence, EOS)
            expected.update(padded[at : at + n] for at in range(len(padded) - n + 1))
        if n == 1:
            del expected[(START,)]
        seen = {gram: raw for gram, raw in zip(named[n - 1], own.raw.tolist(), strict=True) if raw}
        assert seen == expected
        assert (np.diff(own.keys) > 0).all()
        assert own.initial.tolist() == [gram[0] == START for gram in named[n - 1]]
        if n > 1:
            assert [named[n - 2][row] for row in own.suffix.tolist()] == [gram[1:] for gram in named[n - 1]]
            assert [named[n - 2][row] for row in counts.prefix(n).tolist()] == [g[:-1] for g in named[n - 1]]


def test_an_order_longer_than_every_sentence_is_empty() -> None:
    counts = count(text_of([[2, 3], [4]]).ids, 10, SIZE)
    assert [len(own.keys) for own in counts.orders[3:]] == [1, 0, 0, 0, 0, 0, 0]


def test_a_text_may_end_within_a_sentence() -> None:
    counts = count(np.array([2, 3, EOS, 2, 3]), 2, SIZE)
    assert sorted(counts.orders[1].raw.tolist()) == [1, 2, 2]


@pytest.mark.parametrize("order", [0, 11])
def test_orders_out_of_range(order: int) -> None:
    with pytest.raises(OptionError, match="1 to 10"):
        count(text_of([[2]]).ids, order, SIZE)


@pytest.mark.parametrize(("ids", "message"), [([], "no sentence"), ([2, SIZE], "outside"), ([-1], "outside")])
def test_texts_that_cannot_be_counted(ids: list[int], message: str) -> None:
    with pytest.raises(TextError, match=message):
        count(np.array(ids, dtype=np.int32), 2, SIZE)
