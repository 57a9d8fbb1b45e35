"""Several models on one text → the paired table: figures, intervals, and who is below whom.

Not here: the resampling itself (bootstrap.py), the curves, sizes and samples of the models
(comparison.py), a model's nats (evaluate.py). Only models that counted the same events compare
per token; models that cut the text differently compare per word or per byte of the original text;
everything else refuses with ProtocolError and says why.

N events, S sentences, M models, R resamples.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from elman.compare.bootstrap import (
    DEFAULT,
    Floats,
    Interval,
    Paired,
    Per,
    Resampling,
    figure,
    percentiles,
    relative,
    resample,
    sentence_sums,
)
from elman.compare.bootstrap import paired_bootstrap as paired_bootstrap
from elman.compare.outside import read_score_file as read_score_file
from elman.errors import ElmanError, OptionError, ProtocolError
from elman.language_model import Protocol, Score
from elman.text.corpus import Text
from elman.text.tokenizers import Tokenizer
from elman.text.vocabulary import Vocabulary

FEW_SENTENCES = 30


@dataclass(frozen=True)
class Encoding:
    """What a model takes for one event: how it cuts the text and which tokens it knows."""

    tokenizer: str
    vocabulary: str
    size: int
    words: str = ""  # the tokens in any order

    @classmethod
    def of(cls, vocabulary: Vocabulary, tokenizer: Tokenizer) -> Encoding:
        cut = json.dumps(tokenizer.as_json(), sort_keys=True)
        return cls(cut, vocabulary.digest, len(vocabulary), vocabulary.words_digest)


@dataclass(frozen=True)
class Scored:
    """One model's nats [N] float64 on its own encoding of the text."""

    name: str
    nats: Floats
    text: Text
    encoding: Encoding
    protocol: Protocol


@dataclass(frozen=True)
class Row:
    """One model in the table; `figure` is what is compared (`per` says in which unit)."""

    name: str
    score: Score
    per: Per
    figure: float
    interval: Interval

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "per": self.per,
            "figure": self.figure,
            "interval": self.interval.as_json(),
            "score": self.score.as_json(),
        }


@dataclass(frozen=True)
class Difference:
    """`name` against `other` on the same sentences.

    change    name's figure / other's figure - 1, negative where `name` is better
    interval  of the change, paired: both models on the same resamples
    clear     that interval leaves out zero
    disjoint  the two models' own intervals do not even overlap, which asks for more
    """

    name: str
    other: str
    change: float
    interval: Interval
    clear: bool
    disjoint: bool

    def as_json(self) -> dict[str, object]:
        return {**vars(self), "interval": self.interval.as_json()}


@dataclass(frozen=True)
class Table:
    """Rows in the order given; each model against the next-worse one, and against the baseline."""

    per: Per
    rows: tuple[Row, ...]
    neighbours: tuple[Difference, ...]
    against_baseline: tuple[Difference, ...]
    baseline: str | None
    sentences: int
    notes: tuple[str, ...] = ()


