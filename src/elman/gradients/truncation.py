"""What truncation costs: the gradient of truncated BPTT beside the full one, on a user's model and data.

The bias is that of the mean over a text, which is what many updates follow: by how much the mean truncated
gradient points elsewhere (cosine) and is shorter (ratio of norms) than the mean full one (Tallec & Ollivier
2017; Aicher, Foti & Fox 2019). Beside it stands the mean cosine of single sequences.

"Full" goes back to the beginning of the T steps given and no further, so T is to be longer than the gradient
lives. Gradients are those of the recurrence's parameters, which alone hold the path through time.

T steps, N sequences side by side, H hidden size, G gates, P numbers of a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from elman.errors import OptionError
from elman.gradients.bptt import Deltas, Window, deltas, reads, windows
from elman.gradients.resampling import Estimate, Floats, estimate
from elman.gradients.unrolling import Unrolled

Progress = Callable[[int, int], None]

BLOCK = 1 << 23
"""Numbers of the sequences' gradients held at once."""


@dataclass(frozen=True)
class Bias:
    """Truncation after `steps` for one parameter, or for all together.

    cosine, ratio  of the mean gradient over all sequences: cosine to the full one, norm over its norm
    alone          mean over sequences of the cosine within each
    Each with its 95 % interval over sequences; NaN where a gradient is zero.
    """

    steps: int
    parameter: str
    cosine: Estimate
    ratio: Estimate
    alone: Estimate

    def as_json(self) -> dict[str, object]:
        """The fields by name, an estimate as [value, low, high]."""
        figures = {name: getattr(self, name).as_json() for name in ("cosine", "ratio", "alone")}
        return {"steps": self.steps, "parameter": self.parameter, **figures}


ALL = "all"


@torch.no_grad()
def truncation_bias(
    unrolled: Unrolled,
    doutput: Tensor,
    steps: Sequence[int] | None = None,
    *,
    update_interval: int | None = None,
    progress: Progress | None = None,
) -> list[Bias]:
    """For each k of `steps` (None: 1 … T) the bias of BPTT truncated after k, of "all" and of each parameter.

    doutput [T, N, H] ∂L/∂h of the last layer. Windows advance by k, as training does it, or by
    `update_interval`, at most the smallest k. `progress` is called with (lengths done, lengths in all).
    Raises OptionError for a k outside 1 … T.
    """
    T, N = unrolled.steps, unrolled.states[0].shape[2]
    chosen = list(range(1, T + 1)) if steps is None else list(steps)
    for k in chosen:
        if not 1 <= k <= T:
            raise OptionError(f"{T} steps cannot be truncated after {k}.", remedy=f"give 1 to {T}.")
    full = deltas(unrolled, doutput, [Window(0, 0, T)])
    found = []
    for done, k in enumerate(chosen):
        cut = deltas(unrolled, doutput, windows(T, update_interval or k, k))
        products = {name: _Products(N) for name in _names(unrolled)}
        for name, mine, theirs in _gradients(unrolled, cut, full):
            products[name].add(mine, theirs)
        products = {ALL: sum(products.values(), _Products(N)), **products}
        found += [_bias(k, name, each) for name, each in products.items()]
        if progress is not None:
            progress(done + 1, len(chosen))
    return found


class _Products:
    """Inner products of the sequences' gradients, truncated and full: all that cosines and norms need."""

    def __init__(self, sequences: int) -> None:
        self.cut, self.both, self.full = np.zeros((3, sequences, sequences))

    def add(self, cut: Tensor, full: Tensor) -> None:
        """cut, full [N, P]."""
        cut, full = cut.double(), full.double()
        self.cut = self.cut + (cut @ cut.T).numpy(force=True)
        self.both = self.both + (cut @ full.T).numpy(force=True)
        self.full = self.full + (full @ full.T).numpy(force=True)

    def __add__(self, other: _Products) -> _Products:
        total = _Products(len(self.full))
        for name in ("cut", "both", "full"):
            setattr(total, name, getattr(self, name) + getattr(other, name))
        return total


def _bias(steps: int, parameter: str, products: _Products) -> Bias:
    N = len(products.full)

    def of_mean(counts: Floats) -> tuple[Floats, Floats, Floats]:
        """counts [R, N] → squared norm, inner product, squared norm of the sums' gradients [R]."""
        cut, both, full = (
            np.einsum("rn,nm,rm->r", counts, each, counts, optimize=True)
            for each in (products.cut, products.both, products.full)
        )
        return cut, both, full

    def cosine(counts: Floats) -> Floats:
        cut, both, full = of_mean(counts)
        return _ratio(both, np.sqrt(cut.clip(0) * full.clip(0)))

    def ratio(counts: Floats) -> Floats:
        cut, _, full = of_mean(counts)
        return np.sqrt(_ratio(cut.clip(0), full))

    each = _ratio(
        np.diag(products.both), np.sqrt(np.diag(products.cut).clip(0) * np.diag(products.full).clip(0))
    )

    def alone(counts: Floats) -> Floats:
        there = ~np.isnan(each)
        return _ratio(counts[:, there] @ each[there], counts[:, there].sum(1))

    return Bias(steps, parameter, estimate(N, cosine), estimate(N, ratio), estimate(N, alone))


def _ratio(above: Floats, below: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)


def _names(unrolled: Unrolled) -> list[str]:
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return [
        f"{kind}_l{layer}"
        for layer, p in enumerate(unrolled.parameters)
        for kind, there in zip(kinds, p, strict=True)
        if there is not None
    ]


def _gradients(unrolled: Unrolled, cut: Deltas, full: Deltas) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(parameter, truncated [N, P], full [N, P]): each sequence's own gradients, in blocks of a parameter."""
    for layer, p in enumerate(unrolled.parameters):
        rows = zip(cut.da[layer], full.da[layer], strict=True)
        for kind, read, (mine, theirs) in zip(("ih", "hh"), reads(unrolled, layer), rows, strict=True):
            block = max(1, BLOCK // (read.shape[1] * read.shape[2]))
            for first in range(0, mine.shape[2], block):
                part = slice(first, first + block)
                name = f"weight_{kind}_l{layer}"
                yield name, _weights(mine[..., part], read), _weights(theirs[..., part], read)
            if p.bias_ih is not None:
                yield f"bias_{kind}_l{layer}", mine.sum(0), theirs.sum(0)


def _weights(da: Tensor, read: Tensor) -> Tensor:
    """da [T, N, rows], read [T, N, D] → each sequence's gradient of those rows of the weight [N, rows·D]."""
    return torch.bmm(da.permute(1, 2, 0), read.transpose(0, 1)).flatten(1)
