"""Tokens drawn and listed inside the streaming kernels, quantized weights, and what the kernels refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from elman.generate import GenerationSettings, draw, next_distribution
from elman.kernels import native
from elman.kernels.streaming import Drawing, Matrix, Stream
from elman.neural.quantization import dequantize, quantize
from neural_oracle import busy_state, ids_for
from streaming_example import H, V, make, source_of

pytestmark = pytest.mark.skipif(not native.available(), reason="the kernels are not in this installation")

SETS = native.instruction_sets()


@pytest.mark.parametrize("instruction_set", SETS)
def test_draws_as_generate_does(instruction_set) -> None:
    """The token at the point `uniform` of the distribution of `next_distribution`, for every filter."""
    rows = 64
    model = make(num_layers=1)
    with native.instruction_set(instruction_set), torch.no_grad():
        model.output.weight.mul_(6)
        stream = Stream(source_of(model, "float32"))
        start, token = busy_state(model, rows), ids_for(model, 0, rows)[0]
        log_probs = stream.advance(start, token)[1]
        uniform = torch.linspace(0, 1, rows + 1, dtype=torch.float64)[:-1]
        for temperature, top_k, top_p, unknown in (
            (0.0, None, 1.0, False),
            (1.0, None, 1.0, True),
            (1.0, None, 1.0, False),
            (0.4, None, 1.0, False),
            (2.5, 1, 1.0, False),
            (2.5, 7, 1.0, True),
            (1.5, V + 5, 1.0, False),
            (1.5, None, 0.6, False),
            (9.0, None, 0.999, False),
            (1.5, 30, 0.7, False),
            (1e-4, None, 0.9, False),
        ):
            settings = GenerationSettings(
                temperature=temperature, top_k=top_k, top_p=top_p, allow_unknown=unknown
            )
            how = Drawing(temperature, top_k or 0, top_p, -1 if unknown else 0)
            _, tokens, nats = stream.draw(start, token, how, uniform)
            chances = next_distribution(log_probs, settings)
            near = [draw(chances, np.clip(uniform.numpy() + d, 0, 1 - 1e-12)) for d in (-1e-5, 0, 1e-5)]
            assert all(np.any([tokens.numpy() == one for one in near], axis=0))
            wanted = -log_probs.gather(1, tokens[:, None])[:, 0]
            torch.testing.assert_close(nats, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("instruction_set", SETS)
def test_the_best_tokens(instruction_set) -> None:
    with native.instruction_set(instruction_set):
        model = make(num_layers=1)
        with torch.no_grad():
            model.output.weight[50:60] = model.output.weight[40]  # ties: the smaller id first
            model.output.bias[50:60] = model.output.bias[40]
        stream = Stream(source_of(model, "float32"))
        start, token = busy_state(model, 5), ids_for(model, 0, 5)[0]
        log_probs = stream.advance(start, token)[1]
        order = torch.sort(log_probs, dim=1, descending=True, stable=True)
        for k in (1, 2, 20, 150, V):
            _, best, values = stream.best(start, token, k)
            assert torch.equal(best, order.indices[:, :k])
            torch.testing.assert_close(values, order.values[:, :k], rtol=1e-5, atol=1e-5)


def test_nothing_to_draw_from() -> None:
    model = make(num_layers=1)
    with torch.no_grad():
        model.output.bias[3] = float("nan")
    stream = Stream(source_of(model, "float32"))
    tokens = stream.draw(model.start(2), torch.tensor([1, 2]), Drawing(), torch.zeros(2).double())[1]
    assert tokens.tolist() == [-1, -1]


def test_quantization_is_what_it_says() -> None:
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(2))
    weight[2] = 0.0
    matrix = quantize(weight, "int8")
    assert matrix.data.dtype == torch.int8
    assert matrix.scale is not None
    assert matrix.data.abs().amax(dim=1).tolist() == [127, 127, 0, 127, 127]
    assert float(matrix.scale[2]) == 0.0
    half = matrix.scale[:, None] * (0.5 + 1e-5)
    assert bool(((dequantize(matrix) - weight).abs() <= half).all())
    assert torch.equal(dequantize(quantize(weight, "bfloat16")), weight.bfloat16().float())


def test_wrong_tensors_are_refused() -> None:
    model = make(num_layers=2)
    stream = Stream(source_of(model, "float32"))
    start = model.start(2)
    for token in ([-1, 3], [3, V]):
        with pytest.raises(IndexError):
            stream.advance(start, torch.tensor(token))
        with pytest.raises(IndexError):
            stream.token_nats(torch.tensor([[1, 2], token]), start)
    with pytest.raises(ValueError):
        stream.advance(start[:1], torch.tensor([1, 2]))
    with pytest.raises(ValueError):
        stream.advance(start, torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError):
        stream.advance(start, torch.tensor([1, 2], dtype=torch.int32))
    with pytest.raises(ValueError):
        stream.best(start, torch.tensor([1, 2]), V + 1)
    with pytest.raises(ValueError):
        Stream(replace(source_of(model, "float32"), output_bias=torch.zeros(V + 1)))
    with pytest.raises(ValueError):
        Stream(replace(source_of(model, "int8"), output=Matrix(torch.zeros(V, H, dtype=torch.int8))))
