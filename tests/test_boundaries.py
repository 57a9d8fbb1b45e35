"""Every kernel at, below and above every size at which it takes another path, against float64, on every
instruction set. `boundaries` has the sizes."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agreement import CELLS, Case, disagreement
from boundaries import AXES, around, axis, cases
from elman.cells import Parameters
from elman.event_nats import CHUNK, WINDOW, event_nats
from elman.kernels import Pass, fused, native, streaming
from elman.kernels.backends import FEW_ROWS
from elman.neural import recurrent
from neural_oracle import WORDS, drawn, ids_for, parameters_of, recurrent_nats, vocabulary
from streaming_oracle import KINDS, STREAM_CELLS, Streaming
from table_model import TableModel, oracle, random_text
from test_fused_output import BF16, actual, case, expected, worst
from tolerance import error, tolerance

pytestmark = pytest.mark.skipif(not native.available(), reason="the compiled kernels are not installed")
SETS = native.instruction_sets()
NATIVE = Path(__file__).parents[1] / "native"


@pytest.fixture(params=SETS)
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    before = torch.get_num_threads()
    with native.instruction_set(request.param):
        yield request.param
    torch.set_num_threads(before)


# The table.


def test_the_table_says_what_each_constant_bounds() -> None:
    for name in SETS:
        assert native.require().boundaries(name).keys() == AXES.keys()
    with pytest.raises(ValueError, match="no kernels"):
        native.require().boundaries("mmx")


NO_BOUNDARIES = {
    "REGISTERS", "LEFT_VECTORS", "VECTOR", "AHEAD", "SLACK", "LOWEST",  # sizes of nothing that is counted out
    "HUGE_PAGE", "MOST_KEPT", "MOST_BYTES",  # of memory that is kept: contents do not depend on it
    "GATES", "SLOTS", "SAVED", "FROM_X", "FROM_H", "CELL", "DIRECT", "DEPTH", "STEP", "QUANTIZED", "IN_PLACE",
    "CONVERT", "GROUPS", "WIDTH", "LINE", "SUMS",
}  # fmt: skip


def test_the_table_is_complete() -> None:
    """Every constant of the kernels' source stands in the table or is known to bound nothing."""
    found = set()
    for path in (p for p in NATIVE.iterdir() if p.suffix in (".hpp", ".cpp") and "ngram" not in p.name):
        for line in re.findall(r"constexpr (?:int|long|size_t|bool|float) ([^;]*);", path.read_text()):
            found |= set(re.findall(r"\b([A-Z][A-Z_]+)(?:<\w+>|\[\])? = ", line))
    assert {"LANES", "ROWS", "RUN", "DEEP", "MANY", "CHUNK"} <= found
    assert found - NO_BOUNDARIES - {name.split("<")[0] for name in AXES} == set()


# The streaming step.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", STREAM_CELLS)
def test_streaming_at_every_width(cell: str, kind: str, instructions: str) -> None:
    """The hidden size at each boundary, in every cell and kind; layers and the other sizes drawn."""
    draw = random.Random(cell + kind)
    for H in axis("width", instructions):
        E, V = draw.choice(axis("width", instructions)), draw.choice(axis("words", instructions)[:9])
        one = Streaming(cell, kind, max(V, 2), E, H, draw.choice((1, 2, 3)), seed=H)
        assert one.far(2, draw.choice((1, 3))) <= 1, one


