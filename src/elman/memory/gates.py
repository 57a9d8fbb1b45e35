"""What the gates of a trained model do over a text: how open, how often saturated, how long units keep.

Saturation as in Karpathy, Johnson & Fei-Fei (2016), "Visualizing and understanding recurrent networks": a
gate is shut below 0.1 and open above 0.9. What tanh has squashed (candidates, h) is saturated beyond ±0.9;
the LSTM's c is judged by tanh(c), which is what its output gate shows; the ReLU's h by whether it is 0.

A forget gate that stayed at f would leave f^k = exp(-k/τ) of a cell after k tokens, τ = -1 / ln f: the time
constant of Tallec & Ollivier (2018), "Can recurrent neural networks warp time?", and Mahto et al. (2021),
"Multi-timescale representation learning in LSTM language models". A real gate moves, and what is left
after k tokens is the product of its values, so τ comes from the mean of ln f, unit by unit. In the GRU, z is
that gate. τ says how long a value stays by itself: a network may also write it anew from h in time, and may
keep what no word needs. How far back a model looks is measured in context.py.

N tokens, H hidden size. Memory does not grow with N.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elman.cells.functions import Cell
from elman.errors import TextError
from elman.gradients.reading import require_unrollable
from elman.language_model import LanguageModel, StatePolicy
from elman.memory.activations import GATES, LayerActivations, activations
from elman.text.corpus import Text

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FORGETS = {"lstm": "f", "gru": "z"}
"""The gate that multiplies what is kept."""
CANDIDATES = {"lstm": "g", "gru": "n"}

Values = NDArray[np.float64]
Progress = Callable[[int, int], None]
"""Called with (tokens done, tokens in all)."""


@dataclass(frozen=True)
class GateStatistics:
    """One gate, candidate or part of the state of one layer, over all tokens and units.

    layer      counted from 1; name: i, f, g, o, c, h (LSTM), r, z, n, h (GRU), h (RNN)
    quantiles  at QUANTILES; exact but for rounding to float16
    low, high  shares of the values that are saturated at either end
    unit_means, unit_low, unit_high  [H] the same, of each unit over the tokens
    """

    layer: int
    name: str
    mean: float
    deviation: float
    quantiles: tuple[float, ...]
    low: float
    high: float
    unit_means: Values
    unit_low: Values
    unit_high: Values

    def as_json(self) -> dict[str, object]:
        """The fields by name; arrays to four digits."""
        numbers = {key: value for key, value in vars(self).items() if not isinstance(value, np.ndarray)}
        arrays = {key: _short(value) for key, value in vars(self).items() if isinstance(value, np.ndarray)}
        return {**numbers, "quantiles": dict(zip(map(str, QUANTILES), self.quantiles, strict=True)), **arrays}


@dataclass(frozen=True)
class TimeConstants:
    """layer  counted from 1; gate: f or z
    tokens  [H] τ of each unit: after so many, 1/e of what was stored is left. 0: nothing stays; inf: all does
    """

    layer: int
    gate: str
    tokens: Values

    @property
    def half_lives(self) -> Values:
        """[H] tokens after which half is left: τ ln 2."""
        return self.tokens * math.log(2)

    def quantiles(self) -> tuple[float, ...]:
        """τ over the units, at QUANTILES."""
        return tuple(float(q) for q in np.quantile(self.tokens, QUANTILES, method="inverted_cdf"))

    def as_json(self) -> dict[str, object]:
        """With the quantiles over the units."""
        found = dict(zip(map(str, QUANTILES), self.quantiles(), strict=True))
        return {"layer": self.layer, "gate": self.gate, "quantiles": found, "tokens": _short(self.tokens)}


@dataclass(frozen=True)
class GateReport:
    """cell  of the model; events: tokens read; state: the policy
    gates  layer by layer, in the order of the equations; time_constants: none for a plain RNN
    """

    cell: Cell
    events: int
    state: StatePolicy
    gates: tuple[GateStatistics, ...]
    time_constants: tuple[TimeConstants, ...]

    def as_json(self) -> dict[str, object]:
        """Everything."""
        return {
            "cell": self.cell,
            "events": self.events,
            "state": self.state,
            "gates": [gate.as_json() for gate in self.gates],
            "time_constants": [each.as_json() for each in self.time_constants],
        }


def gate_statistics(
    model: LanguageModel, text: Text, *, state: StatePolicy = "carry", progress: Progress | None = None
) -> GateReport:
    """Read `text` and count what every gate, candidate and state does.

    Raises OptionError for a model that has none, TextError for an empty text.
    """
    require_unrollable(model)
    if not text.events:
        raise TextError("the text is empty: there is nothing to read.", remedy="give a text with a line.")
    tallies: dict[tuple[int, str], _Tally] = {}
    logs: dict[int, Tensor] = {}
    done = 0
    for window in activations(model, text.ids, state=state):
        for number, layer in enumerate(window.layers, start=1):
            for name, values in _named(layer):
                limits = _limits(layer.cell, name)
                tallies.setdefault((number, name), _Tally(values.shape[1])).add(values, limits)
                if name == FORGETS.get(layer.cell):
                    logs[number] = logs.get(number, 0) + values.double().log().sum(dim=0).cpu()
            cell = layer.cell
        done += len(window.places)
        if progress is not None:
            progress(done, text.events)
    gates = tuple(tally.statistics(*key) for key, tally in tallies.items())
    constants = tuple(
        TimeConstants(number, FORGETS[cell], time_constants(total.numpy() / done))
        for number, total in logs.items()
    )
    return GateReport(cell, done, state, gates, constants)


def time_constants(mean_logs: Values) -> Values:
    """Mean of ln f [H], at most 0 → τ = -1 / ln f [H] in tokens; inf where the gate was always 1."""
    with np.errstate(divide="ignore"):
        found: Values = np.abs(1 / mean_logs)
    return found


def _named(layer: LayerActivations) -> list[tuple[str, Tensor]]:
    """Name and [N, H], in the order of the equations."""
    gates = [(name, layer.gate(name)) for name in GATES[layer.cell]]
    return [*gates, *((part, layer.state(part)) for part in (("c", "h") if layer.cell == "lstm" else ("h",)))]


def _limits(cell: Cell, name: str) -> tuple[float, float]:
    """At most, at least: what counts as saturated."""
    if name == "c":
        return -math.atanh(0.9), math.atanh(0.9)
    if name in (CANDIDATES.get(cell), "h"):
        return (0.0, math.inf) if cell == "rnn_relu" else (-0.9, 0.9)
    return 0.1, 0.9


@dataclass
class _Tally:
    """Sums over the tokens so far; how often each float16 occurred."""

    units: int
    count: int = 0
    sums: Values = field(init=False)  # [4, H]: values, squares, low, high
    bins: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.sums = np.zeros((4, self.units))
        self.bins = np.zeros(1 << 16, dtype=np.int64)

    def add(self, values: Tensor, limits: tuple[float, float]) -> None:
        low, high = (values <= limits[0]).double().sum(dim=0), (values >= limits[1]).double().sum(dim=0)
        exact = values.double()
        self.sums += torch.stack([exact.sum(dim=0), (exact * exact).sum(dim=0), low, high]).cpu().numpy()
        bits = values.half().cpu().numpy().view(np.uint16)
        self.bins += np.bincount(bits.ravel(), minlength=1 << 16)
        self.count += len(values)

    def statistics(self, layer: int, name: str) -> GateStatistics:
        means, squares, low, high = self.sums / self.count
        mean = float(means.mean())
        deviation = math.sqrt(max(0.0, float(squares.mean()) - mean * mean))
        rates = float(low.mean()), float(high.mean())
        return GateStatistics(layer, name, mean, deviation, self._quantiles(), *rates, means, low, high)

    def _quantiles(self) -> tuple[float, ...]:
        """The smallest values that reach each share: the negative ones by falling bits, then the others."""
        patterns = np.concatenate([np.arange(0xFFFF, 0x7FFF, -1), np.arange(0x8000)]).astype(np.uint16)
        reached = np.cumsum(self.bins[patterns])
        places = np.searchsorted(reached, [math.ceil(q * reached[-1]) for q in QUANTILES])
        return tuple(float(value) for value in patterns[places].view(np.float16))


def _short(values: Values) -> list[float]:
    return [float(f"{value:.4g}") for value in values]
