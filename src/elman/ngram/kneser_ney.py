"""Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998), computed as KenLM's lmplz does.

    a(v w)   = occurrences of v w           at the highest order and for n-grams that begin with <s>
             = distinct words before v w    below: the adjusted counts of Kneser and Ney (1995)
    D_j      = j - (j + 1) · Y · n_{j+1} / n_j,  Y = n_1 / (n_1 + 2 n_2),  j = 1, 2, 3+      (equation 26)
    P(w | v) = (a(v w) - D_{a(v w)}) / Σ_x a(v x)  +  γ(v) · P(w | v without its first word)
    γ(v)     = (D_1 N_1(v ·) + D_2 N_2(v ·) + D_3 N_{3+}(v ·)) / Σ_x a(v x)

down to the uniform distribution over the V predictable tokens (`<unk>` is one, `<s>` is not). n_j counts
the n-grams of one order with adjusted count j. γ is the backoff weight of v. Not here: counting, scoring.

One known difference: lmplz (adjust_counts.cc, after its main loop) puts the very last n-gram of each lower
order into n_j with its occurrences instead of its adjusted count, so its discounts can differ by one
n-gram in n_j. Here every n-gram counts alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from elman.errors import OptionError
from elman.ngram import native
from elman.ngram.backoff import NgramModel
from elman.ngram.counts import MAX_ORDER, Counts, Ints, check, count
from elman.ngram.tables import Doubles, Floats, Table
from elman.text.corpus import Text
from elman.text.tokenizers import Tokenizer
from elman.text.vocabulary import Vocabulary

FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where none can be estimated: those of lmplz --discount_fallback."""


@dataclass(frozen=True)
class KneserNeySettings:
    """How to estimate. Raises OptionError for what is out of range.

    order                1 to 10
    prune                n-grams of order n that occur at most prune[n - 1] times are left out, their
                         probability goes to the backoff; the last value holds for all higher orders
    interpolate_unigrams False: the unigrams are not mixed with the uniform distribution; their discounted
                         probability goes to `<unk>` (and to other tokens that the text does not have)
    discount_fallback    "auto": an order whose discounts cannot be estimated (characters, tiny texts, capped
                         vocabularies) takes 0.5, 1, 1.5 and the model's report says so; or three numbers
                         to take instead; "never": raise
    """

    order: int = 5
    prune: tuple[int, ...] = (0,)
    interpolate_unigrams: bool = True
    discount_fallback: Literal["auto", "never"] | tuple[float, float, float] = "auto"

    def __post_init__(self) -> None:
        if not 1 <= self.order <= MAX_ORDER:
            raise OptionError(f"order {self.order} is not possible.", remedy=f"give 1 to {MAX_ORDER}.")
        cuts = self.prune
        if not cuts or len(cuts) > self.order or min(cuts) < 0 or list(cuts) != sorted(cuts):
            raise OptionError(
                f"cut-offs {' '.join(map(str, cuts))} are not possible for order {self.order}.",
                reason="there is one for each order, the last holds for the orders above; they never fall.",
                remedy="for instance 0 0 1: leave out what occurs once from order 3 on.",
            )
        if cuts[0]:
            raise OptionError(
                f"a cut-off of {cuts[0]} for single words is not possible: every token needs a probability.",
                remedy="begin the cut-offs with 0; use --min-count to make rare words unknown.",
            )
        fallback = self.discount_fallback
        if not isinstance(fallback, str) and not (
            len(fallback) == 3 and all(0 < amount < j for j, amount in enumerate(fallback, start=1))
        ):
            raise OptionError(
                f"fallback discounts {fallback} are not possible.", remedy="0 < D1 < 1, D2 < 2, D3 < 3."
            )
        if isinstance(fallback, str) and fallback not in ("auto", "never"):
            raise OptionError(f"discount fallback {fallback!r} is unknown.", remedy="give auto or never.")


