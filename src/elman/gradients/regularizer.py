"""Pascanu's regularizer against vanishing gradients, Ω, with its gradient by hand, for simple RNNs.

Pascanu, Mikolov & Bengio (2013), equations 9 and 10. With a_t the sum before the nonlinearity (their x_t):

    Ω = Σ_t Ω_t,   Ω_t = ( ‖v_t U diag(σ'(a_t))‖ / ‖v_t‖ - 1 )²,   v_t = ∂E/∂a_{t+1}

so that the error keeps its length on its way from a_{t+1} to a_t, in its own direction and not in every one.
The gradient is, as in the paper, the immediate partial derivative: by U where it stands in the formula, while
v_t and a_t count as constants although they too depend on U. It is no gradient of Ω as a whole.

T steps, B sequences, H hidden size, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from elman.cells.functions import States
from elman.errors import OptionError
from elman.gradients.bptt import Window, deltas
from elman.gradients.unrolling import Unrolled, unroll


@dataclass(frozen=True)
class Omega:
    """value  Ω: summed over steps and layers, averaged over the sequences
    terms  [L, T-1, B] Ω_t
    dweight_hh  of each layer [H, H]: the immediate partial derivative of `value` by its U. All float64.
    """

    value: float
    terms: Tensor
    dweight_hh: tuple[Tensor, ...]


@torch.no_grad()
def omega(unrolled: Unrolled, doutput: Tensor) -> Omega:
    """doutput [T, B, H] = ∂E/∂h of the last layer → Ω and its immediate derivative.

    A step at which the error is zero has no direction to keep and counts nothing. Raises OptionError for a
    gated cell: the paper's Jacobian is that of the simple RNN.
    """
    if not unrolled.cell.startswith("rnn"):
        raise OptionError(
            f"the regularizer of Pascanu et al. is of simple RNNs, not of a {unrolled.cell}.",
            remedy="use it with an RNN of tanh or relu.",
        )
    unrolled = unrolled.double()  # where it is needed most the error is below what float32 can square
    found = deltas(unrolled, doutput.double(), [Window(0, 0, unrolled.steps)])
    B = unrolled.states[0].shape[2]
    terms, gradients = [], []
    for layer, (p, (_, da)) in enumerate(zip(unrolled.parameters, found.da, strict=True)):
        h = unrolled.states[0][layer, 1:-1]  # [T-1, B, H], of a_t; v_t is that of the step after
        slope = 1 - h * h if unrolled.cell == "rnn_tanh" else (h > 0).to(h)
        v = da[1:]
        y = v @ p.weight_hh * slope
        length, before = y.norm(dim=2), v.norm(dim=2)  # [T-1, B]
        there = before > 0
        ratio = length / torch.where(there, before, 1)
        off = torch.where(there, ratio - 1, 0)
        terms.append(off * off)
        # Ω_t = (‖y‖ / ‖v‖ - 1)², y = (v U) * slope; where y is zero its length has no slope, and 0 is taken
        v = v / torch.where(there, before, 1)[..., None]
        y = y / torch.where(length > 0, length, 1)[..., None]
        gradients.append((v * (2 / B * off)[..., None]).flatten(0, 1).T @ (y * slope).flatten(0, 1))
    stacked = torch.stack(terms)
    return Omega(float(stacked.sum() / B), stacked, tuple(gradients))


def add_omega(
    recurrence: nn.RNNBase, x: Tensor, doutput: Tensor, weight: float, state: States | None = None
) -> float:
    """Between `loss.backward()` and the optimizer's step: adds weight · ∂Ω to the recurrent weights' `.grad`.

    x [T, B, D] that the recurrence read, state (h,) [L, B, H] before it (None: zeros), doutput [T, B, H] the
    gradient of the loss by the recurrence's output. Returns Ω. For a language model, `read_back` gives x and
    doutput. Raises OptionError for a gated cell.
    """
    found = omega(unroll(recurrence, x.detach(), state), doutput)
    for layer, gradient in enumerate(found.dweight_hh):
        parameter = recurrence.get_parameter(f"weight_hh_l{layer}")
        more = weight * gradient.to(parameter)
        parameter.grad = more if parameter.grad is None else parameter.grad + more
    return found.value
