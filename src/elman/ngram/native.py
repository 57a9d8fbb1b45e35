"""The compiled counting, smoothing, lookup and printing of n-grams: arrays in, arrays out.

Each has its twin in NumPy, in counts.py, kneser_ney.py, backoff.py and arpa.py, which runs where the kernels
are not there or the text is too large for them, and gives the same counts and matched lengths to the bit.
Only shapes and limits are checked here; what the numbers mean stands with the twins.

V vocabulary size, N_n n-grams of order n.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from elman.kernels import native

MOST = 2**31 - 64
"""Events of a text and rows of an order that the kernels can count."""

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]


def usable(events: int) -> bool:
    """Whether the kernels are there and can count a text of so many events."""
    return native.available() and events < MOST


class Ngrams:
    """All n-grams of one text, in the kernels' memory: 16 bytes each, and 9 an event while they are counted.

    ids  int [N], in 0 … V - 1 (the caller has checked), `usable`
    """

    def __init__(self, ids: NDArray[np.integer], order: int, vocabulary_size: int) -> None:
        ids = np.ascontiguousarray(ids, dtype=np.int32)
        self.order, self._size = order, vocabulary_size
        make = native.require().Ngrams
        self._kernel = make(ids.ctypes.data, len(ids), vocabulary_size, order, torch.get_num_threads())

    def columns(self, n: int) -> tuple[Ints, Ints, Ints, NDArray[np.bool_]]:
        """keys, raw, suffix and initial of order n, as in counts.OrderCounts."""
        rows = self._kernel.rows(n)
        keys, raw = np.empty(rows, dtype=np.int64), np.empty(rows, dtype=np.int64)
        suffix = np.empty(rows if n > 1 else 0, dtype=np.int64)
        initial = np.empty(rows, dtype=np.bool_)
        self._kernel.columns(n, _at(keys), _at(raw), _at(suffix) if n > 1 else 0, _at(initial))
        return keys, raw, suffix, initial

    def adjust(self, cuts: Sequence[int]) -> Ints:
        """int64 [order, 5]: how many n-grams of each order have adjusted count 0 … 4. Call it once."""
        found, limits = np.empty((self.order, 5), dtype=np.int64), np.array(cuts, dtype=np.int64)
        if limits.shape != (self.order,):
            raise ValueError(f"{limits.shape} cut-offs for order {self.order}")
        self._kernel.adjust(_at(limits), _at(found))
        return found

    def unigrams(self) -> Ints:
        """int64 [V + 1]: the adjusted counts of order 1."""
        found = np.empty(self._size + 1, dtype=np.int64)
        self._kernel.unigrams(_at(found))
        return found

    def sizes(self, n: int) -> tuple[int, int]:
        """N_n before and after pruning."""
        return self._kernel.rows(n), self._kernel.kept(n)

    def estimate(self, n: int, discount: Sequence[float], first: Doubles) -> tuple[Floats, Floats]:
        """log10_prob of order n ≥ 2, log10_backoff of order n - 1. Call it for 2, 3, … in turn.

        discount  0, D1, D2, D3+
        first     float64 [V + 1]: the probabilities of the single words
        """
        amounts, first = np.array(discount, dtype=np.float64), np.ascontiguousarray(first, dtype=np.float64)
        if amounts.shape != (4,) or first.shape != (self._size + 1,):
            raise ValueError(f"{amounts.shape} discounts, {first.shape} unigrams")
        backoff = np.empty(self._kernel.kept(n - 1), dtype=np.float32)
        self._kernel.estimate(n, _at(amounts), _at(first), _at(backoff))
        prob = np.empty(self._kernel.kept(n), dtype=np.float32)  # after the kernel has given memory back
        self._kernel.log10_prob(n, _at(prob))
        return prob, backoff

    def keys(self, n: int) -> Ints:
        """keys of order n ≥ 2, once all are estimated: until then the kernel keeps them in less memory."""
        keys = np.empty(self._kernel.kept(n), dtype=np.int64)
        self._kernel.keys(n, _at(keys))
        return keys


class Lookup:
    """The tables of a model with the first child of every row: what scoring a stream needs.

    A long text is worth an index of about 22 bytes for each n-gram: ten times as fast as searching the sorted
    tables, with the same results to the bit.

    tables  for each order keys int64, log10_prob float32, log10_backoff float32, checked by the model
    """

    PATIENCE = 4
    """The index is made once that many times the events scored exceed the n-grams: making it takes about
    as long as searching did until then, so a short text never waits long for it."""

    def __init__(self, tables: Sequence[tuple[Ints, Floats, Floats]], vocabulary_size: int) -> None:
        self._size = vocabulary_size
        self._tables: list[tuple[NDArray[Any], ...]] = []
        contexts = 0
        for keys, prob, backoff in tables:
            keys, prob, backoff = map(np.ascontiguousarray, (keys, prob, backoff))
            children = np.zeros(contexts + 1, dtype=np.uint32)
            if contexts and not native.require().ngram_children(
                _at(keys), len(keys), contexts, vocabulary_size, _at(children)
            ):
                raise ValueError("the n-grams of an order are not sorted")
            self._tables.append((keys, prob, backoff, children))
            contexts = len(keys)
        self._index: Any = None
        self._indexable = len(tables) > 1
        self._wait = sum(len(table[0]) for table in self._tables) // self.PATIENCE  # events until it pays

    def index(self) -> int:
        """Make the index now; its bytes, 0 where the model has but one order or too many n-grams for it."""
        if self._index is None and self._indexable:
            try:
                self._index = native.require().NgramIndex(
                    self._places(), [len(table[0]) for table in self._tables], self._size
                )
            except (ValueError, MemoryError):  # more than 2^26 lines, 4 GiB: searching does without
                self._indexable = False
        return 0 if self._index is None else int(self._index.bytes())

    def score(
        self, ids: NDArray[np.int32], first: int, scale: float = 1.0, lengths: bool = False
    ) -> tuple[Doubles, Ints]:
        """ids int32 [S, B] → scale · log10 P and matched lengths [S - first, B] of the events ids[first:].

        The rows before give the context, `</s>` stands before them all. Ids of events are in 0 … V, those
        before in -1 (nothing) … V: the caller has checked.
        lengths  false: the matched lengths are not wanted and come back empty
        """
        ids = np.ascontiguousarray(ids, dtype=np.int32)
        rows, batch = ids.shape
        shape = (rows - first, batch)
        scores, matched = np.empty(shape), np.empty(shape if lengths else (0, 0), dtype=np.int64)
        to = (_at(scores), _at(matched) if lengths else 0)
        where = (_at(ids), (first, rows, batch), scale, to, torch.get_num_threads())
        self._wait -= scores.size
        if self._wait < 0:
            self.index()
        if self._index is not None:
            self._index.score(*where)
        else:
            native.require().ngram_score(self._places(), self._size, *where)
        return scores, matched

    def _places(self) -> list[tuple[int, ...]]:
        return [tuple(map(_at, table)) for table in self._tables]


def arpa_lines(
    tables: Sequence[tuple[Ints, Floats, Floats]], n: int, tokens: Sequence[bytes]
) -> Iterator[memoryview]:
    """The lines of order n of an ARPA file, block by block; a block is overwritten by the next.

    tokens  of the ids 0 … V, where V is `<s>`
    """
    starts = np.zeros(len(tokens) + 1, dtype=np.int64)
    np.cumsum([len(token) for token in tokens], out=starts[1:])
    text = b"".join(tokens)
    letters = np.frombuffer(text, dtype=np.uint8)
    out = np.empty(max(1 << 20, n * (int(np.diff(starts).max()) + 1) + 128), dtype=np.uint8)
    kept = [tuple(map(np.ascontiguousarray, table)) for table in tables[:n]]
    places = [(_at(keys), _at(prob), _at(backoff) if len(backoff) else 0, 0) for keys, prob, backoff in kept]
    place, rows = 0, len(kept[-1][0])
    while place < rows:
        place, size = native.require().ngram_lines(
            places, n, (_at(letters), _at(starts)), len(tokens) - 1, (place, rows), _at(out), len(out)
        )
        yield out[:size].data


def _at(array: NDArray[Any]) -> int:
    return array.ctypes.data
