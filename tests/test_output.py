"""Output layers against a dense float64 softmax written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from elman.errors import OptionError
from elman.neural import output as output_module
from elman.neural.output import (
    AdaptiveOutput,
    SoftmaxOutput,
    check_cutoffs,
    default_cutoffs,
    division,
    output_shapes,
)
from neural_oracle import adaptive_log_probs, assert_gradients, log_softmax
from tolerance import tolerance

N, H, V = 11, 7, 43


def filled(layer: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    generator = torch.Generator().manual_seed(2)
    layer.to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return layer


def rows(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states [N, H] and targets [N] that touch the head and each tail."""
    generator = torch.Generator().manual_seed(4)
    hidden = torch.randn(N, H, generator=generator, dtype=torch.float64).to(dtype)
    return hidden, torch.tensor([0, 1, 3, 4, 16, 17, 42, 30, 5, 2, 17])


def dense(layer: nn.Module, hidden: np.ndarray) -> np.ndarray:
    p = {f"output.{name}": value.detach().numpy() for name, value in layer.named_parameters()}
    if isinstance(layer, AdaptiveOutput):
        return adaptive_log_probs(p, hidden, tuple(layer.layer.cutoffs[:-1]))
    return log_softmax(hidden @ p["output.weight"].T + p["output.bias"])


LAYERS = {
    "full": lambda: SoftmaxOutput(H, V),
    "adaptive": lambda: AdaptiveOutput(H, V),
    "adaptive, three tails": lambda: AdaptiveOutput(H, V, (3, 9, 20)),
    "adaptive, one tail": lambda: AdaptiveOutput(H, V, (42,)),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_agrees_with_the_dense_softmax(make, dtype) -> None:
    layer = filled(make(), dtype)
    hidden, targets = rows(dtype)
    expected = dense(layer.double(), hidden.double().numpy())
    layer.to(dtype)
    allowed = tolerance(dtype, H, V)
    log_probs = layer.log_probs(hidden).detach()
    assert log_probs.dtype == dtype
    np.testing.assert_allclose(log_probs.numpy(), expected, rtol=allowed, atol=allowed)
    nats = layer.token_nats(hidden, targets).detach().numpy()
    np.testing.assert_allclose(nats, -expected[np.arange(N), targets], rtol=allowed, atol=allowed)
    np.testing.assert_allclose(log_probs.double().exp().sum(dim=1), 1.0, atol=1e-6, rtol=0)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_gradients_agree_with_the_dense_softmax(make) -> None:
    """Every row has its own upstream gradient, some zero, some negative."""
    model = nn.Module()
    model.output = filled(make())
    hidden, targets = rows()
    model.hidden = nn.Parameter(hidden)
    upstream = torch.linspace(-1, 2, N, dtype=torch.float64)
    upstream[4] = 0
    layer = model.output

    def oracle(p):
        if isinstance(layer, AdaptiveOutput):
            logs = adaptive_log_probs(p, p["hidden"], tuple(layer.layer.cutoffs[:-1]))
        else:
            logs = log_softmax(p["hidden"] @ p["output.weight"].T + p["output.bias"])
        return -(logs[np.arange(N), targets.numpy()] * upstream.numpy()).sum()

    loss = (layer.token_nats(model.hidden, targets) * upstream).sum()
    assert_gradients(model, loss, oracle, N * V)


def test_gradcheck_in_float64() -> None:
    layer = filled(SoftmaxOutput(4, 5))
    targets = torch.tensor([4, 0, 2])
    hidden = torch.randn(
        3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    ).requires_grad_()
    assert torch.autograd.gradcheck(lambda h, w: layer.token_nats(h, targets), (hidden, layer.weight))


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("budget", [1, V, 3 * V + 5, 10 * V])
def test_blocks_change_nothing_and_stay_within_their_budget(make, budget, monkeypatch) -> None:
    layer = filled(make())
    hidden, targets = rows()
    with_gradient = layer.token_nats(hidden, targets)
    assert with_gradient.requires_grad
    monkeypatch.setattr(output_module, "BLOCK_ELEMENTS", budget)
    seen: list[int] = []
    whole = layer._token_nats

    def spy(block, block_targets):
        seen.append(len(block))
        return whole(block, block_targets)

    monkeypatch.setattr(layer, "_token_nats", spy)
    with torch.no_grad():
        nats = layer.token_nats(hidden, targets)
    assert sum(seen) == N
    assert max(seen) <= max(1, budget // V)
    allowed = tolerance(torch.float64, H, V)
    torch.testing.assert_close(nats, with_gradient.detach(), rtol=allowed, atol=allowed)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_bfloat16_autocast_gives_float32_that_sums_to_one(make) -> None:
    layer = filled(make(), torch.float32)
    hidden, targets = rows(torch.float32)
    exact = layer.token_nats(hidden, targets).detach()
    for given_hidden in (hidden, hidden.bfloat16()):
        with torch.autocast("cpu", torch.bfloat16):
            nats, log_probs = layer.token_nats(given_hidden, targets), layer.log_probs(given_hidden)
        nats.sum().backward()
        assert nats.dtype == log_probs.dtype == torch.float32
        np.testing.assert_allclose(log_probs.detach().double().exp().sum(dim=1), 1.0, atol=1e-6, rtol=0)
        # a logit is a sum of H products of order one; bfloat16 has 8 bits
        allowed = tolerance(torch.bfloat16, H)
        torch.testing.assert_close(nats.detach(), exact, rtol=allowed, atol=allowed)


def test_a_tied_weight_is_the_same_parameter() -> None:
    weight = nn.Parameter(torch.randn(V, H))
    assert SoftmaxOutput(H, V, weight).weight is weight
    assert SoftmaxOutput(H, V).weight is not weight


@given(
    st.integers(1, 70),
    st.integers(2, 200),
    st.lists(st.integers(1, 199), min_size=1, max_size=4, unique=True),
)
@settings(max_examples=60, deadline=None)
def test_output_shapes_are_those_of_the_layer(hidden_size, vocabulary_size, cuts) -> None:
    cutoffs = tuple(sorted(cut for cut in cuts if cut < vocabulary_size)) or None
    for softmax, layer in (
        ("full", SoftmaxOutput(hidden_size, vocabulary_size)),
        ("adaptive", AdaptiveOutput(hidden_size, vocabulary_size, cutoffs)),
    ):
        shapes = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
        assert output_shapes(softmax, hidden_size, vocabulary_size, cutoffs) == shapes
        assert all(min(shape) > 0 for shape in shapes.values())


@pytest.mark.parametrize("cutoffs", [(), (0, 5), (5, 5), (9, 4), (43,), (4, 50)])
def test_cutoffs_that_do_not_fit_are_refused(cutoffs) -> None:
    with pytest.raises(OptionError, match="cutoffs"):
        AdaptiveOutput(H, V, cutoffs)


def test_defaults() -> None:
    assert default_cutoffs(10_000) == (1000, 4000)
    assert check_cutoffs(None, 2) == (1,)
    with pytest.raises(OptionError, match="at least 2"):
        check_cutoffs(None, 1)
    assert division(200, 2) == 4
    assert division(7, 2) == 2
    assert division(3, 2) == 1
