"""The fused output layer against a float64 softmax: values, every gradient, every instruction set."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from elman.errors import OptionError
from elman.kernels import native
from elman.kernels.output import expect_gradient, linear_nats
from elman.neural.output import AdaptiveOutput, SoftmaxOutput
from tolerance import error, tolerance

pytestmark = pytest.mark.skipif(not native.available(), reason="this installation has no compiled kernels")

BF16 = 2.0**-8  # unit in the last place of bfloat16's 8 bits, half of it twice: two rounded factors


class Case(NamedTuple):
    hidden: Tensor  # [N, H]
    weight: Tensor  # [V, H]
    bias: Tensor | None  # [V]
    targets: Tensor  # [N]
    upstream: Tensor  # [N]


def case(rows: int, hidden_size: int, vocabulary_size: int, *, bias: bool = True, seed: int = 3) -> Case:
    """Logits of order one to five, an upstream gradient of either sign, nothing zero."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    hidden, weight = draw(rows, hidden_size), draw(vocabulary_size, hidden_size) * 2 / math.sqrt(hidden_size)
    targets = torch.randint(vocabulary_size, (rows,), generator=generator)
    return Case(hidden, weight, draw(vocabulary_size) if bias else None, targets, draw(rows))


def expected(one: Case) -> list[Tensor]:
    """nats and the gradients of upstream · nats, by the formulas in float64."""
    hidden, weight = one.hidden.double(), one.weight.double()
    logits = hidden @ weight.T + (0 if one.bias is None else one.bias.double())
    logs = logits - logits.logsumexp(1, keepdim=True)
    nats = -logs[torch.arange(len(hidden)), one.targets]
    dlogits = logs.exp()
    dlogits[torch.arange(len(hidden)), one.targets] -= 1
    dlogits *= one.upstream.double()[:, None]
    return [nats, dlogits @ weight, dlogits.T @ hidden, dlogits.sum(0)]