def estimate(
    text: Text, vocabulary: Vocabulary, tokenizer: Tokenizer, settings: KneserNeySettings | None = None
) -> NgramModel:
    """Count a training text and smooth. Raises OptionError under discount_fallback="never"."""
    settings = settings or KneserNeySettings()
    size, order = len(vocabulary), settings.order
    cuts = [settings.prune[min(n, len(settings.prune) - 1)] for n in range(order)]
    check(text.ids, order, size)
    ngrams: native.Ngrams | _Ngrams
    if native.usable(len(text.ids)):
        ngrams = native.Ngrams(text.ids, order, size)
    else:
        ngrams = _Ngrams(count(text.ids, order, size))
    report: list[str] = []
    summary: list[dict[str, object]] = []
    prob: Doubles = np.zeros(0)
    log10_prob: list[Floats] = []
    log10_backoff: list[Floats] = []
    for n, of_counts in enumerate(ngrams.adjust(cuts).tolist(), start=1):
        strict = n == 1 and not settings.interpolate_unigrams
        discount, why = discounts_from(of_counts, strict)
        if why:
            discount = _fallback(n, why, settings, report)
        if n == 1:
            prob = _unigrams(ngrams.unigrams(), discount, size, settings.interpolate_unigrams)
            log10_prob.append(np.minimum(np.log10(prob), 0).astype(np.float32))
        else:
            own, below = ngrams.estimate(n, discount, prob)
            log10_prob.append(own)
            log10_backoff.append(below)
        distinct, kept = ngrams.sizes(n)
        summary.append({"order": n, "distinct": distinct, "kept": kept, "discounts": list(discount[1:])})
    log10_backoff.append(np.zeros(0, dtype=np.float32))
    keys = [np.arange(size + 1), *(ngrams.keys(n) for n in range(2, order + 1))]
    del ngrams
    tables = [Table(*columns) for columns in zip(keys, log10_prob, log10_backoff, strict=True)]
    details = {"settings": {**asdict(settings), "prune": list(settings.prune)}, "orders": summary}
    return NgramModel(vocabulary, tokenizer, tables, method="kneser-ney", details=details, report=report)


