"""An input that is looked up, x = table[rows], gives what the rows written out give, and every gradient."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import elman
from agreement import fused_layer
from elman.cells import Parameters
from elman.kernels import Pass, fused, native
from elman.neural import recurrent
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.recurrence import Lookup
from elman.text.tokenizers import get_tokenizer
from elman.text.vocabulary import Vocabulary
from test_fused_recurrence import Results, Shape, drawn, expected, inputs, names
from tolerance import error, tolerance

pytestmark = pytest.mark.skipif(not native.available(), reason="the compiled kernels are not installed")
SETS = native.instruction_sets()


@pytest.fixture(autouse=True)
def keep_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def table_and_rows(shape: Shape, seed: int) -> tuple[Tensor, Tensor]:
    """table [U, D], rows [N]: fewer rows than places, or more, some of them never read."""
    draw = random.Random(seed)
    N = sum(shape.sizes)
    U = draw.choice((1, 2, 5, 17, N, N + 3))
    generator = torch.Generator().manual_seed(seed)
    used = torch.randperm(U, generator=generator)[: max(1, U - 1)]
    rows = used[torch.randint(len(used), (N,), generator=generator)]
    return torch.randn(U, shape.D, generator=generator), rows


def written_out(shape: Shape, seed: int, monkeypatch: pytest.MonkeyPatch) -> Results:
    """The cells in float64 on table[rows]; dx summed over the places of each row."""
    table, rows = table_and_rows(shape, seed)
    _, *rest = inputs(shape, seed)
    monkeypatch.setattr("test_fused_recurrence.inputs", lambda *_: (table[rows], *rest))
    right = expected(shape, seed)
    right["dx"] = torch.zeros(table.shape, dtype=torch.float64).index_add_(0, rows, right["dx"])
    return right


def looked_up(shape: Shape, seed: int, change: Any = lambda rows: rows) -> Results:
    table, rows = table_and_rows(shape, seed)
    _, state, p, upstream = inputs(shape, seed)
    leaves = [t.requires_grad_() for t in (table, *state, *p) if t is not None]
    one = Pass(shape.cell, list(shape.sizes), shape.reverse, change(rows))  # type: ignore[arg-type]
    output, last = fused_layer(one, Parameters(*p), table, tuple(state))
    gradients = torch.autograd.grad([output, *last], leaves, upstream)
    return dict(zip(names(shape), [output, *last, *gradients], strict=True))


def farthest(found: Results, right: Results, shape: Shape) -> float:
    return max(error(found[name], right[name]) / shape.tolerance() for name in right)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_random_shapes_equal_the_cells_on_the_rows_written_out(
    instruction_set: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(threads)
    with native.instruction_set(instruction_set):
        for seed in range(100 * threads, 100 * threads + 60):
            shape = drawn(seed)
            monkeypatch.setattr(native, "rounds_to_bf16", lambda bf16=shape.bf16: bf16)
            monkeypatch.setattr(fused, "MOST_DISTINCT", 0.0 if seed % 3 == 0 else 0.75)
            with monkeypatch.context() as patch:
                right = written_out(shape, seed, patch)
            far = farthest(looked_up(shape, seed), right, shape)
            assert far <= 1, f"{shape}: {far:.2g} times the tolerance"


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_sizes_of_a_character_model(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More places than one run of k and one chunk of rows, on two threads; bit for bit the same again."""
    torch.set_num_threads(2)
    shape = Shape(cell, (64,) * 22, False, True, 33, 72)
    with monkeypatch.context() as patch:
        right = written_out(shape, 2, patch)
    first, second = looked_up(shape, 2), looked_up(shape, 2)
    assert farthest(first, right, shape) <= 1
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("change", [lambda rows: rows.roll(1), lambda rows: rows.flip(0), torch.zeros_like])
def test_other_rows_fail(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Shape("gru", (5,) * 4, False, True, 11, 18)
    with monkeypatch.context() as patch:
        right = written_out(shape, 7, patch)
    assert farthest(looked_up(shape, 7), right, shape) <= 1
    assert farthest(looked_up(shape, 7, change), right, shape) > 4


@pytest.mark.parametrize("backend", ["auto", "fused", "torch", "reference"])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_every_backend_takes_it(kind: str, backend: str) -> None:
    for options in ({}, {"batch_first": True, "bidirectional": True}):
        torch.manual_seed(1)
        module = getattr(elman, kind)(7, 9, 2, backend=backend, **options)
        table = torch.randn(5, 7, requires_grad=True)
        rows = torch.randint(5, (4, 6))
        found = []
        for x in (Lookup(table, rows), table[rows]):
            output, _ = module(x)
            found.append([output, *torch.autograd.grad(output.square().sum(), [table, *module.parameters()])])
        allowed = tolerance(torch.float32, 2 * 6, 2, 2 * 36)
        assert max(error(a, b) for a, b in zip(*found, strict=True)) <= allowed


def test_a_second_derivative_goes_through_the_rows() -> None:
    torch.manual_seed(1)
    module = elman.GRU(7, 9)
    table, rows = torch.randn(5, 7, requires_grad=True), torch.randint(5, (4, 6))
    found = []
    for x in (Lookup(table, rows), table[rows]):
        (first,) = torch.autograd.grad(module(x)[0].square().sum(), table, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), table)[0])
    assert error(found[0], found[1]) <= tolerance(torch.float32, 2 * 6, 2, 2 * 27)


