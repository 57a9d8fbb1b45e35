"""Weights in fewer bits: bfloat16, or int8 with one scale for each row.

int8 is symmetric: row r becomes q[r] = round(w[r] / scale[r]), ties to even, scale[r] = max |w[r]| / 127, so
that q lies in -127 … 127 and a row of zeros has the scale 0. Biases and scales stay float32. How activations
are rounded belongs to the step (native/streaming_weights.hpp), not to the weights.

R rows, K columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from elman.kernels.streaming import Matrix, Weights

LARGEST = 127


def quantize(weight: Tensor, weights: Weights) -> Matrix:
    """weight [R, K] float32 → the same in `weights`, contiguous, on the CPU."""
    weight = weight.detach().cpu().float().contiguous()
    if weights == "float32":
        return Matrix(weight)
    if weights == "bfloat16":
        return Matrix(weight.bfloat16())
    scale = weight.abs().amax(dim=1) / LARGEST
    steps = torch.where(scale[:, None] > 0, weight / scale[:, None], 0.0)
    return Matrix(steps.round().clamp(-LARGEST, LARGEST).to(torch.int8), scale)


def dequantize(matrix: Matrix) -> Tensor:
    """The numbers that a quantized matrix stands for: [R, K] float32."""
    data = matrix.data.float()
    return data if matrix.scale is None else data * matrix.scale[:, None]
