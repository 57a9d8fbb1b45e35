"""The seam: which backend runs, what it refuses, and the sequence functions beneath the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import elman
from agreement import CELLS, Case, outcome
from elman import kernels
from elman.cells import Parameters
from elman.errors import OptionError
from elman.kernels import Pass, Stack, States
from tolerance import error, tolerance


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_a_backend_that_is_not_there_says_what_to_choose(name: str) -> None:
    make = getattr(elman, name)
    with pytest.raises(OptionError, match="no backend 'cuda'") as caught:
        make(3, 5, backend="cuda")
    assert "auto, torch, fused, reference" in caught.value.remedy
    module = make(3, 5)
    module.backend = "nonsense"  # changed afterwards
    with pytest.raises(OptionError, match="no backend 'nonsense'"):
        module(torch.zeros(2, 7, 3))


def test_projections_are_refused_where_there_are_none() -> None:
    with pytest.raises(OptionError, match="proj_size=2") as caught:
        kernels.choose("reference", proj_size=2)
    assert "backend='torch'" in caught.value.remedy
    assert kernels.choose("auto", proj_size=2) == "auto"


def test_auto_is_torch_bit_for_bit_where_nothing_is_faster() -> None:
    case = Case("lstm")
    torch.manual_seed(1)
    module = case.module(elman, torch.float64)
    auto = outcome(module, case)
    module.zero_grad()
    module.backend = "torch"
    assert all(torch.equal(auto[name], value) for name, value in outcome(module, case).items())


def test_a_new_backend_needs_a_layer_and_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a fused kernel will do: nothing in `recurrence` changes, and it sees one layer at a time."""
    seen: list[tuple[Pass, torch.Size, list[torch.Size]]] = []

    def layer(one: Pass, p: Parameters, x: Tensor, state: States) -> tuple[Tensor, States]:
        seen.append((one, x.shape, [s.shape for s in state]))
        return kernels.reference_layer(one, p, x, state)

    monkeypatch.setitem(kernels.BACKENDS, "new", kernels.layer_by_layer(layer))
    module = elman.LSTM(3, 5, 2, bidirectional=True, backend="new")
    output, _ = module(torch.randn(4, 7, 3))
    module.backend = "torch"
    assert output.shape == (4, 7, 10)
    assert [one.reverse for one, _, _ in seen] == [False, True, False, True]
    assert [shape for _, shape, _ in seen] == [(28, 3), (28, 3), (28, 10), (28, 10)]
    assert all(one == Pass("lstm", [7] * 4, one.reverse) for one, _, _ in seen)
    assert all(shapes == [(7, 5), (7, 5)] for _, _, shapes in seen)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_the_sequence_backward_is_autograds_of_the_sequence_forward(cell: str, reverse: bool) -> None:
    """The whole of BPTT by hand, rows ending at different steps, against autograd through the same steps."""
    sizes, D, H = [5, 4, 4, 2], 3, 7
    gates = {"lstm": 4, "gru": 3}.get(cell, 1)
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64).requires_grad_()  # noqa: E731
    p = Parameters(draw(gates * H, D), draw(gates * H, H), draw(gates * H), draw(gates * H))
    x, state = draw(sum(sizes), D), tuple(draw(5, H) for _ in range(2 if cell == "lstm" else 1))
    one = Pass(cell, sizes, reverse)  # type: ignore[arg-type]
    output, last, caches = kernels.sequence_forward(one, p, x, state)
    doutput, *dlast = (torch.randn_like(part) for part in (output, *last))
    expected = torch.autograd.grad([output, *last], [x, *state, *p], [doutput, *dlast])
    with torch.no_grad():
        dx, dstate, dp = kernels.sequence_backward(one, p, caches, doutput, tuple(dlast))
    for ours, theirs in zip((dx, *dstate, *dp), expected, strict=True):
        assert error(ours, theirs) <= tolerance(torch.float64, 2 * len(sizes), gates * H + D)


@pytest.mark.parametrize("cell", CELLS)
def test_the_reference_ignores_autocast(cell: str) -> None:
    """It is what others are measured against: bfloat16 products would be no reference."""
    case = Case(cell)
    module = case.module(elman, torch.float32, backend="reference")
    plain = outcome(module, case)
    module.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = outcome(module, case)
        low, _ = module(torch.randn(case.T, case.B, case.D, dtype=torch.bfloat16))
    assert low.dtype == torch.float32
    assert all(torch.equal(cast[name], value) for name, value in plain.items())


def test_the_reference_runs_in_inference_mode() -> None:
    module = elman.GRU(3, 5, 2, backend="reference")
    with torch.inference_mode():
        assert not module(torch.randn(4, 7, 3))[0].requires_grad


def test_a_second_derivative_of_the_reference_is_refused_rather_than_wrong() -> None:
    x = torch.randn(4, 7, 3, requires_grad=True)
    output, _ = elman.GRU(3, 5, backend="reference")(x)
    with pytest.raises(OptionError, match="no second derivative"):
        torch.autograd.grad(output.sum(), x, create_graph=True)


def test_a_stack_knows_its_options() -> None:
    module = elman.LSTM(3, 5, 2, bias=False, dropout=0.5, bidirectional=True)
    seen: list[Stack] = []
    kernels.BACKENDS["spy"] = lambda stack, x, state, sizes: (seen.append(stack), (x, state))[1]
    try:
        module.backend = "spy"
        module.eval()(torch.zeros(4, 7, 3))
    finally:
        del kernels.BACKENDS["spy"]
    (stack,) = seen
    assert (stack.cell, stack.num_layers, stack.bias, stack.dropout) == ("lstm", 2, False, 0.5)
    assert (stack.training, stack.bidirectional, stack.proj_size, len(stack.weights)) == (False, True, 0, 8)
