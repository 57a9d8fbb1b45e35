"""Whether a contender computes the same thing: asked before it is timed, refused where it does not.

The reference is torch.nn in float64 on the same weights, ids and states. An error is the largest deviation in
an array in units of that array's own size, so that a gradient of small numbers is not excused.

    float32   a sum of n rounded products errs by about sqrt(n) half units in the last place (Higham 2002,
              section 2.8); T steps forward and T back, through L layers, chain such sums
    bfloat16  the products' factors are rounded, and by how much that moves each gradient no short formula
              tells: torch's own autocast, run on the same step, is the measure

Here and nowhere else in the package are tolerances made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from elman.bench.rows import GATES, Row
from elman.errors import ElmanError

FACTOR = 8.0
"""Of several correct orders of summation the worst."""
BFLOAT16_FACTOR = 2.0
"""A correct bfloat16 step rounds at other places than torch does, each of them as coarse."""
MOST_BFLOAT16 = 0.25
"""Of the size of an array: whoever errs by more does not compute it."""
ROUNDED = 2.0**-8
"""Half a unit in the last place of bfloat16; of int8 in a row scaled to ±127 it is 1/254, about the same."""

Outcome = Mapping[str, Tensor]


class UnequalError(ElmanError):
    """A contender does not compute what torch computes; its speed means nothing."""


def float32_tolerance(row: Row) -> float:
    """Of every quantity of a row's work in float32."""
    terms = (2 * row.hidden, row.vocabulary, GATES[row.cell] * row.hidden, row.tokens)
    return FACTOR * torch.finfo(torch.float32).eps * math.sqrt(2 * row.steps * row.layers * max(terms))


def bfloat16_tolerance(torchs: Mapping[str, float]) -> float:
    """Of a training step in bfloat16, given the errors of torch's own; bounded, should torch's be wild."""
    return min(BFLOAT16_FACTOR * max(torchs.values()), MOST_BFLOAT16)


def rounded_tolerance(row: Row) -> float:
    """Of log-probabilities where weights and the factors of every product are bfloat16 or int8.

    Each sum errs by about ROUNDED of its own size, however long it is, as the roundings are independent;
    an input and a recurrent product in each layer and the output make 2L + 1 of them. The gates forget
    older errors.
    """
    return FACTOR * ROUNDED * math.sqrt(2 * row.layers + 1)


def error(actual: Tensor, expected: Tensor, slack: float = 0.0) -> float:
    """Largest deviation over the largest entry expected, `slack` (absolute) taken off; infinite for unequal
    shapes or numbers that are not finite."""
    if actual.shape != expected.shape:
        return math.inf
    a, e = actual.detach().double(), expected.detach().double()
    worst = float((a - e).abs().max())
    if not math.isfinite(worst):
        return math.inf
    worst = max(0.0, worst - slack)
    size = float(e.abs().max())
    return worst / size if size else (math.inf if worst else 0.0)


def errors(actual: Outcome, expected: Outcome, slacks: Mapping[str, float] | None = None) -> dict[str, float]:
    """The error of every quantity expected; one that is missing is infinitely wrong."""
    slacks = slacks or {}
    return {
        name: error(actual[name], expected[name], slacks.get(name, 0.0)) if name in actual else math.inf
        for name in expected
    }


def require_equal(name: str, found: Mapping[str, float], allowed: float) -> dict[str, object]:
    """The worst quantity, as the record has it. UnequalError where it is beyond `allowed`."""
    worst = max(found, key=lambda quantity: found[quantity])
    if not found[worst] <= allowed:
        raise UnequalError(
            f"{name} is not equal to the reference: {worst} is off by {found[worst]:.2g} of its size, where "
            f"rounding explains {allowed:.2g}. Nothing was timed.",
            reason="a kernel of this build, or this version of the peer, computes something else.",
            remedy="ELMAN_KERNELS=portable (or torch) in the environment tells whether a kernel does.",
        )
    return {"quantities": len(found), "worst": worst, "error": found[worst], "allowed": allowed}
