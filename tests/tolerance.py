"""Tolerances, computed from the arithmetic in one place: never a number chosen to get green.

A sum of n rounded products errs by about sqrt(n) half units in the last place when the errors are
independent (Higham 2002, section 2.8); T steps of a recurrence chain T such sums. The factor is the
constant that the worst of several correct orders of summation needs.
"""

from __future__ import annotations

import math

import torch

FACTOR = 8.0


def tolerance(dtype: torch.dtype, *lengths: int) -> float:
    """Absolute and relative error allowed for a chain of sums of these lengths, values of order one."""
    return FACTOR * torch.finfo(dtype).eps * math.sqrt(math.prod(lengths))
