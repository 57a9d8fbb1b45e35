"""The order of training: [time, batch] windows of a text, each a pure function of (seed, epoch, position).

Resuming is indexing: window 123 of epoch 4 is the same tensor whatever came before it. Nothing here
knows a model, a loss or an optimizer, and nothing draws from torch's random state.

T positions of one window, B columns, N events of the text, L = N // B events of one column.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elman.errors import OptionError

if typing.TYPE_CHECKING:
    from elman.text.corpus import Text

EOS_ID = 1
"""`Vocabulary.eos_id`."""
POOL = 100
"""Batches sorted by length together in sentence mode: enough for little padding, few enough to be random."""


@dataclass(frozen=True)
class Window:
    """One step of training.

    ids      [T+1, B] int64; position t reads ids[t] and predicts ids[t+1]
    scored   only the last `scored` of the T positions enter the loss
    advance  positions that the carried state moves: the next window starts from the state after
             ids[advance-1]; T unless `bptt` is longer than `update_interval`
    weights  None, or [T, B] bool: False marks padding (sentence mode)
    fresh    the state starts anew: the first window of an epoch, or of a batch of sentences
    """

    ids: Tensor
    scored: int
    advance: int
    weights: Tensor | None = None
    fresh: bool = False

    @property
    def length(self) -> int:
        """T, the number of positions unrolled."""
        return self.ids.shape[0] - 1

    @property
    def events(self) -> int:
        """Predictions that enter the loss."""
        if self.weights is not None:
            return int(self.weights[self.length - self.scored :].sum())
        return self.scored * self.ids.shape[1]


class Windows(typing.Protocol):
    """All windows of one epoch; any of them by position, in any order."""

    def __len__(self) -> int: ...
    def __getitem__(self, position: int) -> Window: ...
    @property
    def events(self) -> int:
        """Predictions in the loss, all windows together."""
        ...


def carried_windows(
    text: Text,
    *,
    batch_size: int,
    bptt: int,
    update_interval: int | None = None,
    random_length: bool = False,
    seed: int = 1,
    epoch: int = 0,
) -> CarriedWindows:
    """The text as one stream cut into B columns of L events, read side by side with carried state.

    Every `update_interval` (k1, default `bptt`) positions the last `bptt` (k2 >= k1) are unrolled and the
    last k1 enter the loss (Williams & Peng 1990, BPTT(h; h')); k1 == k2 is the plain truncated BPTT of
    Zaremba et al. 2014. Each event is in exactly one column and scored exactly once an epoch, except the
    last N - B L of the text, at most B-1, which do not fill a row and are never trained on.
    Column 0 reads `</s>` first; every other column reads first the token that precedes it in the text.

    random_length draws each length as AWD-LSTM (Merity et al. 2018, section 5): the mean is bptt with
    probability .95 and else bptt/2, the length is N(mean, 5) and at least 5, from (seed, epoch) alone.
    Raises OptionError when the options contradict each other or the text is shorter than B.
    """
    interval = bptt if update_interval is None else update_interval
    if batch_size < 1 or bptt < 1 or interval < 1:
        raise OptionError(
            f"batch_size={batch_size}, bptt={bptt}, update_interval={interval}: each is at least 1."
        )
    if interval > bptt:
        raise OptionError(
            f"update_interval={interval} is longer than bptt={bptt}: some events would never enter the loss.",
            remedy=f"--bptt {interval} or more, or --update-interval {bptt} or less.",
        )
    if random_length and interval != bptt:
        raise OptionError(
            "random lengths and an update interval contradict each other: both say where a window ends.",
            remedy="leave out --random-length or --update-interval.",
        )
    if text.events < batch_size:
        raise OptionError(
            f"the training text has {text.events} events, fewer than batch_size={batch_size} columns.",
            remedy=f"--batch-size {max(1, text.events // 20)}, or a longer text.",
        )
    column = text.events // batch_size
    if random_length:
        ends = _random_ends(column, bptt, np.random.default_rng([seed, epoch]))
        return CarriedWindows(text.ids, batch_size, column, np.concatenate([[0], ends[:-1]]), ends, ends)
    scored_from = np.arange(0, column, interval, dtype=np.int64)
    starts = np.maximum(0, scored_from + interval - bptt)
    ends = np.minimum(column, scored_from + interval)
    return CarriedWindows(text.ids, batch_size, column, starts, ends, ends)


def _random_ends(column: int, bptt: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Where each window of a column of L events ends: increasing, the last is L."""
    ends = np.zeros(0, dtype=np.int64)
    while not ends.size or ends[-1] < column:
        draws = max(16, 2 * column // bptt)
        means = np.where(random.random(draws) < 0.95, bptt, bptt / 2)
        lengths = np.maximum(5, random.normal(means, 5.0).astype(np.int64))
        ends = np.concatenate([ends, (ends[-1] if ends.size else 0) + np.cumsum(lengths)])
    last = int(np.searchsorted(ends, column))
    ends = ends[: last + 1].copy()
    ends[last] = column
    return ends


class CarriedWindows(Sequence[Window]):
    """Windows over B columns; see `carried_windows`. Holds offsets only, never a copy of the text."""

    def __init__(
        self,
        ids: NDArray[np.int32],
        batch_size: int,
        column: int,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        scored_to: NDArray[np.int64],
    ) -> None:
        self._ids = ids
        self._columns = np.arange(batch_size, dtype=np.int64) * column  # first event of each column
        self._starts, self._ends = starts, ends
        self._scored_from = np.concatenate([[0], scored_to[:-1]])
        self._next_starts = np.concatenate([starts[1:], ends[-1:]])
        self.events = batch_size * column

    def __len__(self) -> int:
        return len(self._starts)

    @typing.overload
    def __getitem__(self, position: int) -> Window: ...
    @typing.overload
    def __getitem__(self, position: slice) -> list[Window]: ...
    def __getitem__(self, position: int | slice) -> Window | list[Window]:
        if isinstance(position, slice):
            return [self[index] for index in range(*position.indices(len(self)))]
        if not 0 <= position < len(self):
            raise IndexError(position)
        start, end = int(self._starts[position]), int(self._ends[position])
        # event j of the text is predicted from token j-1; event 0 is predicted from </s>
        index = np.arange(start - 1, end, dtype=np.int64)[:, None] + self._columns
        ids = self._ids[np.maximum(index, 0)].astype(np.int64)
        if start == 0:
            ids[0, 0] = EOS_ID
        return Window(
            ids=torch.from_numpy(ids),
            scored=end - int(self._scored_from[position]),
            advance=int(self._next_starts[position]) - start,
            fresh=position == 0,
        )


def sentence_windows(
    text: Text, *, batch_size: int, max_length: int, seed: int = 1, epoch: int = 0
) -> SentenceWindows:
    """Sentences on their own: shuffled, put beside others of like length, padded, padding masked.

    Each sentence starts from a fresh state with `</s>` as its first input and is predicted to its own
    `</s>`; every sentence is scored exactly once an epoch, none dropped, none cut. A batch whose longest
    sentence has more than `max_length` events goes on in the next window with its state carried.
    The last batch of the shuffle may have fewer columns.
    """
    if batch_size < 1 or max_length < 1:
        raise OptionError(f"batch_size={batch_size}, max_length={max_length}: each is at least 1.")
    if text.sentences == 0:
        raise OptionError("the training text has no sentence.")
    ends = np.asarray(text.ends, dtype=np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends + 1 - starts
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(ends))
    pool = POOL * batch_size
    order = np.concatenate(
        [
            part[np.argsort(-lengths[part], kind="stable")]
            for part in np.split(order, range(pool, len(order), pool))
        ]
    )
    batches = random.permutation((len(order) + batch_size - 1) // batch_size)
    longest = lengths[
        order[batches * batch_size]
    ]  # a batch lies in one pool: its first sentence is the longest
    return SentenceWindows(text, order, starts, lengths, _Batches(batch_size, max_length, batches, longest))


@dataclass(frozen=True)
class _Batches:
    """Which batch of the sorted order comes when, and the events of its longest sentence."""

    size: int
    max_length: int
    order: NDArray[np.int64]
    longest: NDArray[np.int64]


class SentenceWindows(Sequence[Window]):
    """Windows over shuffled sentences; see `sentence_windows`."""

    def __init__(
        self,
        text: Text,
        order: NDArray[np.int64],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        batches: _Batches,
    ) -> None:
        self._ids, self._order, self._starts, self._lengths = text.ids, order, starts, lengths
        self._batches = batches
        chunks = -(-batches.longest // batches.max_length)
        self._first = np.concatenate([[0], np.cumsum(chunks)])  # position of each batch's first window
        self.events = int(text.events)

    def __len__(self) -> int:
        return int(self._first[-1])

    def __iter__(self) -> Iterator[Window]:
        return (self[position] for position in range(len(self)))

    @typing.overload
    def __getitem__(self, position: int) -> Window: ...
    @typing.overload
    def __getitem__(self, position: slice) -> list[Window]: ...
    def __getitem__(self, position: int | slice) -> Window | list[Window]:
        if isinstance(position, slice):
            return [self[index] for index in range(*position.indices(len(self)))]
        if not 0 <= position < len(self):
            raise IndexError(position)
        turn = int(np.searchsorted(self._first, position, side="right")) - 1
        batch, chunk = int(self._batches.order[turn]), position - int(self._first[turn])
        rows = self._order[batch * self._batches.size : (batch + 1) * self._batches.size]
        begin = chunk * self._batches.max_length
        steps = min(self._batches.max_length, int(self._batches.longest[turn]) - begin)
        offset = np.arange(begin - 1, begin + steps, dtype=np.int64)[:, None]  # -1 is the </s> before
        lengths = self._lengths[rows]
        inside = (offset >= 0) & (offset < lengths)
        index = np.minimum(self._starts[rows] + np.maximum(offset, 0), len(self._ids) - 1)
        ids = np.where(inside, self._ids[index], EOS_ID).astype(np.int64)
        return Window(
            ids=torch.from_numpy(ids),
            scored=steps,
            advance=steps,
            weights=torch.from_numpy(inside[1:]),
            fresh=chunk == 0,
        )
