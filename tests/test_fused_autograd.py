"""The fused recurrence under autograd: every way to use a graph, and what each backend name means there."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

import elman
from agreement import CELLS, Case, fused_layer
from elman.cells import Parameters
from elman.errors import OptionError
from elman.kernels import native
from tolerance import error, tolerance

pytestmark = pytest.mark.skipif(not native.available(), reason="the compiled kernels are not installed")


def lstm(layers: int = 2) -> tuple[elman.LSTM, Tensor]:
    torch.manual_seed(2)
    return elman.LSTM(11, 18, layers, backend="fused"), torch.randn(6, 5, 11)


def test_a_graph_can_be_used_twice_and_two_windows_at_once() -> None:
    module, x = lstm()
    first, state = module(x)
    second, _ = module(x, state)  # the first window's memory is still wanted
    loss = second.square().sum()
    once = torch.autograd.grad(loss, tuple(module.parameters()), retain_graph=True)
    module(torch.randn(6, 5, 11))[0].sum().backward()
    twice = torch.autograd.grad(loss, tuple(module.parameters()), retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))
    module.backend = "torch"
    theirs = module(x, module(x)[1])[0].square().sum()
    for a, b in zip(once, torch.autograd.grad(theirs, tuple(module.parameters())), strict=True):
        assert error(a, b) <= tolerance(torch.float32, 24, 2, 72)
    assert first.requires_grad


@pytest.mark.parametrize(
    "use", ["last h", "last c", "one step", "frozen", "only x", "expanded", "upper layers", "top bias"]
)
def test_part_of_a_graph(use: str) -> None:
    """An unused output has no gradient, a frozen weight wants none, a gradient may be an expanded scalar."""
    module, x = lstm(layers=4)
    x.requires_grad_(use == "only x")
    wanted = {"frozen": "weight_ih", "only x": "nothing", "upper layers": "_l[23]", "top bias": "bias_ih_l3"}
    for name, p in module.named_parameters():
        p.requires_grad_(re.search(wanted.get(use, ""), name) is not None)
    results = []
    for backend in ("fused", "torch"):
        module.backend = backend
        output, (h, c) = module(x)
        loss = {
            "last h": h[1].square().sum(),
            "last c": c.square().sum(),
            "one step": output[2].square().sum(),
        }.get(use, output.sum())
        leaves = [t for t in (x, *module.parameters()) if t.requires_grad]
        results.append(torch.autograd.grad(loss, leaves))
    assert len(results[0]) == {"only x": 1, "frozen": 4, "upper layers": 8, "top bias": 1}.get(use, 16)
    for a, b in zip(*results, strict=True):
        assert error(a, b) <= tolerance(torch.float32, 12, 4, 72)


def test_without_gradients_nothing_is_kept_and_the_output_is_the_same() -> None:
    module, x = lstm()
    with_graph = module(x)[0]
    with torch.inference_mode():
        output = module(x)[0]
    assert torch.equal(output, with_graph)
    deep, _ = lstm(layers=5)  # what stands between the layers is written over
    with torch.no_grad():
        output = deep(x)[0]
    assert torch.equal(output, deep(x)[0])
    assert output.grad_fn is None


def test_a_second_derivative_is_torchs_with_auto_and_refused_with_fused() -> None:
    module, x = lstm()
    x.requires_grad_()
    with pytest.raises(OptionError, match="no second derivative"):
        torch.autograd.grad(module(x)[0].sum(), x, create_graph=True)
    results = []
    for backend in ("auto", "torch"):
        module.backend = backend
        (gradient,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
        results.append(
            torch.autograd.grad(gradient.square().sum(), tuple(module.parameters()), allow_unused=True)
        )
    for a, b in zip(*results, strict=True):
        assert error(a, b) <= tolerance(torch.float32, 48, 2, 72)


def test_auto_takes_the_fused_kernels_where_it_can() -> None:
    module, x = lstm()
    fast = module(x)[0]
    module.backend = "auto"
    assert torch.equal(module(x)[0], fast)
    module.backend = "torch"
    assert torch.equal(elman.LSTM.forward(module.double(), x.double())[0], module(x.double())[0])


def test_what_fused_cannot_do_is_said() -> None:
    with pytest.raises(OptionError, match="float64") as caught:
        elman.GRU(3, 5, backend="fused", dtype=torch.float64)(torch.zeros(4, 7, 3, dtype=torch.float64))
    assert "backend='auto'" in caught.value.remedy
    with pytest.raises(OptionError, match="proj_size=2"):
        elman.LSTM(3, 5, proj_size=2, backend="fused")
    p = Parameters(torch.zeros(15, 3), torch.zeros(15, 5))
    for sizes, x, h in (
        ([4, 5], (9, 3), (4, 5)),
        ([4, 0], (4, 3), (4, 5)),
        ([4], (5, 3), (4, 5)),
        ([4], (4, 3), (4, 6)),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            fused_layer(("gru", sizes, False), p, torch.zeros(x), (torch.zeros(h),))


def test_autocast_leaves_output_and_state_in_float32_where_that_is_asked_for() -> None:
    module, x = lstm()
    plain, _ = module(x)
    module.keeps_float32 = True
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, (h, c) = module(x)
        low, _ = module(x.bfloat16())
    assert {output.dtype, h.dtype, c.dtype, low.dtype} == {torch.float32}
    assert error(output, plain) <= tolerance(torch.bfloat16, 12, 29)


@pytest.mark.parametrize("backend", ["auto", "fused"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layout", ["time first", "packed unsorted"])
@pytest.mark.parametrize("low", [False, True])
def test_autocast_gives_the_dtypes_of_torch_however_many_rows(
    cell: str, layout: str, low: bool, backend: str
) -> None:
    """Its lists differ: LSTM and RNN in bfloat16, a packed LSTM and every GRU as their input."""
    for steps in (1, 5):  # 3 rows, which torch computes, and 15
        case = Case(cell, layout, T=steps, B=3)
        x = torch.randn(steps, 3, case.D)
        results = []
        for module in (
            case.module(torch.nn, torch.float32),
            case.module(elman, torch.float32, backend=backend),
        ):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output, last = module(case.input(x.bfloat16() if low else x))
            output = output.data if isinstance(output, PackedSequence) else output
            results.append([t.dtype for t in (output, *(last if cell == "lstm" else [last]))])
            sum(t.float().sum() for t in (output, *last)).backward()
            assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in module.parameters())
        assert results[0] == results[1]
