"""Two older smoothing methods, to learn from and to compare with: add-k and stupid backoff.

Both become ordinary n-gram models (backoff.py): the same scoring, the same ARPA files. Not here:
Kneser-Ney, which is better than both.

V vocabulary size, c(v w) occurrences of v w, c(v) = Σ_x c(v x).
"""

from __future__ import annotations

import math

import numpy as np

from elman.errors import OptionError
from elman.ngram.backoff import NgramModel
from elman.ngram.counts import Counts, Ints, count
from elman.ngram.tables import Doubles, Table
from elman.text.corpus import Text
from elman.text.tokenizers import Tokenizer
from elman.text.vocabulary import Vocabulary


def add_k(
    text: Text, vocabulary: Vocabulary, tokenizer: Tokenizer, order: int = 2, k: float = 1.0
) -> NgramModel:
    """Additive smoothing (Lidstone; Laplace for k = 1) of the highest order, nothing mixed in:

        P(w | v) = (c(v w) + k) / (c(v) + k V)          1 / V after a context that never occurred

    v is the last order - 1 tokens, fewer only where the sentence begins later (v then starts with `<s>`).
    In backoff form: backoff(v) = k V / (c(v) + k V), and what it backs off to is uniform. Raises OptionError.
    """
    if not (math.isfinite(k) and k > 0):
        raise OptionError(f"k is {k:g}.", remedy="give a number above 0, for instance 0.01.")
    size = len(vocabulary)
    counts = count(text.ids, order, size)
    tables: list[Table] = []
    for n, own in enumerate(counts.orders, start=1):
        prefix = counts.prefix(n) if n > 1 else np.zeros(size + 1, dtype=np.int64)
        total = _context_totals(counts, n, prefix)
        whole = own.initial | (n == order)  # whether n - 1 words are all that can be known
        tables.append(
            _table(own.keys, np.where(whole, (own.raw + k) / (total[prefix] + k * size), 1 / size), n)
        )
        if n > 1:
            known = counts.orders[n - 2].initial | (n == order)
            tables[-2] = _with_backoff(tables[-2], np.where(known, k * size / (total + k * size), 1.0))
    details = {"settings": {"order": order, "k": k}}
    return NgramModel(vocabulary, tokenizer, tables, method="add-k", details=details)


def stupid_backoff(
    text: Text, vocabulary: Vocabulary, tokenizer: Tokenizer, order: int = 3, alpha: float = 0.4
) -> NgramModel:
    """Stupid backoff (Brants et al. 2007), divided by its sum over w so that it is a distribution:

        S(w | v) = c(v w) / c(v)                          where v w occurs
                 = α S(w | v without its first word)      else; S(w) = c(w) / N, α / V for unseen words
        P(w | v) = S(w | v) / Z(v),  Z(v) = 1 + α (Z(v') - Σ_{seen w} S(w | v')),  v' = v without its first

    Brants et al. do not normalize: their scores are no probabilities and have no perplexity. Dividing by
    Z(v) keeps the order of the words in each context. backoff(v) = α Z(v') / Z(v). Raises OptionError.
    """
    if not 0 < alpha <= 1:
        raise OptionError(f"alpha is {alpha:g}.", remedy="0 < alpha ≤ 1; the paper has 0.4.")
    size = len(vocabulary)
    counts = count(text.ids, order, size)
    unigrams = counts.orders[0]
    raw = unigrams.raw
    score: Doubles = np.where(raw > 0, raw / raw.sum(), alpha / size)
    score[size] = 0
    whole = math.fsum(score)
    prob = score / whole
    prob[size] = 1
    tables = [_table(unigrams.keys, prob, 1)]
    # Z of each context of the order below, and where the context without its first word stands in it
    normalizer, shorter = np.array([whole]), np.zeros(size + 1, dtype=np.int64)
    for n, own in enumerate(counts.orders[1:], start=2):
        prefix = counts.prefix(n)
        contexts = len(tables[-1].keys)
        total = _context_totals(counts, n, prefix)
        seen_lower = np.bincount(prefix, weights=score[own.suffix], minlength=contexts)
        below = normalizer[shorter]
        z = np.where(total > 0, 1 + alpha * (below - seen_lower), below)
        # a context without successors passes the question on unchanged: Z(v) = Z(v'), backoff 1
        tables[-1] = _with_backoff(tables[-1], np.where(total > 0, alpha * below / z, 1.0))
        score = own.raw / total[prefix]
        tables.append(_table(own.keys, score / z[prefix], n))
        normalizer, shorter = z, own.suffix
    details = {"settings": {"order": order, "alpha": alpha}, "normalized": True}
    return NgramModel(vocabulary, tokenizer, tables, method="stupid-backoff", details=details)


def _context_totals(counts: Counts, n: int, prefix: Ints) -> Doubles:
    """c(v) of every n-gram of order n - 1 as a context; at order 1 the length of the text."""
    contexts = len(counts.orders[n - 2].keys) if n > 1 else 1
    return np.bincount(prefix, weights=counts.orders[n - 1].raw, minlength=contexts).astype(np.float64)


def _table(keys: Ints, prob: Doubles, n: int) -> Table:
    log10 = np.minimum(np.log10(prob), 0).astype(np.float32)
    if n == 1:
        log10[-1] = 0  # <s>, which is never predicted
    return Table(keys, log10, np.zeros(0, dtype=np.float32))


def _with_backoff(table: Table, weights: Doubles) -> Table:
    return Table(table.keys, table.log10_prob, np.log10(weights).astype(np.float32))
