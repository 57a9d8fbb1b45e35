"""Pascanu's Ω: value and immediate derivative against the paper's formula and autograd, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from elman.errors import OptionError
from elman.gradients import regularizer as home
from elman.gradients.reading import read_back
from elman.gradients.regularizer import add_omega, omega
from elman.gradients.unrolling import Unrolled, unroll
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from neural_oracle import WORDS, vocabulary
from test_vanishing import B, D, H, T, drawn, stack


def example(cell: str, layers: int) -> tuple[nn.RNNBase, Unrolled, Tensor]:
    module = stack(cell, layers, nn)
    x, state, masks = drawn(cell, layers, B)
    x = x + 1  # so that relu units live
    return module, unroll(module, x, state, masks), torch.randn(T, B, H, dtype=torch.float64)


def by_formula(module: nn.RNNBase, unrolled: Unrolled, doutput: Tensor) -> tuple[float, list[Tensor]]:
    """Equations 9 and 10 as they stand, step by step: E's gradients by autograd through explicit sums a_t,
    then Ω as a function of a copy of U alone, everything else being numbers."""
    relu = module.mode == "RNN_RELU"
    act: Callable[[Tensor], Tensor] = torch.relu if relu else torch.tanh
    layers = module.num_layers
    a: list[list[Tensor]] = [[] for _ in range(layers)]
    h = [unrolled.states[0][layer, 0] for layer in range(layers)]
    error = torch.zeros((), dtype=torch.float64)
    for t in range(T):
        read = unrolled.caches[0][t][0]
        for layer in range(layers):
            w, u, b, c = (
                getattr(module, f"{kind}_l{layer}")
                for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            a[layer].append(read @ w.T + b + h[layer] @ u.T + c)
            h[layer] = act(a[layer][-1])
            read = h[layer] if layer + 1 == layers else h[layer] * unrolled.masks[layer, t]
        error = error + (read * doutput[t]).sum()
    flat = [each for layer in a for each in layer]
    da = torch.autograd.grad(error, flat)
    total, gradients = 0.0, []
    for layer in range(layers):
        free = module.get_parameter(f"weight_hh_l{layer}").detach().clone().requires_grad_()
        value = torch.zeros((), dtype=torch.float64)
        for t in range(T - 1):
            v, at = da[layer * T + t + 1], a[layer][t].detach()
            slope = (at > 0).double() if relu else 1 - torch.tanh(at) ** 2
            for b_ in range(B):
                if not v[b_].any():
                    continue  # all units dead: no error, no direction
                kept = torch.diag(slope[b_]) @ free.T @ v[b_]
                value = value + (kept.norm() / v[b_].norm() - 1) ** 2 / B
        gradients += torch.autograd.grad(value, free)
        total += value.item()
    return total, gradients


def disagreement(cell: str, layers: int, ours: Callable = omega) -> float:
    module, unrolled, doutput = example(cell, layers)
    value, gradients = by_formula(module, unrolled, doutput)
    found = ours(unrolled, doutput)
    each = [
        float((mine - theirs).abs().max()) for mine, theirs in zip(found.dweight_hh, gradients, strict=True)
    ]
    assert value > 0
    return max(abs(found.value - value), *each)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", ["rnn_tanh", "rnn_relu"])
def test_value_and_immediate_derivative_are_those_of_the_formula(cell: str, layers: int) -> None:
    assert disagreement(cell, layers) < 1e-9


def step_off_by_one(unrolled: Unrolled, doutput: Tensor) -> object:
    """v_t is the error at a_t, not at the step after."""
    right = home.deltas
    home.deltas = lambda *given: (
        lambda d: d._replace(da=[(i, torch.cat([i.new_zeros(1, *i.shape[1:]), h[:-1]])) for i, h in d.da])
    )(right(*given))
    try:
        return omega(unrolled, doutput)
    finally:
        home.deltas = right


def transposed(unrolled: Unrolled, doutput: Tensor) -> object:
    found = omega(unrolled, doutput)
    return home.Omega(found.value, found.terms, tuple(g.T for g in found.dweight_hh))


@pytest.mark.parametrize("mutant", [step_off_by_one, transposed])
def test_wrong_versions_are_caught(mutant: Callable) -> None:
    assert disagreement("rnn_tanh", 2, mutant) > 1e-3


def test_the_whole_derivative_is_another() -> None:
    """What the docstring says: the immediate derivative leaves out how the error and the states move."""
    module, unrolled, doutput = example("rnn_tanh", 1)
    x = torch.stack([cache[0] for cache in unrolled.caches[0]])
    state = tuple(part[:, 0] for part in unrolled.states)
    step, found = 1e-6, omega(unrolled, doutput)
    with torch.no_grad():
        module.weight_hh_l0[0, 1] += step
    whole = (omega(unroll(module, x, state), doutput).value - found.value) / step
    assert abs(whole - float(found.dweight_hh[0][0, 1])) > 1e-3


def test_an_orthogonal_linear_recurrence_has_nothing_to_pay() -> None:
    module = nn.RNN(D, H, bias=False, nonlinearity="relu", dtype=torch.float64)
    with torch.no_grad():
        module.weight_ih_l0.abs_()
        module.weight_hh_l0.copy_(torch.eye(H)[torch.arange(1, H + 1) % H])  # a permutation: stays positive
    x = torch.rand(T, B, D, dtype=torch.float64) + 0.1
    doutput = torch.zeros(T, B, H, dtype=torch.float64)
    doutput[-1] = torch.randn(B, H, dtype=torch.float64)
    found = omega(unroll(module, x), doutput)
    assert found.value == pytest.approx(0, abs=1e-20)
    with torch.no_grad():
        module.weight_hh_l0.mul_(0.5)
    halved = omega(unroll(module, x), doutput)
    assert halved.terms.flatten().tolist() == pytest.approx([0.25] * (T - 1) * B)


def test_no_error_is_no_term() -> None:
    _, unrolled, doutput = example("rnn_tanh", 2)
    doutput[3:] = 0
    found = omega(unrolled, doutput)
    assert (found.terms[:, 2:] == 0).all()
    assert (found.terms[:, :2] > 0).all()
    assert all(torch.isfinite(g).all() for g in found.dweight_hh)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_training_it_is_one_call_and_holds_the_gradient_up(dtype: torch.dtype) -> None:
    """A contracting RNN, trained on Ω alone, comes to keep its error's norm."""
    torch.manual_seed(2)
    module = nn.RNN(D, H, dtype=dtype)
    x, target = torch.randn(12, B, D, dtype=dtype), torch.randn(B, H, dtype=dtype)
    optimizer = torch.optim.SGD([module.weight_hh_l0], lr=0.02)
    values = []
    for _ in range(150):
        output, _ = module(x)
        loss = ((output[-1] - target) ** 2).sum()
        (doutput,) = torch.autograd.grad(loss, output)
        module.zero_grad()
        values.append(add_omega(module, x, doutput, 1.0))
        optimizer.step()
    assert values[-1] < values[0] / 3
    assert math.isfinite(values[-1])
    assert module.weight_ih_l0.grad is None
    before = torch.ones_like(module.weight_hh_l0)
    module.weight_hh_l0.grad = before.clone()
    expected = omega(unroll(module, x), doutput).dweight_hh[0].to(dtype) * 0.5 + before
    add_omega(module, x, doutput, 0.5)
    assert torch.allclose(module.weight_hh_l0.grad, expected)


