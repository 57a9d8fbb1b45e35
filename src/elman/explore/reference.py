"""The reference text that the page searches: every model's states over it, computed once and kept as files.

Computing them may take a minute, so it is done before the page opens, and a process that is started after a
time-out finds the files. Not here: how units are chosen and matched (memory/units.py).

N tokens of the reference text, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elman.gradients.reading import unrollable
from elman.language_model import LanguageModel, StatePolicy
from elman.memory.state_index import LARGEST, TOKENS, Part, StateIndex, after_reading, states_over
from elman.memory.units import similar
from elman.text.corpus import encode_string, encode_text

Tell = Callable[[int, int], None]
"""Progress: tokens done, tokens in all."""


class Reference:
    """A text file, and a folder with the states of some models over its first tokens.

    state  whether the text is one document ("carry") or each sentence starts afresh ("reset")
    """

    def __init__(self, text: Path, folder: Path, state: StatePolicy = "carry") -> None:
        self.text, self.folder, self.state = text, folder, state

    def prepare(self, key: str, model: LanguageModel, tell: Tell) -> int | None:
        """Compute and keep all states of a model, unless they are there; N, or None for a model without."""
        if not unrollable(model):
            return None
        marker = self._file(key, "ids")
        if marker.exists():
            return len(np.load(marker, mmap_mode="r"))
        ids = np.asarray(encode_text(self.text, model.tokenizer, model.vocabulary).ids[:TOKENS])
        config = model.config  # type: ignore[attr-defined]
        parts = ("h", "c") if config.cell == "lstm" else ("h",)
        shape = config.hidden_size, len(ids)
        kept = {
            (layer, part): np.lib.format.open_memmap(
                self._file(key, f"{layer}{part}"), "w+", np.float16, shape
            )
            for layer in range(1, config.num_layers + 1)
            for part in parts
        }
        done = 0
        for places, rows, window in after_reading(model, ids, self.state):
            for (layer, part), values in kept.items():
                found = window.layers[layer - 1].state(part).cpu().numpy()[rows]
                values[:, places] = found.clip(-LARGEST, LARGEST).T
            done += len(places)
            tell(done, len(ids))
        for values in kept.values():
            values.flush()
        np.save(marker, ids)  # last: now the others are whole
        return len(ids)

    def similar(
        self, key: str, model: LanguageModel, lines: Sequence[str], question: dict[str, Any]
    ) -> dict[str, Any]:
        """Units that stay on over tokens of `lines`, and where else; OptionError for what is not there.

        question  state, layer (from 1), part, first, last, threshold: see `questions.Similar`
        """
        layer, part, state = question["layer"], question["part"], question["state"]
        ids = encode_string("\n".join(lines) + "\n", model.tokenizer, model.vocabulary).ids
        states = states_over(model, np.asarray(ids), layer, part, state=state)
        index = self._index(key, model, layer, part)
        return similar(index, states, question["first"], question["last"], question["threshold"])

    def _index(self, key: str, model: LanguageModel, layer: int, part: Part) -> StateIndex:
        values = np.load(self._file(key, f"{layer}{part}"), mmap_mode="r")
        return StateIndex(layer, part, values, np.load(self._file(key, "ids")), model.vocabulary)

    def _file(self, key: str, what: str) -> Path:
        return self.folder / f"{key}-{what}.npy"
