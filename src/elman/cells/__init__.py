"""One time step of each recurrent cell, forward and backward, as the equations stand in the papers.

These files are the readable specification, the reference that every faster kernel is measured
against, and the text of the chapter. They are not fast, and they know nothing of time, layers or
autograd: `kernels` runs them over a sequence.

B batch, D input size, H hidden size, G gates (1 in the simple RNN, 4 in the LSTM, 3 in the GRU).
Each cell has
    step(p, x, state)                  -> (state, cache)
    gates_backward(cache, dstate)      -> (da_ih, da_hh, dstate_prev without the way through U)
    step_backward(p, cache, dstate)    -> (dx, dstate_prev, gradients)
where `dstate` is the whole gradient of the loss with respect to the state that `step` returned, and
a name with `d` in front is the gradient of the loss with respect to the thing it names. `step_backward` is
`gates_backward`, which is elementwise (one sequence's cache serves many gradients), and the products with W
and U. `functions` has the cells as one table.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Parameters(NamedTuple):
    """The parameters of one cell, named, shaped and ordered by gate as in torch.nn.

    The two biases do the same in the simple RNN and the LSTM (torch keeps both, for cuDNN), not in the
    GRU. Both are None in a cell without biases.
    """

    weight_ih: Tensor  # [G·H, D] from the input, W
    weight_hh: Tensor  # [G·H, H] from the state before, U
    bias_ih: Tensor | None = None  # [G·H] added to W x
    bias_hh: Tensor | None = None  # [G·H] added to U h


class Gradients(NamedTuple):
    """What one step adds to the gradient of each parameter; the shapes are those of Parameters."""

    dweight_ih: Tensor  # [G·H, D]
    dweight_hh: Tensor  # [G·H, H]
    dbias_ih: Tensor | None  # [G·H]
    dbias_hh: Tensor | None  # [G·H]
