"""Clipping: the norm against NumPy, the direction kept, nothing touched that must not be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elman.errors import OptionError
from elman.gradients.clipping import clip_by_norm, clip_by_value, observe
from elman.kernels import native
from strategies import QUICK
from tolerance import tolerance

numbers = st.floats(-1e3, 1e3, width=32)


def with_gradients(*gradients: object, dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    """One parameter for each gradient; None has none."""
    parameters = []
    for gradient in gradients:
        value = None if gradient is None else torch.as_tensor(gradient, dtype=dtype)
        parameter = torch.nn.Parameter(torch.zeros(1 if value is None else value.shape, dtype=dtype))
        parameter.grad = value
        parameters.append(parameter)
    return parameters


def entries(parameters: list[torch.nn.Parameter]) -> np.ndarray:
    return np.concatenate([p.grad.double().numpy().ravel() for p in parameters if p.grad is not None])


@QUICK
@given(
    first=st.lists(numbers, min_size=1, max_size=9),
    second=st.lists(numbers, min_size=1, max_size=5),
    max_norm=st.floats(1e-3, 1e4),
)
def test_clipping_by_norm_scales_all_gradients_by_one_factor(
    first: list[float], second: list[float], max_norm: float
) -> None:
    parameters = with_gradients(first, None, [second])
    before = entries(parameters)
    norm = clip_by_norm(parameters, max_norm)
    expected = np.linalg.norm(before)
    allowed = tolerance(torch.float32, len(before))
    assert norm == pytest.approx(expected, rel=allowed)
    after = entries(parameters)
    if norm <= max_norm:
        assert (after == before).all()
    else:
        np.testing.assert_allclose(after, before * (max_norm / norm), rtol=allowed, atol=1e-38)
        assert np.linalg.norm(after) <= max_norm * (1 + allowed)


def test_the_norm_is_of_all_gradients_together() -> None:
    parameters = with_gradients([3.0], [[4.0]])
    assert clip_by_norm(parameters, 1.0) == 5.0
    assert entries(parameters) == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_norm_that_is_not_finite_is_returned_and_nothing_is_touched(bad: float) -> None:
    parameters = with_gradients([3.0, 4.0], [bad])
    assert not math.isfinite(clip_by_norm(parameters, 1.0))
    assert entries(parameters[:1]).tolist() == [3.0, 4.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_squares_that_overflow_do_not_make_a_finite_norm_infinite(dtype: torch.dtype) -> None:
    huge = torch.finfo(dtype).max / 8
    parameters = with_gradients([huge] * 3, [[-huge]], dtype=dtype)
    assert clip_by_norm(parameters, 2.0) == pytest.approx(2 * huge, rel=tolerance(dtype, 4))
    assert entries(parameters) == pytest.approx([1, 1, 1, -1], rel=tolerance(dtype, 4))


def test_a_tied_parameter_counts_once() -> None:
    (tied,) = with_gradients([3.0, 4.0])
    assert clip_by_norm([tied, tied], 2.5) == 5.0
    assert entries([tied]) == pytest.approx([1.5, 2.0])
    (tied,) = with_gradients([3.0, 4.0])
    assert clip_by_value([tied, tied], 3.5) == 0.5


def test_no_gradients_at_all() -> None:
    parameters = with_gradients(None, np.zeros((0, 3)))
    assert clip_by_norm(parameters, 1.0) == 0.0
    assert clip_by_value(parameters, 1.0) == 0.0
    assert clip_by_norm([], 1.0) == clip_by_value(iter([]), 1.0) == 0.0


def test_an_infinite_threshold_measures_only() -> None:
    parameters = with_gradients([3.0, -4.0])
    assert clip_by_norm(iter(parameters), math.inf) == 5.0
    assert clip_by_value(parameters[0], math.inf) == 0.0
    assert entries(parameters).tolist() == [3.0, -4.0]


@QUICK
@given(gradient=st.lists(numbers, min_size=1, max_size=9), limit=st.floats(0.0009765625, 1024, width=32))
def test_clipping_by_value_clamps_and_returns_the_share(gradient: list[float], limit: float) -> None:
    parameters = with_gradients(gradient)
    before = entries(parameters)
    assert clip_by_value(parameters, limit) == (np.abs(before) > limit).sum() / len(before)
    assert (entries(parameters) == np.clip(before, -limit, limit)).all()


def test_clipping_by_value_bounds_infinity_and_leaves_nan() -> None:
    parameters = with_gradients([math.inf, -math.inf, math.nan, 1.0])
    assert clip_by_value(parameters, 2.0) == 0.5
    np.testing.assert_array_equal(entries(parameters), [2.0, -2.0, math.nan, 1.0])


@pytest.mark.parametrize("clip", [clip_by_norm, clip_by_value])
@pytest.mark.parametrize("threshold", [0.0, -1.0, math.nan])
def test_a_threshold_is_above_zero(clip: object, threshold: float) -> None:
    with pytest.raises(OptionError, match="above zero"):
        clip(with_gradients([1.0]), threshold)  # type: ignore[operator]


@pytest.mark.skipif(not native.available(), reason="this installation has no compiled kernels")
def test_norm_does_not_depend_on_threads_or_on_who_computes_it() -> None:
    random = torch.Generator().manual_seed(2)
    sizes = (1, 31, 4095, 4096, 4097, 20_003)
    gradients = [torch.randn(size, generator=random) for size in sizes]
    exact = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))
    before, found = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.add(clip_by_norm(with_gradients(*gradients), math.inf))
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1
    assert found.pop() == pytest.approx(exact, rel=tolerance(torch.float32, 4096))
    strided = torch.nn.Parameter(torch.zeros(7, 5))
    strided.grad = torch.randn(5, 7, generator=random).t()  # not contiguous: torch's own
    assert clip_by_norm(strided, math.inf) == pytest.approx(float(strided.grad.double().norm()), rel=1e-6)


def test_what_clipping_by_norm_changed() -> None:
    parameters = with_gradients([3.0, 0.0], None, [[4.0]], dtype=torch.float64)
    found = observe(parameters, lambda p: clip_by_norm(p, 1.0))
    assert (found.before, found.after, found.cosine) == pytest.approx((5, 1, 1))
    assert found.moved == pytest.approx(2 / 3)  # zero stays zero
    untouched = observe(parameters, lambda p: clip_by_norm(p, 7.0))
    assert (untouched.before, untouched.after, untouched.moved) == pytest.approx((1, 1, 0))


@QUICK
@given(entries_=st.lists(numbers, min_size=1, max_size=9), limit=st.floats(1e-3, 1e3))
def test_what_clipping_by_value_changed(entries_: list[float], limit: float) -> None:
    parameters = with_gradients(entries_[:2], entries_[2:], dtype=torch.float64)
    before = entries(parameters)
    found = observe(parameters, lambda p: clip_by_value(p, limit))
    after = np.clip(before, -limit, limit)
    np.testing.assert_allclose(entries(parameters), after, rtol=0, atol=0)
    assert found.before == pytest.approx(np.linalg.norm(before), rel=1e-12)
    assert found.after == pytest.approx(np.linalg.norm(after), rel=1e-12)
    assert found.moved == np.mean(before != after)
    if before.any():
        cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
        assert found.cosine == pytest.approx(cosine, abs=1e-9)
        assert found.after <= found.before * (1 + 1e-12)
    else:
        assert math.isnan(found.cosine)


def test_what_was_changed_of_extreme_gradients() -> None:
    huge = with_gradients([1e200, 1e-200], dtype=torch.float64)
    assert observe(huge, lambda p: clip_by_norm(p, 1e300)).cosine == pytest.approx(1)
    assert observe(huge, lambda p: clip_by_norm(p, 1e-3)).cosine == pytest.approx(1)
    broken = observe(with_gradients([math.inf, 1.0]), lambda p: clip_by_value(p, 1.0))
    assert math.isinf(broken.before)
    assert math.isnan(broken.cosine)
    assert broken.moved == 0.5
    assert observe(with_gradients(None), lambda p: clip_by_norm(p, 1.0)).moved == 0
