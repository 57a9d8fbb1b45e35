"""Scored models → the whole Comparison: both tables (carried and reset), breakdowns, gains.

Not here: scoring (contest.py, cli), the paired table itself (table.py).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from elman.compare.bootstrap import DEFAULT, Per, Resampling
from elman.compare.comparison import Comparison, Entry, Gains, Repeat, Subject, gains
from elman.compare.lineup import BASELINE
from elman.compare.outcome import Facts, Outcome
from elman.compare.table import Encoding, Scored, Table, compare
from elman.errors import ElmanError
from elman.evaluate import breakdown, score, unlearned
from elman.language_model import Protocol, StatePolicy
from elman.text.corpus import Corpus, Text
from elman.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Candidate:
    """A model that was scored; `reset` where resetting its state makes another number."""

    label: str
    kind: str
    scored: Scored
    vocabulary: Vocabulary
    reset: Scored | None = None
    valid: float | None = None
    facts: Facts | None = None

    @property
    def name(self) -> str:
        return self.scored.name


@dataclass(frozen=True)
class Counting:
    """How the figures are made: see compare.compare."""

    baseline: str | None = None
    per: Per | None = None
    resampling: Resampling = DEFAULT


def candidate_of(outcome: Outcome, corpus: Corpus, protocol: Protocol) -> Candidate:
    """A model of the line-up as scored on the corpus's test text."""
    encoding = Encoding.of(corpus.vocabulary, corpus.tokenizer)

    def scored(nats: np.ndarray, state: StatePolicy) -> Scored:
        return Scored(outcome.spec.name, nats, corpus.test, encoding, replace(protocol, state=state))

    return Candidate(
        label=outcome.spec.label,
        kind=outcome.spec.kind,
        scored=scored(outcome.test, "carry"),
        vocabulary=corpus.vocabulary,
        reset=None if outcome.reset is None else scored(outcome.reset, "reset"),
        valid=score(outcome.valid, corpus.valid, protocol).perplexity,
        facts=outcome.facts,
    )


def subject_of(
    name: str, origin: str, digest: str, text: Text, vocabulary: Vocabulary, trained_on: int | None = None
) -> Subject:
    """What was scored, in numbers."""
    return Subject(
        name=name,
        origin=origin,
        digest=digest,
        sentences=text.sentences,
        events=text.events,
        words=int(text.words.sum(dtype=np.int64)),
        bytes=int(text.bytes.sum(dtype=np.int64)),
        unknown=text.unknown,
        vocabulary=len(vocabulary),
        trained_on=trained_on,
        trained_unknown=None if trained_on is None else vocabulary.trained_unknown,
    )


def assemble(
    candidates: Sequence[Candidate],
    *,
    subject: Subject,
    repeat: Repeat,
    counting: Counting | None = None,
    notes: Sequence[str] = (),
) -> Comparison:
    """Compare all; without a named baseline it is Kneser-Ney 5, else the best n-gram, else the first."""
    counting = counting or Counting()
    table = compare([c.scored for c in candidates], per=counting.per, resampling=counting.resampling)
    baseline = counting.baseline or _baseline(candidates, table)
    if len(candidates) > 1 or counting.baseline is not None:
        table = compare(
            [c.scored for c in candidates],
            baseline=baseline,
            per=table.per,
            resampling=counting.resampling,
        )
    fresh = _reset_table(candidates, baseline, table.per, counting.resampling)
    resets = {} if fresh is None else {row.name: row for row in fresh.rows}
    entries = []
    told = []
    for candidate, row in zip(candidates, table.rows, strict=True):
        parts = breakdown(
            candidate.scored.nats, candidate.scored.text, candidate.vocabulary, candidate.scored.protocol
        )
        facts = candidate.facts
        if candidate.kind != "outside":
            told.append(unlearned(candidate.label, candidate.vocabulary, row.score))
        entries.append(
            Entry(
                name=candidate.name,
                label=candidate.label,
                kind=candidate.kind,
                row=row,
                reset=resets.get(candidate.name) if candidate.reset is not None else None,
                valid=candidate.valid,
                parameters=None if facts is None else facts.parameters,
                bytes=None if facts is None else facts.bytes,
                seconds=None if facts is None else facts.seconds,
                curve=() if facts is None else facts.curve,
                frequency=tuple(parts.by_frequency),
                positions=tuple(parts.by_position),
                samples=() if facts is None else facts.samples,
                details={} if facts is None else facts.details,
            )
        )
    return Comparison(
        entries=tuple(entries),
        neighbours=table.neighbours,
        against_baseline=table.against_baseline,
        reset_against_baseline=() if fresh is None else fresh.against_baseline,
        baseline=table.baseline,
        subject=subject,
        protocol=candidates[0].scored.protocol,
        repeat=repeat,
        notes=(*notes, *table.notes, *(note for note in told if note)),
        gains=_gains(candidates, table, baseline),
    )


def _baseline(candidates: Sequence[Candidate], table: Table) -> str:
    figures = {row.name: row.figure for row in table.rows}
    if BASELINE in figures:
        return BASELINE
    counted = [candidate.name for candidate in candidates if candidate.kind == "ngram"]
    return min(counted, key=lambda name: figures[name]) if counted else candidates[0].name


def _reset_table(
    candidates: Sequence[Candidate], baseline: str, per: Per, resampling: Resampling
) -> Table | None:
    """The models that carry a state, without it, beside the baseline."""
    chosen = [c.reset or c.scored for c in candidates if c.reset is not None or c.name == baseline]
    if not any(candidate.reset is not None for candidate in candidates):
        return None
    return compare(chosen, baseline=baseline, per=per, resampling=resampling)


def _gains(candidates: Sequence[Candidate], table: Table, baseline: str) -> Gains | None:
    figures = {row.name: row.figure for row in table.rows}
    rivals = [c for c in candidates if c.name != baseline]
    learned = [c for c in rivals if c.kind in ("recurrent", "feedforward")] or rivals
    if not learned:
        return None
    best = min(learned, key=lambda candidate: figures[candidate.name])
    other = next(candidate for candidate in candidates if candidate.name == baseline)
    if best.scored.encoding != other.scored.encoding:
        return None
    return gains(best.scored, other.scored, best.vocabulary)


def machine() -> str:
    """Processor, cores and versions, in a line."""
    import torch

    cpu = str(torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return (
        f"{cpu}, {cores} core{'s' if cores != 1 else ''}, {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def require_some(candidates: Sequence[Candidate]) -> None:
    """Raise ElmanError when nothing was finished."""
    if not candidates:
        raise ElmanError(
            "no model was finished, so there is nothing to compare.",
            remedy="run it again; with --save DIR it goes on where it stopped.",
        )
