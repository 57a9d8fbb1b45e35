"""The streaming kernels against float64 from the papers, on every instruction set; wrong models are caught.

int8 is emulated exactly: the activations that a layer sees are the kernel's own float32 numbers, so their
rounding is known, the sums of integers are exact, and only float32 rounding is left to tolerate.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from elman.generate import GenerationSettings, draw, next_distribution
from elman.kernels import native, streaming
from elman.kernels.streaming import Drawing, Matrix, Stream, StreamSource
from elman.language_model import State
from elman.neural.quantization import dequantize, quantize
from elman.neural.recurrent import GATES, RecurrentConfig, RecurrentModel
from elman.neural.streaming import StreamingModel
from neural_oracle import (
    WORDS,
    assert_contract,
    busy_state,
    cell_step,
    drawn,
    ids_for,
    log_softmax,
    parameters_of,
    recurrent_nats,
    vocabulary,
)
from tolerance import tolerance

pytestmark = pytest.mark.skipif(not native.available(), reason="the kernels are not in this installation")

V, E, H = 203, 33, 37
SETS = native.instruction_sets()
CELLS = list(GATES)


def make(cell: str = "lstm", **options) -> RecurrentModel:
    sizes = {"embedding_size": H if options.get("tied") else E, "hidden_size": H}
    config = RecurrentConfig(cell=cell, **(sizes | options))
    model = drawn(RecurrentModel(vocabulary(V), WORDS, config)).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)  # a recurrence that forgets: no rounding error grows over many steps
    return model


def source_of(model: RecurrentModel, weights: str) -> StreamSource:
    """What a StreamingModel hands to the kernels, or the model's own weights."""
    if weights == "in_place":
        found = model._stream_source()
        assert found is not None
        return found
    return StreamingModel(model, weights)._source()


def emulated(model: RecurrentModel, weights: str) -> RecurrentModel:
    """The float64 model with the weights that are left after quantization."""
    if weights in ("float32", "in_place"):
        return model.double()
    return StreamingModel(model, weights).dequantized().double()


def assert_windows(stream: Stream, model: RecurrentModel, start: State, steps: int, batch: int) -> None:
    """Nats, log-probabilities and states after a window equal the float64 oracle's."""
    ids = ids_for(model, steps, batch)
    nats, after = stream.token_nats(ids, start)
    p = parameters_of(model)
    wanted, wanted_after = recurrent_nats(p, model, ids.numpy(), [t.double().numpy() for t in start])
    allowed = tolerance(torch.float32, min(steps, 8), H, V)
    np.testing.assert_allclose(nats.numpy(), wanted, rtol=allowed, atol=allowed)
    for tensor, expected in zip(after, wanted_after, strict=True):
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=allowed, atol=allowed)
    state, wide = start, tuple(tensor.double() for tensor in start)
    for t in range(min(steps, 3)):
        state, log_probs = stream.advance(state, ids[t])
        with torch.no_grad():
            wide, expected = model.advance(wide, ids[t])
        np.testing.assert_allclose(log_probs.numpy(), expected.numpy(), rtol=allowed, atol=allowed)
        np.testing.assert_allclose(log_probs.double().exp().sum(dim=1), 1.0, rtol=0, atol=1e-6)


SIZES = [(1, 1), (1, 7), (2, 3), (70, 1), (11, 5), (2, 300)]
"""(T, B): a token, few rows, odd rows, one long stream, rows by blocks, more rows than a chunk holds."""


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("weights", ["in_place", "float32", "bfloat16"])
def test_equals_float64(instruction_set, cell, weights) -> None:
    with native.instruction_set(instruction_set):
        for options in ({"num_layers": 1}, {"num_layers": 3}, {"num_layers": 2, "tied": True}):
            model = make(cell, **options)
            stream = Stream(source_of(model, weights), in_place=weights == "in_place")
            starts = {batch: busy_state(model, batch) for _, batch in SIZES}
            wide = emulated(model, weights)
            for steps, batch in SIZES:
                assert_windows(stream, wide, starts[batch], steps, batch)