class _Ngrams:
    """What native.Ngrams does, in NumPy."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self._kept: list[NDArray[np.bool_]] = []
        self._rows: Ints = np.zeros(0, dtype=np.int64)  # of the order below after pruning, or -1
        self._prob: Doubles = np.zeros(0)  # of the rows that are left of the order below
        self._keys: list[Ints] = []

    def adjust(self, cuts: Sequence[int]) -> Ints:
        self._kept = [own.raw > cut for own, cut in zip(self.counts.orders, cuts, strict=True)]
        self._kept[0][:] = True
        self._adjusted = [adjusted_counts(self.counts, n) for n in range(1, self.counts.order + 1)]
        return np.array([_of_counts(adjusted) for adjusted in self._adjusted])

    def unigrams(self) -> Ints:
        return self._adjusted[0]

    def sizes(self, n: int) -> tuple[int, int]:
        return len(self._kept[n - 1]), int(np.count_nonzero(self._kept[n - 1]))

    def estimate(self, n: int, discount: Sequence[float], first: Doubles) -> tuple[Floats, Floats]:
        own, kept, base = self.counts.orders[n - 1], self._kept[n - 1], self.counts.vocabulary_size + 1
        if n == 2:
            self._prob, self._rows = first, np.arange(base)
        prefix, word = np.divmod(own.keys, base)
        share, gamma = _discounted(self._adjusted[n - 1], kept, prefix, len(self._rows), discount)
        backoff = np.log10(gamma[self._rows >= 0]).astype(np.float32)
        prefix, suffix = prefix[kept], own.suffix[kept]
        # forward: P = own + γ(prefix) · P(suffix); thresholds never fall, so both are kept
        self._prob = share[kept] + gamma[prefix] * self._prob[self._rows[suffix]]
        self._keys.append(self._rows[prefix] * base + word[kept])
        self._rows = np.where(kept, np.cumsum(kept) - 1, -1)
        return np.minimum(np.log10(self._prob), 0).astype(np.float32), backoff

    def keys(self, n: int) -> Ints:
        return self._keys[n - 2]


def adjusted_counts(counts: Counts, order: int) -> Ints:
    """int64 [N_n]: a(·) of the n-grams of an order; 0 for `<s>` itself."""
    own = counts.orders[order - 1]
    if order == counts.order:
        return own.raw
    distinct = np.bincount(counts.orders[order].suffix, minlength=len(own.keys))
    return np.where(own.initial, own.raw, distinct)


def estimate_discounts(adjusted: Ints, strict: bool = False) -> tuple[tuple[float, ...], str]:
    """(0, D_1, D_2, D_3+) of equation 26, and why they cannot be used ("" when they can).

    strict  refuse D_3 = 3, which leaves words that were seen three times without a probability of their own
    A discount of exactly 0 is refused too: it would leave contexts without mass for unseen words.
    """
    return discounts_from(_of_counts(adjusted), strict)


def discounts_from(n: Sequence[int], strict: bool) -> tuple[tuple[float, ...], str]:
    """`estimate_discounts` from n[j], how many n-grams have adjusted count j = 0 … 4."""
    for j in (1, 2, 3):
        if not n[j]:
            return (), f"none has adjusted count {j}"
    y = n[1] / (n[1] + 2 * n[2])
    discount = (0.0, *(j - (j + 1) * y * n[j + 1] / n[j] for j in (1, 2, 3)))
    for j in (1, 2, 3):
        if discount[j] <= 0 or (strict and discount[j] >= j):
            return (), f"the discount for adjusted count {j} would be {discount[j]:.3f}"
    return discount, ""


def _of_counts(adjusted: Ints) -> list[int]:
    return [int(np.count_nonzero(adjusted == j)) for j in range(5)]


def _fallback(n: int, why: str, settings: KneserNeySettings, report: list[str]) -> tuple[float, ...]:
    if settings.discount_fallback == "never":
        raise OptionError(
            f"Kneser-Ney discounts of order {n} cannot be estimated: of the {n}-grams, {why}.",
            reason="the text is small, of characters, or its vocabulary is capped.",
            remedy='a larger text, a lower --order, or discount_fallback="auto".',
        )
    fallback = FALLBACK if settings.discount_fallback == "auto" else settings.discount_fallback
    shown = " / ".join(f"{amount:g}" for amount in fallback)
    report.append(f"order {n}: discounts replaced by {shown}, because of the {n}-grams {why}.")
    return (0.0, *fallback)


def _unigrams(adjusted: Ints, discount: tuple[float, ...], size: int, interpolate: bool) -> Doubles:
    """Probabilities [V + 1] of the single words; 1 for `<s>`, as KenLM writes it."""
    total = adjusted.sum()
    taken = np.array(discount)[np.minimum(adjusted, 3)]
    mass = math.fsum(taken) / total
    share = np.ones(size)
    if not interpolate:
        share = (adjusted[:size] == 0).astype(np.float64)
        share[Vocabulary.unk_id] = 1
    prob = np.ones(size + 1)
    prob[:size] = (adjusted - taken)[:size] / total + mass * share / share.sum()
    return prob


def _discounted(
    adjusted: Ints, kept: NDArray[np.bool_], prefix: Ints, contexts: int, discount: Sequence[float]
) -> tuple[Doubles, Doubles]:
    """(a - D) / Σ a of each n-gram [N_n], and γ of each context [N_{n-1}] (1 where nothing follows)."""
    taken = np.where(kept, np.array(discount)[np.minimum(adjusted, 3)], adjusted)  # pruned: all of it
    total = np.bincount(prefix, weights=adjusted, minlength=contexts)
    mass = np.bincount(prefix, weights=taken, minlength=contexts)
    used = total > 0
    gamma = np.divide(mass, total, out=np.ones(contexts), where=used)
    return (adjusted - taken) / total[prefix], gamma
