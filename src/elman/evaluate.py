"""A model and a text → its Score, and where the nats fall: by training count, by place in the sentence.

Not here: the nats themselves (event_nats.py), intervals and paired tests (compare/).
Every figure is a (nats, events) pair: parts add to the whole, and no mean is ever averaged.

N events of the text. Nats throughout, float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from elman.errors import ElmanError, OptionError
from elman.event_nats import BLOCK, Progress
from elman.event_nats import event_nats as event_nats
from elman.language_model import LanguageModel, Protocol, Score, StatePolicy, UnknownPolicy, perplexity
from elman.text.corpus import Text
from elman.text.tokenizers import Tokenizer
from elman.text.vocabulary import Vocabulary

UNK_ID, EOS_ID = 0, 1  # fixed by Vocabulary


def protocol_of(
    model: LanguageModel, *, unknown: UnknownPolicy = "word", state: StatePolicy = "carry"
) -> Protocol:
    """The protocol under which `evaluate` counts with these options."""
    ends = bool(getattr(model, "ends_sentences", True))
    return replace(protocol_in(model.tokenizer, unknown=unknown, state=state), end_of_sentence=ends)


def protocol_in(
    tokenizer: Tokenizer, *, unknown: UnknownPolicy = "word", state: StatePolicy = "carry"
) -> Protocol:
    """The same for any model with this tokenizer that knows of sentence ends."""
    return Protocol(tokenizer.unit, unknown, state, normalized=bool(tokenizer.lost))


def evaluate(
    model: LanguageModel,
    text: Text,
    *,
    unknown: UnknownPolicy = "word",
    state: StatePolicy = "carry",
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Score:
    """The Score of a text; raises as `event_nats` does."""
    nats = event_nats(model, text, state=state, batch_size=batch_size, progress=progress)
    return score(nats, text, protocol_of(model, unknown=unknown, state=state))


def score(nats: np.ndarray | Iterable[np.ndarray], text: Text, protocol: Protocol) -> Score:
    """Nats of every event, [N] or chunks in text order, summed as the protocol says.

    unknown="skip" leaves events with an unknown target out of `nats` and `events`; `words` and
    `bytes` stay those of the whole text.
    """
    if protocol.unknown not in ("word", "skip"):
        raise OptionError(f"unknown policy {protocol.unknown!r} is unknown.", remedy='use "word" or "skip".')
    total, known, events, unknown = [], [], 0, 0
    for part, ids in _aligned(nats, text):
        counted = protocol.counted(ids)
        events += int(np.count_nonzero(counted))
        unknown += int(np.count_nonzero(ids == UNK_ID))
        total.append(float(part[counted].sum()))
        known.append(float(part[counted & (ids != UNK_ID)].sum()))
    return Score(
        nats=_sum(total),
        events=events,
        words=int(text.words.sum(dtype=np.int64)),
        bytes=int(text.bytes.sum(dtype=np.int64)),
        unknown=unknown,
        protocol=protocol,
        known_nats=_sum(known),
    )


def _sum(values: list[float]) -> float:
    return math.fsum(values) if all(map(math.isfinite, values)) else sum(values)


def unlearned(name: str, vocabulary: Vocabulary, found: Score) -> str | None:
    """What to say of a model that met unknown words and never learned what `<unk>` costs; else None."""
    if not found.unknown or found.protocol.unknown == "skip" or vocabulary.trained_unknown:
        return None
    why = (
        "its file does not tell whether <unk> was ever seen in training"
        if vocabulary.trained_unknown is None
        else "<unk> was never seen in its training"
    )
    return (
        f"{name}: {why}, so what it pays for the {found.unknown:,} unknown words "
        f"({found.unknown_share:.1%} of its nats) may mean nothing; perplexity without them "
        f"{found.known_perplexity:,.2f}. "
        "Compare with --unknown skip, or train it again with rare words left to <unk>."
    )


def _aligned(nats: np.ndarray | Iterable[np.ndarray], text: Text) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(nats, ids) of each chunk; raises ElmanError unless there is exactly one number per event."""
    done = 0
    for whole in [nats] if isinstance(nats, np.ndarray) else nats:
        for first in range(0, len(whole), BLOCK):
            part = np.asarray(whole[first : first + BLOCK], dtype=np.float64)
            ids = np.asarray(text.ids[done : done + len(part)])
            done += len(part)
            if len(ids) == len(part):
                yield part, ids
    if done != text.events:
        raise ElmanError(
            f"{done:,} numbers for a text of {text.events:,} events.",
            reason="the numbers belong to another text, or to another tokenizer's events.",
            remedy="score the same text with the same vocabulary.",
        )


@dataclass(frozen=True)
class Bucket:
    """Some of the events of a text and their nats; the buckets of a breakdown add to the whole."""

    label: str
    events: int
    nats: float

    @property
    def perplexity(self) -> float:
        """exp(nats / events); NaN for an empty bucket."""
        return perplexity(self.nats, self.events)

    def as_json(self) -> dict[str, object]:
        return {
            "label": self.label,
            "events": self.events,
            "nats": self.nats,
            "perplexity": self.perplexity,
        }


