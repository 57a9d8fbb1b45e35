"""The streaming kernels against float64 from the papers, on every instruction set; wrong models are caught.

int8 is emulated exactly: the activations that a layer sees are the kernel's own float32 numbers, so their
rounding is known, the sums of integers are exact, and only float32 rounding is left to tolerate.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from elman.kernels import native, streaming
from elman.kernels.streaming import Matrix, Stream, StreamSource
from elman.language_model import State
from elman.neural.recurrent import GATES, RecurrentModel
from elman.neural.streaming import StreamingModel
from int8_oracle import int8_step
from neural_oracle import (
    assert_contract,
    busy_state,
    cell_step,
    ids_for,
    log_softmax,
    parameters_of,
    recurrent_nats,
)
from streaming_example import H, V, make, source_of
from tolerance import tolerance

pytestmark = pytest.mark.skipif(not native.available(), reason="the kernels are not in this installation")

SETS = native.instruction_sets()
CELLS = list(GATES)


def emulated(model: RecurrentModel, weights: str) -> RecurrentModel:
    """The float64 model with the weights that are left after quantization."""
    if weights in ("float32", "in_place"):
        return model.double()
    return StreamingModel(model, weights).dequantized().double()


def rounds_rows(weights: str, rows: int) -> bool:
    """Whether a window of so many rows takes products with activations in bfloat16."""
    return weights == "bfloat16" and rows >= MANY and native.require().bf16_is_faster()


def assert_windows(
    stream: Stream, model: RecurrentModel, start: State, steps: int, batch: int, weights: str = "float32"
) -> None:
    """Nats, log-probabilities and states after a window equal the float64 oracle's."""
    ids = ids_for(model, steps, batch)
    nats, after = stream.token_nats(ids, start)
    p = parameters_of(model)
    wanted, wanted_after = recurrent_nats(p, model, ids.numpy(), [t.double().numpy() for t in start])
    allowed = tolerance(torch.float32, min(steps, 8), H, V)
    coarse = tolerance(torch.bfloat16, min(steps, 8), H)
    of_window = coarse if rounds_rows(weights, min(steps, max(1, CHUNK // batch)) * batch) else allowed
    of_step = coarse if rounds_rows(weights, batch) else allowed
    np.testing.assert_allclose(nats.numpy(), wanted, rtol=of_window, atol=of_window)
    for tensor, expected in zip(after, wanted_after, strict=True):
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=of_window, atol=of_window)
    state, wide = start, tuple(tensor.double() for tensor in start)
    for t in range(min(steps, 3)):
        state, log_probs = stream.advance(state, ids[t])
        with torch.no_grad():
            wide, expected = model.advance(wide, ids[t])
        np.testing.assert_allclose(log_probs.numpy(), expected.numpy(), rtol=of_step, atol=of_step)
        np.testing.assert_allclose(log_probs.double().exp().sum(dim=1), 1.0, rtol=0, atol=1e-6)


MANY, CHUNK = 26, 256
"""Rows from which on bfloat16 rounds activations (with AVX-512), and rows of a chunk (native/streaming_*)."""
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
                assert_windows(stream, wide, starts[batch], steps, batch, weights)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("steps", "batch"), [(70, 1), (11, 5)])
def test_what_many_rows_round(cell: str, steps: int, batch: int) -> None:
    """bfloat16, one layer: the embedding is bfloat16 already, so the state keeps its exactness, and the
    output layer sees its h rounded. Without that rounding the oracle is missed, where there is any."""
    model = make(cell, num_layers=1)
    start, ids = busy_state(model, batch), ids_for(model, steps, batch)
    nats, after = Stream(source_of(model, "bfloat16")).token_nats(ids, start)
    wide = emulated(model, "bfloat16")
    p, state = parameters_of(wide), [t[0].double().numpy() for t in start]
    rounds, allowed = rounds_rows("bfloat16", steps * batch), tolerance(torch.float32, 8, H, V)
    wanted, exact = [], []
    for token, target in pairwise(ids.numpy()):
        state = cell_step(cell, p, 0, p["embedding.weight"][token], state)
        rounded = torch.from_numpy(state[0]).float().bfloat16().double().numpy()
        for kept, h in ((wanted, rounded if rounds else state[0]), (exact, state[0])):
            logs = log_softmax(h @ p["output.weight"].T + p["output.bias"])
            kept.append(-logs[np.arange(batch), target])
    for tensor, expected in zip(after, state, strict=True):
        np.testing.assert_allclose(tensor[0].numpy(), expected, rtol=allowed, atol=allowed)
    # a number of h that lies between two bfloat16 ones may fall to the other side: one last place of it
    beside = torch.finfo(torch.bfloat16).eps * np.abs(p["output.weight"]).max()
    np.testing.assert_allclose(nats.numpy(), np.stack(wanted), rtol=0, atol=allowed + beside)
    assert rounds == (float(np.abs(nats.numpy() - np.stack(exact)).max()) > allowed)


@pytest.mark.parametrize("weights", ["in_place", "float32", "bfloat16", "int8"])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_bits_again(weights: str, threads: int) -> None:
    """Every second call reads the panels backward: that must not show, whatever was called before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = make(num_layers=2)
        stream = Stream(source_of(model, weights), in_place=weights == "in_place")
        for steps, batch in SIZES:
            ids, start = ids_for(model, steps, batch), busy_state(model, batch)
            first, *others = [stream.token_nats(ids, start)[0] for _ in range(4)]
            assert all(torch.equal(first, other) for other in others)
            (_, logs), (_, again) = stream.advance(start, ids[0]), stream.advance(start, ids[0])
            assert torch.equal(logs, again)
    finally:
        torch.set_num_threads(before)


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_torch_makes_by_default_is_no_matter(dtype) -> None:
    """The kernels write float32: to memory of another size it would be wrong, or beyond its end."""
    model = StreamingModel(make(), "bfloat16")
    ids, uniform = torch.tensor([[3, 5], [7, 1], [2, 9]]), torch.tensor([0.3, 0.6], dtype=torch.float64)

    def everything() -> list[torch.Tensor]:
        state = model.start(2)
        stream = Stream(model._source())
        found = [stream.advance(state, ids[0]), stream.token_nats(ids, state), stream.best(state, ids[0], 4)]
        found.append(stream.draw(state, ids[0], streaming.Drawing(), uniform))
        return [t for one in found for part in one for t in (part if isinstance(part, tuple) else (part,))]

    wanted = everything()
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = everything()
        with torch.device("meta"):
            elsewhere = everything()
    finally:
        torch.set_default_dtype(before)
    for one, two, three in zip(wanted, found, elsewhere, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
    with pytest.raises(ValueError, match="on meta"):
        Stream(model._source()).draw(model.start(2), ids[0], streaming.Drawing(), uniform.to("meta"))
