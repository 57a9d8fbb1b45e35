"""The triangle and the step back through a stack: every entry against autograd, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import elman
from agreement import CELLS, Case
from elman.errors import OptionError
from elman.gradients.unrolling import Unrolled, backward, unroll
from elman.gradients.vanishing import itemised, triangle

T, B, D, H = 6, 3, 5, 4
EXACT = 1e-9


def stack(cell: str, layers: int = 2, home: object = elman, **options: object) -> nn.RNNBase:
    torch.manual_seed(3)
    made = Case(cell, layers=layers, D=D, H=H, **options).module(home, torch.float64)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
    return made


def drawn(cell: str, layers: int, batch: int) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """x [T, B, D], state (h, …) [L, B, H], masks [L-1, T, B, H]."""
    parts = 2 if cell == "lstm" else 1
    state = tuple(torch.randn(layers, batch, H, dtype=torch.float64) for _ in range(parts))
    keep = (torch.rand(layers - 1, T, batch, H, dtype=torch.float64) > 0.3) / 0.7
    return torch.randn(T, batch, D, dtype=torch.float64), state, keep


def by_autograd(
    module: nn.RNNBase, x: Tensor, state: tuple[Tensor, ...], masks: Tensor
) -> tuple[Tensor, list[list[tuple[Tensor, ...]]]]:
    """Output [T, B, H] and every state [L][T+1] as nodes of one graph: torch's own cells, step by step."""
    kept = [
        [tuple(part[layer].clone().requires_grad_() for part in state)] for layer in range(len(masks) + 1)
    ]
    shown = []
    for t in range(len(x)):
        read = x[t]
        for layer, states in enumerate(kept):
            suffix = f"_l{layer}"
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            weights = [getattr(module, name + suffix) for name in names]
            kind = {"LSTM": torch.lstm_cell, "GRU": torch.gru_cell}.get(
                module.mode, torch.rnn_relu_cell if module.mode == "RNN_RELU" else torch.rnn_tanh_cell
            )
            before = states[-1] if module.mode == "LSTM" else states[-1][0]
            new = kind(read, before, *weights)
            states.append(tuple(new) if module.mode == "LSTM" else (new,))
            read = states[-1][0]
            if layer < len(masks):
                read = read * masks[layer, t]
        shown.append(read)
    return torch.stack(shown), kept


