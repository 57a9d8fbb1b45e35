"""Clipping of gradients, by norm and by value, between the backward pass and the optimizer's step.

A recurrent loss has cliffs: along a product of Jacobians of norm above one the gradient explodes.
Pascanu, Mikolov and Bengio (2013, Algorithm 1) rescale it to a threshold and keep its direction.
This file changes `.grad` in place and nothing else; when to clip is the training loop's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from elman.errors import OptionError
from elman.kernels import native


def clip_by_norm(parameters: Tensor | Iterable[Tensor], max_norm: float) -> float:
    """Rescale all gradients by one factor so that their global norm is at most `max_norm`.

    Returns the Euclidean norm of all gradients together *before* clipping. A norm of NaN or infinity
    is returned as it is and the gradients stay untouched: there is no direction to keep, and the
    caller decides. `max_norm` may be infinite (measure only). Raises OptionError unless max_norm > 0.
    Pascanu et al. 2013, Algorithm 1: if |g| >= threshold then g <- threshold / |g| * g.
    """
    _require_positive("max_norm", max_norm)
    gradients = _gradients(parameters)
    norm = _global_norm(gradients)
    if math.isfinite(norm) and norm > max_norm:
        for gradient in gradients:
            gradient.mul_(max_norm / norm)
    return norm


def clip_by_value(parameters: Tensor | Iterable[Tensor], limit: float) -> float:
    """Clamp every entry of every gradient to [-limit, limit]; the direction changes.

    Returns the share of entries clipped, from 0 to 1 (0 when there is no gradient). An infinite entry
    becomes ±limit and counts; NaN stays NaN and does not. Raises OptionError unless limit > 0.
    """
    _require_positive("limit", limit)
    parameters = _with_gradient(parameters)
    gradients = _gradients(parameters)
    clipped = sum(int((gradient.abs() > limit).sum()) for gradient in gradients)
    for gradient in gradients:
        gradient.clamp_(-limit, limit)
    return clipped / max(1, _entries(parameters))


@dataclass(frozen=True)
class Clipped:
    """What clipping changed, over all gradients together.

    before, after  Euclidean norms
    moved   share of the entries that are no longer what they were, from 0 to 1
    cosine  between the gradient before and after: 1 by norm, less by value; NaN for a gradient of zero, or
            one that is not finite
    """

    before: float
    after: float
    moved: float
    cosine: float


def observe(parameters: Tensor | Iterable[Tensor], clip: Callable[[list[Tensor]], float]) -> Clipped:
    """Clips, and tells what that changed: observe(parameters, lambda p: clip_by_value(p, 0.1)).

    `clip` is called with the parameters once and changes their `.grad` in place.
    """
    several = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    before = [gradient.clone() for gradient in _gradients(several)]
    clip(several)
    after = _gradients(several)
    pairs = list(zip(before, after, strict=True))
    moved = sum(int((old != new).sum()) for old, new in pairs)
    lengths = _global_norm(before), _global_norm(after)
    cosine = math.nan
    if all(0 < length < math.inf for length in lengths):
        # entries are divided by the norms first, so that no product of huge or tiny ones leaves the numbers
        cosine = sum(
            float((old.double() / lengths[0]).flatten() @ (new.double() / lengths[1]).flatten())
            for old, new in pairs
        )
    return Clipped(*lengths, moved / max(1, _entries(several)), cosine)


def _require_positive(name: str, value: float) -> None:
    if not value > 0:  # so that NaN is refused too
        raise OptionError(
            f"{name} is {value}; a clipping threshold is a number above zero.",
            remedy="leave clipping out, or give a threshold such as 5.",
        )


def _with_gradient(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """Each once: a tied weight must not be counted or scaled twice."""
    several = [parameters] if isinstance(parameters, Tensor) else parameters
    return list({id(p): p for p in several if p.grad is not None and p.grad.numel()}.values())


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """Their memory; of a sparse gradient that of its values, in which each row stands once from then on."""
    found = []
    for parameter in _with_gradient(parameters):
        gradient = parameter.grad
        assert gradient is not None
        if gradient.is_sparse:
            parameter.grad = gradient = gradient.coalesce()
            gradient = gradient.values()
        found.append(gradient.detach() if gradient.requires_grad else gradient)
    return found


def _entries(parameters: Tensor | Iterable[Tensor]) -> int:
    """Of all gradients, with the zeros that a sparse one leaves out."""
    return sum(parameter.numel() for parameter in _with_gradient(parameters))


def _global_norm(gradients: list[Tensor]) -> float:
    """Square root of the sum of squares over all entries; one transfer from the device, none in float16."""
    if not gradients:
        return 0.0
    if native.takes(*gradients) and all(g.is_contiguous() for g in gradients):
        norm = math.sqrt(native.sum_of_squares(gradients))
    else:
        norm = _norm_by_torch(gradients)
    if math.isinf(norm):  # the squares may have overflowed although every entry is finite
        largest = max(float(g.abs().max()) for g in gradients)
        if math.isfinite(largest):
            norm = largest * _norm_by_torch([g.to(_sum_dtype(g)) / largest for g in gradients])
    return norm


def _norm_by_torch(gradients: list[Tensor]) -> float:
    device = gradients[0].device
    norms = [torch.linalg.vector_norm(g, dtype=_sum_dtype(g)).to(device) for g in gradients]
    return math.hypot(*torch.stack(norms).tolist())


def _sum_dtype(gradient: Tensor) -> torch.dtype:
    return torch.float64 if gradient.dtype == torch.float64 else torch.float32
