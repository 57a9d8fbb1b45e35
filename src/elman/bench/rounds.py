"""Timing in rounds: every contender once a round, the machine's peak beside them, medians over rounds.

A shared machine changes its speed from second to second. Two contenders of one round met nearly the same
machine, so a ratio is taken within the round, and of the ratios the median. The order rotates: nobody
always follows the same neighbour.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from elman.kernels import native

SHORTEST = 0.03
"""Seconds that one measurement takes at least: shorter runs are repeated within it."""
PAUSE = 0.01
"""Seconds before each measurement, in which the idle threads of the contender before fall asleep."""
DISAGREE = 0.15
"""Rounds disagree where half of them lie further apart than this part of the median."""
PEAK_SECONDS, PEAK_TRIES = 0.003, 5


@dataclass(frozen=True)
class Contender:
    """name, what one run of it is, and the predictions it makes."""

    name: str
    run: Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """Median, extremes and middle half of some rounds."""

    median: float
    low: float
    high: float
    disagree: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "median": self.median,
            "low": self.low,
            "high": self.high,
            "rounds_disagree": self.disagree,
        }


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    median = statistics.median(values)
    quarter, _, three = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [median] * 3
    )
    return Spread(median, min(values), max(values), three - quarter > DISAGREE * median)


@dataclass(frozen=True)
class Rounds:
    """seconds: contender → of one run, a number a round. peaks: threads → GFLOP/s, a number a round."""

    seconds: dict[str, list[float]]
    peaks: dict[int, list[float]]

    def ratio(self, ours: str, peer: str) -> Spread:
        """How many times as fast as `peer` is `ours`."""
        pairs = zip(self.seconds[peer], self.seconds[ours], strict=True)
        return spread([theirs / own for theirs, own in pairs])

    def fraction_of_peak(self, name: str, operations: float, threads: int) -> Spread | None:
        """Of the peak on so many threads, round by round; None where it cannot be measured."""
        if not self.peaks:
            return None
        pairs = zip(self.seconds[name], self.peaks[threads], strict=True)
        return spread([operations / seconds / 1e9 / peak for seconds, peak in pairs])


def measure_peak(threads: int) -> float:
    """GFLOP/s of float32 multiply-adds in registers, instruction set in use; the best of a few tries, as one
    may meet a thread that the system has taken off its core."""
    module = native.require()
    steps, seconds = 20_000, 0.0
    while seconds < PEAK_SECONDS and steps < 1 << 26:
        steps *= 2
        began = time.perf_counter()
        module.peak(threads, steps)
        seconds = time.perf_counter() - began
    return max(float(module.peak(threads, steps)) for _ in range(PEAK_TRIES))


def interleave(
    contenders: Sequence[Contender],
    *,
    rounds: int,
    threads: int,
    told: Callable[[int], None] = lambda done: None,
) -> Rounds:
    """Run every contender once a round, after two runs that do not count. `told` hears each round's end."""
    repeats: dict[str, int] = {}
    for one in contenders:
        one.run()
        began = time.perf_counter()
        one.run()
        repeats[one.name] = max(1, math.ceil(SHORTEST / max(time.perf_counter() - began, 1e-9)))
    seconds: dict[str, list[float]] = {one.name: [] for one in contenders}
    counts = sorted({1, threads}) if native.available() else []
    peaks: dict[int, list[float]] = {count: [] for count in counts}
    for number in range(rounds):
        for count in counts:
            peaks[count].append(measure_peak(count))
        shift = number % len(contenders)
        for one in (*contenders[shift:], *contenders[:shift]):
            time.sleep(PAUSE)
            began = time.perf_counter()
            for _ in range(repeats[one.name]):
                one.run()
            seconds[one.name].append((time.perf_counter() - began) / repeats[one.name])
        told(number + 1)
    return Rounds(seconds, peaks)
