"""Tolerances, computed from the arithmetic in one place: never a number chosen to get green.

A sum of n rounded products errs by about sqrt(n) half units in the last place when the errors are
independent (Higham 2002, section 2.8); T steps of a recurrence chain T such sums. The factor is the
constant that the worst of several correct orders of summation needs.

In bfloat16 the same bound, with its eps = 2^-7, covers what the fused recurrence rounds: every operand of a
product once, by at most eps / 2, as the bound supposes of the sum itself, which is float32 there; and the
gates and states saved for backward, by at most eps / 2 each. A derivative of a gate holds at most four of
those as factors, as do · o · (1 - tanh(c)²) · f, each of size one at most: 2 eps of the largest term, once a
step and independent from step to step, so 2 eps · sqrt(T) over T of them. The bound is 8 eps · sqrt(2 T · n).
"""

from __future__ import annotations

import math

import torch

FACTOR = 8.0


def tolerance(dtype: torch.dtype, *lengths: int) -> float:
    """Absolute and relative error allowed for a chain of sums of these lengths, values of order one."""
    return FACTOR * torch.finfo(dtype).eps * math.sqrt(math.prod(lengths))


def error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest deviation in units of the largest expected entry, or of one where all are smaller.

    The unit is the array's, not the entry's: an entry that is small because large terms cancelled
    carries the rounding of those terms. Infinite for unequal shapes or any NaN, so that no
    comparison with a tolerance can pass by accident.
    """
    if actual.shape != expected.shape:
        return math.inf
    if not actual.numel():
        return 0.0
    a, e = actual.detach().double(), expected.detach().double()
    deviation = float((a - e).abs().max()) / max(1.0, float(e.abs().max()))
    return deviation if math.isfinite(deviation) else math.inf
