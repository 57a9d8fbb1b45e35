"""Jacobians through time: every entry against autograd's, and never above the bounds."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from agreement import CELLS, Case
from elman.errors import OptionError
from elman.gradients import jacobians as home
from elman.gradients.jacobians import (
    jacobian,
    products,
    singular_values,
    spectral_radius,
    step_bounds,
    step_jacobian,
    weight_bound,
)
from elman.gradients.unrolling import Unrolled, unroll
from strategies import QUICK
from test_vanishing import EXACT, B, D, H, T, by_autograd, case, drawn, stack

LARGER = 1 + 1e-12  # rounding of a norm and of a product of bounds


Given = tuple[torch.nn.RNNBase, Tensor, tuple[Tensor, ...], Tensor]


def example(cell: str, layers: int) -> tuple[Given, Unrolled]:
    """One sequence: (module, x, state, masks) and its forward pass."""
    module = stack(cell, layers)
    x, state, masks = drawn(cell, layers, 1)
    return (module, x, state, masks), unroll(module, x, state, masks)


def autograds(given: Given, t: int, s: int, layers: list[int]) -> Tensor:
    """∂state_t/∂state_s [S, S]: the state at s is cut from what made it, so that its parts are independent
    (c of h, and a layer of the one below), and run on to t by torch's cells."""
    module, x, state, masks = given
    _, whole = by_autograd(module, x, state, masks)
    before = tuple(torch.stack([each[s + 1][part] for each in whole]).detach() for part in range(len(state)))
    _, kept = by_autograd(module, x[s + 1 : t + 1], before, masks[:, s + 1 : t + 1])
    wanted = [part for layer in layers for part in kept[layer][0]]
    rows = []
    for layer in layers:
        for part in kept[layer][-1]:
            for unit in range(H):
                found = torch.autograd.grad(part[0, unit], wanted, retain_graph=True, allow_unused=True)
                rows.append(
                    torch.cat(
                        [
                            torch.zeros_like(w[0]) if g is None else g[0]
                            for g, w in zip(found, wanted, strict=True)
                        ]
                    )
                )
    return torch.stack(rows)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_the_jacobian_of_the_stack_is_autograds(cell: str, layers: int) -> None:
    given, unrolled = example(cell, layers)
    for t, s in ((3, 2), (T - 1, -1), (4, 1), (0, -1)):
        expected = autograds(given, t, s, list(range(layers)))
        assert torch.allclose(jacobian(unrolled, t, s), expected, rtol=0, atol=EXACT), (t, s)
    assert float(expected.abs().max()) > 0


@pytest.mark.parametrize("cell", CELLS)
def test_the_jacobian_of_a_layer_is_autograds_with_its_input_held(cell: str) -> None:
    given, unrolled = example(cell, 3)
    for layer in range(3):
        for t, s in ((3, 2), (5, 1), (0, -1)):
            # no path leaves a layer and comes back to it, so the graph of the stack has only its own
            expected = autograds(given, t, s, [layer])
            assert torch.allclose(jacobian(unrolled, t, s, layer), expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("layer", [None, 0, 1])
@pytest.mark.parametrize("cell", CELLS)
def test_jacobians_multiply_newest_first(cell: str, layer: int | None) -> None:
    _, _, _, _, unrolled = case(cell, 2, 1)
    wrong = product = torch.eye(len(step_jacobian(unrolled, 0, layer)), dtype=torch.float64)
    for s, found in products(unrolled, T - 1, layer):
        if s < T - 1:
            product = product @ step_jacobian(unrolled, s + 1, layer)
            wrong = step_jacobian(unrolled, s + 1, layer) @ wrong
        assert torch.allclose(found, product, rtol=0, atol=EXACT)
    assert s == -1
    assert not torch.allclose(wrong, product, rtol=0, atol=1e-6)


def test_a_product_in_the_wrong_order_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant: steps are gone through from the oldest to the newest."""
    given, unrolled = example("gru", 1)
    expected = autograds(given, 4, 0, [0])
    assert torch.allclose(jacobian(unrolled, 4, 0), expected, rtol=0, atol=EXACT)
    right = home.step_back
    monkeypatch.setattr(home, "step_back", lambda u, t, *rest, **kw: right(u, 5 - t, *rest, **kw))
    assert not torch.allclose(jacobian(unrolled, 4, 0), expected, rtol=0, atol=1e-6)


def test_a_layer_that_listens_below_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant: within the stack the layers' gradients do not reach the one below."""
    given, unrolled = example("lstm", 2)
    expected = autograds(given, 4, 1, [0, 1])
    assert torch.allclose(jacobian(unrolled, 4, 1), expected, rtol=0, atol=EXACT)
    right = home.step_back
    monkeypatch.setattr(home, "step_back", lambda *rest, below: right(*rest, below=False))
    assert not torch.allclose(jacobian(unrolled, 4, 1), expected, rtol=0, atol=1e-6)


def pascanu(unrolled: Unrolled, layer: int) -> Tensor:
    return torch.full((unrolled.steps,), weight_bound(unrolled, layer), dtype=torch.float64)


def exceeds(bounds: Callable[[Unrolled, int], Tensor], unrolled: Unrolled, layer: int) -> bool:
    """Whether any step, or any product of steps, is above its bound."""
    each = bounds(unrolled, layer)
    over = any(
        singular_values(step_jacobian(unrolled, t, layer))[0] > each[t] * LARGER
        for t in range(unrolled.steps)
    )
    last = unrolled.steps - 1
    for s, found in products(unrolled, last, layer):
        over |= bool(singular_values(found)[0] > each[s + 1 :].prod() * LARGER)
    return over


@QUICK
@given(
    cell=st.sampled_from(CELLS),
    scale=st.floats(0.05, 4.0),
    size=st.integers(1, 6),
    seed=st.integers(0, 10_000),
)
def test_no_jacobian_exceeds_its_bound(cell: str, scale: float, size: int, seed: int) -> None:
    torch.manual_seed(seed)
    module = Case(cell, layers=2, D=3, H=size).module(torch.nn, torch.float64)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * scale)
    parts = 2 if cell == "lstm" else 1
    state = tuple(torch.randn(2, 1, size, dtype=torch.float64) for _ in range(parts))
    unrolled = unroll(module, torch.randn(5, 1, 3, dtype=torch.float64), state)
    for layer in range(2):
        assert not exceeds(step_bounds, unrolled, layer)
        if cell.startswith("rnn"):
            assert not exceeds(pascanu, unrolled, layer)
            assert (step_bounds(unrolled, layer) <= weight_bound(unrolled, layer) * LARGER).all()