@pytest.mark.parametrize("kind", KINDS)
def test_streaming_at_every_number_of_rows_words_and_depths(kind: str, instructions: str) -> None:
    rows, words, widths = (axis(name, instructions) for name in ("rows", "words", "width"))
    axes = {"B": rows, "V": words, "E": axis("depth", instructions)[:-3], "H": widths}
    cells, draw = list(STREAM_CELLS), random.Random(kind)
    for number, sizes in enumerate(cases({k: axes[k] for k in ("B", "V", "E")}, seed=3)):
        one = Streaming(
            draw.choice(cells), kind, max(sizes["V"], 2), sizes["E"], draw.choice(widths), 1 + number % 2
        )
        torch.set_num_threads(1 + number % 3)
        assert one.far(1 + number % 4, sizes["B"]) <= 1, (one, sizes)
    for rows_of_window in axis("stream rows", instructions):
        one = Streaming(draw.choice(cells), kind, 53, 9, 11)
        for T, B in ((rows_of_window, 1), (max(1, rows_of_window // 7), 7), (2, rows_of_window)):
            assert one.far(T, B) <= 1, (one, T, B)


def test_streaming_at_the_depth_of_a_block(instructions: str) -> None:
    """DEEP words of k, for which the rows must be many: every kind has another number of k to a word."""
    many = native.require().boundaries(instructions)["MANY"]
    deep = native.require().boundaries(instructions)["DEEP"]
    for kind, H in product(("float32", "bfloat16"), around(deep, 2 * deep)[1:]):
        assert Streaming("gru", kind, 60, H, H).far(1, many) <= 1, (kind, H)


@pytest.mark.parametrize("kind", KINDS)
def test_streaming_where_a_thread_is_worth_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Streaming("lstm", kind, 500, 33, 64)
    for threads in around(one.stream._bytes * 3 // streaming.WORTH_A_THREAD, 3):
        torch.set_num_threads(threads)
        try:
            assert one.far(2, 3) <= 1
        finally:
            torch.set_num_threads(1)


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_everything(kind: str, instructions: str) -> None:
    """One word, one unit, one number of an embedding; and more layers than any fixed number of them."""
    for cell in STREAM_CELLS:
        assert Streaming(cell, kind, 1, 1, 1).far(1, 1) <= 1
        assert Streaming(cell, kind, 3, 2, 5, layers=67).far(2, 2) <= 1


def test_a_vector_taken_for_a_cell_without_gates_is_caught(instructions: str) -> None:
    """Known wrong: the units of a gate, one vector, taken for all there are."""
    lanes = native.require().boundaries(instructions)["LANES"]
    for cell in ("gru", "lstm"):
        one = Streaming(cell, "in_place", 60, 9, lanes)
        assert one.far(1, 2) <= 1
        for name in ("recurrence.weight_ih_l0", "recurrence.weight_hh_l0"):
            one.p[name][lanes:] = 0
        assert one.far(1, 2) > 100


# The recurrence over a whole sequence.


def assert_agrees(case_: Case, bf16: bool = False) -> None:
    far = disagreement(case_, "fused", torch.float32)
    unit = case_.tolerance(torch.bfloat16) / case_.tolerance(torch.float32) if bf16 else 1.0
    assert max(far.values()) <= unit, (case_, far)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_the_recurrence_at_every_width(
    cell: str, bf16: bool, instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "rounds_to_bf16", lambda: bf16)
    draw = random.Random(cell)
    layouts = ("time first", "batch first", "packed sorted", "packed unsorted")
    widths = axis("width", instructions)
    for H in widths:
        torch.set_num_threads(draw.choice((1, 2, 3)))
        options = {"layers": draw.choice((1, 2)), "bias": draw.random() < 0.7, "initial": draw.random() < 0.7}
        both = draw.random() < 0.4
        D, layout = draw.choice(widths), draw.choice(layouts)
        assert_agrees(Case(cell, layout, bidirectional=both, T=3, B=4, D=D, H=H, **options), bf16)


@pytest.mark.parametrize("bf16", [False, True])
def test_the_recurrence_at_every_number_of_rows_and_depth(
    bf16: bool, instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "rounds_to_bf16", lambda: bf16)
    draw = random.Random(7)
    for B in axis("rows", instructions):
        assert_agrees(Case(draw.choice(CELLS), layers=1, T=3, B=B, D=5, H=19), bf16)
    for D in axis("depth", instructions):
        assert_agrees(Case(draw.choice(CELLS), layers=1, T=2, B=4, D=D, H=9), bf16)
    for places in axis("places", instructions):
        for T, B in ((places, 1), (max(1, places // 9), 9), (1, places)):
            assert_agrees(Case(draw.choice(CELLS), layers=1, T=T, B=B, D=3, H=6), bf16)
    for H in axis("units", instructions)[1:]:
        assert_agrees(Case(draw.choice(CELLS), layers=1, T=2, B=4, D=5, H=H), bf16)


@pytest.mark.parametrize("cell", ["gru", "rnn_tanh"])
def test_chunks_of_a_long_sequence(cell: str, instructions: str) -> None:
    """Fewer than STEP_ROWS rows a step go by chunks of CHUNK_FLOATS sums: both sides of one and of two."""
    b, H, slots = native.require().boundaries(instructions), 250, 4 if cell == "gru" else 1
    padded = -(-H // b["LANES"]) * b["LANES"]
    chunk = max(b["CHUNK_FLOATS"] // (slots * padded), b["CHUNK_ROWS"])
    for T in around(chunk, 2 * chunk)[1:]:
        assert_agrees(Case(cell, layers=1, T=T, B=1, D=4, H=H))
    assert_agrees(Case(cell, layers=1, T=chunk // (b["STEP_ROWS"] - 1) + 1, B=b["STEP_ROWS"] - 1, D=4, H=H))


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_weights_too_large_to_read_at_every_step(more: int) -> None:
    b = native.require().boundaries(native.require().instruction_set())
    H = 496
    assert_agrees(Case("lstm", layers=1, T=2, B=b["STEP_ROWS"], D=b["STEP_WORDS"] // (4 * H) - H + more, H=H))


@pytest.mark.parametrize("threads", [2, 3])
def test_a_second_thread_joins(threads: int, instructions: str) -> None:
    """Sizes on both sides of the work for which 1, 2 or 3 threads run: 2 · B · G · H · (H + D) operations."""
    work = native.require().boundaries(instructions)["THREAD_WORK"]
    torch.set_num_threads(threads)
    for cell, gates in (("lstm", 4), ("rnn_relu", 1)):
        for times in range(1, threads):
            D, H = 13, 31
            for B in around(times * work // (2 * gates * H * (H + D)))[1:]:
                assert_agrees(Case(cell, layers=1, T=2, B=B, D=D, H=H))


@pytest.mark.parametrize("cell", CELLS)
def test_what_is_looked_up_at_every_boundary(cell: str, instructions: str) -> None:
    """Rows read PLACES_AHEAD times, SUMMED vectors, a share of MOST_DISTINCT rows, and beside each."""
    gates = {"lstm": 4, "gru": 3}.get(cell, 1)
    slots = 4 if gates > 1 else 1
    lanes = native.require().boundaries(instructions)["LANES"]
    sizes = {
        "repeats": axis("repeats", instructions),
        "H": around(*(lanes * vectors // slots for vectors in axis("vectors", instructions)[1:])),
        "U": around(*(int(B * fused.MOST_DISTINCT) for B in (16, 20))),
    }
    for number, one in enumerate(cases(sizes, seed=5)):
        torch.set_num_threads(1 + number % 2)
        assert looked_up(cell, gates, one["U"], one["repeats"], one["H"]) <= 1, one


def looked_up(cell: str, gates: int, U: int, repeats: int, H: int) -> float:
    generator = torch.Generator().manual_seed(U)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    B, D = 4, 5
    places = -(-max(repeats, U, 20) // B) * B
    rows = torch.cat(
        [torch.zeros(repeats, dtype=torch.int64), torch.randint(U, (places,), generator=generator)]
    )
    rows = rows[:places][torch.randperm(places, generator=generator)].view(-1, B)
    p = [draw(gates * H, D) / D**0.5, draw(gates * H, H) / H**0.5, draw(gates * H), draw(gates * H)]
    leaves = [draw(U, D), *(draw(1, B, H) for _ in range(2 if cell == "lstm" else 1)), *p]
    upstream, states = draw(*rows.shape, H), len(leaves) - 5
    for leaf in leaves:
        leaf.requires_grad_()
    output, _ = fused.layers(
        Pass(cell, [B] * len(rows), False, rows), [Parameters(*p)], leaves[0], tuple(leaves[1 : 1 + states])  # type: ignore[arg-type]
    )  # fmt: skip
    ours = [output, *torch.autograd.grad(output, leaves, upstream)]
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    hx: Any = wide[1:3] if states == 2 else wide[1]
    right = getattr(torch, cell)(wide[0][rows], hx, wide[1 + states :], True, 1, 0.0, True, False, False)[0]
    theirs = [right, *torch.autograd.grad(right, wide, upstream.double())]
    allowed = tolerance(torch.float32, 2 * len(rows), max(D + H, gates * H, places))
    return max(error(a, e) for a, e in zip(ours, theirs, strict=True)) / allowed


@pytest.mark.parametrize("cell", CELLS)
def test_the_smallest_recurrence(cell: str, instructions: str) -> None:
    assert_agrees(Case(cell, layers=1, T=1, B=1, D=1, H=1))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("T", "B", "D", "H"), [(3, 2, 0, 4), (2, 3, 4, 0), (2, 0, 3, 4)])
def test_none_of_something_is_refused(cell: str, T: int, B: int, D: int, H: int, instructions: str) -> None:
    """No inputs, no units, no rows: the modules leave these to torch, the operator says so."""
    gates, states = {"lstm": 4, "gru": 3}.get(cell, 1), 2 if cell == "lstm" else 1
    shapes = [(T * B, D), *[(1, B, H)] * states, (gates * H, D), (gates * H, H), (gates * H,), (gates * H,)]
    x, *others = (torch.ones(shape) for shape in shapes)
    what = (instructions, cell, [B] * T, False, False, None)
    with pytest.raises(ValueError, match=r"a size of 0|not positive"):
        torch.ops.elman.recurrence(*what, others[states:], x, others[:states], True)


def test_few_rows_are_torchs() -> None:
    for places in around(FEW_ROWS):
        far = disagreement(Case("lstm", layers=1, T=places, B=1), "auto", torch.float32)
        assert max(far.values()) <= 1


# The output layer.


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_output_layer_at_every_boundary(threads: int, instructions: str) -> None:
    sizes = {name: axis(name, instructions) for name in ("output rows", "width", "words")}
    torch.set_num_threads(threads)
    for number, one in enumerate(cases(sizes, seed=threads)):
        made = case(one["output rows"], one["width"], one["words"], bias=number % 3 > 0, seed=number)
        assert worst(made, actual(made)) < 1, one


def test_the_output_layer_in_bfloat16(instructions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "rounds_to_bf16", lambda: True)
    sizes = {name: axis(name, instructions) for name in ("output rows", "width", "words")}
    for number, one in enumerate(cases(sizes)):
        rows = one["output rows"]
        made = case(rows, one["width"], one["words"], seed=number)
        norms = [1.0, 4.0, rows**0.5 * 4, rows**0.5]
        for a, e, norm in zip(actual(made), expected(made), norms, strict=True):
            assert error(a, e) < 10 * BF16 * norm, one


# Embeddings, norms, distinct ids.


def test_gradients_of_an_embedding_and_its_rows() -> None:
    """Around IDS_A_BLOCK ids, and around the size from which memory is borrowed."""
    generator = torch.Generator().manual_seed(8)
    shapes = [(V, 3) for V in axis("ids", SETS[0])] + [(n, 1) for n in around(native._LARGE)[1:]]
    for threads, (V, E) in product((1, 3), shapes):
        torch.set_num_threads(threads)
        tokens = torch.randint(V, (5, 41), generator=generator)
        tokens[0, :2] = torch.tensor([0, V - 1])
        doutput = torch.randn(5, 41, E, generator=generator)
        right = torch.zeros(V, E, dtype=torch.float64)
        right.index_add_(0, tokens.flatten(), doutput.double().flatten(0, 1))
        allowed = tolerance(torch.float32, int(tokens.flatten().bincount().max()))
        assert error(native.embedding_gradient(doutput, tokens, V), right) <= allowed
        distinct, rows = native.distinct(tokens, V)
        assert torch.equal(distinct, tokens.unique())
        assert torch.equal(distinct[rows], tokens)
        weight = torch.randn(V, E, generator=generator)
        assert torch.equal(native.gather(distinct, weight), weight[distinct])
    torch.set_num_threads(1)


def test_sums_of_squares() -> None:
    generator = torch.Generator().manual_seed(8)
    for size in axis("floats", SETS[0]):
        arrays = [torch.randn(n, generator=generator) for n in (size, 3, size + 5)]
        right = sum(float(a.double().square().sum()) for a in arrays)
        assert abs(native.sum_of_squares(arrays) / right - 1) <= tolerance(torch.float32, 128)


# What Python chooses by size.


@pytest.mark.parametrize("cell", STREAM_CELLS)
def test_a_model_where_it_chooses_another_way(cell: str) -> None:
    """Places from which it looks up, streams up to which a step streams, a text worth packing for."""
    config = recurrent.RecurrentConfig(cell=cell, embedding_size=5, hidden_size=6, num_layers=1)  # type: ignore[arg-type]
    model = drawn(recurrent.RecurrentModel(vocabulary(29), WORDS, config)).float()
    p = {name: value.astype(np.float64) for name, value in parameters_of(model).items()}
    shapes = [(places, 1) for places in around(recurrent.FEW_PLACES)]
    shapes += [(4, batch) for batch in around(recurrent.MOST_STREAMS)]
    shapes += [
        (steps, batch) for steps in around(recurrent.LONG)[1:] for batch in around(recurrent.FEW_STREAMS)
    ]
    for T, B in shapes:
        ids, start = ids_for(model, T, B), model.start(B)
        right, after = recurrent_nats(p, model, ids.numpy(), [s.double().numpy() for s in start])
        allowed = tolerance(torch.float32, 8, 29)
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                nats, state = model.token_nats(ids, start)
            assert error(nats, torch.from_numpy(right)) <= allowed, (T, B)
            assert max(error(s, torch.from_numpy(a)) for s, a in zip(state, after, strict=True)) <= allowed
        with torch.no_grad():
            _, logs = model.advance(start, ids[0])
        assert error(-logs[torch.arange(B), ids[1]], torch.from_numpy(right[0])) <= allowed


@pytest.mark.parametrize("state", ["carry", "reset"])
def test_texts_at_the_cuts_of_event_nats(state: str) -> None:
    model = TableModel([f"w{k}" for k in range(11)])
    for length in around(CHUNK)[1:]:
        text = random_text(len(model.vocabulary), (length - 2, *around(WINDOW)))
        found = np.concatenate(list(event_nats(model, text, state=state)))  # type: ignore[arg-type]
        assert found.tolist() == oracle(model, text.ids, carry=state == "carry")
