"""The LSTM: Hochreiter and Schmidhuber (1997), with the forget gate of Gers, Schmidhuber and Cummins (2000).

    a = W x + b + U h_prev + c           split into a_i, a_f, a_g, a_o
    i = sigmoid(a_i)                     input gate: how much of the new content is written
    f = sigmoid(a_f)                     forget gate: how much of the old cell is kept
    g = tanh(a_g)                        new content
    o = sigmoid(a_o)                     output gate: how much of the cell is shown
    c = f * c_prev + i * g               the cell: a sum, so its gradient is carried by f alone
    h = o * tanh(c)

No peepholes, no projection. The gates lie in the order i, f, g, o of torch.nn (the bias c of the
first line is `bias_hh`; everywhere else c is the cell).

B batch, D input size, H hidden size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from elman.cells import Gradients, Parameters


class State(NamedTuple):
    """What the cell remembers: what it shows, and what it keeps."""

    h: Tensor  # [B, H]
    c: Tensor  # [B, H]


class Cache(NamedTuple):
    """What the backward step needs from the forward step."""

    x: Tensor  # [B, D]
    h_prev: Tensor  # [B, H]
    c_prev: Tensor  # [B, H]
    i: Tensor  # [B, H]
    f: Tensor  # [B, H]
    g: Tensor  # [B, H]
    o: Tensor  # [B, H]
    tanh_c: Tensor  # [B, H]


def step(p: Parameters, x: Tensor, state: State) -> tuple[State, Cache]:
    """x [B, D], state h and c [B, H] → the state one step later."""
    h_prev, c_prev = state
    a = linear(x, p.weight_ih, p.bias_ih) + linear(h_prev, p.weight_hh, p.bias_hh)  # [B, 4H]
    a_i, a_f, a_g, a_o = a.chunk(4, dim=1)  # each [B, H]
    i = torch.sigmoid(a_i)
    f = torch.sigmoid(a_f)
    g = torch.tanh(a_g)
    o = torch.sigmoid(a_o)
    c = f * c_prev + i * g
    tanh_c = torch.tanh(c)
    h = o * tanh_c
    return State(h, c), Cache(x, h_prev, c_prev, i, f, g, o, tanh_c)


def cell_gradient(cache: Cache, dstate: State) -> Tensor:
    """dstate dh and dc [R, H], dc by the next cell alone → dc [R, H] by both ways: c also goes through h."""
    # forward: h = o * tanh(c)
    return dstate.c + dstate.h * cache.o * (1 - cache.tanh_c * cache.tanh_c)


def gates_backward(cache: Cache, dstate: State) -> tuple[Tensor, Tensor, State]:
    """dstate dh and dc [R, H] → da [R, 4H] as W x sees it and as U h_prev does, and what reaches the state
    before past U: nothing of h_prev, all of c_prev [R, H].

    R is B, or any number of gradients where the cache holds one sequence.
    """
    _, _, c_prev, i, f, g, o, tanh_c = cache
    dh, _ = dstate
    # forward: h = o * tanh(c)
    do = dh * tanh_c
    dc = cell_gradient(cache, dstate)
    # forward: c = f * c_prev + i * g
    df = dc * c_prev
    dc_prev = dc * f
    di = dc * g
    dg = dc * i
    # forward: i = sigmoid(a_i), f = sigmoid(a_f), g = tanh(a_g), o = sigmoid(a_o)
    da_i = di * i * (1 - i)
    da_f = df * f * (1 - f)
    da_g = dg * (1 - g * g)
    da_o = do * o * (1 - o)
    da = torch.cat([da_i, da_f, da_g, da_o], dim=1)  # [R, 4H]
    return da, da, State(torch.zeros_like(dh), dc_prev)


def step_backward(p: Parameters, cache: Cache, dstate: State) -> tuple[Tensor, State, Gradients]:
    """dstate dh and dc [B, H] → dx [B, D], the gradient of the state before, of the parameters."""
    da, _, (_, dc_prev) = gates_backward(cache, dstate)  # [B, 4H]
    # forward: a = W x + b + U h_prev + c
    dx = da @ p.weight_ih  # [B, D]
    dh_prev = da @ p.weight_hh  # [B, H]
    dbias = None if p.bias_ih is None else da.sum(0)  # [4H], the same for both biases
    return dx, State(dh_prev, dc_prev), Gradients(da.T @ cache.x, da.T @ cache.h_prev, dbias, dbias)
