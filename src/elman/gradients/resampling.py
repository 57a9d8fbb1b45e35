"""How sure a figure from pieces of a text is: the bootstrap over pieces (Efron 1979).

Steps of one text are not independent of their neighbours, so what is drawn again is a whole piece.
Not here: sentences of two models in pairs (compare/bootstrap.py).

N pieces, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES, SEED, LEVEL = 1000, 1, 0.95


class Estimate(NamedTuple):
    """A figure and its 95 % interval; NaN at both ends for a single piece: nothing can be drawn again."""

    value: float
    low: float
    high: float

    def map(self, monotone: Callable[[float], float]) -> Estimate:
        """The estimate of a rising or falling function of the figure."""
        value, *ends = (monotone(each) for each in self)
        return Estimate(value, *(sorted(ends) if ends[0] == ends[0] else ends))

    def as_json(self) -> list[float]:
        return list(self)


def estimate(pieces: int, figure: Callable[[Floats], Floats]) -> Estimate:
    """figure(counts [R, N]) → [R], of every piece once and of resamples, whose NaN are left out."""
    value = float(figure(np.ones((1, pieces)))[0])
    if pieces < 2:
        return Estimate(value, math.nan, math.nan)
    found = figure(draws(pieces))
    found = found[~np.isnan(found)]
    if not len(found):
        return Estimate(value, math.nan, math.nan)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def draws(pieces: int, resamples: int = RESAMPLES, seed: int = SEED) -> Floats:
    """[R, N] how often each piece is in each resample."""
    counts = np.random.default_rng(seed).multinomial(pieces, [1 / pieces] * pieces, size=resamples)
    return counts.astype(np.float64)