def test_long_windows_equal_their_parts() -> None:
    model = make()
    stream = Stream(source_of(model, "float32"))
    ids, start = ids_for(model, 600, 1), busy_state(model, 1)
    whole, after = stream.token_nats(ids, start)
    state, parts = start, []
    for first in range(0, 600, 97):
        part, state = stream.token_nats(ids[first : first + 98], state)
        parts.append(part)
    allowed = tolerance(torch.float32, 8, H)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=allowed, atol=allowed)
    torch.testing.assert_close(state, after, rtol=allowed, atol=allowed)


def rounded(x: np.ndarray) -> np.ndarray:
    """x [B, K] float32 → what int8 makes of it, in float64: scale · round(x / scale) in float32, by row."""
    most = np.abs(x).max(axis=1, keepdims=True)
    inverse = np.where(most > 0, np.float32(127) / np.where(most > 0, most, np.float32(1)), np.float32(0))
    return np.rint(x * inverse).astype(np.float64) * (most / np.float32(127)).astype(np.float64)


def int8_step(model: RecurrentModel, p: dict, token: np.ndarray, state: State, after: State) -> tuple:
    """One step in float64 with rounded activations; a layer's input is what the kernel computed below it."""
    x = p["embedding.weight"][token].astype(np.float32)
    wanted = []
    for layer in range(model.config.num_layers):
        old = [tensor[layer].numpy() for tensor in state]
        new = rounded_cell_step(model.config.cell, p, layer, rounded(x), [rounded(old[0]), *old[1:]], old[0])
        wanted.append(new)
        x = after[0][layer].numpy()
    weight = p["embedding.weight" if model.config.tied else "output.weight"]
    return wanted, log_softmax(rounded(x) @ weight.T + p["output.bias"])


def rounded_cell_step(cell, p, layer, x, state, h) -> list[np.ndarray]:
    if cell != "gru":
        return cell_step(cell, p, layer, x, state)
    # only the product sees the rounded h; the new state mixes in h itself
    new, rounded_h = cell_step(cell, p, layer, x, state)[0], state[0]
    rows = np.s_[H : 2 * H]
    a = x @ p[f"recurrence.weight_ih_l{layer}"][rows].T + p[f"recurrence.bias_ih_l{layer}"][rows]
    b = rounded_h @ p[f"recurrence.weight_hh_l{layer}"][rows].T + p[f"recurrence.bias_hh_l{layer}"][rows]
    return [new + (h - rounded_h) / (1 + np.exp(-(a + b)))]


def assert_int8(stream: Stream, model: RecurrentModel, p: dict, batch: int) -> None:
    ids, state = ids_for(model, 4, batch), busy_state(model, batch)
    allowed = tolerance(torch.float32, H, V)
    for token in ids:
        after, log_probs = stream.advance(state, token)
        layers, wanted = int8_step(model, p, token.numpy(), state, after)
        for layer, tensors in enumerate(layers):
            for tensor, expected in zip(after, tensors, strict=True):
                np.testing.assert_allclose(tensor[layer].numpy(), expected, rtol=allowed, atol=allowed)
        np.testing.assert_allclose(log_probs.numpy(), wanted, rtol=allowed, atol=allowed)
        state = after


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("cell", CELLS)
def test_int8_equals_its_emulation(instruction_set, cell) -> None:
    with native.instruction_set(instruction_set):
        for options in ({"num_layers": 1}, {"num_layers": 2, "tied": True}, {"num_layers": 3}):
            model = make(cell, **options)
            stream = Stream(source_of(model, "int8"))
            p = parameters_of(StreamingModel(model, "int8").dequantized().double())
            for batch in (1, 3, 13):
                assert_int8(stream, model, p, batch)


