"""Gradient norm against lag, and how fast it decays: |∂L_t/∂h_{t-k}| for k = 0 … K.

Every lag sees the same losses: those that have K steps before them. Norms spread over orders of magnitude, so
what is averaged is their logarithm. If the norm fell by one factor a step, as the textbook has it, its
logarithm would be a straight line: `decay` fits one and says how straight the curve is.

N sequences or pieces of a text, P losses in each, K largest lag, H hidden size, L layers. Logarithms in nats.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from elman.errors import OptionError
from elman.gradients.resampling import Estimate, Floats, estimate
from elman.gradients.unrolling import Unrolled, step_back
from elman.language_model import exponential


@dataclass(frozen=True)
class LagNorms:
    """x       [N, P, K+1] |∂L_t/∂x_{t-k}| of the input that step t-k read
    states  h, in the LSTM h and c: [N, L, P, K+1] |∂L_t/∂h_{t-k}| of the state that step t-k made
    """

    x: Tensor
    states: tuple[Tensor, ...]

    def of(self, layer: int = -1, part: int = 0) -> Tensor:
        """[N, P, K+1]; part 0 is h, 1 is c."""
        return self.states[part][:, layer]

    @staticmethod
    def join(pieces: Iterable[LagNorms]) -> LagNorms:
        """All pieces' norms, one piece after another."""
        several = list(pieces)
        return LagNorms(
            torch.cat([each.x for each in several]),
            tuple(torch.cat(parts) for parts in zip(*(each.states for each in several), strict=True)),
        )


@torch.no_grad()
def lag_norms(unrolled: Unrolled, dhidden: Tensor, lags: int) -> LagNorms:
    """dhidden [T, H] = ∂L_t/∂h_t of the last layer → norms of one sequence at lags 0 … `lags`.

    The losses are those of the steps `lags` … T-1. Raises OptionError unless one sequence of more than
    `lags` steps was unrolled.
    """
    T, (_, _, B, H) = unrolled.steps, unrolled.states[0].shape
    if B != 1 or dhidden.shape != (T, H):
        raise OptionError(
            f"{B} sequences and a gradient of the shape {tuple(dhidden.shape)}, not one and {(T, H)}.",
            remedy="unroll one sequence: x of the shape [T, 1, D].",
        )
    if not 0 <= lags < T:
        raise OptionError(
            f"{T} steps have no lag of {lags}.", remedy=f"give more steps, or at most {T - 1} lags."
        )
    dhidden = dhidden.to(unrolled.states[0])
    x = dhidden.new_zeros(T - lags, lags + 1)
    states = tuple(dhidden.new_zeros(unrolled.layers, T - lags, lags + 1) for _ in unrolled.states)
    later = unrolled.no_gradient(0)
    for s in reversed(range(T)):
        first, last = max(s, lags), min(T - 1, s + lags)  # the losses with a lag from 0 to `lags` here
        keep = last - first + (s < lags)
        later = [tuple(part[:keep] for part in each) for each in later]
        doutput = None
        if s >= lags:
            later = [tuple(torch.cat([p.new_zeros(1, H), p]) for p in each) for each in later]
            doutput = torch.zeros_like(later[0][0])
            doutput[0] = dhidden[s]
        back = step_back(unrolled, s, later, doutput)
        losses = torch.arange(first, last + 1)
        x[losses - lags, losses - s] = back.dx.norm(dim=1)
        for layer, dstate in enumerate(back.dstate):
            for norms, part in zip(states, dstate, strict=True):
                norms[layer, losses - lags, losses - s] = part.norm(dim=1)
        later = back.dprev
    return LagNorms(x[None], tuple(norms[None] for norms in states))


@dataclass(frozen=True)
class Decay:
    """The straight line through the mean logarithm of the norm at the lags `first` … `last`.

    slope  nats a step, below 0 where the gradient vanishes, with its 95 % interval over pieces
    straightness  R² of the line: 1 where the decay is exponential
    """

    first: int
    last: int
    slope: Estimate
    straightness: float

    @property
    def factor(self) -> Estimate:
        """What the norm is multiplied by from one step to the one before."""
        return self.slope.map(exponential)

    @property
    def half_life(self) -> Estimate:
        """Steps after which the norm is halved; infinite where it does not fall."""
        return self.slope.map(lambda slope: math.log(2) / -slope if slope < 0 else slope + math.inf)

    def as_json(self) -> dict[str, object]:
        """The fields by name; estimates as [value, low, high]."""
        figures = {name: getattr(self, name).as_json() for name in ("slope", "factor", "half_life")}
        return {"lags": [self.first, self.last], **figures, "straightness": self.straightness}


def mean_log(norms: Tensor) -> Floats:
    """norms [N, P, K+1] → [K+1] mean logarithm at each lag, of norms above zero; NaN where all are zero."""
    sums, counts = _sums(norms)
    return _ratio(sums.sum(0), counts.sum(0))


def quantiles(norms: Tensor, at: tuple[float, ...] = (0.1, 0.5, 0.9)) -> Floats:
    """norms [N, P, K+1] → [quantiles, K+1] over all losses of all pieces, zeros included."""
    found: Floats = np.quantile(norms.flatten(0, 1).double().numpy(force=True), at, axis=0)
    return found


def vanished(norms: Tensor) -> Floats:
    """norms [N, P, K+1] → [K+1] share of norms that are exactly zero: dead relu units, or underflow."""
    zeros: Floats = (norms == 0).flatten(0, 1).double().mean(0).numpy(force=True)
    return zeros


def decay(norms: Tensor, first: int, last: int) -> Decay:
    """norms [N, P, K+1] → the line fitted by least squares to the mean logarithm at lags `first` … `last`.

    Raises OptionError unless 0 <= first < last <= K.
    """
    K = norms.shape[-1] - 1
    if not 0 <= first < last <= K:
        raise OptionError(f"no line goes through the lags {first} to {last} of 0 to {K}.")
    sums, counts = (each[:, first : last + 1] for each in _sums(norms))
    there = counts.sum(0) > 0  # a lag at which every norm is zero has no logarithm
    lags = np.arange(first, last + 1)[there].astype(float)
    if len(lags) < 2:
        return Decay(first, last, Estimate(math.nan, math.nan, math.nan), math.nan)
    weights = lags - lags.mean()

    def slope(pieces: Floats) -> Floats:
        """pieces [R, N] → [R]"""
        curves = _ratio(pieces @ sums[:, there], pieces @ counts[:, there])
        found: Floats = curves @ weights / (weights @ weights)
        return found

    curve = _ratio(sums.sum(0), counts.sum(0))[there]
    found = estimate(len(norms), slope)
    residue = curve - curve.mean() - found.value * weights
    spread = float(((curve - curve.mean()) ** 2).sum())
    straightness = 1 - float((residue**2).sum()) / spread if spread > 0 else math.nan
    return Decay(first, last, found, straightness)


def _sums(norms: Tensor) -> tuple[Floats, Floats]:
    """norms [N, P, K+1] → of each piece and lag [N, K+1] the sum of logarithms, and of how many."""
    values = norms.double().numpy(force=True)
    above = values > 0
    logs = np.log(np.where(above, values, 1.0))
    return logs.sum(1), above.sum(1).astype(float)


def _ratio(above: Floats, below: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)
