"""Softmax where logits are huge: what should be 0 is 0, and every loss and gradient is float64's.

The logits are exact in float32, l = size · a + b with small whole a and eighths b: the only error left to
make is the softmax's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from elman.kernels import native
from elman.kernels.output import expect_gradient, linear_nats
from elman.kernels.streaming import Drawing, Stream
from elman.neural.output import AdaptiveOutput, SoftmaxOutput
from streaming_example import V, make, source_of
from tolerance import tolerance

pytestmark = pytest.mark.skipif(not native.available(), reason="the compiled kernels are not installed")
SIZES = [2.0**13, 2.0**20, 2.0**100, 2.0**120]
N = 37


@pytest.fixture(params=native.instruction_sets())
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    with native.instruction_set(request.param):
        yield request.param


def layer(size: float, words: int = V, seed: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden [N, 2], weight [V, 2], targets [N], upstream [N]: a row's logits are ± size · a + b."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda low, high, *shape: torch.randint(low, high, shape, generator=generator).float()  # noqa: E731
    hidden = torch.stack([size * (2 * draw(0, 2, N) - 1), torch.ones(N)], 1)
    weight = torch.stack([draw(-1, 2, words), draw(-16, 17, words) / 8], 1)
    logits = hidden.double() @ weight.double().T
    targets = torch.where(draw(0, 2, N) > 0, logits.argmax(1), draw(0, words, N).long())
    return hidden, weight, targets, draw(1, 9, N) / 4


def plain(hidden: Tensor, weight: Tensor, bias: None, targets: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="none")


def gradients(loss: Any, hidden: Tensor, weight: Tensor, targets: Tensor, upstream: Tensor) -> list[Tensor]:
    leaves = [leaf.detach().clone().requires_grad_() for leaf in (hidden, weight)]
    with expect_gradient(upstream.float()):
        nats = loss(*leaves, None, targets)
    return [nats.detach(), *torch.autograd.grad(nats, leaves, upstream.to(nats.dtype))]


def assert_close(ours: list[Tensor], theirs: list[Tensor], *lengths: int) -> None:
    """Each number against its own size, not against the largest."""
    allowed = tolerance(torch.float32, *lengths)
    for a, e in zip(ours, theirs, strict=True):
        assert bool(a.isfinite().all())
        torch.testing.assert_close(a.double(), e.double(), rtol=allowed, atol=allowed)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_the_fused_output_layer(size: float, threads: int, instructions: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for seed in range(3):
            hidden, weight, targets, upstream = layer(size, seed=seed)
            ours = gradients(linear_nats, hidden, weight, targets, upstream)
            theirs = gradients(plain, hidden.double(), weight.double(), targets, upstream)
            # d weight = Σ dl · hidden: the first column in units of the size
            unit = torch.tensor([size, 1.0])
            assert_close([*ours[:2], ours[2] / unit], [*theirs[:2], theirs[2] / unit.double()], N, 64)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", SIZES)
def test_a_certain_word_has_no_gradient(size: float, instructions: str) -> None:
    """One word far above all others, and it is the target: a loss of 0, and gradients of 0, not of 0.03."""
    hidden = torch.tensor([[size, 1.0]]).repeat(N, 1)
    weight = torch.randn(V, 2, generator=torch.Generator().manual_seed(3))
    weight[:, 0] = 0.0
    weight[41] = torch.tensor([1.0, 0.7])
    targets = torch.full((N,), 41)
    nats, *found = gradients(linear_nats, hidden, weight, targets, torch.ones(N))
    assert not any(bool(t.count_nonzero()) for t in (nats, *found))


@pytest.mark.parametrize("kind", ["full", "adaptive"])
@pytest.mark.parametrize("size", SIZES)
def test_the_output_modules(size: float, kind: str, instructions: str) -> None:
    hidden, weight, targets, _ = layer(size)
    generator = torch.Generator().manual_seed(5)
    module: Any = SoftmaxOutput(2, V) if kind == "full" else AdaptiveOutput(2, V, [40, 110])
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 2 and parameter.shape[1] == 2:
                parameter.copy_(weight[: len(parameter)])
            else:
                parameter.copy_(torch.randint(-8, 9, parameter.shape, generator=generator) / 8)
    ours = module.token_nats(hidden, targets), module.log_probs(hidden)
    module.double()
    theirs = module.token_nats(hidden.double(), targets), module.log_probs(hidden.double())
    assert_close([t.detach() for t in ours], [t.detach() for t in theirs], V)


@pytest.mark.parametrize("weights", ["in_place", "float32", "bfloat16"])
@pytest.mark.parametrize("size", SIZES)
def test_the_streaming_softmax(size: float, weights: str, instructions: str) -> None:
    """relu of a copy of the embedding is the hidden state, so the logits are as exact as above."""
    hidden, weight, targets, _ = layer(size)
    model = make("rnn-relu", num_layers=1, embedding_size=2, hidden_size=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embedding.weight.copy_(hidden.abs()[torch.arange(V) % N])
        model.recurrence.weight_ih_l0.copy_(torch.eye(2))
        model.output.weight.copy_(weight)
        model.output.bias[::7] = -float("inf")  # never
        model.output.bias[int(targets[0])] = 0.25
    stream = Stream(source_of(model, weights), in_place=weights == "in_place")
    for batch in (1, 3, 29):
        tokens = torch.arange(batch)
        logits = hidden.abs()[tokens].double() @ weight.double().T + model.output.bias.double()
        expected = logits.log_softmax(1)
        start = model.float().start(batch)
        _, found = stream.advance(start, tokens)
        possible = expected.isfinite()
        assert bool((found[~possible] == -float("inf")).all())
        assert_close([found[possible]], [expected[possible]], V)
        aim = expected.topk(9).indices[:, 4:5]
        nats, _ = stream.token_nats(torch.stack([tokens, aim[:, 0]]), start)
        assert_close([nats[0]], [-expected.gather(1, aim)[:, 0]], V)
        _, _, best = stream.best(start, tokens, 5)
        assert_close([best], [expected.topk(5).values], V)
        for how in (
            Drawing(),
            Drawing(0.7, 6),
            Drawing(top_p=0.9),
            Drawing(temperature=0.0),
        ):
            _, drawn, its_nats = stream.draw(start, tokens, how, torch.linspace(0.05, 0.95, batch).double())
            assert_close([its_nats], [-expected.gather(1, drawn[:, None])[:, 0]], V)


@pytest.mark.parametrize("weights", ["in_place", "float32"])
def test_words_so_unlikely_that_a_padded_one_would_win(weights: str, instructions: str) -> None:
    """All logits far below -1e30: columns that only fill a vector up must not take part."""
    model = make("rnn", num_layers=1)
    with torch.no_grad():
        model.output.weight.zero_()
        model.output.bias.copy_(-3e38 - 1e37 * (torch.arange(V) % 3))
    stream = Stream(source_of(model, weights), in_place=weights == "in_place")
    _, logs = stream.advance(model.start(2), torch.tensor([1, 2]))
    expected = model.output.bias.double().log_softmax(0)
    assert_close([logs], [expected.expand(2, -1)], V)
