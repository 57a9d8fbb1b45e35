"""The n-grams of every order with their numbers, and what makes such tables a model.

V vocabulary size, N_n n-grams of order n. Not here: what is computed from them (backoff.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elman.errors import FormatError
from elman.ngram.counts import MAX_ORDER, Ints

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """The n-grams of one order, rising by key.

    keys           int64 [N_n], prefix · (V + 1) + word; at order 1: 0, 1, … V
    log10_prob     float32 [N_n], -inf for what is impossible; the row of `<s>` holds 0 and is never used
    log10_backoff  float32 [N_n]; 0 where nothing follows; empty at the highest order
    """

    keys: Ints
    log10_prob: Floats
    log10_backoff: Floats


def find_rows(keys: Ints, wanted: Ints) -> Ints:
    """The row of each wanted key [...] among rising keys [N], -1 where it is not there."""
    if not len(keys):
        return np.full(wanted.shape, -1, dtype=np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, -1)


def validate(tables: Sequence[Table], vocabulary_size: int) -> None:
    """Raise FormatError unless the tables are a model over a vocabulary of this size."""
    if not 1 <= len(tables) <= MAX_ORDER:
        raise FormatError(f"n-gram model: {len(tables)} orders; 1 to {MAX_ORDER} are possible.")
    base, below = vocabulary_size + 1, 0
    for n, table in enumerate(tables, start=1):
        size = len(table.keys)
        backoffs = size if n < len(tables) else 0
        if {table.keys.ndim, table.log10_prob.ndim, table.log10_backoff.ndim} != {1} or (
            (len(table.log10_prob), len(table.log10_backoff)) != (size, backoffs)
        ):
            raise FormatError(f"n-gram model: the arrays of order {n} differ in length.")
        if n == 1 and not np.array_equal(table.keys, np.arange(base)):
            raise FormatError(f"n-gram model: {size} unigrams for a vocabulary of {vocabulary_size} and <s>.")
        if n > 1 and size and not (table.keys[0] >= 0 and table.keys[-1] < below * base):
            raise FormatError(f"n-gram model: a context of order {n} does not exist.")
        if n > 1 and not (table.keys[1:] > table.keys[:-1]).all():
            raise FormatError(f"n-gram model: the n-grams of order {n} are not sorted, or occur twice.")
        parts = np.array_split(table.keys, 64)  # the remainders of all would double the memory of the keys
        if n > 1 and any((part % base == vocabulary_size).any() for part in parts):
            raise FormatError(f"n-gram model: order {n} holds <s> after another word.")
        if not (table.log10_prob <= 0).all():
            raise FormatError(f"n-gram model: order {n} holds a log-probability above 0 or NaN.")
        if not (table.log10_backoff < np.inf).all():
            raise FormatError(f"n-gram model: order {n} holds a backoff weight that is infinite or NaN.")
        below = size