def compare(
    scored: Sequence[Scored],
    *,
    baseline: str | None = None,
    per: Per | None = None,
    resampling: Resampling = DEFAULT,
) -> Table:
    """The paired table of models scored on one text.

    per=None takes tokens where all models count the same events, else bytes. Raises OptionError
    for a name given twice or an unknown baseline, ProtocolError for unlike protocols or texts.
    """
    names = [model.name for model in scored]
    if not names:
        raise OptionError("there is no model to compare.", remedy="name at least one model.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise OptionError(f"the name {twice!r} is given to two models.", remedy="name them apart: NAME=PATH.")
    if baseline is not None and baseline not in names:
        raise OptionError(
            f"the baseline {baseline!r} is not among the models.", remedy=f"one of: {', '.join(names)}."
        )
    per, notes = _unit(scored, per)
    nats, counts, scores = _sums(scored, per)
    totals = resample(np.concatenate([nats, counts], axis=1), resampling)  # [R, 2M]
    m, sentences = len(scored), len(nats)
    figures = figure(nats.sum(axis=0), counts.sum(axis=0), per)
    drawn = figure(totals[:, :m], totals[:, m:], per)  # [R, M]
    intervals = [percentiles(column, sentences, resampling) for column in drawn.T]
    rows = tuple(
        Row(name, score, per, float(value), interval)
        for name, score, value, interval in zip(names, scores, figures, intervals, strict=True)
    )

    def difference(i: int, j: int) -> Difference:
        change = percentiles(relative(drawn[:, i], drawn[:, j]), sentences, resampling)
        pair = Paired(float(relative(figures[[i]], figures[[j]])[0]), change)
        disjoint = sentences > 1 and not intervals[i].overlaps(intervals[j])
        return Difference(names[i], names[j], pair.change, pair.interval, pair.clear, disjoint)

    worst_first = [int(i) for i in np.argsort(-figures, kind="stable")]
    base = None if baseline is None else names.index(baseline)
    if sentences < FEW_SENTENCES:
        notes.append(f"Only {sentences} sentence{'s' * (sentences != 1)}: the intervals cannot be trusted.")
    return Table(
        per=per,
        rows=rows,
        neighbours=tuple(difference(better, worse) for worse, better in pairwise(worst_first)),
        against_baseline=tuple(difference(i, base) for i in worst_first if base is not None and i != base),
        baseline=baseline,
        sentences=sentences,
        notes=tuple(notes),
    )


def _unit(scored: Sequence[Scored], per: Per | None) -> tuple[Per, list[str]]:
    """What to divide by, and what a reader must know about it."""
    first, notes = scored[0], list[str]()
    same_cut = all(model.encoding.tokenizer == first.encoding.tokenizer for model in scored)
    if same_cut and per in (None, "token"):
        for model in scored[1:]:
            first.protocol.require_comparable(model.protocol)
            _require_vocabulary(first, model)
        return "token", notes
    if per == "token":
        raise ProtocolError(
            "models that cut the text into different tokens cannot be compared per token.",
            reason=f"{first.name} and the others count different events.",
            remedy="compare with --per word or --per byte.",
        )
    for model in scored:
        if model.protocol.unknown == "skip" or not model.protocol.end_of_sentence:
            raise ProtocolError(
                f"{model.name} leaves events out ({model.protocol}), so nats per {per or 'byte'} mislead.",
                remedy="score with unknown=word and </s> counted.",
            )
        lossy = f"{model.name} leaves out blanks, capitals or numbers: its figure is flattered."
        notes += [lossy] * model.protocol.normalized
        share = model.text.unknown / max(1, model.text.events)
        if share:
            spared = f"{share:.1%} of its tokens and never has to spell them"
            notes.append(f"{model.name} writes <unk> for {spared}: its figure is flattered.")
    return per or "byte", notes


def _require_vocabulary(first: Scored, model: Scored) -> None:
    unlike = first.encoding != model.encoding and not (first.encoding.words == model.encoding.words != "")
    unknown = max(first.text.unknown, model.text.unknown)
    if unlike and unknown and model.protocol.unknown == "word":
        sizes = f"{first.encoding.size:,} and {model.encoding.size:,} tokens"
        raise ProtocolError(
            f"{first.name} and {model.name} know different words ({sizes}).",
            reason="a smaller vocabulary calls more words <unk>, which is easier to predict.",
            remedy="compare with --unknown skip: only words that every model knows are counted.",
        )


def _sums(scored: Sequence[Scored], per: Per) -> tuple[Floats, Floats, list[Score]]:
    """Nats [S, M] and what divides them [S, M], over sentences that all models share."""
    blocks = _blocks(scored)
    keep = _kept(scored) if per == "token" else None
    nats, counts, scores = [], [], []
    for model, last in zip(scored, blocks, strict=True):
        text = model.text
        if len(model.nats) != text.events:
            raise ElmanError(
                f"{model.name} has {len(model.nats):,} numbers for a text of {text.events:,} events.",
                reason="they belong to another text or to another tokenizer's events.",
            )
        kept = np.ones(text.events, dtype=bool) if keep is None else keep
        values = np.where(kept, np.asarray(model.nats, dtype=np.float64), 0.0)
        if not np.isfinite(values).all():
            zero = "gives probability zero to an event: its perplexity is infinite"
            raise ElmanError(
                f"{model.name} {'has no number for an event' if np.isnan(values).any() else zero}.",
                remedy="smooth it, or compare with --unknown skip when it is an unknown word.",
            )
        divisor = {"token": sentence_sums(kept, text.ends), "word": text.words, "byte": text.bytes}[per]
        nats.append(_merge(sentence_sums(values, text.ends), last))
        counts.append(_merge(np.asarray(divisor, dtype=np.float64), last))
        scores.append(
            Score(
                nats=math.fsum(values),
                events=int(kept.sum()),
                words=int(text.words.sum(dtype=np.int64)),
                bytes=int(text.bytes.sum(dtype=np.int64)),
                unknown=text.unknown,
                protocol=model.protocol,
                known_nats=math.fsum(values[np.asarray(text.ids) != Vocabulary.unk_id]),
            )
        )
    return np.stack(nats, axis=1), np.stack(counts, axis=1), scores


def _kept(scored: Sequence[Scored]) -> NDArray[np.bool_]:
    """[N] bool: events that count; under unknown=skip those that every model knows."""
    kept = np.ones(scored[0].text.events, dtype=bool)
    for model in scored:
        if model.text.events != len(kept):
            raise ProtocolError(
                f"{scored[0].name} counts {len(kept):,} events and {model.name} {model.text.events:,}.",
                reason="they were scored on different texts.",
            )
        kept &= model.protocol.counted(np.asarray(model.text.ids))
    if not kept.any():
        raise ProtocolError("every token of the text is unknown: nothing is left to compare.")
    return kept


def _blocks(scored: Sequence[Scored]) -> list[NDArray[np.int64]]:
    """Per model the indices of the sentences that end where a sentence of every model ends.

    Tokenizers may cut one original text into other sentences; bytes tell where they meet again.
    """
    if all(np.array_equal(model.text.bytes, scored[0].text.bytes) for model in scored):
        return [np.arange(len(scored[0].text.bytes)) for _ in scored]
    places = [np.cumsum(model.text.bytes, dtype=np.int64) for model in scored]
    for model, ends in zip(scored, places, strict=True):
        if ends[-1] != places[0][-1]:
            raise ProtocolError(
                f"{scored[0].name} was scored on {places[0][-1]:,} bytes and {model.name} on {ends[-1]:,}.",
                reason="they were scored on different texts.",
                remedy="score all models on one text.",
            )
    common = places[0]
    for ends in places[1:]:
        common = np.intersect1d(common, ends)
    return [np.searchsorted(ends, common, side="right") - 1 for ends in places]


def _merge(sums: Floats, last: NDArray[np.int64]) -> Floats:
    """Sums of sentences [S] → sums of the blocks that end with sentence last[k]: [K]."""
    running = np.concatenate(([0.0], np.cumsum(sums)))[last + 1]
    return sums if len(last) == len(sums) else np.diff(running, prepend=0.0)