def test_gated_cells_are_refused() -> None:
    module = stack("lstm", 1)
    with pytest.raises(OptionError, match="simple RNNs"):
        omega(unroll(module, torch.randn(T, B, D)), torch.randn(T, B, H))


def test_a_language_model_is_regularized_by_what_read_back_gives() -> None:
    torch.manual_seed(1)
    config = RecurrentConfig(cell="rnn", embedding_size=3, hidden_size=5, num_layers=2, init_scale=0.5)
    model = RecurrentModel(vocabulary(13), WORDS, config)
    ids = torch.randint(0, 13, (T + 1, B))
    nats, _ = model.token_nats(ids, model.start(B))
    nats.sum().backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    reading = read_back(model, ids)
    value = add_omega(model.recurrence, reading.embedded, reading.dhidden, 0.5)
    expected = omega(reading.unrolled, reading.dhidden)
    assert value == expected.value > 0
    for name, parameter in model.named_parameters():
        change = parameter.grad - before[name]
        layer = "recurrence.weight_hh_l"
        if name.startswith(layer):
            assert torch.allclose(change, 0.5 * expected.dweight_hh[int(name[-1])].float(), atol=1e-5)
            assert float(change.abs().max()) > 1e-3
        else:
            assert not change.any()


def test_float32_keeps_the_terms_where_the_error_has_nearly_vanished() -> None:
    """The loss at the last step alone, 200 steps: what Ω is for, and what float32 cannot square."""
    torch.manual_seed(2)
    module = nn.RNN(6, 30)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-0.1, 0.1)
    x, doutput = torch.randn(200, 2, 6), torch.zeros(200, 2, 30)
    doutput[-1] = torch.randn(2, 30)
    single = omega(unroll(module, x), doutput)
    exact = omega(unroll(module.double(), x.double()), doutput.double())
    assert int((exact.terms > 0).sum()) == 2 * 199
    assert single.value == pytest.approx(exact.value, rel=1e-4)
    assert torch.allclose(single.dweight_hh[0], exact.dweight_hh[0], rtol=1e-3, atol=1e-4)
