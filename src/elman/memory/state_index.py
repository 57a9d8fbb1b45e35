"""The states of one layer over a reference text, held ready for questions about units.

50,000 tokens of 256 units are read in about half a second and take 26 MB; nothing is saved anywhere.

N tokens, H hidden size. Not here: the questions (units.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from elman.errors import OptionError, TextError
from elman.gradients.reading import require_unrollable
from elman.language_model import LanguageModel, StatePolicy
from elman.memory.activations import Window, activations
from elman.text.corpus import Text
from elman.text.vocabulary import Vocabulary

Part = Literal["h", "c"]
TOKENS = 50_000  # of the reference text that are kept
ON = 0.25
"""The share of all values that the default threshold calls on: h and c, and the h of unlike cells, differ too
much in size for one number (|h| exceeds 0.3 in 3 units of 4 in a trained RNN, in a third of an LSTM's)."""
LARGEST = float(np.finfo(np.float16).max)

States = NDArray[np.floating]
Progress = Callable[[int, int], None]
"""Called with (tokens done, tokens in all)."""


@dataclass(frozen=True, eq=False)
class StateIndex:
    """One part of one layer's state over a reference text, and the text.

    layer   counted from 1, the one that reads the embedding
    values  [H, N] float16, after each token has been read: a unit lies in one piece, as queries ask for a few
            units and all tokens
    ids     [N]
    """

    layer: int
    part: Part
    values: NDArray[np.float16]
    ids: NDArray[np.int32]
    vocabulary: Vocabulary

    def default_threshold(self) -> float:
        """The size that a quarter of the values reach (`ON`), to two digits."""
        some = np.abs(self.values[:, :: max(1, len(self.ids) // 2000)].astype(np.float32))
        found = float(np.quantile(some, 1 - ON))
        return max(float(f"{found:.2g}"), 0.01)


def index_states(
    model: LanguageModel,
    text: Text,
    layer: int = 1,
    part: Part = "h",
    *,
    state: StatePolicy = "carry",
    tokens: int = TOKENS,
    progress: Progress | None = None,
) -> StateIndex:
    """The states of `model` over the first `tokens` tokens of a text. OptionError; TextError if empty."""
    if not len(text.ids):
        raise TextError("the reference text is empty.", remedy="give a text with a line.")
    ids = np.asarray(text.ids[:tokens])
    values = states_over(model, ids, layer, part, state=state, progress=progress, dtype=np.float16)
    return StateIndex(layer, part, np.ascontiguousarray(values.T), ids, model.vocabulary)


def states_over(
    model: LanguageModel,
    ids: NDArray[np.integer],
    layer: int = 1,
    part: Part = "h",
    *,
    state: StatePolicy = "carry",
    dtype: type[np.floating] = np.float32,
    progress: Progress | None = None,
) -> States:
    """[T, H] of one layer and part, after each token of `ids` [T] has been read. OptionError."""
    config = require_unrollable(model).config
    parts = ("h", "c") if config.cell == "lstm" else ("h",)
    if part not in parts or not 1 <= layer <= config.num_layers:
        raise OptionError(
            f"this model has no state {part!r} in layer {layer}.",
            remedy=f"give a part of {', '.join(parts)} and a layer from 1 to {config.num_layers}.",
        )
    values, done = np.empty((len(ids), config.hidden_size), dtype=dtype), 0
    for places, rows, window in after_reading(model, ids, state):
        found = window.layers[layer - 1].state(part).cpu().numpy()[rows]
        values[places] = found.clip(-LARGEST, LARGEST)  # what float16 holds
        done += len(places)
        if progress is not None:
            progress(done, len(ids))
    return values


def after_reading(
    model: LanguageModel, ids: NDArray[np.integer], state: StatePolicy
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_], Window]]:
    """(places in `ids` of tokens just read, which rows of the window are the states after them, the window).

    The rows of `activations` are those from which a token is predicted: they come after the token before it.
    """
    for window in activations(model, np.append(ids, model.vocabulary.eos_id), state=state):
        rows = window.places > 0  # the first comes before any token
        yield window.places[rows] - 1, rows, window
