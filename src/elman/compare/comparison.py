"""What a comparison is once it is done: the models, the paired differences, how all was counted.

Values only, ready for JSON, the terminal and the page. Not here: how they are computed (table.py),
which models are trained (lineup.py), how they are drawn (report/).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from elman.compare.bootstrap import Interval
from elman.compare.table import Difference, Row, Scored
from elman.evaluate import Bucket
from elman.language_model import Protocol
from elman.text.vocabulary import Vocabulary

FORMAT = 1


@dataclass(frozen=True)
class CurvePoint:
    """Where training stood after an epoch; perplexities per token."""

    epoch: float
    seconds: float
    tokens: int
    train: float | None
    valid: float


@dataclass(frozen=True)
class Entry:
    """One model and all that is known of it.

    name        short, as on the command line; label is what people read
    kind        ngram, feedforward, recurrent, mixture or outside
    row         the figure compared; reset is the same with the state reset at each sentence, for
                models whose state would otherwise carry over
    valid       perplexity per token of the validation text, by which the model was chosen
    parameters  numbers stored (n-grams: probabilities and backoffs); bytes on disk
    seconds     of training and choosing
    details     settings in words
    """

    name: str
    label: str
    kind: str
    row: Row
    reset: Row | None = None
    valid: float | None = None
    parameters: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    curve: tuple[CurvePoint, ...] = ()
    frequency: tuple[Bucket, ...] = ()
    positions: tuple[Bucket, ...] = ()
    samples: tuple[str, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        document: dict[str, object] = {**vars(self), "details": dict(self.details)}
        document["row"] = self.row.as_json()
        document["reset"] = None if self.reset is None else self.reset.as_json()
        document["curve"] = [asdict(point) for point in self.curve]
        document["frequency"] = [bucket.as_json() for bucket in self.frequency]
        document["positions"] = [bucket.as_json() for bucket in self.positions]
        return document


@dataclass(frozen=True)
class Subject:
    """The text that was scored, and what the models were trained on."""

    name: str
    origin: str
    digest: str
    sentences: int
    events: int
    words: int
    bytes: int
    unknown: int
    vocabulary: int
    trained_on: int | None = None
    trained_unknown: int | None = None


@dataclass(frozen=True)
class Repeat:
    """What it takes to do it again."""

    command: str
    version: str
    seed: int
    machine: str
    date: str
    seconds: float | None = None


@dataclass(frozen=True)
class WordGain:
    """A token type: how often it stood in the text, nats saved in all (negative: lost)."""

    text: str
    count: int
    nats: float


@dataclass(frozen=True)
class PairedToken:
    """A token in its sentence and what each of the two models paid for it, in nats."""

    text: str
    mine: float
    theirs: float


@dataclass(frozen=True)
class Gains:
    """Where `name` pays less than `other`, and where more: the extremes, not a fair sample."""

    name: str
    other: str
    won: tuple[WordGain, ...]
    lost: tuple[WordGain, ...]
    sentences: tuple[tuple[PairedToken, ...], ...]


@dataclass(frozen=True)
class Comparison:
    """Everything that is printed, drawn and saved."""

    entries: tuple[Entry, ...]
    neighbours: tuple[Difference, ...]
    against_baseline: tuple[Difference, ...]
    reset_against_baseline: tuple[Difference, ...]
    baseline: str | None
    subject: Subject
    protocol: Protocol
    repeat: Repeat
    notes: tuple[str, ...] = ()
    gains: Gains | None = None

    def entry(self, name: str) -> Entry:
        return next(entry for entry in self.entries if entry.name == name)

    @property
    def best(self) -> Entry:
        return min(self.entries, key=lambda entry: entry.row.figure)

    def as_json(self) -> dict[str, object]:
        """One JSON document; figures that are not numbers are left for the writer to make null."""
        return {
            "format": FORMAT,
            "headline": headline(self),
            "verdicts": verdicts(self),
            "subject": asdict(self.subject),
            "protocol": {**asdict(self.protocol), "words": protocol_in_words(self)},
            "baseline": self.baseline,
            "entries": [entry.as_json() for entry in self.entries],
            "neighbours": [difference.as_json() for difference in self.neighbours],
            "against_baseline": [difference.as_json() for difference in self.against_baseline],
            "reset_against_baseline": [difference.as_json() for difference in self.reset_against_baseline],
            "notes": list(self.notes),
            "gains": None if self.gains is None else asdict(self.gains),
            "repeat": asdict(self.repeat),
        }


FIGURES = {"token": "perplexity", "word": "perplexity per word", "byte": "bits per byte"}


def number(value: float, per: str = "token") -> str:
    """A perplexity or bits per byte as people read it."""
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if per == "byte" else f"{value:,.1f}" if value < 10_000 else f"{value:,.0f}"


def percent(change: float, interval: Interval) -> str:
    """-0.183 and its interval → "18.3 % [17.1, 19.4] below"."""
    sign, word = (-1.0, "below") if change <= 0 else (1.0, "above")
    ends = sorted((sign * interval.low * 100, sign * interval.high * 100))
    digits = 1 if abs(change) >= 0.01 else 2
    bounds = "" if math.isnan(ends[0]) else f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"
    return f"{abs(change) * 100:.{digits}f} %{bounds} {word}"


def verdict(difference: Difference, comparison: Comparison) -> str:
    """One line: who is how far below whom, and how sure that is."""
    mine, theirs = (comparison.entry(name).label for name in (difference.name, difference.other))
    distance = percent(difference.change, difference.interval)
    if abs(difference.change) < 5e-5:
        return f"{mine} and {theirs} are the same within 0.005 %."
    if not difference.clear:
        return f"{mine} and {theirs} cannot be told apart: {distance}."
    apart = "; intervals disjoint" if difference.disjoint else ""
    return f"{mine} is {distance} {theirs}{apart}."


def verdicts(comparison: Comparison) -> list[str]:
    """The lines under the table: what learns against the baseline, the best recurrent model also with
    its state reset; then, among what learns, each against the next-worse."""
    kinds = {entry.name: entry.kind for entry in comparison.entries}
    lines = [verdict(d, comparison) for d in comparison.against_baseline if kinds[d.name] != "ngram"]
    resets = [d for d in comparison.reset_against_baseline if kinds[d.name] == "recurrent"]
    if resets:
        best = verdict(min(resets, key=lambda difference: difference.change), comparison)
        lines.append(best[:-1] + ", with its state reset at every sentence.")
    lines += [
        verdict(d, comparison)
        for d in comparison.neighbours
        if "ngram" not in (kinds[d.name], kinds[d.other]) and comparison.baseline not in (d.name, d.other)
    ]
    return lines


def headline(comparison: Comparison) -> str:
    """The one sentence to remember."""
    if not comparison.entries:
        return "No model was finished."
    best = comparison.best
    figure = f"{FIGURES[best.row.per]} {number(best.row.figure, best.row.per)}"
    text = f"{best.label} is best on {comparison.subject.name}: {figure}"
    for difference in comparison.against_baseline:
        if difference.name == best.name:
            other = comparison.entry(difference.other).label
            distance = percent(difference.change, difference.interval)
            if difference.clear:
                return f"{text}, {distance} {other}."
            return f"{text}, which cannot be told apart from {other} ({distance})."
    return text + "."


def protocol_in_words(comparison: Comparison) -> list[str]:
    """How the numbers were counted, sentence by sentence."""
    protocol, subject = comparison.protocol, comparison.subject
    per = comparison.entries[0].row.per if comparison.entries else "token"
    unknown = (
        "a word outside the vocabulary counts as the word <unk> (closed vocabulary)"
        if protocol.unknown == "word"
        else "words outside the vocabulary are left out of the count; they stay in the context"
    )
    return [
        f"One event is one predicted {protocol.unit}; </s> ends every sentence and is predicted, "
        f"<s> is not: {subject.events:,} events in {subject.sentences:,} sentences.",
        f"Unknown words: {unknown}; {subject.unknown:,} of the events "
        f"({subject.unknown / max(1, subject.events):.1%}).{_trained(subject)}",
        "Recurrent models carry their state from sentence to sentence; the column “reset” is the same "
        "model started afresh at every sentence, which is all an n-gram ever sees.",
        {
            "token": "Perplexity is exp(nats / events).",
            "word": "Perplexity per word: exp(nats / words of the original text), as tokens differ.",
            "byte": "Bits per byte of the original text, as tokens differ.",
        }[per],
        "Brackets are 95 % percentile intervals of a bootstrap over sentences; a difference is "
        "measured on the same resamples for both models (paired).",
    ]


def _trained(subject: Subject) -> str:
    if subject.trained_unknown is None or not subject.trained_on:
        return ""
    share = subject.trained_unknown / subject.trained_on
    return f" In training {subject.trained_unknown:,} of {subject.trained_on:,} events were ({share:.1%})."


def gains(mine: Scored, theirs: Scored, vocabulary: Vocabulary, *, words: int = 10) -> Gains | None:
    """Where `mine` saves nats against `theirs`, by token type and in three sentences; None unless
    both scored the same tokens."""
    ids = np.asarray(mine.text.ids)
    if not np.array_equal(ids, np.asarray(theirs.text.ids)):
        return None
    saved = theirs.nats - mine.nats
    total = np.bincount(ids, weights=saved, minlength=len(vocabulary))
    count = np.bincount(ids, minlength=len(vocabulary))
    order = np.argsort(-total, kind="stable")

    def pick(types: NDArray[np.intp], sign: float) -> tuple[WordGain, ...]:
        found = (WordGain(vocabulary.token(int(i)), int(count[i]), float(total[i])) for i in types)
        return tuple(gain for gain in found if gain.nats * sign > 0)

    starts = np.concatenate(([0], np.asarray(mine.text.ends[:-1]) + 1))
    lengths = np.asarray(mine.text.ends) - starts + 1
    fit = np.flatnonzero((lengths >= 8) & (lengths <= 26))
    means = np.add.reduceat(saved, starts)[fit] / lengths[fit]
    ranked = fit[np.argsort(-means, kind="stable")]
    chosen = [*ranked[:2], *ranked[2:][-1:]]
    sentences = tuple(
        tuple(
            PairedToken(vocabulary.token(int(ids[t])), float(mine.nats[t]), float(theirs.nats[t]))
            for t in range(starts[s], starts[s] + lengths[s])
        )
        for s in chosen
    )
    return Gains(mine.name, theirs.name, pick(order[:words], 1.0), pick(order[::-1][:words], -1.0), sentences)