def test_int8_at_its_extremes() -> None:
    """Rows of zeros, a state of zeros, and the largest sums that 8 bits give: nothing saturates."""
    for instruction_set in SETS:
        with native.instruction_set(instruction_set):
            model = make("rnn", num_layers=1)
            with torch.no_grad():
                model.embedding.weight.fill_(3.0)
                model.recurrence.weight_ih_l0.fill_(-0.01)
                model.output.weight[::2] = 0.0
                model.output.weight[1::2] = 1.0
            p = parameters_of(StreamingModel(model, "int8").dequantized().double())
            stream = Stream(source_of(model, "int8"))
            start, token = model.start(2), torch.tensor([4, 9])
            after, log_probs = stream.advance(start, token)
            layers, wanted = int8_step(model, p, token.numpy(), start, after)
            allowed = tolerance(torch.float32, H, V)
            np.testing.assert_allclose(after[0][0].numpy(), layers[0][0], rtol=allowed, atol=allowed)
            np.testing.assert_allclose(log_probs.numpy(), wanted, rtol=allowed, atol=allowed)


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("cell", CELLS)
def test_contract(cell, weights) -> None:
    assert_contract(StreamingModel(make(cell, num_layers=2), weights), dtype=torch.float32)


@pytest.mark.parametrize("cell", CELLS)
def test_contract_of_the_plain_model_in_float32(cell) -> None:
    assert_contract(make(cell, num_layers=2), dtype=torch.float32)


@pytest.mark.parametrize("weights", ["in_place", "float32", "bfloat16", "int8"])
@pytest.mark.parametrize("threads", [2, 3])
def test_every_number_of_threads(weights, threads, monkeypatch) -> None:
    monkeypatch.setattr(streaming, "WORTH_A_THREAD", 1)
    model = make(num_layers=2)
    stream = Stream(source_of(model, weights), in_place=weights == "in_place")
    allowed = tolerance(torch.float32, H, V)
    for steps, batch in SIZES:
        ids, start = ids_for(model, steps, batch), busy_state(model, batch)
        alone = stream.token_nats(ids, start), stream.advance(start, ids[0])
        torch.set_num_threads(threads)
        try:
            together = stream.token_nats(ids, start), stream.advance(start, ids[0])
        finally:
            torch.set_num_threads(1)
        torch.testing.assert_close(together, alone, rtol=allowed, atol=allowed)


WRONG = {
    "gates swapped": lambda s: with_layer(s, input=Matrix(s.layers[1].input.data.roll(H, 0))),
    "recurrent for input": lambda s: with_layer(s, input=s.layers[1].recurrent),
    "no second bias": lambda s: with_layer(s, bias_recurrent=torch.zeros(4 * H)),
    "layers swapped": lambda s: replace(s, layers=(s.layers[0], s.layers[2], s.layers[1])),
    "next row's embedding": lambda s: replace(s, embedding=Matrix(s.embedding.data.roll(1, 0))),
    "output bias off": lambda s: replace(s, output_bias=s.output_bias.roll(1)),
    "a weight wrong": lambda s: replace(s, output=Matrix(one_off(s.output.data))),
    "gru for lstm": lambda s: with_layer(s, recurrent=Matrix(s.layers[1].recurrent.data.flip(1))),
}


def with_layer(source: StreamSource, **changes) -> StreamSource:
    first, second, third = source.layers
    changed = {k: Matrix(v.data.contiguous()) if isinstance(v, Matrix) else v for k, v in changes.items()}
    return replace(source, layers=(first, replace(second, **changed), third))


def one_off(weight: torch.Tensor) -> torch.Tensor:
    weight = weight.clone()
    weight[-1, -1] += 1.0
    return weight


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("in_place", [False, True])
def test_wrong_models_are_caught(name, in_place) -> None:
    model = make(num_layers=3)
    start = busy_state(model, 40)
    right = source_of(model, "in_place")
    streams = [Stream(source, in_place=in_place) for source in (right, WRONG[name](right))]
    model.double()
    assert_windows(streams[0], model, start, 3, 40)
    with pytest.raises(AssertionError):
        assert_windows(streams[1], model, start, 3, 40)


def test_a_wrong_scale_is_caught() -> None:
    model = make(num_layers=1)
    p = parameters_of(StreamingModel(model, "int8").dequantized().double())
    source = source_of(model, "int8")
    assert source.output.scale is not None
    wrong = replace(source, output=Matrix(source.output.data, source.output.scale.roll(1)))
    with pytest.raises(AssertionError):
        assert_int8(Stream(wrong), model, p, 3)


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
