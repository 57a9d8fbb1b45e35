"""How much of its history a model uses: the perplexity when all but the last k tokens are taken away.

The same events of a text are predicted from the k tokens before them alone, for one k after another, as
Khandelwal, He, Qi & Jurafsky (2018), "Sharp Nearby, Fuzzy Far Away", do for an LSTM. A model that gains
nothing from the tokens before the last k has no memory beyond k, whatever its state could hold.

k history in tokens, N events. Nats throughout. Not here: why memory ends there (gradients/).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from elman.errors import ElmanError, OptionError, TextError
from elman.event_nats import device_of, evaluating, event_nats
from elman.language_model import LanguageModel, perplexity, read, require_no_nan
from elman.text.corpus import Text

HISTORIES = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500)
EVENTS = 2000
TOLERANCE = 0.01
"""Of the perplexity: a smaller loss counts as none (Khandelwal et al. 2018, section 3)."""
BATCH = 500  # events side by side
Z = 1.96  # 95 % of a normal distribution

Progress = Callable[[int, int], None]
Nats = NDArray[np.float64]


@dataclass(frozen=True)
class Cut:
    """history  tokens left, k; perplexity  of the events then
    loss, low, high  nats an event more than with the whole history: mean and its 95 % interval, paired
    """

    history: int
    perplexity: float
    loss: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """The fields by name."""
        return dict(vars(self))


@dataclass(frozen=True)
class UsableContext:
    """events  how many were predicted again and again; perplexity  of them with the whole text before them
    cuts  with ever more history; nats  [cuts + 1, N] of every event, the whole history last
    """

    events: int
    perplexity: float
    cuts: tuple[Cut, ...]
    nats: Nats

    def usable(self, tolerance: float = TOLERANCE) -> int | None:
        """The shortest history tried that costs at most this share of the perplexity, as each longer one
        does; None where even the longest costs more."""
        return self._shortest([cut.loss for cut in self.cuts], tolerance)

    def usable_range(self, tolerance: float = TOLERANCE) -> tuple[int | None, int | None]:
        """The same by the lower and by the upper end of each interval: what the events drawn leave open."""
        ends = [cut.low for cut in self.cuts], [cut.high for cut in self.cuts]
        low, high = (self._shortest(losses, tolerance) for losses in ends)
        return low, high

    def _shortest(self, losses: Sequence[float], tolerance: float) -> int | None:
        found = None
        for cut, loss in zip(reversed(self.cuts), reversed(losses), strict=True):
            if not loss <= math.log1p(tolerance):
                break
            found = cut.history
        return found

    def as_json(self) -> dict[str, object]:
        """Everything but the nats of single events."""
        return {
            "events": self.events,
            "perplexity": self.perplexity,
            "tolerance": TOLERANCE,
            "usable": self.usable(),
            "usable_range": list(self.usable_range()),
            "cuts": [cut.as_json() for cut in self.cuts],
        }


def usable_context(
    model: LanguageModel,
    text: Text,
    histories: Sequence[int] = HISTORIES,
    *,
    events: int = EVENTS,
    seed: int = 1,
    progress: Progress | None = None,
) -> UsableContext:
    """The perplexity of events drawn from `text`, with a history of each length and with all of it.

    `histories` rise; an event has at least the longest of them before it. The whole history is the text
    from its beginning, carried across sentences. `progress` is called with (tokens done, tokens in all).
    Raises OptionError for lengths that do not rise from 1 or for no event, TextError for a text too short,
    ElmanError for an event that the model finds impossible.
    """
    if not histories or histories[0] < 1 or any(a >= b for a, b in pairwise(histories)):
        raise OptionError(
            f"histories {list(histories)} do not rise from 1 or more.",
            remedy="for instance: 1 2 5 10 20 50 100.",
        )
    if events < 1:
        raise OptionError(f"{events} events cannot be predicted.", remedy="give 1 or more.")
    ids, longest = text.ids, histories[-1]
    if len(ids) <= longest:
        raise TextError(
            f"the text has {len(ids):,} tokens: none has {longest:,} before it.",
            remedy="give a longer text, or shorter histories.",
        )
    chosen = np.random.default_rng(seed).permutation(len(ids) - longest)[:events] + longest
    chosen.sort()
    work, done = len(ids) + sum(histories) * len(chosen), 0

    def report(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, work)

    whole = _whole(model, text, chosen, report)
    rows = [_cut(model, ids, chosen, k, report) for k in histories]
    if impossible := int(np.isinf([*rows, whole]).any(axis=0).sum()):
        raise ElmanError(
            f"the model finds {impossible:,} of {len(chosen):,} events impossible: its perplexity is inf.",
            reason="an n-gram model without smoothing, or one whose file says -inf.",
            remedy="smooth it, or take a text that it finds possible.",
        )
    cuts = tuple(_compared(k, row, whole) for k, row in zip(histories, rows, strict=True))
    return UsableContext(len(chosen), perplexity(float(whole.mean())), cuts, np.stack([*rows, whole]))


def _whole(
    model: LanguageModel, text: Text, chosen: NDArray[np.int64], report: Callable[[int], None]
) -> Nats:
    """Nats [N] of the chosen events with all that stands before them."""
    found, first = np.empty(len(chosen)), 0
    for nats in event_nats(model, text):
        begin, end = np.searchsorted(chosen, [first, first + len(nats)])
        found[begin:end] = nats[chosen[begin:end] - first]
        first += len(nats)
        report(len(nats))
    return found


def _cut(
    model: LanguageModel,
    ids: NDArray[np.integer],
    chosen: NDArray[np.int64],
    history: int,
    report: Callable[[int], None],
) -> Nats:
    """Nats [N] of the chosen events from the `history` tokens before each, which begin at the start state."""
    found = np.empty(len(chosen))
    for rows in _batches(len(chosen)):
        places = chosen[rows] + np.arange(-history, 1)[:, None]  # [k + 1, B]; the last is predicted
        window = torch.from_numpy(np.asarray(ids[places], dtype=np.int64))
        with evaluating(model):
            state = model.start(window.shape[1])
            window = window.to(device_of(state))
            if history > 1:
                state = read(model, window[:-2], state)
            nats = model.token_nats(window[-2:], state)[0][0].double().cpu()
        require_no_nan(nats)
        found[rows] = nats.numpy()
        report(history * window.shape[1])
    return found


def _batches(count: int) -> Iterator[slice]:
    for first in range(0, count, BATCH):
        yield slice(first, min(first + BATCH, count))


def _compared(history: int, nats: Nats, whole: Nats) -> Cut:
    difference = nats - whole
    error = difference.std(ddof=1) / math.sqrt(len(difference)) if len(difference) > 1 else math.nan
    loss = float(difference.mean())
    return Cut(history, perplexity(float(nats.mean())), loss, loss - Z * error, loss + Z * error)