@dataclass(frozen=True)
class Breakdown:
    """A text's Score, and the same events by training count and by place in the sentence."""

    score: Score
    by_frequency: list[Bucket]  # empty when the vocabulary has no training counts
    by_position: list[Bucket]


COUNT_EDGES = (0, 5, 20, 100, 1_000, 10_000)  # the last training count of each bucket
POSITION_EDGES = (1, 2, 3, 5, 10, 20, 50)  # the last place of each bucket; 1 is the first token


def breakdown(
    nats: np.ndarray | Iterable[np.ndarray], text: Text, vocabulary: Vocabulary, protocol: Protocol
) -> Breakdown:
    """Score and both tables in one pass; `nats` [N] or chunks in text order.

    Under unknown="skip" the events left out are in no bucket, so buckets always add to the score.
    A vocabulary without training counts (one read from an ARPA file) gives no table by count.
    """
    by_count = _Table(["unknown", *_ranges(COUNT_EDGES, first=0), "</s>"])
    by_place = _Table(_ranges(POSITION_EDGES, first=1))
    frequency = None if vocabulary.counts is None else _frequency_bucket(vocabulary.counts)
    offset = 0  # tokens since the last `</s>`

    def tally() -> Iterator[np.ndarray]:
        nonlocal offset
        for part, ids in _aligned(nats, text):
            places, offset = _places(ids, offset)
            kept = protocol.counted(ids)
            by_place.add(np.searchsorted(POSITION_EDGES, places[kept]), part[kept])
            if frequency is not None:
                by_count.add(frequency[ids[kept]], part[kept])
            yield part

    whole = score(tally(), text, protocol)
    return Breakdown(whole, by_count.buckets() if frequency is not None else [], by_place.buckets())


def by_frequency(nats: np.ndarray | Iterable[np.ndarray], text: Text, vocabulary: Vocabulary) -> list[Bucket]:
    """Events by how often their token stood in the training text; unknown and `</s>` apart.

    Raises ElmanError when the vocabulary has no training counts.
    """
    if vocabulary.counts is None:
        raise ElmanError(
            "this model's vocabulary has no training counts, so there is no table by word frequency.",
            reason="it was read from an ARPA file or from another tool.",
            remedy="train the model with `elman train`, or leave the table out.",
        )
    return breakdown(nats, text, vocabulary, Protocol(unit="word")).by_frequency


def by_position(nats: np.ndarray | Iterable[np.ndarray], text: Text) -> list[Bucket]:
    """Events by their place in the sentence, 1 for its first token; `</s>` has a place too."""
    table = _Table(_ranges(POSITION_EDGES, first=1))
    offset = 0
    for part, ids in _aligned(nats, text):
        places, offset = _places(ids, offset)
        table.add(np.searchsorted(POSITION_EDGES, places), part)
    return table.buckets()


class _Table:
    """Sums per bucket, in float64, chunk after chunk."""

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels
        self.events = np.zeros(len(labels), dtype=np.int64)
        self.nats = np.zeros(len(labels), dtype=np.float64)

    def add(self, bucket: np.ndarray, nats: np.ndarray) -> None:
        """bucket [n], nats [n]."""
        self.events += np.bincount(bucket, minlength=len(self.labels))
        self.nats += np.bincount(bucket, weights=nats, minlength=len(self.labels))

    def buckets(self) -> list[Bucket]:
        return [
            Bucket(label, int(events), float(nats))
            for label, events, nats in zip(self.labels, self.events, self.nats, strict=True)
        ]


def _ranges(edges: tuple[int, ...], *, first: int) -> list[str]:
    """ "1", "2", "4-5", …, "51+": one label for each edge and one for what lies beyond."""
    labels = []
    for last in edges:
        labels.append(f"{last:,}" if first == last else f"{first:,}-{last:,}")
        first = last + 1
    return [*labels, f"{first:,}+"]


def _frequency_bucket(counts: np.ndarray) -> np.ndarray:
    """counts [V] → the bucket of each token [V]: 0 unknown, then by count, the last `</s>`."""
    bucket = np.searchsorted(COUNT_EDGES, counts) + 1
    bucket[UNK_ID] = 0
    bucket[EOS_ID] = len(COUNT_EDGES) + 2
    return bucket


def _places(ids: np.ndarray, offset: int) -> tuple[np.ndarray, int]:
    """The place [n] in its sentence of each event, from 1, and the offset for the next chunk."""
    index = np.arange(len(ids), dtype=np.int64)
    after_end = np.zeros(len(ids), dtype=np.int64)
    after_end[1:] = np.where(ids[:-1] == EOS_ID, index[1:], 0)
    start = np.maximum.accumulate(after_end)
    places = index - start + 1
    places[start == 0] += offset
    ended = len(ids) > 0 and ids[-1] == EOS_ID
    return places, 0 if ended or not len(ids) else int(places[-1])
