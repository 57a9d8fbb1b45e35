"""A model and a text → the nats of every event, chunk by chunk in text order.

Not here: sums and what they mean (evaluate.py), per-token rows with their text (surprisal.py).
Nothing is trimmed and nothing depends on how the work is cut: the first token is predicted from
`</s>`, the last one counts, padding is never scored. Memory does not grow with the text.

N events of the text, T steps, B sentences side by side. Nats throughout, float64 once computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, cast

import numpy as np
import torch

from elman.errors import ElmanError, OptionError, TextError
from elman.language_model import LanguageModel, State, StatePolicy, require_no_nan, select
from elman.text.corpus import Text

Progress = Callable[[int, int], None]
"""Called with (events done, events in all)."""

CHUNK = 4096  # steps that a carried stream advances in one call, unless the model has a `chunk` of its own
BLOCK = 1 << 16  # events among which sentences are sorted by length before they run side by side
WINDOW = 64  # steps that sentences run side by side before those that have ended leave


@contextmanager
def evaluating(model: LanguageModel) -> Iterator[None]:
    """Dropout off and no graph; afterwards every module is in the mode it was in."""
    modules = [module for part in _parts(model) for module in part.modules()]
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _parts(model: object) -> Iterator[torch.nn.Module]:
    if isinstance(model, torch.nn.Module):
        yield model
    else:  # a mixture may hold modules without being one
        for part in getattr(model, "models", ()):
            yield from _parts(part)


def event_nats(
    model: LanguageModel,
    text: Text,
    *,
    state: StatePolicy = "carry",
    batch_size: int = 32,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> Iterator[np.ndarray]:
    """-log P of every event in text order: float64 chunks that concatenate to [N].

    state="carry": the text is one stream. state="reset": `batch_size` sentences side by side, each
    from `start()` with `</s>` as its first input. `batch_size` and `chunk` (steps a call) change
    the speed only. The model's mode is untouched between chunks.
    Raises TextError for an empty text, OptionError for a size below 1, ElmanError when the text was
    encoded with a larger vocabulary or the model yields NaN.
    """
    if batch_size < 1:
        raise OptionError(f"batch size {batch_size} is below 1.", remedy="give --batch-size 1 or more.")
    if chunk is not None and chunk < 1:
        raise OptionError(f"chunk {chunk} is below 1 step.", remedy="give 1 or more.")
    if state not in ("carry", "reset"):
        raise OptionError(f"state policy {state!r} is unknown.", remedy='use "carry" or "reset".')
    if text.events == 0:
        raise TextError("the text is empty: there is no event to score.", remedy="give a text with a line.")
    if hasattr(model, "stream_nats"):  # carried or reset, it is the same
        parts = _in_place(cast(StreamModel, model), text.ids, chunk or int(getattr(model, "chunk", CHUNK)))
    elif state == "carry":
        parts = _carried(model, text.ids, chunk or int(getattr(model, "chunk", CHUNK)))
    else:
        parts = _reset(model, text.ids, batch_size, chunk or WINDOW)
    done = 0
    for nats in parts:
        done += len(nats)
        if progress is not None:
            progress(done, text.events)
        yield nats


class StreamModel(LanguageModel, Protocol):
    """A model that remembers less than `order` tokens, none beyond its sentence: it reads a text in place."""

    order: int

    def stream_nats(self, ids: np.ndarray, first: int) -> np.ndarray:
        """ids int32 [S] → nats float64 [S - first] of ids[first:]; `</s>` stands before ids[0]."""
        ...


def _in_place(model: StreamModel, ids: np.ndarray, chunk: int) -> Iterator[np.ndarray]:
    """The whole text in calls of `chunk` events, without a copy of it."""
    for first in range(0, len(ids), chunk):
        _require_known(ids[first : first + chunk], model)
        before = min(first, model.order)
        yield model.stream_nats(ids[first - before : first + chunk], before)


def _carried(model: LanguageModel, ids: np.ndarray, chunk: int) -> Iterator[np.ndarray]:
    """One stream from the first id to the last, in calls of `chunk` steps."""
    state: State | None = None
    last = model.vocabulary.eos_id
    for first in range(0, len(ids), chunk):
        window = np.concatenate(([last], ids[first : first + chunk]))[:, None]  # [T+1, 1]
        nats, state = run_window(model, window, state)
        last = window[-1, 0]
        yield nats[:, 0]


def run_window(model: LanguageModel, window: np.ndarray, state: State | None) -> tuple[np.ndarray, State]:
    """window [T+1, B] → float64 nats [T, B] and the state after it; state None starts afresh."""
    _require_known(window, model)
    with evaluating(model):
        if state is None:
            state = model.start(window.shape[1])
        ids = torch.from_numpy(np.ascontiguousarray(window, dtype=np.int64)).to(device_of(state))
        nats, state = model.token_nats(ids, state)
    computed = nats.to("cpu", torch.float64)
    require_no_nan(computed)
    return computed.numpy(), state


def _require_known(ids: np.ndarray, model: LanguageModel) -> None:
    lowest, highest, size = int(ids.min()), int(ids.max()), len(model.vocabulary)
    if lowest < 0 or highest >= size:
        raise ElmanError(
            f"token id {lowest if lowest < 0 else highest} is outside the model's vocabulary of {size}.",
            reason="the text was encoded with another vocabulary.",
            remedy="encode the text with the vocabulary of this model.",
        )


def device_of(state: State) -> torch.device:
    """Where a model computes: its state lies there."""
    return state[0].device if state else torch.device("cpu")


def _reset(model: LanguageModel, ids: np.ndarray, batch_size: int, window: int) -> Iterator[np.ndarray]:
    """Sentences on their own. A block ends with a sentence; a longer sentence is streamed."""
    eos = model.vocabulary.eos_id
    first = 0
    while first < len(ids):
        block = np.asarray(ids[first : first + BLOCK])
        ends = np.flatnonzero(block == eos) + 1
        if first + len(block) == len(ids) and (not len(ends) or ends[-1] < len(block)):
            ends = np.append(ends, len(block))  # the text does not end with `</s>`: its tail counts too
        if not len(ends):
            for nats in _carried(model, _until(ids[first:], eos), CHUNK):
                yield nats
                first += len(nats)
            continue
        yield sentence_nats(model, block[: ends[-1]], ends, batch_size, window)
        first += int(ends[-1])


def _until(ids: np.ndarray, eos: int) -> np.ndarray:
    """A view of `ids` up to its first `</s>`, found block by block."""
    for first in range(0, len(ids), BLOCK):
        found = np.flatnonzero(ids[first : first + BLOCK] == eos)
        if len(found):
            return ids[: first + int(found[0]) + 1]
    return ids


def sentence_nats(
    model: LanguageModel, block: np.ndarray, ends: np.ndarray, batch_size: int, window: int
) -> np.ndarray:
    """Nats [events of the block] of its sentences, each on its own; `ends[s]` is one past sentence s.

    Longest first, so that those still running are the leading lanes: a lane is padded by less than
    one window, whatever the lengths beside it. Alike sentences, a million empty ones say, run once.
    """
    starts = np.concatenate(([0], ends[:-1]))
    lengths = ends - starts
    first_of: dict[bytes, int] = {}
    alike = [
        first_of.setdefault(block[start:end].tobytes(), place)
        for place, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True))
    ]
    once = np.fromiter(first_of.values(), dtype=np.int64)
    order = once[np.argsort(-lengths[once], kind="stable")]
    nats = np.empty(len(block), dtype=np.float64)
    eos = model.vocabulary.eos_id
    for first in range(0, len(order), batch_size):
        running = order[first : first + batch_size]
        state: State | None = None
        for done in range(0, int(lengths[running[0]]), window):  # steps that every lane has behind it
            left = running[lengths[running] > done]
            if state is not None and len(left) < len(running):
                state = select(state, torch.arange(len(left)))
            running = left
            begins = starts[running] + done
            stops = np.minimum(begins + window, ends[running])
            ids = np.full((int(stops[0] - begins[0]) + 1, len(running)), eos, dtype=np.int64)
            for lane, (begin, stop) in enumerate(zip(begins, stops, strict=True)):
                ids[1 : stop - begin + 1, lane] = block[begin:stop]
                if done:
                    ids[0, lane] = block[begin - 1]
            part, state = run_window(model, ids, state)
            for lane, (begin, stop) in enumerate(zip(begins, stops, strict=True)):
                nats[begin:stop] = part[: stop - begin, lane]
    for place, like in enumerate(alike):
        if like != place:
            nats[starts[place] : ends[place]] = nats[starts[like] : ends[like]]
    return nats
