"""The one seam between modules and what computes them: see `backends`, `output`, `native`."""

from elman.cells.functions import CELLS, Cell, States
from elman.kernels.autocast import torchs_dtypes
from elman.kernels.backends import (
    BACKENDS,
    Backend,
    Layer,
    Stack,
    choose,
    computes,
    layer_by_layer,
    reference_layer,
    run,
    sequence_backward,
    sequence_forward,
)
from elman.kernels.fused import Pass

__all__ = [
    "BACKENDS",
    "CELLS",
    "Backend",
    "Cell",
    "Layer",
    "Pass",
    "Stack",
    "States",
    "choose",
    "computes",
    "layer_by_layer",
    "reference_layer",
    "run",
    "sequence_backward",
    "sequence_forward",
    "torchs_dtypes",
]
