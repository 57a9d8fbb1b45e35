"""Which units stay on over a stretch of text, and where else in a reference text they do.

The main job of LSTMVis (Strobelt, Gehrmann, Pfister & Rush 2018, IEEE TVCG 24(1)) without an export step.
There a unit is on where its value is at least a threshold, a selection of tokens gives the units that are on
at each of them, and the stretches of a reference text in which they are on together are ranked by how many
of them are, then by how few others are, then by length (`query_similar_activations` of its code). Here a
unit may also be on below zero: what is on keeps one sign.

A place p is one token of a text, and its row is the state after that token has been read, as in LSTMVis (the
rows of a trace come one earlier: a token's row is the state that predicts it). Stretches are half-open,
[first, last). That units are on together says that the model is in a similar state there; not what they
stand for.

N tokens of the reference text, T rows of the selection, H hidden size, U units of a query.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elman.errors import OptionError
from elman.memory.state_index import StateIndex, States

COMMON = 0.5
"""A unit that is on at more of the reference text than this says little about a stretch of it."""
CANDIDATES = 1000  # stretches ranked in full, as in LSTMVis
LIMIT = 20
CONTEXT = 5  # tokens on each side of a match


@dataclass(frozen=True)
class Unit:
    """sign  +1 or -1; mean  of its values over the selection
    edges  at how many ends of the selection it is off outside (0, 1, 2): it switches there
    """

    unit: int
    sign: int
    mean: float
    edges: int

    def as_json(self) -> dict[str, float]:
        """Without the edges, which the order of the units shows."""
        return {"unit": self.unit, "sign": self.sign, "mean": float(f"{self.mean:.4g}")}


@dataclass(frozen=True)
class Match:
    """A stretch [start, end) of the reference text.

    score   share of the query's units that are on throughout; others  units that are on throughout besides
    tokens  of the stretch with its context, of which [begin, stop) are the stretch
    """

    score: float
    start: int
    end: int
    others: int
    tokens: tuple[str, ...]
    begin: int
    stop: int

    def as_json(self) -> dict[str, object]:
        """As the page reads it."""
        return {
            "score": float(f"{self.score:.4g}"),
            "start": self.start,
            "end": self.end,
            "tokens": list(self.tokens),
            "from": self.begin,
            "to": self.stop,
        }


def stays_on(states: States, first: int, last: int, threshold: float) -> list[Unit]:
    """states [T, H] → the units with |value| >= threshold and one sign at every row of [first, last).

    First those that are off on both sides of the stretch (they belong to it), then on one, then the others;
    among equals the strongest first. Beyond the ends of the text a unit counts as off. OptionError.
    """
    if not 0 <= first < last <= len(states):
        raise OptionError(
            f"tokens {first} to {last} are no stretch of a text of {len(states)} tokens.",
            remedy="first is at least 0 and below last; last is at most the number of tokens.",
        )
    if not (threshold > 0 and math.isfinite(threshold)):
        raise OptionError(f"a threshold of {threshold} switches no unit.", remedy="give one above 0.")
    chosen = np.asarray(states[first:last], dtype=np.float64)
    low, high, means = chosen.min(axis=0), chosen.max(axis=0), chosen.mean(axis=0)
    signs = np.where(low >= threshold, 1, np.where(high <= -threshold, -1, 0))
    edges = np.zeros(states.shape[1], dtype=int)
    for beside in (first - 1, last):
        outside = states[beside] if 0 <= beside < len(states) else np.zeros(states.shape[1])
        edges += outside * signs < threshold
    found = [Unit(int(u), int(signs[u]), float(means[u]), int(edges[u])) for u in np.flatnonzero(signs)]
    return sorted(found, key=lambda each: (-each.edges, -abs(each.mean), each.unit))


def matches(
    index: StateIndex, units: Sequence[Unit], threshold: float, *, shortest: int = 2, limit: int = LIMIT
) -> list[Match]:
    """The stretches of the reference text in which most of `units` are on together, the best first.

    They do not overlap and hold at least `shortest` tokens. Ranked by the number of units on throughout, then
    by how few others are, then by length, then by place.
    """
    if not units:
        return []
    on = _on(index, units, threshold)
    stretches = _stretches(on, shortest)
    if not len(stretches):
        return []
    reached = np.zeros((len(units), on.shape[1] + 1), dtype=np.int32)
    np.cumsum(on, axis=1, dtype=np.int32, out=reached[:, 1:])
    starts, ends = stretches.T
    together = np.zeros(len(starts), dtype=np.int64)
    for sums in reached:  # unit by unit: [R] at a time
        together += sums[ends] - sums[starts] == ends - starts
    order = np.lexsort((starts, starts - ends, -together))[:CANDIDATES]
    level = np.float32(_reaching(threshold))
    ranked = sorted(
        (
            -together[k],
            _throughout(index, starts[k], ends[k], level) - together[k],
            starts[k] - ends[k],
            k,
        )
        for k in order
        if together[k]
    )
    taken = np.zeros(len(index.ids), dtype=bool)
    found: list[Match] = []
    for count, others, _, k in ranked:
        start, end = int(starts[k]), int(ends[k])
        if len(found) == limit:
            break
        if not taken[start:end].any():
            taken[start:end] = True
            found.append(_shown(index, start, end, -count / len(units), int(others)))
    return found


def similar(
    index: StateIndex, states: States, first: int, last: int, threshold: float | None = None
) -> dict[str, object]:
    """states [T, H] of the selection's text → its units and their matches, as the page reads them.

    threshold None: the index's default. `states` are of the layer and part of the index (`states_over`).
    Units that are on at more than half of the reference text are counted as "common" and left out, unless
    there are no others.
    """
    level = index.default_threshold() if threshold is None else threshold
    all_units = stays_on(states, first, last, level)
    units = _telling(index, all_units, level)
    shortest = min(2, last - first)
    return {
        "layer": index.layer,
        "part": index.part,
        "threshold": level,
        "first": first,
        "last": last,
        "units": [unit.as_json() for unit in units],
        "common": len(all_units) - len(units),
        "matches": [match.as_json() for match in matches(index, units, level, shortest=shortest)],
    }


def _telling(index: StateIndex, units: list[Unit], threshold: float) -> list[Unit]:
    """Those that are not on most of the time anyway; all, where that leaves none."""
    if not units:
        return units
    shares = _on(index, units, threshold).mean(axis=1)
    return [unit for unit, share in zip(units, shares, strict=True) if share <= COMMON] or units


def _on(index: StateIndex, units: Sequence[Unit], threshold: float) -> NDArray[np.bool_]:
    """[U, N], where each unit is on with its sign. Positive numbers order as their bits do, and NumPy
    compares integers 25 times as fast as float16."""
    level = _reaching(threshold)
    bits = index.values[[unit.unit for unit in units]].view(np.int16)
    bits[[unit.sign < 0 for unit in units]] ^= np.int16(-0x8000)  # the sign bit: now all are to be positive
    return bits >= level.view(np.int16)


def _reaching(threshold: float) -> np.float16:
    """The smallest float16 that is at least `threshold`; infinite where none is."""
    with np.errstate(over="ignore"):
        level = np.float16(threshold)
    return level if float(level) >= threshold else np.nextafter(level, np.float16(np.inf))


def _stretches(on: NDArray[np.bool_], shortest: int) -> NDArray[np.int64]:
    """on [U, N] → [R, 2] starts and ends of the runs in which at least k units are on, for k from U down.

    It stops where `CANDIDATES` are found, as LSTMVis does: what has fewer units at every one of its tokens is
    not looked at, although more of them might be on throughout.
    """
    count = on.sum(axis=0, dtype=np.int32)
    found = np.zeros((0, 2), dtype=np.int64)
    for k in range(int(count.max(initial=0)), 0, -1):
        edges = np.flatnonzero(np.diff((count >= k).astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
        found = np.unique(np.concatenate([found, edges[edges[:, 1] - edges[:, 0] >= shortest]]), axis=0)
        if len(found) >= CANDIDATES:
            break
    return found


def _throughout(index: StateIndex, start: int, end: int, level: np.float32) -> int:
    """How many of all units are on, with one sign, at every token of the stretch."""
    values = index.values[:, start:end].astype(np.float32)
    return int(((values.min(axis=1) >= level) | (values.max(axis=1) <= -level)).sum())


def _shown(index: StateIndex, start: int, end: int, score: float, others: int) -> Match:
    first, last = max(0, start - CONTEXT), min(len(index.ids), end + CONTEXT)
    tokens = tuple(index.vocabulary.tokens[int(token)] for token in index.ids[first:last])
    return Match(score, start, end, others, tokens, start - first, end - first)
