"""How sure a comparison is: the bootstrap over sentences (Efron 1979; Koehn 2004 for paired use).

Tokens of one sentence are not independent, so the sentence is what is drawn again. A resample is a
row of counts (how often each sentence was drawn), and all models share it: that is what makes
a difference paired. Sums come first and the perplexity after, never a mean of perplexities.

Not here: which models may be compared, and in which unit (table.py).

S sentences, R resamples, K columns (nats of each model, then what they are divided by).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from elman.errors import ElmanError, OptionError

Floats = NDArray[np.float64]
Per = Literal["token", "word", "byte"]
"""What nats are divided by. Per token and per word read as perplexities, per byte as bits."""

BLOCK = 1 << 22  # draws held at once: 32 MB


@dataclass(frozen=True)
class Interval:
    """A percentile interval; NaN at both ends where a single sentence leaves nothing to resample."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def overlaps(self, other: Interval) -> bool:
        """True unless one lies wholly below the other; NaN overlaps everything."""
        return not (self.high < other.low or other.high < self.low)

    def as_json(self) -> list[float]:
        return [self.low, self.high]


@dataclass(frozen=True)
class Resampling:
    """How often and from which seed sentences are drawn again; `level` is the interval's coverage."""

    samples: int = 1000
    seed: int = 1
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.samples < 20:
            raise OptionError(
                f"{self.samples} bootstrap samples are too few for an interval.",
                remedy="give --bootstrap 20 or more; 1000 is usual.",
            )
        if not 0.0 < self.level < 1.0:
            raise OptionError(f"interval level {self.level} is not between 0 and 1.", remedy="0.95 is usual.")


DEFAULT = Resampling()


@dataclass(frozen=True)
class Paired:
    """One value against another on the same resamples; change = value / other - 1."""

    change: float
    interval: Interval

    @property
    def clear(self) -> bool:
        """The interval of the change leaves out zero."""
        return 0.0 not in self.interval and not math.isnan(self.interval.low)


def sentence_sums(values: NDArray[np.generic], ends: NDArray[np.integer]) -> Floats:
    """values [N], ends [S] (index of each sentence's last event) → [S] sums in float64.

    Raises ElmanError when the ends do not cut [0, N) into S non-empty sentences.
    """
    ends = np.asarray(ends, dtype=np.int64)
    starts = np.concatenate(([0], ends[:-1] + 1)).astype(np.int64)
    if not len(ends) or ends[-1] != len(values) - 1 or (starts > ends).any():
        raise ElmanError(
            f"the sentence ends do not cut {len(values):,} events into sentences.",
            reason="the numbers belong to another text.",
        )
    return np.add.reduceat(np.asarray(values, dtype=np.float64), starts)


def resample(columns: Floats, resampling: Resampling = DEFAULT) -> Floats:
    """columns [S, K] of per-sentence sums → [R, K] totals of R texts of S sentences each.

    Drawn with replacement by one generator from the seed: texts of equally many sentences get the
    same draws, so that intervals computed apart and together agree.
    """
    sentences = len(columns)
    draw = np.random.default_rng(resampling.seed)
    rows = max(1, BLOCK // max(1, sentences))
    totals = np.empty((resampling.samples, columns.shape[1]))
    for first in range(0, resampling.samples, rows):
        here = min(rows, resampling.samples - first)
        drawn = draw.integers(0, sentences, size=(here, sentences), dtype=np.int32).astype(np.int64)
        drawn += np.arange(here)[:, None] * sentences
        counts = np.bincount(drawn.ravel(), minlength=here * sentences).reshape(here, sentences)
        totals[first : first + here] = counts.astype(np.float64) @ columns
    return totals


def figure(nats: Floats, count: Floats, per: Per) -> Floats:
    """Sums of nats and counts → perplexity per token or word, or bits per byte. Smaller is better."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        mean = nats / count
        return mean / math.log(2) if per == "byte" else np.exp(mean)


def interval(nats: Floats, count: Floats, per: Per = "token", resampling: Resampling = DEFAULT) -> Interval:
    """Per-sentence nats [S] and counts [S] → the interval of their figure."""
    totals = resample(np.stack([nats, count], axis=1), resampling)
    return percentiles(figure(totals[:, 0], totals[:, 1], per), len(nats), resampling)


def paired_bootstrap(
    nats_a: Floats,
    nats_b: Floats,
    ends: NDArray[np.integer],
    *,
    samples: int = 1000,
    seed: int = 1,
) -> Paired:
    """Two models' nats [N] of the same events → how perplexity b differs from perplexity a.

    change -0.18 means that b is 18 % below a. `ends` [S] are the indices of `</s>`.
    """
    if len(nats_a) != len(nats_b):
        raise ElmanError(
            f"cannot pair {len(nats_a):,} events with {len(nats_b):,}.",
            reason="the two models were scored on different texts or with different tokenizers.",
        )
    columns = np.stack([sentence_sums(v, ends) for v in (nats_a, nats_b, np.ones(len(nats_a)))], axis=1)
    resampling = Resampling(samples=samples, seed=seed)
    a, b, events = resample(columns, resampling).T
    change = relative(figure(b, events, "token"), figure(a, events, "token"))
    whole = float(np.expm1((nats_b.sum() - nats_a.sum()) / len(nats_a)))
    return Paired(whole, percentiles(change, len(columns), resampling))


def relative(mine: Floats, theirs: Floats) -> Floats:
    """mine / theirs - 1, elementwise."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return mine / theirs - 1.0


def percentiles(drawn: Floats, sentences: int, resampling: Resampling) -> Interval:
    """drawn [R] → the middle `level` of them."""
    if sentences < 2:
        return Interval(math.nan, math.nan)
    tail = (1.0 - resampling.level) / 2
    with np.errstate(invalid="ignore"):  # between two infinities lies none
        low, high = np.quantile(drawn, [tail, 1.0 - tail])
    return Interval(float(low), float(high))