def actual(one: Case, announced: Tensor | float | None = None) -> list[Tensor]:
    leaves = [t.clone().requires_grad_() for t in one[:3] if t is not None]
    bias = leaves[2] if one.bias is not None else None
    with expect_gradient(one.upstream if announced is None else announced):
        nats = linear_nats(leaves[0], leaves[1], bias, one.targets)
    (nats.flatten() * one.upstream).sum().backward()
    return [nats.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def worst(one: Case, found: list[Tensor]) -> float:
    """The largest error in units of what float32 sums of these lengths may err by."""
    lengths = (len(one.hidden), one.hidden.shape[1], len(one.weight))
    allowed = tolerance(torch.float32, max(lengths), 4)  # exp, log and the rescaling beside each sum
    return max(error(a, e) for a, e in zip(found, expected(one), strict=False)) / allowed


@pytest.fixture(params=native.instruction_sets() or ("none",))
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    with native.instruction_set(request.param):
        yield request.param


@pytest.fixture(params=[1, 2, 3], ids=["1 thread", "2 threads", "3 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


SHAPES = [(7, 5, 3), (1, 1, 2), (33, 17, 211), (300, 31, 107), (65, 48, 1001), (811, 203, 39), (2, 400, 26)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_values_and_gradients(
    instructions: str, threads: int, shape: tuple[int, int, int], bias: bool
) -> None:
    one = case(*shape, bias=bias)
    assert worst(one, actual(one)) < 1


def test_a_thousand_random_shapes() -> None:
    draw = random.Random(11)
    sets = native.instruction_sets()
    for seed in range(1000):
        shape = (
            draw.randint(1, 90),
            draw.randint(1, 70),
            draw.choice([1, 2, 13, 25, 26, 27, 53, 104, 105, 300]),
        )
        one = case(*shape, bias=draw.random() < 0.7, seed=seed)
        with native.instruction_set(draw.choice(sets)):
            assert worst(one, actual(one)) < 1, (seed, shape)


def test_what_is_announced_changes_nothing_but_rounding() -> None:
    one = case(41, 19, 83)
    uniform = one._replace(upstream=torch.full((41,), -0.3))
    for announced in (1.0, torch.zeros(41), torch.randn(41, generator=torch.Generator().manual_seed(1))):
        assert worst(one, actual(one, announced)) < 1
        assert worst(uniform, actual(uniform, announced)) < 1
    assert worst(uniform, actual(uniform, -0.3)) < 1


def test_a_second_backward_is_as_good_as_the_first() -> None:
    one = case(9, 6, 31)
    weight = one.weight.clone().requires_grad_()
    nats = linear_nats(one.hidden, weight, one.bias, one.targets)
    first, second = (torch.autograd.grad(nats, weight, one.upstream, retain_graph=True)[0] for _ in range(2))
    assert error(first, expected(one)[2]) < tolerance(torch.float32, 31, 4)
    assert error(second, first) < tolerance(torch.float32, 31)
    total = linear_nats(one.hidden, weight, None, one.targets).sum()
    with pytest.raises(OptionError, match="no second derivative"):
        torch.autograd.grad(total, weight, create_graph=True)


@pytest.mark.parametrize("leaf", [0, 1, 2])
def test_only_what_is_asked_for(leaf: int) -> None:
    one = case(35, 20, 60)
    leaves = [t.clone().requires_grad_(k == leaf) for k, t in enumerate(one[:3]) if t is not None]
    with expect_gradient(one.upstream):
        nats = linear_nats(leaves[0], leaves[1], leaves[2], one.targets)
    (nats * one.upstream).sum().backward()
    assert [t.grad is not None for t in leaves] == [k == leaf for k in range(3)]
    assert error(leaves[leaf].grad, expected(one)[1 + leaf]) < tolerance(torch.float32, 60, 4)  # type: ignore[arg-type]


def test_no_gradient_and_no_rows() -> None:
    one = case(12, 9, 44)
    with torch.no_grad():
        nats = linear_nats(one.hidden, one.weight, one.bias, one.targets)
    assert error(nats, expected(one)[0]) < tolerance(torch.float32, 44, 4)
    hidden = torch.zeros(0, 9, requires_grad=True)
    nothing = linear_nats(hidden, one.weight, one.bias, torch.zeros(0, dtype=torch.int64))
    nothing.sum().backward()
    assert nothing.shape == (0,)


def test_large_and_rising_logits(instructions: str) -> None:
    """The shift moves within a block: each chunk of words has larger logits than the one before."""
    one = case(70, 8, 700)
    weight = one.weight * torch.linspace(0.01, 40, 700)[:, None]
    steep = one._replace(weight=weight, bias=torch.linspace(-500, 900, 700))
    found, wanted = actual(steep), expected(steep)
    # a logit of 900 is rounded by 900 eps / 2 before anything else happens
    scale = float(steep.bias.abs().max()) + float((one.hidden.abs() @ weight.abs().T).max())  # type: ignore[union-attr]
    for a, e in zip(found, wanted, strict=True):
        assert error(a, e) < tolerance(torch.float32, 8) * scale


def test_nothing_finite_comes_of_a_nan() -> None:
    one = case(40, 11, 90)
    hidden = one.hidden.clone()
    hidden[5, 3] = math.nan
    found = actual(one._replace(hidden=hidden))
    assert found[0].isnan().tolist() == [row == 5 for row in range(40)]
    assert found[2].isnan().all()
    weight = one.weight.clone()
    weight[80, 2] = math.inf
    infinite = one._replace(weight=weight)  # a logit of -inf is a probability of 0, one of +inf no number
    assert torch.equal(actual(infinite)[0].isfinite(), expected(infinite)[0].isfinite())


def test_the_same_bits_again(instructions: str, threads: int) -> None:
    one = case(300, 37, 1003)
    assert all(torch.equal(a, b) for a, b in zip(actual(one), actual(one), strict=True))


def test_bfloat16_products(instructions: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "rounds_to_bf16", lambda: True)
    for shape in SHAPES:
        one = case(*shape)
        # a logit of H products, each factor rounded, is off by BF16 · sqrt(H) · |w| |h|; |w| is 2 / sqrt(H)
        logit = 2 * BF16 * 4
        found, wanted = actual(one), expected(one)
        norms = [1.0, 4.0, math.sqrt(shape[0]) * 4, math.sqrt(shape[0])]
        for a, e, norm in zip(found, wanted, norms, strict=True):
            assert error(a, e) < (logit + 2 * BF16) * norm
        if min(shape) > 2:
            assert error(found[0], wanted[0]) > 1e-5  # it did round


def test_bad_targets() -> None:
    one = case(3, 4, 5)
    for wrong in (-1, 5):
        targets = torch.tensor([0, wrong, 1])
        with pytest.raises(IndexError, match="outside the vocabulary of 5"):
            linear_nats(one.hidden, one.weight, one.bias, targets)


def test_tensors_of_a_wrong_kind_are_refused() -> None:
    hidden, weight, targets = torch.ones(3, 4), torch.ones(11, 4), torch.tensor([1, 2, 10])
    for bias in (torch.ones(5), torch.ones(11, 1), torch.ones(12)):
        with pytest.raises(ValueError, match="do not fit"):
            linear_nats(hidden, weight, bias, targets)
    for wrong in ((weight.double(), None), (weight, torch.ones(11).double()), (weight.bfloat16(), None)):
        with pytest.raises(ValueError, match="float32 on the CPU"):
            linear_nats(hidden, *wrong, targets)


def test_rows_of_any_shape() -> None:
    """[T, B] at once is [N], values and gradients; what does not fit is refused before anything is read."""
    one = case(12, 9, 44)
    flat, shaped = (
        actual(one._replace(hidden=h, targets=t))
        for h, t in ((one.hidden, one.targets), (one.hidden.view(4, 3, 9), one.targets.view(4, 3)))
    )
    assert shaped[0].shape == (4, 3)
    assert all(torch.equal(a, b.reshape(a.shape)) for a, b in zip(flat, shaped, strict=True))
    for hidden, targets in ((one.hidden, one.targets[1:]), (one.hidden[:, 1:], one.targets)):
        with pytest.raises(ValueError, match="do not fit"):
            linear_nats(hidden, one.weight, one.bias, targets)


def test_tensors_that_are_not_contiguous() -> None:
    one = case(21, 12, 50)
    strange = one._replace(hidden=one.hidden.T.contiguous().T, weight=one.weight.repeat(1, 2)[:, :12])
    assert worst(one, actual(strange)) < 1


@pytest.mark.parametrize("kind", ["full", "adaptive"])
def test_the_layers_use_it_and_agree_with_torch(kind: str) -> None:
    torch.manual_seed(5)
    layer = SoftmaxOutput(24, 90) if kind == "full" else AdaptiveOutput(24, 90, (10, 40))
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    hidden, targets = torch.randn(50, 24, requires_grad=True), torch.randint(90, (50,))
    upstream = torch.randn(50)
    results = []
    for backend in ("fused", "torch"):
        layer.backend = backend
        layer.zero_grad()
        hidden.grad = None
        with expect_gradient(upstream):
            nats = layer.token_nats(hidden, targets)
        (nats * upstream).sum().backward()
        results.append([nats, hidden.grad, *(p.grad.clone() for p in layer.parameters())])  # type: ignore[union-attr]
    for a, b in zip(*results, strict=True):
        assert a is not None
        assert b is not None
        assert error(a, b) < tolerance(torch.float32, 90, 4)
    layer.double()
    layer.backend = "auto"  # float64 is torch's
    layer.token_nats(hidden.double(), targets)
    layer.backend = "fused"
    with pytest.raises(OptionError, match="float32 on the CPU"):
        layer.token_nats(hidden.double(), targets)


def test_without_the_module_everything_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_module", None)
    monkeypatch.setattr(native, "_absent", "nobody compiled them.")
    layer = SoftmaxOutput(4, 9)
    assert layer.token_nats(torch.randn(3, 4), torch.tensor([0, 8, 2])).shape == (3,)
    layer.backend = "fused"
    with pytest.raises(OptionError, match="nobody compiled them"):
        layer.token_nats(torch.randn(3, 4), torch.tensor([0, 8, 2]))


def _unscaled(one: Case) -> Case:
    return one._replace(upstream=torch.ones_like(one.upstream))


WRONG: dict[str, Callable[[list[Tensor], Case], list[Tensor]]] = {
    "the target's share forgotten": lambda r, o: [
        r[0],
        r[1] + o.upstream[:, None] * o.weight[o.targets],
        *r[2:],
    ],
    "the upstream gradient forgotten": lambda r, o: [r[0], *expected(_unscaled(o))[1:]],
    "the bias forgotten": lambda r, o: expected(o._replace(bias=None)),
    "one row short": lambda r, o: [
        *r[:2],
        expected(o._replace(upstream=_without_last(o.upstream)))[2],
        r[3],
    ],
    "log2 for ln": lambda r, o: [r[0] / math.log(2), *r[1:]],
}


def _without_last(upstream: Tensor) -> Tensor:
    return torch.cat([upstream[:-1], torch.zeros(1)])


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_kernels_are_caught(wrong: str) -> None:
    one = case(33, 17, 211)
    assert worst(one, WRONG[wrong](expected(one), one)) > 1


def test_autocast_takes_bfloat16_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(native.require(), "output_nats", lambda *given: seen.append(given[-1]))
    one = case(3, 4, 5)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        linear_nats(one.hidden.bfloat16(), one.weight, one.bias, one.targets)
    with torch.no_grad():
        linear_nats(one.hidden, one.weight, one.bias, one.targets)
    assert seen == [bool(native.require().bf16_is_faster()), False]