def test_rows_changed_after_forward_do_not_count() -> None:
    torch.manual_seed(1)
    module, table = elman.GRU(7, 9), torch.randn(5, 7, requires_grad=True)
    rows = torch.randint(5, (4, 6))
    kept, found = rows.clone(), []
    for change in (False, True):
        loss = module(Lookup(table, rows))[0].square().sum()
        if change:
            rows.fill_(0)
        (first,) = torch.autograd.grad(loss, table, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), table)[0])
    assert not torch.equal(rows, kept)
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize("backend", ["auto", "fused", "torch", "reference"])
def test_no_place_at_all(backend: str) -> None:
    module, table = elman.LSTM(7, 9, 2, backend=backend), torch.randn(5, 7)
    output, (h, c) = module(Lookup(table, torch.zeros(4, 0, dtype=torch.int64)))
    assert (output.shape, h.shape, c.shape) == ((4, 0, 9), (2, 0, 9), (2, 0, 9))


def test_rows_that_are_not_there_are_refused() -> None:
    module = elman.LSTM(7, 9)
    for wrong in (-1, 5):
        rows = torch.tensor([[1, 2, wrong]] * 4)
        with pytest.raises(IndexError, match="outside a table of 5"):
            module(Lookup(torch.randn(5, 7), rows))
    with pytest.raises(ValueError, match="int64"):
        module(Lookup(torch.randn(5, 7), torch.zeros(4, 3)))
    with pytest.raises(RuntimeError, match="must be equal to input_size"):
        module(Lookup(torch.randn(5, 6), torch.zeros(4, 3, dtype=torch.int64)))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_language_model_multiplies_each_token_once(
    precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss and every gradient as where each place is multiplied by itself."""
    vocabulary = Vocabulary(["<unk>", "</s>", *(f"w{n}" for n in range(28))], [1] * 30)
    config = RecurrentConfig(embedding_size=20, hidden_size=24, num_layers=2)
    torch.manual_seed(1)
    model = RecurrentModel(vocabulary, get_tokenizer("words"), config).train()
    ids = torch.randint(30, (13, 8))
    found = []
    for few in (recurrent.FEW_PLACES, ids.numel()):
        monkeypatch.setattr(recurrent, "FEW_PLACES", few)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            assert isinstance(model._embedded(ids[:-1]), Lookup) == (few < ids.numel())
            nats, _ = model.token_nats(ids, model.start(8))
        found.append([nats, *torch.autograd.grad(nats.sum(), list(model.parameters()))])
    allowed = tolerance(precision, 2 * 12, 2, 96)
    assert max(error(a, b) for a, b in zip(*found, strict=True)) <= allowed
