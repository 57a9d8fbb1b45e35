"""The GRU, reset gate after the product (Cho et al. 2014, arXiv version 1; torch.nn.GRU and cuDNN).

    x_r, x_z, x_n = W x + b
    h_r, h_z, h_n = U h_prev + c
    r = sigmoid(x_r + h_r)               reset gate: how much of the past enters the new content
    z = sigmoid(x_z + h_z)               update gate: how much of the OLD state is kept
    n = tanh(x_n + r * h_n)              new content
    h = (1 - z) * n + z * h_prev

Two things differ between papers and libraries:
- reset before the product: n = tanh(W_n x + b_n + U_n (r * h_prev) + c_n), the published version of Cho et
  al. (2014). Here r multiplies U_n h_prev + c_n, the bias c_n included, so that one product serves
  all gates and b_n, c_n are not the same.
- the sense of z: Chung et al. (2014) write h = (1 - z) * h_prev + z * n. Here, as in Cho et al., z keeps the
  old state.
b is `bias_ih`, c is `bias_hh`; the gates lie in the order r, z, n of torch.nn.

B batch, D input size, H hidden size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from elman.cells import Gradients, Parameters


class State(NamedTuple):
    """What the cell remembers."""

    h: Tensor  # [B, H]


class Cache(NamedTuple):
    """What the backward step needs from the forward step."""

    x: Tensor  # [B, D]
    h_prev: Tensor  # [B, H]
    r: Tensor  # [B, H]
    z: Tensor  # [B, H]
    n: Tensor  # [B, H]
    h_n: Tensor  # [B, H] U_n h_prev + c_n, before the reset


def step(p: Parameters, x: Tensor, state: State) -> tuple[State, Cache]:
    """x [B, D], state h [B, H] → the state one step later."""
    (h_prev,) = state
    x_r, x_z, x_n = linear(x, p.weight_ih, p.bias_ih).chunk(3, dim=1)  # each [B, H]
    h_r, h_z, h_n = linear(h_prev, p.weight_hh, p.bias_hh).chunk(3, dim=1)  # each [B, H]
    r = torch.sigmoid(x_r + h_r)
    z = torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    h = (1 - z) * n + z * h_prev
    return State(h), Cache(x, h_prev, r, z, n, h_n)


def gates_backward(cache: Cache, dstate: State) -> tuple[Tensor, Tensor, State]:
    """dstate dh [R, H] → da [R, 3H] as W x sees it and as U h_prev does; what reaches h_prev past U [R, H].

    R is B, or any number of gradients where the cache holds one sequence.
    """
    _, h_prev, r, z, n, h_n = cache
    (dh,) = dstate
    # forward: h = (1 - z) * n + z * h_prev
    dh_prev = dh * z
    dn = dh - dh_prev  # dh * (1 - z), and NaN, as in torch, where dh is infinite
    dz = dh * (h_prev - n)
    # forward: n = tanh(x_n + r * h_n)
    dx_n = dn * (1 - n * n)
    dr = dx_n * h_n
    dh_n = dx_n * r
    # forward: r = sigmoid(x_r + h_r), z = sigmoid(x_z + h_z)
    da_r = dr * r * (1 - r)
    da_z = dz * z * (1 - z)
    da_ih = torch.cat([da_r, da_z, dx_n], dim=1)  # [R, 3H]
    da_hh = torch.cat([da_r, da_z, dh_n], dim=1)  # [R, 3H]
    return da_ih, da_hh, State(dh_prev)


def step_backward(p: Parameters, cache: Cache, dstate: State) -> tuple[Tensor, State, Gradients]:
    """dstate dh [B, H] → dx [B, D], the gradient of the state before, of the parameters."""
    da_ih, da_hh, (dh_prev,) = gates_backward(cache, dstate)  # each [B, 3H]
    # forward: x_r, x_z, x_n = W x + b
    dx = da_ih @ p.weight_ih  # [B, D]
    # forward: h_r, h_z, h_n = U h_prev + c      h_prev also enters the line h = ... directly
    dh_prev = dh_prev + da_hh @ p.weight_hh  # [B, H]
    dbias_ih = None if p.bias_ih is None else da_ih.sum(0)  # [3H]
    dbias_hh = None if p.bias_hh is None else da_hh.sum(0)  # [3H]
    return dx, State(dh_prev), Gradients(da_ih.T @ cache.x, da_hh.T @ cache.h_prev, dbias_ih, dbias_hh)