@pytest.mark.parametrize("cell", CELLS)
def test_the_bound_is_not_idle(cell: str) -> None:
    """A bound a little lower would be exceeded where the slopes are all alike: at rest, one unit."""
    module = one_unit(cell)
    x = torch.zeros(3, 1, D, dtype=torch.float64) + (cell == "rnn_relu")
    unrolled = unroll(module, x)
    norms = torch.stack([singular_values(step_jacobian(unrolled, t, 0))[0] for t in range(3)])
    bounds = step_bounds(unrolled, 0)
    assert not exceeds(step_bounds, unrolled, 0)
    assert exceeds(lambda u, layer: step_bounds(u, layer) * 0.9, unrolled, 0)
    assert (norms / bounds > 0.9).all()


def one_unit(cell: str) -> torch.nn.RNNBase:
    """No biases and one unit: with inputs of zero the state stays at rest."""
    one = Case(cell, layers=1, bias=False, D=D, H=1).module(torch.nn, torch.float64)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.copy_(torch.rand_like(parameter) + 0.5)
    return one


def test_spectra_of_known_matrices() -> None:
    rotation = torch.tensor([[0.0, -2.0], [2.0, 0.0]])
    assert spectral_radius(rotation) == pytest.approx(2.0)
    assert singular_values(rotation).tolist() == pytest.approx([2.0, 2.0])
    shear = torch.tensor([[1.0, 100.0], [0.0, 1.0]])  # far from normal: radius 1, norm 100
    assert spectral_radius(shear) == pytest.approx(1.0)
    assert float(singular_values(shear)[0]) == pytest.approx(50 + math.sqrt(2501))


def test_a_bound_by_weights_alone_is_for_the_simple_rnn() -> None:
    for cell in ("lstm", "gru"):
        _, _, _, _, unrolled = case(cell, 2, 1)
        with pytest.raises(OptionError, match="no bound by its weights alone"):
            weight_bound(unrolled, 0)
    _, _, _, _, unrolled = case("rnn_tanh", 2, 1)
    expected = torch.linalg.matrix_norm(unrolled.parameters[1].weight_hh, 2)
    assert weight_bound(unrolled, 1) == pytest.approx(float(expected))


def test_mistakes() -> None:
    _, _, _, _, unrolled = case("gru", 2, 1)
    for t, s in ((T, 0), (2, 3), (2, -2)):
        with pytest.raises(OptionError, match="no way from state"):
            jacobian(unrolled, t, s)
    with pytest.raises(OptionError, match="no layer 2"):
        step_jacobian(unrolled, 0, 2)
    with pytest.raises(OptionError, match="no step 6"):
        next(products(unrolled, T))
    _, _, _, _, several = case("gru", 2, B)
    with pytest.raises(OptionError, match="no one Jacobian"):
        step_jacobian(several, 0)
