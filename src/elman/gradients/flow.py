"""How gradients flow through a trained model on a text: norm against lag, truncation bias, Jacobian spectra.

The text is read once from its beginning, the state carried; passages at even distances are unrolled. All of
it runs on a copy of the model in float64: a norm after 200 steps may be smaller than float32 can hold.

Not here: what is measured on each passage (lag.py, truncation.py, jacobians.py).
T steps of a passage, N passages, K largest lag, L layers. Nats throughout.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from elman.errors import OptionError, TextError
from elman.gradients.jacobians import products, singular_values, spectral_radius, step_bounds, step_jacobian
from elman.gradients.lag import Decay, LagNorms, decay, lag_norms, mean_log, quantiles, vanished
from elman.gradients.reading import Reading, read_back, require_unrollable
from elman.gradients.resampling import Estimate, Floats, estimate
from elman.gradients.truncation import Bias, truncation_bias
from elman.language_model import LanguageModel, State, exponential, perplexity, read
from elman.text.corpus import Text

Progress = Callable[[int, int], None]

STEPS = (1, 2, 5, 10, 20, 35, 50, 70, 100, 150, 200, 300, 500)
"""Lengths of truncation and lags of spectra that are tried, as far as `lags` goes."""


@dataclass(frozen=True)
class FlowOptions:
    """lags      K: how far back every loss is followed
    losses    in each passage, which has lags + losses steps
    passages  of the text, at even distances
    spectra   passages at which the whole Jacobian is taken (S gradients go back); 0 is none
    """

    lags: int = 200
    losses: int = 20
    passages: int = 30
    spectra: int = 4

    def __post_init__(self) -> None:
        if self.lags < 10 or self.losses < 1 or self.passages < 1 or self.spectra < 0:
            raise OptionError(
                f"lags {self.lags}, losses {self.losses}, passages {self.passages}, spectra {self.spectra}.",
                remedy="give at least 10 lags, 1 loss, 1 passage, and 0 or more spectra.",
            )


@dataclass(frozen=True)
class Spectrum:
    """Products of the state's Jacobians over `lag` steps in the whole stack, over passages.

    norm   spectral norm, the largest singular value: its geometric mean
    directions  Σσ² / σ₁², the stable rank: how many directions carry a gradient
    bound  of the norm, from the gates of the text, as a factor for each step; NaN for several layers
    """

    lag: int
    norm: Estimate
    directions: Estimate
    bound: Estimate


@dataclass(frozen=True)
class GradientFlow:
    """nats     an event, over the passages
    norms    |∂L_t/∂h_{t-k}| at every lag
    biases   of truncated BPTT, against BPTT over `lags` steps
    radius   spectral radius of single steps' Jacobians: geometric mean; NaN without spectra
    spectra  of their products
    """

    nats: float
    norms: LagNorms
    biases: tuple[Bias, ...]
    radius: Estimate
    spectra: tuple[Spectrum, ...]

    @property
    def parts(self) -> list[tuple[int, int]]:
        """(layer, 0 for h or 1 for c), from the first layer up."""
        states = self.norms.states
        return [(layer, part) for layer in range(states[0].shape[1]) for part in range(len(states))]

    def decays(self, layer: int = -1, part: int = 0) -> list[Decay]:
        """The line over all lags but 0, and over ranges of them: one slope would hide a curve that bends."""
        norms = self.norms.of(layer, part)
        K = norms.shape[-1] - 1
        ends = [end for end in (1, 10, 50, 100, 200, 500) if end < K] + [K]
        ranges = [(1, K), *pairwise(ends)]
        return [decay(norms, first, last) for first, last in dict.fromkeys(ranges)]

    def curve(self, layer: int = -1, part: int = 0) -> Floats:
        """[K+1] mean logarithm of the norm over that of ∂L_t/∂h_t in the last layer."""
        found: Floats = mean_log(self.norms.of(layer, part)) - mean_log(self.norms.of())[0]
        return found

    def as_json(self) -> dict[str, object]:
        """Everything but the norms of single losses."""
        N, _, P, lags = self.norms.states[0].shape
        return {
            "passages": N,
            "losses": P,
            "lags": lags - 1,
            "nats": self.nats,
            "perplexity": perplexity(self.nats),
            "states": [
                {
                    "layer": layer,
                    "state": "hc"[part],
                    "log_norm": self.curve(layer, part).tolist(),
                    "quantiles": dict(
                        zip(
                            ("0.1", "0.5", "0.9"), quantiles(self.norms.of(layer, part)).tolist(), strict=True
                        )
                    ),
                    "vanished": float(vanished(self.norms.of(layer, part))[-1]),
                    "decays": [each.as_json() for each in self.decays(layer, part)],
                }
                for layer, part in self.parts
            ],
            "truncation": [bias.as_json() for bias in self.biases],
            "radius": self.radius.as_json(),
            "spectra": [
                {
                    name: list(value) if isinstance(value, tuple) else value
                    for name, value in vars(each).items()
                }
                for each in self.spectra
            ],
        }


def gradient_flow(
    model: LanguageModel, text: Text, options: FlowOptions | None = None, progress: Progress | None = None
) -> GradientFlow:
    """Follows the gradients of `text` through `model` and measures them.

    `progress` is called with (pieces of work done, in all). Raises OptionError for a model without a
    recurrence to look into, TextError for a text too short.
    """
    o = options or FlowOptions()
    exact = copy.deepcopy(require_unrollable(model)).double().eval()
    cuts = [k for k in STEPS if k < o.lags] + [o.lags]
    work, done = o.passages + len(cuts) + o.spectra, 0

    def report(more: int = 1) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, work)

    found, spectra, nats = [], [], []
    begun: list[tuple[Tensor, State]] = []
    looked_into = set(np.linspace(0, o.passages - 1, min(o.spectra, o.passages)).astype(int).tolist())
    for place, (ids, state) in enumerate(passages(exact, text, o.lags + o.losses, o.passages)):
        reading = read_back(exact, ids, state)
        nats.append(float(reading.nats.mean()))
        found.append(lag_norms(reading.unrolled, reading.dhidden[:, 0], o.lags))
        begun.append((ids[: o.lags + 1], state))
        report()
        if place in looked_into:
            spectra.append(_spectra(reading, cuts))
            report()
    side_by_side = read_back(
        exact,
        torch.cat([ids for ids, _ in begun], dim=1),
        tuple(torch.cat(parts, dim=1) for parts in zip(*(state for _, state in begun), strict=True)),
    )
    biases = truncation_bias(side_by_side.unrolled, side_by_side.dhidden, cuts, progress=lambda *_: report())
    radius, rows = _summary(spectra, cuts)
    return GradientFlow(float(np.mean(nats)), LagNorms.join(found), tuple(biases), radius, rows)


def passages(model: LanguageModel, text: Text, steps: int, count: int) -> Iterator[tuple[Tensor, State]]:
    """(ids [steps+1, 1], state before ids[0]): passages of the text at even distances, the state carried from
    its beginning. They may overlap in a text that is short for them. TextError where not one fits."""
    ids = np.concatenate(([model.vocabulary.eos_id], text.ids)).astype(np.int64)
    if len(ids) <= steps:
        raise TextError(
            f"the text has {text.events:,} tokens, too few for a passage of {steps:,}.",
            remedy="give a longer text, or fewer lags.",
        )
    stream = torch.from_numpy(ids)[:, None]
    state, at = model.start(1), 0
    for begin in np.linspace(0, len(ids) - 1 - steps, count).astype(int).tolist():
        if begin > at:
            with torch.no_grad():
                state = read(model, stream[at:begin], state)
            at = begin
        yield stream[begin : begin + steps + 1], state


def _spectra(reading: Reading, lags: Sequence[int]) -> list[tuple[float, float, float]]:
    """(log radius of the last step's Jacobian, -, -); then for each lag, of the product that ends at the last
    step, (log σ₁, stable rank, log bound / lag)."""
    unrolled = reading.unrolled
    last = unrolled.steps - 1
    bounds = step_bounds(unrolled, 0).log() if unrolled.layers == 1 else None
    radius = spectral_radius(step_jacobian(unrolled, last))
    found = [(math.log(radius) if radius > 0 else -math.inf, math.nan, math.nan)]
    for s, product in products(unrolled, last):
        if last - s in lags:
            values = singular_values(product)
            rank = float((values**2).sum() / values[0] ** 2)  # NaN where no direction is left
            bound = math.nan if bounds is None else float(bounds[s + 1 :].mean())
            found.append((float(values[0].log()), rank, bound))
        if last - s == lags[-1]:
            break
    return found


def _summary(
    spectra: list[list[tuple[float, float, float]]], lags: Sequence[int]
) -> tuple[Estimate, tuple[Spectrum, ...]]:
    if not spectra:
        return Estimate(math.nan, math.nan, math.nan), ()
    values = np.array(spectra)  # [passages, 1 + lags, 3]

    def mean(row: int, column: int) -> Estimate:
        if not np.isfinite(values[:, row, column]).all():  # a gradient that ends: the logarithm of 0
            return Estimate(*[float(values[:, row, column].mean())] * 3)
        return estimate(len(values), lambda counts: counts @ values[:, row, column] / counts.sum(1))

    rows = tuple(
        Spectrum(lag, mean(k, 0).map(exponential), mean(k, 1), mean(k, 2).map(exponential))
        for k, lag in enumerate(lags, start=1)
    )
    return mean(0, 0).map(exponential), rows
