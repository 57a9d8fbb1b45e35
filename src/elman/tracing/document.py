"""What a trace holds, and its JSON: format "elman-trace", `VERSION`, pinned by tests/golden/trace/.

Row t is one event. The model has read `input` (the token before, `</s>` at the start); its state is then
states[t], and from it it predicts `token`. States and gates are float32, in the fewest digits that say which,
or rounded where that was asked for (`decimals`); gradients have 3 digits.

T rows, V vocabulary, L layers, H hidden size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elman.language_model import LanguageModel, StatePolicy, parameter_count
from elman.surprisal import TokenSurprisal

FORMAT, VERSION = "elman-trace", 2

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One event: where it stands, what was expected. `top` has (token, probability), the likeliest first."""

    event: TokenSurprisal
    line: int
    sentence: int
    input: str
    rank: int
    top: tuple[tuple[str, float], ...]

    def as_json(self) -> dict[str, object]:
        event = self.event
        found: dict[str, object] = {
            "token": event.token,
            "text": event.text,
            "start": event.start,
            "end": event.end,
            "line": self.line,
            "sentence": self.sentence,
            "input": self.input,
            "bits": _digits(event.bits, 5),
            "rank": self.rank,
            "unknown": event.unknown,
        }
        if event.matched is not None:
            found["matched"] = event.matched
        return found | {"top": [[token, _digits(p, 4)] for token, p in self.top]}


@dataclass(frozen=True)
class LayerTrace:
    """gates  i, f, g, o (LSTM), r, z, n (GRU), none (RNN): [T, H] each; g and n are the candidates
    states  h, in the LSTM also c: [T, H]; initial  the same before the first row [H]
    """

    gates: dict[str, Array]
    states: dict[str, Array]
    initial: dict[str, Array]


@dataclass(frozen=True)
class GradientTrace:
    """Norms [T, T], row t for the nats L_t, column s ≤ t.

    x  |∂L_t/∂x_s| of the embedding read at row s; layers  for each, h (and c): |∂L_t/∂h_s|
    """

    x: Array
    layers: tuple[dict[str, Array], ...]


@dataclass(frozen=True)
class Trace:
    """What `trace` found; no `layers` and no `gradients` (None) where there are none or none were asked for.

    first, total  place of the first row in the text, and how many rows the whole text has
    """

    model: dict[str, object]
    text: str
    state: StatePolicy
    first: int
    total: int
    rows: tuple[Row, ...]
    layers: tuple[LayerTrace, ...] = ()
    gradients: GradientTrace | None = None

    def as_json(self, *, decimals: int | None = None) -> dict[str, object]:
        """The document of the format, ready for `json.dumps`; `decimals` of states and gates, None: all."""
        gradients = self.gradients and {
            "x": _triangular(self.gradients.x),
            "layers": [{part: _triangular(a) for part, a in each.items()} for each in self.gradients.layers],
        }
        return {
            "format": FORMAT,
            "version": VERSION,
            "decimals": decimals,
            "model": self.model,
            "text": self.text,
            "state": self.state,
            "first": self.first,
            "total": self.total,
            "tokens": [row.as_json() for row in self.rows],
            "layers": [
                {
                    what: {name: _numbers(a, decimals) for name, a in getattr(layer, what).items()}
                    for what in ("gates", "states", "initial")
                }
                for layer in self.layers
            ],
            "gradients": gradients,
        }


def model_card(model: LanguageModel, name: str) -> dict[str, object]:
    """What a model is, in a line of facts."""
    config, kind = getattr(model, "config", None), getattr(model, "kind", type(model).__name__)
    recurrent = kind in ("recurrent", "streaming")
    return {
        "name": name,
        "kind": kind,
        **{key: getattr(config, key) if recurrent else None for key in ("cell", "num_layers", "hidden_size")},
        "vocabulary": len(model.vocabulary),
        "unit": model.tokenizer.unit,
        "parameters": parameter_count(model),
    }


def _numbers(array: Array, decimals: int | None) -> list[object]:
    """float32 written with the fewest digits that tell it from its neighbours: six to nine."""
    if decimals is not None:
        return list(np.round(array, decimals).tolist())
    return list(array.astype(np.float32).astype("U32").astype(np.float64).tolist())


def _digits(value: float, digits: int) -> float | None:
    """None for what JSON cannot hold: a gradient that exploded."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _triangular(norms: Array) -> list[list[float | None]]:
    """Row t cut after its t + 1 entries, with three digits each."""
    return [[_digits(norm, 3) for norm in row[: t + 1]] for t, row in enumerate(norms.tolist())]
