"""The simple recurrent network of Elman (1990), "Finding structure in time".

    a = W x + b + U h_prev + c
    h = tanh(a)      or      h = relu(a)

Elman's hidden units are logistic; tanh is what the field uses since, and relu is the variant of Le,
Jaitly and Hinton (2015). b is `bias_ih`, c is `bias_hh`.

B batch, D input size, H hidden size.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from elman.cells import Gradients, Parameters

Nonlinearity = Literal["tanh", "relu"]


class State(NamedTuple):
    """What the cell remembers."""

    h: Tensor  # [B, H]


class Cache(NamedTuple):
    """What the backward step needs from the forward step."""

    x: Tensor  # [B, D]
    h_prev: Tensor  # [B, H]
    h: Tensor  # [B, H]


def step(p: Parameters, x: Tensor, state: State, nonlinearity: Nonlinearity = "tanh") -> tuple[State, Cache]:
    """x [B, D], state h [B, H] → the state one step later."""
    (h_prev,) = state
    a = linear(x, p.weight_ih, p.bias_ih) + linear(h_prev, p.weight_hh, p.bias_hh)  # [B, H]
    h = torch.tanh(a) if nonlinearity == "tanh" else torch.relu(a)
    return State(h), Cache(x, h_prev, h)


def gates_backward(
    cache: Cache, dstate: State, nonlinearity: Nonlinearity = "tanh"
) -> tuple[Tensor, Tensor, State]:
    """dstate dh [R, H] → da [R, H] as W x sees it and as U h_prev does; what reaches h_prev past U [R, H].

    R is B, or any number of gradients where the cache holds one sequence.
    """
    (dh,) = dstate
    # forward: h = tanh(a)    or    h = relu(a), whose slope is, as in torch, 0 at a = 0 and 1 where a is NaN
    da = dh * (1 - cache.h * cache.h) if nonlinearity == "tanh" else torch.where(cache.h <= 0, 0, dh)
    return da, da, State(torch.zeros_like(dh))


def step_backward(
    p: Parameters, cache: Cache, dstate: State, nonlinearity: Nonlinearity = "tanh"
) -> tuple[Tensor, State, Gradients]:
    """dstate dh [B, H] → dx [B, D], the gradient of the state before [B, H], of the parameters."""
    da, _, _ = gates_backward(cache, dstate, nonlinearity)  # [B, H]
    # forward: a = W x + b + U h_prev + c
    dx = da @ p.weight_ih  # [B, D]
    dh_prev = da @ p.weight_hh  # [B, H]
    dbias = None if p.bias_ih is None else da.sum(0)  # [H], the same for b and c
    return dx, State(dh_prev), Gradients(da.T @ cache.x, da.T @ cache.h_prev, dbias, dbias)
