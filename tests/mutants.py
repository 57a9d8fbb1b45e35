"""Known wrong cells and stacks, each one a defect that was shipped somewhere or nearly was.

A mutant is the reference backend with one mistake. Those of `STEPS` and `BACKWARDS` replace one cell's
`step` or `step_backward`, those of `STACKS` the whole backend. `test_mutants` runs on each the check
that the right ones pass; every mutant must fail it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from elman import kernels
from elman.cells import Parameters, gru, lstm, rnn

STEPS: dict[str, tuple[str, Callable[..., Any]]] = {}
"""name → (cell, wrong step)"""
BACKWARDS: dict[str, tuple[str, Callable[..., Any]]] = {}
"""name → (cell, wrong step_backward); the forward pass stays right"""
STACKS: dict[str, kernels.Backend] = {}
"""name → wrong backend"""

RIGHT = kernels.BACKENDS["reference"]


def wrong_step(cell: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        STEPS[function.__name__] = (cell, function)
        return function

    return register


def wrong_backward(cell: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        BACKWARDS[function.__name__] = (cell, function)
        return function

    return register


def wrong_stack(function: kernels.Backend) -> kernels.Backend:
    STACKS[function.__name__] = function
    return function


def biased(bias: Tensor | None, change: Callable[[Tensor], Tensor]) -> Tensor | None:
    return None if bias is None else change(bias)


def rows(p: Parameters, order: list[int]) -> Parameters:
    """The same parameters with the gates in another order."""
    return Parameters(*(w if w is None else torch.cat([w.chunk(len(order))[k] for k in order]) for w in p))


@wrong_step("rnn_tanh")
def bias_added_twice(p: Parameters, x: Tensor, state: rnn.State) -> Any:
    return rnn.step(p._replace(bias_ih=biased(p.bias_ih, lambda b: 2 * b)), x, state)


@wrong_step("rnn_tanh")
def recurrent_weights_transposed(p: Parameters, x: Tensor, state: rnn.State) -> Any:
    return rnn.step(p._replace(weight_hh=p.weight_hh.T), x, state)


@wrong_step("rnn_relu")
def relu_becomes_tanh(p: Parameters, x: Tensor, state: rnn.State) -> Any:
    return rnn.step(p, x, state, nonlinearity="tanh")


@wrong_step("lstm")
def lstm_gate_order(p: Parameters, x: Tensor, state: lstm.State) -> Any:
    """i f o g, the order of some other libraries."""
    return lstm.step(rows(p, [0, 1, 3, 2]), x, state)


@wrong_step("lstm")
def lstm_forget_bias_lost(p: Parameters, x: Tensor, state: lstm.State) -> Any:
    def without(bias: Tensor) -> Tensor:
        i, f, g, o = bias.chunk(4)
        return torch.cat([i, torch.zeros_like(f), g, o])

    return lstm.step(p._replace(bias_hh=biased(p.bias_hh, without)), x, state)


@wrong_step("lstm")
def lstm_shows_the_cell_without_tanh(p: Parameters, x: Tensor, state: lstm.State) -> Any:
    new, cache = lstm.step(p, x, state)
    return lstm.State(cache.o * new.c, new.c), cache


@wrong_step("gru")
def gru_without_recurrent_bias(p: Parameters, x: Tensor, state: gru.State) -> Any:
    """b_hn in the docstring, not in the code (flax #5594)."""
    mask = torch.cat([torch.ones(2 * state[0].shape[1]), torch.zeros(state[0].shape[1])])
    return gru.step(p._replace(bias_hh=biased(p.bias_hh, lambda b: b * mask)), x, state)


@wrong_step("gru")
def gru_recurrent_bias_lost_at_the_first_step(p: Parameters, x: Tensor, state: gru.State) -> Any:
    """Only where the state is None (mlx #3249)."""
    return gru_without_recurrent_bias(p, x, state) if not state[0].any() else gru.step(p, x, state)


@wrong_step("gru")
def gru_reset_before_product(p: Parameters, x: Tensor, state: gru.State) -> Any:
    """The other variant: right in its paper, wrong under torch's weights."""
    (h_prev,) = state
    H = h_prev.shape[1]
    _, cache = gru.step(p, x, state)
    bias = None if p.bias_hh is None else p.bias_hh[2 * H :]
    x_n = linear(x, p.weight_ih, p.bias_ih)[:, 2 * H :]
    n = torch.tanh(x_n + linear(cache.r * h_prev, p.weight_hh[2 * H :], bias))
    return gru.State((1 - cache.z) * n + cache.z * h_prev), cache._replace(n=n)


@wrong_step("gru")
def gru_z_swapped(p: Parameters, x: Tensor, state: gru.State) -> Any:
    _, cache = gru.step(p, x, state)
    return gru.State(cache.z * cache.n + (1 - cache.z) * cache.h_prev), cache


@wrong_step("gru")
def gru_hidden_overwritten(p: Parameters, x: Tensor, state: gru.State) -> Any:
    """hidden = (1-z)*n; hidden = hidden + z*hidden (mlx #952)."""
    _, cache = gru.step(p, x, state)
    hidden = (1 - cache.z) * cache.n
    return gru.State(hidden + cache.z * hidden), cache


@wrong_backward("rnn_tanh")
def rnn_backward_forgets_derivative(p: Parameters, cache: rnn.Cache, dstate: rnn.State) -> Any:
    return rnn.step_backward(p, cache._replace(h=torch.zeros_like(cache.h)), dstate)


@wrong_backward("rnn_relu")
def relu_backward_with_the_slope_of_tanh(p: Parameters, cache: rnn.Cache, dstate: rnn.State) -> Any:
    return rnn.step_backward(p, cache, dstate, nonlinearity="tanh")


@wrong_backward("rnn_tanh")
def backward_through_one_step_only(p: Parameters, cache: rnn.Cache, dstate: rnn.State) -> Any:
    dx, dprev, dp = rnn.step_backward(p, cache, dstate)
    return dx, rnn.State(torch.zeros_like(dprev.h)), dp


@wrong_backward("lstm")
def lstm_backward_without_dc_through_f(p: Parameters, cache: lstm.Cache, dstate: lstm.State) -> Any:
    dx, dprev, dp = lstm.step_backward(p, cache, dstate)
    return dx, dprev._replace(c=torch.zeros_like(dprev.c)), dp


@wrong_backward("lstm")
def lstm_backward_ignores_the_next_cell(p: Parameters, cache: lstm.Cache, dstate: lstm.State) -> Any:
    return lstm.step_backward(p, cache, dstate._replace(c=torch.zeros_like(dstate.c)))


@wrong_backward("gru")
def gru_backward_without_the_direct_path(p: Parameters, cache: gru.Cache, dstate: gru.State) -> Any:
    dx, dprev, dp = gru.step_backward(p, cache, dstate)
    return dx, gru.State(dprev.h - dstate.h * cache.z), dp


@wrong_backward("gru")
def gru_biases_share_a_gradient(p: Parameters, cache: gru.Cache, dstate: gru.State) -> Any:
    """True in the LSTM; here r multiplies one of them and not the other."""
    dx, dprev, dp = gru.step_backward(p, cache, dstate)
    return dx, dprev, dp._replace(dbias_hh=dp.dbias_ih)


@wrong_stack
def none_is_not_zeros(stack: kernels.Stack, x: Tensor, state: Any, sizes: Tensor | None) -> Any:
    return RIGHT(stack, x, state if state[0].any() else tuple(s + 0.01 for s in state), sizes)


@wrong_stack
def time_reversed(stack: kernels.Stack, x: Tensor, state: Any, sizes: Tensor | None) -> Any:
    if sizes is not None:
        return RIGHT(stack, x, state, sizes)
    output, last = RIGHT(stack, x.flip(0), state, sizes)
    return output.flip(0), last


@wrong_stack
def gradient_truncated(stack: kernels.Stack, x: Tensor, state: Any, sizes: Tensor | None) -> Any:
    if sizes is not None or stack.bidirectional:
        return RIGHT(stack, x, state, sizes)
    half = len(x) // 2
    first, middle = RIGHT(stack, x[:half], state, None)
    second, last = RIGHT(stack, x[half:], tuple(s.detach() for s in middle), None)
    return torch.cat([first, second]), last


@wrong_stack
def last_state_cut_from_the_graph(stack: kernels.Stack, x: Tensor, state: Any, sizes: Tensor | None) -> Any:
    output, last = RIGHT(stack, x, state, sizes)
    return output, tuple(s.detach() for s in last)


@wrong_stack
def directions_swapped(stack: kernels.Stack, x: Tensor, state: Any, sizes: Tensor | None) -> Any:
    output, last = RIGHT(stack, x, state, sizes)
    return (output.roll(output.shape[-1] // 2, dims=-1) if stack.bidirectional else output), last


@wrong_stack
def ended_sequences_lose_their_state(
    stack: kernels.Stack, x: Tensor, state: Any, sizes: Tensor | None
) -> Any:
    output, last = RIGHT(stack, x, state, sizes)
    alive = last[0].shape[1] if sizes is None else int(sizes[-1])
    return output, tuple(torch.cat([s[:, :alive], torch.zeros_like(s[:, alive:])], dim=1) for s in last)


@wrong_stack
def every_layer_starts_from_the_first_state(
    stack: kernels.Stack, x: Tensor, state: Any, sizes: Tensor | None
) -> Any:
    return RIGHT(stack, x, tuple(s[:1].expand_as(s) for s in state), sizes)


@wrong_stack
def dropout_while_evaluating(stack: kernels.Stack, x: Tensor, state: Any, sizes: Tensor | None) -> Any:
    return RIGHT(replace(stack, training=True), x, state, sizes)


@wrong_stack
def dropout_forgotten(stack: kernels.Stack, x: Tensor, state: Any, sizes: Tensor | None) -> Any:
    return RIGHT(replace(stack, dropout=0.0), x, state, sizes)


@wrong_stack
def biases_forgotten(stack: kernels.Stack, x: Tensor, state: Any, sizes: Tensor | None) -> Any:
    return RIGHT(replace(stack, weights=[w * (w.dim() > 1) for w in stack.weights]), x, state, sizes)
