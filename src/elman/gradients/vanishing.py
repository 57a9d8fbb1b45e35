"""The itemised triangle ∂L_t/∂h_s: how much of each step's loss reaches each earlier state.

Backpropagation through time adds these gradients up and so hides them: ∂L/∂h_s = Σ_t ∂L_t/∂h_s. Kept apart
they show the vanishing gradient of Hochreiter (1991), Bengio et al. (1994) and Pascanu et al. (2013), token
by token. All T losses go back in one pass, as rows of one matrix.

T steps, D input size, H hidden size, L layers. Rows are losses t, columns are steps s; where s > t it is 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from elman.errors import OptionError
from elman.gradients.unrolling import StepBack, Unrolled, step_back


@dataclass(frozen=True)
class Triangle:
    """Euclidean norms of gradients.

    x       [T, T] |∂L_t/∂x_s| of the input that step s read
    states  h, in the LSTM h and c: [L, T, T] |∂L_t/∂h_s| of the state that step s made
    """

    x: Tensor
    states: tuple[Tensor, ...]

    def by_lag(self, layer: int = -1, part: int = 0) -> list[Tensor]:
        """[T] vectors: the norms at lag k = t - s, one for each of the T - k pairs; part 0 is h, 1 is c."""
        norms = self.states[part][layer]
        return [norms.diagonal(-lag) for lag in range(len(norms))]


def itemised(unrolled: Unrolled, dhidden: Tensor) -> Iterator[tuple[int, StepBack]]:
    """dhidden [T, H] = ∂L_t/∂h_t of the last layer → (s, gradients of the losses s … T-1 there), s falling.

    Row r of every gradient is that of L_{s+r}. Raises OptionError unless one sequence was unrolled.
    """
    T = unrolled.steps
    if unrolled.states[0].shape[2] != 1:
        raise OptionError(
            f"{unrolled.states[0].shape[2]} sequences side by side have no one triangle.",
            remedy="unroll one sequence: x of the shape [T, 1, D].",
        )
    if dhidden.shape != (T, unrolled.states[0].shape[-1]):
        raise OptionError(f"dhidden has the shape {tuple(dhidden.shape)}, not one row for each of {T} steps.")
    later = unrolled.no_gradient(0)
    for s in reversed(range(T)):
        # the loss of step s itself joins as the first row; only it enters at the output of step s
        later = [
            tuple(torch.cat([part.new_zeros(1, part.shape[1]), part]) for part in each) for each in later
        ]
        doutput = torch.zeros_like(later[0][0])
        doutput[0] = dhidden[s]
        back = step_back(unrolled, s, later, doutput)
        yield s, back
        later = back.dprev


@torch.no_grad()
def triangle(unrolled: Unrolled, dhidden: Tensor) -> Triangle:
    """dhidden [T, H] = ∂L_t/∂h_t of the last layer → the norms of all T(T+1)/2 gradients, in float64.

    The square of a norm leaves float32 below 1e-23, which a simple RNN reaches after some sixty steps.
    """
    unrolled, dhidden = unrolled.double(), dhidden.double()
    T, parts = unrolled.steps, len(unrolled.states)
    x = dhidden.new_zeros(T, T)
    states = [dhidden.new_zeros(unrolled.layers, T, T) for _ in range(parts)]
    for s, back in itemised(unrolled, dhidden):
        x[s:, s] = back.dx.norm(dim=1)
        for layer, dstate in enumerate(back.dstate):
            for part in range(parts):
                states[part][layer, s:, s] = dstate[part].norm(dim=1)
    return Triangle(x, tuple(states))
