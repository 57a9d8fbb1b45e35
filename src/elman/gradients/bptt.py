"""Backpropagation through time by hand: every gradient of a sequence's loss, full or truncated.

Full: Rumelhart, Hinton & Williams (1986), Werbos (1990). Truncated: Williams & Peng (1990), BPTT(k2; k1):
after every k1 steps the losses of those k1 go back, k2 steps from the newest. Mostly k1 = k2.

The forward pass is one and the same (unrolling.py): the state is carried through every window, only its
gradient is cut. Not here: what truncation costs (truncation.py), the update (training/).

T steps, B sequences, D input size, H hidden size, G gates, L layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from elman.cells import Gradients
from elman.cells.functions import States
from elman.errors import OptionError
from elman.gradients.unrolling import Unrolled, step_back


@dataclass(frozen=True)
class SequenceGradients:
    """parameters  of each layer, summed over steps and sequences
    dx          [T, B, D] of what the first layer read
    dstate      (h, …) [L, B, H] of the state before the first step
    """

    parameters: tuple[Gradients, ...]
    dx: Tensor
    dstate: States

    def named(self) -> dict[str, Tensor]:
        """Gradients by torch.nn's parameter names: weight_ih_l0, …; what the module lacks is left out."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return {
            f"{name}_l{layer}": gradient
            for layer, gradients in enumerate(self.parameters)
            for name, gradient in zip(names, gradients, strict=True)
            if gradient is not None
        }


class Deltas(NamedTuple):
    """What parameter gradients are made of, one row for each step and sequence.

    da      of each layer: (da_ih, da_hh) [T, B, G·H], gradients of W x + b and of U h + c
    dx      [T, B, D]; dstate (h, …) [L, B, H] of the state before the first step
    """

    da: list[tuple[Tensor, Tensor]]
    dx: Tensor
    dstate: States


class Window(NamedTuple):
    """Losses of the steps [scored, end) go back to step `begin` and no further."""

    begin: int
    scored: int
    end: int


def windows(steps: int, k1: int, k2: int | None = None) -> list[Window]:
    """The windows of BPTT(k2; k1) over a sequence; the last one may be shorter. k2 None is k1.

    Raises OptionError unless 1 <= k1 <= k2: with k2 below k1 some losses would reach no step at all.
    """
    k2 = k1 if k2 is None else k2
    if not 1 <= k1 <= k2:
        raise OptionError(
            f"windows of k1 = {k1} steps cannot go k2 = {k2} steps back.",
            reason="every loss goes back at least through its own step.",
            remedy="give 1 <= k1 <= k2; k1 = k2 is usual.",
        )
    ends = [min(end, steps) for end in range(k1, steps + k1, k1)]
    return [
        Window(max(0, scored + k1 - k2), scored, end) for scored, end in zip([0, *ends], ends, strict=False)
    ]


def bptt(unrolled: Unrolled, doutput: Tensor, dlast: Sequence[States] | None = None) -> SequenceGradients:
    """Full backpropagation through time.

    doutput [T, B, H] of the last layer's h, dlast of each layer's last state (h, …) [B, H] (None: zeros).
    """
    everything = [Window(0, 0, unrolled.steps)]
    return gradients(unrolled, deltas(unrolled, doutput, everything, dlast))


def truncated_bptt(
    unrolled: Unrolled,
    doutput: Tensor,
    k1: int,
    k2: int | None = None,
    dlast: Sequence[States] | None = None,
) -> SequenceGradients:
    """BPTT(k2; k1), k2 None is k1. Gradients of all windows are added up, at one set of parameters.

    doutput [T, B, H] of the last layer's h, dlast of each layer's last state [B, H] (None: zeros): it enters
    the last window. k1 = T is `bptt`. Raises OptionError unless 1 <= k1 <= k2.
    """
    return gradients(unrolled, deltas(unrolled, doutput, windows(unrolled.steps, k1, k2), dlast))


@torch.no_grad()
def deltas(
    unrolled: Unrolled,
    doutput: Tensor,
    over: Iterable[Window],
    dlast: Sequence[States] | None = None,
) -> Deltas:
    """doutput [T, B, H], dlast of each layer [B, H] → da, dx, dstate, added up over the windows.

    Raises OptionError unless doutput has the output's shape.
    """
    like = unrolled.states[0]
    if doutput.shape != unrolled.output.shape:
        raise OptionError(
            f"doutput has the shape {tuple(doutput.shape)}, not the output's {tuple(unrolled.output.shape)}."
        )
    T, B = unrolled.steps, like.shape[2]
    doutput = doutput.to(like)
    rows = [
        (like.new_zeros(T, B, p.weight_ih.shape[0]), like.new_zeros(T, B, p.weight_hh.shape[0]))
        for p in unrolled.parameters
    ]
    dx = like.new_zeros(T, B, unrolled.parameters[0].weight_ih.shape[1])
    dstate = tuple(like.new_zeros(unrolled.layers, B, like.shape[-1]) for _ in unrolled.states)
    for window in over:
        at_end = window.end == T and dlast is not None
        later = list(dlast) if at_end and dlast is not None else unrolled.no_gradient(B)
        for t in reversed(range(window.begin, window.end)):
            back = step_back(unrolled, t, later, doutput[t] if t >= window.scored else None)
            dx[t] += back.dx
            for (sum_ih, sum_hh), (da_ih, da_hh) in zip(rows, back.da, strict=True):
                sum_ih[t] += da_ih
                sum_hh[t] += da_hh
            later = back.dprev
        if window.begin == 0:
            for layer, parts in enumerate(later):
                for whole, part in zip(dstate, parts, strict=True):
                    whole[layer] += part
    return Deltas(rows, dx, dstate)


def gradients(unrolled: Unrolled, found: Deltas) -> SequenceGradients:
    """The rows of all steps and sequences → gradients of W, U, b, c. forward: a = W x + b + U h_prev + c"""
    made = []
    for layer, (da_ih, da_hh) in enumerate(found.da):
        x, h_prev = reads(unrolled, layer)
        da_ih, da_hh = da_ih.flatten(0, 1), da_hh.flatten(0, 1)  # [T·B, G·H]
        biased = unrolled.parameters[layer].bias_ih is not None
        made.append(
            Gradients(
                da_ih.T @ x.flatten(0, 1),
                da_hh.T @ h_prev.flatten(0, 1),
                da_ih.sum(0) if biased else None,
                da_hh.sum(0) if biased else None,
            )
        )
    return SequenceGradients(tuple(made), found.dx, found.dstate)


def reads(unrolled: Unrolled, layer: int) -> tuple[Tensor, Tensor]:
    """What a layer's products saw: x [T, B, D] (above the first layer H, masked); h_prev [T, B, H]."""
    x = torch.stack([cache[0] for cache in unrolled.caches[layer]])
    return x, unrolled.states[0][layer, :-1]
