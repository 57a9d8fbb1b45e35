"""How often each n-gram of a text occurs, for all orders at once.

The n-grams of an order are rows sorted by (prefix, word). The prefix of an n-gram is the row of its first
n-1 words one order below, its suffix the row of its last n-1 words: so an n-gram of any length is one
integer, key = prefix · (V + 1) + word, and all orders together form a trie. Not here: smoothing.

V vocabulary size, N_n n-grams of order n. The id V stands for `<s>`: it is only ever the first word of
an n-gram, never an event, and no n-gram spans the beginning of a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elman.errors import OptionError, TextError
from elman.ngram import native
from elman.text.vocabulary import Vocabulary

MAX_ORDER = 10

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class OrderCounts:
    """The n-grams of one order, rising by key.

    keys    int64 [N_n], prefix · (V + 1) + word; at order 1 simply 0, 1, … V, where V is `<s>`
    raw     int64 [N_n], occurrences in the text; 0 for `<s>` and for tokens the text does not have
    suffix  int64 [N_n], row of the last n-1 words in the order below; empty at order 1
    initial bool [N_n], whether the n-gram begins with `<s>`
    """

    keys: Ints
    raw: Ints
    suffix: Ints
    initial: NDArray[np.bool_]


@dataclass(frozen=True)
class Counts:
    """The n-grams of the orders 1 to `order` of one text; `orders[n - 1]` holds order n."""

    vocabulary_size: int
    orders: tuple[OrderCounts, ...]

    @property
    def order(self) -> int:
        """The length of the longest n-grams."""
        return len(self.orders)

    def prefix(self, order: int) -> Ints:
        """int64 [N_n]: the row of the first n-1 words, for n ≥ 2."""
        return self.orders[order - 1].keys // (self.vocabulary_size + 1)


def count(ids: NDArray[np.integer], order: int, vocabulary_size: int) -> Counts:
    """Count the n-grams of a text.

    ids  int [N], the events of the text: `</s>` ends every sentence, `<s>` does not occur
    Takes about 70 bytes a token beside the result, 40 with the kernels.
    Raises OptionError for the order, TextError for ids.
    """
    check(ids, order, vocabulary_size)
    if native.usable(len(ids)):
        ngrams = native.Ngrams(ids, order, vocabulary_size)
        found = tuple(OrderCounts(*ngrams.columns(n)) for n in range(1, order + 1))
        return Counts(vocabulary_size, found)
    base = vocabulary_size + 1
    words = np.concatenate([np.array([Vocabulary.eos_id]), ids]).astype(np.int64)
    ends = words == Vocabulary.eos_id
    raw = np.bincount(words[1:], minlength=base)
    initial = np.zeros(base, dtype=np.bool_)
    initial[vocabulary_size] = True
    nothing = np.zeros(0, dtype=np.int64)
    orders = [OrderCounts(np.arange(base), raw, nothing, initial)]
    # row of the n-gram that ends at each place, as event and as context of the next: reading </s> leaves <s>
    event = words
    context = np.where(ends, vocabulary_size, words)
    for _ in range(1, order):
        places = np.flatnonzero(context[:-1] >= 0) + 1
        keys = context[places - 1] * base + words[places]
        unique, row, first, raw = _group(keys)
        suffix = event[places[first]]
        orders.append(OrderCounts(unique, raw, suffix, orders[-1].initial[unique // base]))
        event = np.full(len(words), -1, dtype=np.int64)
        event[places] = row
        context = np.where(ends, -1, event)
    return Counts(vocabulary_size, tuple(orders))


def check(ids: NDArray[np.integer], order: int, vocabulary_size: int) -> None:
    """Raises OptionError for the order, TextError for ids: what every counting begins with."""
    if not 1 <= order <= MAX_ORDER:
        raise OptionError(f"order {order} is not possible.", remedy=f"give --order 1 to {MAX_ORDER}.")
    if not len(ids):
        raise TextError("the training text holds no sentence.", remedy="give a text with at least one line.")
    if int(ids.min()) < 0 or int(ids.max()) >= vocabulary_size:
        raise TextError(f"the text has token ids outside of 0 … {vocabulary_size - 1}.")


def _group(keys: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Distinct keys rising, the rank of each key, one place of each distinct key, how often each occurs."""
    if not len(keys):
        return keys, keys, keys, keys
    by_key = np.argsort(keys)
    rising = keys[by_key]
    new = np.empty(len(keys), dtype=np.bool_)
    new[0] = True
    np.not_equal(rising[1:], rising[:-1], out=new[1:])
    rank = np.empty(len(keys), dtype=np.int64)
    rank[by_key] = np.cumsum(new) - 1
    starts = np.flatnonzero(new)
    return rising[starts], rank, by_key[starts], np.diff(starts, append=len(keys))
