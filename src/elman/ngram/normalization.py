"""Whether a model's probabilities sum to 1 after each of its contexts: what an ARPA file merely promises.

    Σ_w P(w | v) = Σ_{v w listed} P(w | v) + backoff(v) · (Σ_w P(w | v') - Σ_{v w listed} P(w | v'))

v' is v without its first word; before it stands the sum over all words, down to the single words. A backoff
weight above 1 alone says nothing: smoothed and pruned models have such. Up to `MOST` contexts of an order are
looked at, evenly spread, all where there are no more.

M contexts, V vocabulary size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from elman.ngram.counts import Ints
from elman.ngram.tables import Doubles, Table, find_rows
from elman.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from elman.ngram.backoff import NgramModel

MOST = 20_000
TOLERANCE = 1e-3
"""Of a sum: log10 with four decimals, as some programs write them, are off by 1.2e-4 each."""


def unnormalized(model: NgramModel) -> str:
    """A sentence on the contexts whose sum is not 1; empty when all that were looked at are right."""
    looked = off = 0
    worst, where = 1.0, "no word"
    for n in range(model.order):
        rows = _spread(1 if n == 0 else len(model.tables[n - 1].keys))
        words = words_of(model.tables, n, rows, len(model.vocabulary))
        reached = ~(words == Vocabulary.eos_id).any(axis=0)  # after `</s>` there is only `<s>`
        words, rows = words[:, reached], rows[reached]
        sums = _sums(model, words, rows)
        wrong = ~(np.abs(sums - 1) <= TOLERANCE)
        looked, off = looked + len(sums), off + int(wrong.sum())
        if wrong.any():
            at = int(np.argmax(np.where(np.isnan(sums), np.inf, np.abs(sums - 1))))
            if not abs(sums[at] - 1) <= abs(worst - 1):
                worst = float(sums[at])
                where = " ".join(model.vocabulary.token(int(word)) for word in words[:, at]) or "no word"
    if not off:
        return ""
    return (
        f"after {off:,} of {looked:,} contexts looked at, the probabilities do not sum to 1 (after {where!r} "
        f"to {worst:.5g}): perplexities of this model do not compare with those of others."
    )


def words_of(tables: tuple[Table, ...], n: int, rows: Ints, vocabulary_size: int) -> Ints:
    """The words [n, M] of some n-grams of order n by their rows [M]."""
    words = np.empty((n, len(rows)), dtype=np.int64)
    for place in range(n - 1, -1, -1):
        keys = tables[place].keys[rows]
        rows, words[place] = np.divmod(keys, vocabulary_size + 1)
    return words


def _spread(count: int) -> Ints:
    return np.unique(np.linspace(0, count - 1, min(count, MOST)).astype(np.int64)) if count else np.arange(0)


def _sums(model: NgramModel, words: Ints, rows: Ints) -> Doubles:
    """Listed contexts by their words [n, M] and rows [M] → Σ_w P(w | context) [M]."""
    n, base = len(words), len(model.vocabulary) + 1
    if n == 0:  # `<s>`, the last row, is never predicted
        return np.full(len(rows), np.power(10.0, model.tables[0].log10_prob[:-1].astype(np.float64)).sum())
    own = model.tables[n]
    first, last = np.searchsorted(own.keys, [rows * base, (rows + 1) * base])
    counts = last - first
    owner = np.repeat(np.arange(len(rows)), counts)
    place = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
    following = own.keys[place] % base
    listed = np.power(10.0, own.log10_prob[place].astype(np.float64))
    shorter = np.concatenate([words[1:][:, owner], following[None]])
    with np.errstate(over="ignore", invalid="ignore"):
        backoff = np.power(10.0, model.tables[n - 1].log10_backoff[rows].astype(np.float64))
        rest = _shorter_sums(model, words[1:]) - np.bincount(owner, _probabilities(model, shorter), len(rows))
        sums: Doubles = np.bincount(owner, listed, len(rows)) + backoff * rest
    return sums


def _shorter_sums(model: NgramModel, words: Ints) -> Doubles:
    """Contexts [n, M], listed or not → their sums [M]; an unlisted one has that of the next shorter."""
    if not len(words):
        return _sums(model, words, np.arange(words.shape[1]))
    distinct, which = np.unique(words, axis=1, return_inverse=True)
    rows = distinct[0]
    for place, word in enumerate(distinct[1:], start=1):
        keys = rows * (len(model.vocabulary) + 1) + word
        rows = np.where(rows < 0, -1, find_rows(model.tables[place].keys, keys))
    found = np.empty(len(rows))
    listed = rows >= 0
    found[listed] = _sums(model, distinct[:, listed], rows[listed])
    if not listed.all():
        found[~listed] = _shorter_sums(model, distinct[1:, ~listed])
    return found[which.ravel()]


def _probabilities(model: NgramModel, words: Ints) -> NDArray[np.float64]:
    """P of the last of each column's words [n, M] after those before it, and nothing before them."""
    if len(words) == 1:
        found: NDArray[np.float64] = np.power(10.0, model.tables[0].log10_prob[words[0]].astype(np.float64))
        return found
    nats, _ = model.token_nats(torch.from_numpy(words), model.start(words.shape[1]))
    return torch.exp(-nats[-1]).numpy()