def case(cell: str, layers: int, batch: int) -> tuple[nn.RNNBase, Tensor, Tensor, list, Unrolled]:
    module = stack(cell, layers)
    x, state, masks = drawn(cell, layers, batch)
    x.requires_grad_()
    output, kept = by_autograd(module, x, state, masks)
    return module, x, output, kept, unroll(module, x.detach(), state, masks)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_the_forward_pass_is_torchs(cell: str, layers: int) -> None:
    _, _, output, kept, unrolled = case(cell, layers, B)
    assert torch.allclose(unrolled.output, output, rtol=0, atol=EXACT)
    for part, states in enumerate(unrolled.states):
        expected = torch.stack([torch.stack([now[part] for now in each]) for each in kept])
        assert torch.allclose(states, expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("home", [elman, nn])
@pytest.mark.parametrize("bias", [True, False])
def test_modules_of_torch_are_taken_as_they_are(home: object, bias: bool) -> None:
    module = stack("gru", 2, home, bias=bias, layout="batch first")
    x = torch.randn(T, B, D, dtype=torch.float64)
    expected, _ = module(x.transpose(0, 1))
    assert torch.allclose(unroll(module, x).output.transpose(0, 1), expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_backward_is_autograds_for_every_state_and_input(cell: str, layers: int) -> None:
    _, x, output, kept, unrolled = case(cell, layers, B)
    doutput = torch.randn_like(output)
    last = [tuple(torch.randn(B, H, dtype=torch.float64) for _ in each[-1]) for each in kept]
    ends = [part for each in kept for part in each[-1]]
    nodes = [part for each in kept for now in each for part in now]
    loss = (output * doutput).sum() + sum(
        (e * d).sum() for e, d in zip(ends, [p for each in last for p in each], strict=True)
    )
    expected = torch.autograd.grad(loss, [x, *nodes])
    found = dict(backward(unrolled, doutput, last))
    assert list(found) == list(reversed(range(T)))
    assert torch.allclose(torch.stack([found[t].dx for t in range(T)]), expected[0], rtol=0, atol=EXACT)
    flat = iter(expected[1:])
    for layer in range(layers):
        for t in range(T + 1):
            ours = found[t - 1].dstate[layer] if t else found[0].dprev[layer]
            for mine in ours:
                assert torch.allclose(mine, next(flat), rtol=0, atol=EXACT), (layer, t)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_every_item_of_the_triangle_is_autograds(cell: str, layers: int) -> None:
    _, x, output, kept, unrolled = case(cell, layers, 1)
    dhidden = torch.randn(T, H, dtype=torch.float64)
    norms = triangle(unrolled, dhidden)
    items = dict(itemised(unrolled, dhidden))
    for t in range(T):
        nodes = [x, *(part for each in kept for now in each[1:] for part in now)]
        grads = torch.autograd.grad(
            (output[t, 0] * dhidden[t]).sum(), nodes, retain_graph=True, allow_unused=True
        )
        dx, flat = grads[0], iter(grads[1:])
        for s in range(T):
            if s <= t:
                assert torch.allclose(items[s].dx[t - s], dx[s, 0], rtol=0, atol=EXACT)
            assert abs(float(norms.x[t, s]) - float(dx[s].norm())) < EXACT
        for layer in range(layers):
            for s in range(T):
                for part in range(len(norms.states)):
                    theirs = next(flat)
                    wanted = torch.zeros(H, dtype=torch.float64) if theirs is None else theirs[0]
                    if s <= t:
                        mine = items[s].dstate[layer][part][t - s]
                        assert torch.allclose(mine, wanted, rtol=0, atol=EXACT), (layer, part, t, s)
                    assert abs(float(norms.states[part][layer, t, s]) - float(wanted.norm())) < EXACT


@pytest.mark.parametrize("cell", CELLS)
def test_the_sum_over_losses_is_the_full_gradient(cell: str) -> None:
    _, _, _, _, unrolled = case(cell, 2, 1)
    dhidden = torch.randn(T, H, dtype=torch.float64)
    full = dict(backward(unrolled, dhidden[:, None]))
    for s, items in itemised(unrolled, dhidden):
        assert torch.allclose(items.dx.sum(0), full[s].dx[0], rtol=0, atol=EXACT)
        for mine, theirs in zip(items.dstate, full[s].dstate, strict=True):
            for part, whole in zip(mine, theirs, strict=True):
                assert torch.allclose(part.sum(0), whole[0], rtol=0, atol=EXACT)


def test_lags_are_the_diagonals() -> None:
    _, _, _, _, unrolled = case("lstm", 2, 1)
    found = triangle(unrolled, torch.randn(T, H, dtype=torch.float64))
    lags = found.by_lag(layer=0, part=1)
    assert [len(each) for each in lags] == list(range(T, 0, -1))
    assert float(lags[2][1]) == float(found.states[1][0, 3, 1]) > 0


def test_what_cannot_be_unrolled_says_so() -> None:
    x = torch.randn(T, B, D)
    for module, words in (
        (nn.GRU(D, H, bidirectional=True), "two directions"),
        (nn.LSTM(D, H, proj_size=2), "projections"),
        (nn.Linear(D, H), "cannot be unrolled"),
    ):
        with pytest.raises(OptionError, match=words):
            unroll(module, x)  # type: ignore[arg-type]
    good = nn.GRU(D, H, 2)
    for wrong in (torch.randn(T, D), torch.randn(T, B, D + 1), torch.randn(0, B, D)):
        with pytest.raises(OptionError, match="shape"):
            unroll(good, wrong)
    with pytest.raises(OptionError, match="state"):
        unroll(good, x, (torch.zeros(1, B, H),))
    with pytest.raises(OptionError, match="masks"):
        unroll(good, x, None, torch.ones(1, T, B, H + 1))
    with pytest.raises(OptionError, match="one triangle"):
        triangle(unroll(good, x), torch.zeros(T, H))
    with pytest.raises(OptionError, match="one row for each"):
        triangle(unroll(good, x[:, :1]), torch.zeros(T - 1, H))


def test_norms_go_on_where_float32_ends() -> None:
    """A simple RNN as torch draws it: after 60 steps the square of a norm is below what float32 holds."""
    torch.manual_seed(5)
    module = nn.RNN(7, 20)
    with torch.no_grad():
        module.weight_hh_l0.mul_(0.5)
    x, dhidden = torch.randn(150, 1, 7), torch.randn(150, 20)
    single, exact = unroll(module, x), unroll(module.double(), x.double())
    last = triangle(single, dhidden).states[0][0, -1]
    wanted = triangle(exact, dhidden.double()).states[0][0, -1]
    assert float(wanted[0]) < 1e-60  # far below the smallest float32
    assert torch.allclose(last.log(), wanted.log(), rtol=0, atol=1e-2)
