"""The trace: tokens by the contract, gates against an oracle, gradients against autograd, JSON pinned."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import elman.trace as trace_module
import neural_oracle as oracle
from elman.errors import OptionError, TextError
from elman.gradients.reading import read_back
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.neural.streaming import StreamingModel
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.surprisal import surprisals
from elman.text.tokenizers import get_tokenizer
from elman.trace import DETAIL, TraceOptions, trace
from elman.tracing.document import VERSION, Trace
from table_model import TableModel, random_text

GOLDEN = Path(__file__).parent / "golden" / "trace"
LINES = ["w003 w001 nowhere w004", "", "w001 w001 w007 w002 w003", "w010"]
TOKENS = 5 + 1 + 6 + 2  # </s> of every line
CELLS = ("rnn", "rnn-relu", "gru", "lstm")
GATES = {"rnn": "", "rnn-relu": "", "gru": "rzn", "lstm": "ifgo"}


def recurrent(cell: str, **options: object) -> RecurrentModel:
    given = {"cell": cell, "hidden_size": 7, "embedding_size": 5, "num_layers": 2, "dropout": 0.4}
    config = RecurrentConfig.model_validate(given | options)
    return oracle.drawn(RecurrentModel(oracle.vocabulary(23), get_tokenizer("words"), config))


@pytest.mark.parametrize("state", ["carry", "reset"])
@pytest.mark.parametrize("cell", [*CELLS, "table", "adaptive"])
def test_tokens_are_what_score_says_and_advance_expects(cell: str, state: str) -> None:
    words = [f"w{k:03d}" for k in range(1, 22)]
    if cell == "table":
        model: object = TableModel(words)
    elif cell == "adaptive":
        model = recurrent("gru", softmax="adaptive", cutoffs=(6, 14))
    else:
        model = recurrent(cell).train()
    options = TraceOptions(top=4, state=state, gates=cell != "table", gradients=cell != "table")
    found = trace(model, LINES, options=options)
    events = [e for s in surprisals(model, LINES, state=state) for e in s.tokens]
    assert [row.event for row in found.rows] == events
    assert found.total == len(events) == TOKENS
    assert [row.line for row in found.rows] == [1] * 5 + [2] + [3] * 6 + [4] * 2
    assert [row.input for row in found.rows] == ["</s>", *(e.token for e in events[:-1])]
    if isinstance(model, RecurrentModel):
        assert model.training or cell == "adaptive"  # as it was
        model.eval()
    now, before = model.start(1), 1
    for row in found.rows:
        if state == "reset" and row.input == "</s>":
            now = model.start(1)
        with torch.no_grad():
            now, logs = model.advance(now, torch.tensor([before]))
        (before,) = model.vocabulary.ids([row.event.token]).tolist()
        order = logs[0].argsort(descending=True).tolist()
        assert row.rank == 1 + order.index(before)
        assert [token for token, _ in row.top] == [model.vocabulary.tokens[k] for k in order[:4]]
        assert math.isclose(row.event.nats, -float(logs[0, before]), rel_tol=1e-6)
        assert math.isclose(row.top[0][1], float(logs[0].max().exp()), rel_tol=1e-9)


def rerun(
    cell: str, parameters: dict[str, np.ndarray], x: np.ndarray, layer: int
) -> list[dict[str, np.ndarray]]:
    """One layer from zeros over x [T, D] in NumPy: gates and states after each step, by their names."""
    W, U, b, c = (
        parameters[f"recurrence.{n}_l{layer}"] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    H = U.shape[1]
    h = cell_state = np.zeros(H)
    steps = []
    for x_t in x:
        from_x, from_h = W @ x_t + b, U @ h + c
        if cell == "lstm":
            i, f, g, o = np.split(from_x + from_h, 4)
            i, f, g, o = oracle.sigmoid(i), oracle.sigmoid(f), np.tanh(g), oracle.sigmoid(o)
            cell_state = f * cell_state + i * g
            h = o * np.tanh(cell_state)
            steps.append({"i": i, "f": f, "g": g, "o": o, "c": cell_state, "h": h})
        elif cell == "gru":
            (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(from_x, 3), np.split(from_h, 3)
            r, z = oracle.sigmoid(x_r + h_r), oracle.sigmoid(x_z + h_z)
            n = np.tanh(x_n + r * h_n)
            h = (1 - z) * n + z * h
            steps.append({"r": r, "z": z, "n": n, "h": h})
        else:
            a = from_x + from_h
            h = np.maximum(a, 0) if cell == "rnn-relu" else np.tanh(a)
            steps.append({"h": h})
    return steps


@pytest.mark.parametrize("cell", CELLS)
def test_gates_and_states_are_the_oracles(cell: str) -> None:
    model = recurrent(cell)
    found = trace(model, LINES)
    parameters = oracle.parameters_of(model)
    x = parameters["embedding.weight"][model.vocabulary.ids([row.input for row in found.rows])]
    for layer, kept in enumerate(found.layers):
        steps = rerun(cell, parameters, x, layer)
        assert "".join(kept.gates) == GATES[cell]
        assert "".join(kept.states) == ("hc" if cell == "lstm" else "h")
        for name, array in {**kept.gates, **kept.states}.items():
            assert np.abs(array - np.array([step[name] for step in steps])).max() < 1e-12, (layer, name)
        assert all((array == 0).all() for array in kept.initial.values())
        x = kept.states["h"]


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_autograds(cell: str) -> None:
    model = recurrent(cell)
    found = trace(model, LINES)
    assert found.gradients is not None
    ids = torch.from_numpy(model.vocabulary.ids(["</s>", *(row.event.token for row in found.rows)])).long()
    embedded = model.embedding(ids[:-1]).detach().requires_grad_()
    hidden, _ = model.recurrence(embedded[:, None])
    nats = model.output.token_nats(hidden[:, 0], ids[1:])
    for t in range(TOKENS):
        (dx,) = torch.autograd.grad(nats[t], embedded, retain_graph=True)
        assert np.abs(found.gradients.x[t] - dx.norm(dim=1).numpy()).max() < 1e-9
    top = found.gradients.layers[-1]["h"]
    reading = read_back(model, ids[:, None])
    assert np.allclose(top.diagonal(), reading.dhidden[:, 0].norm(dim=1).numpy(), rtol=0, atol=1e-12)
    assert (np.triu(top, 1) == 0).all()


@pytest.mark.parametrize("first", [1, 3])
@pytest.mark.parametrize("state", ["carry", "reset"])
def test_a_window_is_that_part_of_the_whole(state: str, first: int) -> None:
    model = recurrent("lstm")
    whole, part = (
        trace(model, LINES, options=TraceOptions(state=state, first=begin, last=last))
        for begin, last in ((0, None), (first, 12))
    )
    assert [row.as_json() for row in part.rows] == [row.as_json() for row in whole.rows[first:12]]
    assert (part.first, part.total) == (first, TOKENS)
    for mine, theirs in zip(part.layers, whole.layers, strict=True):
        for name, array in mine.states.items():
            assert np.allclose(array, theirs.states[name][first:12], rtol=0, atol=1e-12)
            assert np.allclose(mine.initial[name], theirs.states[name][first - 1], rtol=0, atol=1e-12)
        for name, array in mine.gates.items():
            assert np.allclose(array, theirs.gates[name][first:12], rtol=0, atol=1e-12)
    assert part.gradients is not None
    assert whole.gradients is not None
    for part_of in ("h", "c"):
        mine, theirs = (each.gradients.layers[0][part_of] for each in (part, whole))
        assert np.allclose(mine, theirs[first:12, first:12], rtol=0, atol=1e-12)


def test_what_comes_after_the_last_row_is_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = recurrent("gru"), []

    def counted(model: object, lines: list[str], **how: object) -> object:
        seen.append(len(lines))
        return surprisals(model, lines, **how)

    monkeypatch.setattr(trace_module, "surprisals", counted)
    for last, lines in ((1, 1), (5, 1), (6, 2), (7, 3), (TOKENS, 4)):
        found = trace(model, LINES, options=TraceOptions(last=last))
        assert (len(found.rows), found.total, seen.pop()) == (last, TOKENS, lines)


def test_after_a_reset_a_sentence_is_traced_as_if_alone() -> None:
    model = recurrent("gru")
    together = trace(model, LINES, options=TraceOptions(state="reset"))
    alone = [trace(model, [line]) for line in LINES]
    first = 0
    for one in alone:
        last = first + one.total
        assert [row.rank for row in together.rows[first:last]] == [row.rank for row in one.rows]
        for mine, theirs in zip(together.layers, one.layers, strict=True):
            assert np.allclose(mine.states["h"][first:last], theirs.states["h"], rtol=0, atol=1e-12)
        assert together.gradients is not None
        assert one.gradients is not None
        assert np.allclose(together.gradients.x[first:last, first:last], one.gradients.x, rtol=0, atol=1e-12)
        assert (together.gradients.x[first:last, :first] == 0).all()
        first = last


def test_models_without_a_recurrence_have_tokens_alone() -> None:
    model = TableModel([f"w{k:03d}" for k in range(1, 22)])
    text = random_text(len(model.vocabulary), (9, 5, 30, 2, 14))
    ngram = estimate(text, model.vocabulary, model.tokenizer, KneserNeySettings(order=3))
    small = StreamingModel(recurrent("lstm").float(), "int8")
    for each, kind in ((ngram, "ngram"), (small, "streaming")):
        found = trace(each, LINES, name="it").as_json()
        assert (found["model"]["kind"], found["model"]["name"]) == (kind, "it")
        assert (found["layers"], found["gradients"]) == ([], None)
        assert ("matched" in found["tokens"][0]) == (kind == "ngram")
    assert trace(small, LINES).as_json()["model"]["cell"] == "lstm"


def test_what_cannot_be_traced_says_so() -> None:
    model = recurrent("rnn")
    for lines in ([], ["", ""][:0]):
        with pytest.raises(TextError, match="empty"):
            trace(model, lines)
    for wrong, words in (
        ({"first": 4, "last": 4}, "not in a text of 14"),
        ({"last": 15}, "not in a text of 14"),
        ({"first": -1}, "not in a text of 14"),
        ({"top": -1}, "top -1"),
    ):
        with pytest.raises(OptionError, match=words):
            trace(model, LINES, options=TraceOptions(**wrong))
    assert len(trace(model, LINES, options=TraceOptions(top=999)).rows[0].top) == len(model.vocabulary)
    long = ["w001 w002 w003"] * (DETAIL // 4)
    assert len(trace(model, long).rows) == DETAIL
    with pytest.raises(OptionError, match="too many"):
        trace(model, [*long, ""])
    plain = TraceOptions(gates=False, gradients=False)
    assert len(trace(model, [*long, ""], options=plain).rows) == DETAIL + 1


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_the_format_is_pinned(cell: str) -> None:
    """A change of these files is a change of the format: it needs a new VERSION."""
    golden = json.loads((GOLDEN / f"{cell}-v{VERSION}.json").read_text("utf-8"))
    found = trace(recurrent(cell), LINES, name=cell, options=TraceOptions(top=2)).as_json()
    assert keys(found) == keys(golden)
    for name in ("format", "version", "model", "text", "state", "first", "total"):
        assert found[name] == golden[name], name
    # a platform may round the last digit otherwise
    assert np.allclose(numbers(found), numbers(golden), rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_states_and_gates_keep_every_bit_or_as_many_decimals_as_asked_for(cell: str) -> None:
    found = trace(recurrent(cell), LINES, name=cell)
    whole = json.loads(json.dumps(found.as_json()))
    short = json.loads(json.dumps(found.as_json(decimals=3)))
    assert (whole["decimals"], short["decimals"]) == (None, 3)
    for layer, full, rounded in zip(found.layers, whole["layers"], short["layers"], strict=True):
        for what in ("gates", "states", "initial"):
            for name, array in getattr(layer, what).items():
                read = np.array(full[what][name])
                assert np.array_equal(read.astype(np.float32), array.astype(np.float32))
                assert not np.array_equal(np.round(read, 6), read) or not read.any()
                assert np.array_equal(rounded[what][name], np.round(array, 3))
    digits = max(len(str(abs(value))) for value in np.ravel(whole["layers"][0]["states"]["h"]).tolist())
    assert digits < 16  # of a float32, not of the float64 that holds it


def keys(value: object) -> object:
    """The document with every number as its type."""
    if isinstance(value, dict):
        return {name: keys(item) for name, item in value.items()}
    if isinstance(value, list):
        return [keys(item) for item in value]
    return "number" if isinstance(value, float | int) else value


def numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [float(value)] if isinstance(value, float | int) else []


def test_a_long_trace_is_small() -> None:
    model = recurrent("lstm", hidden_size=200, embedding_size=40).float()
    found: Trace = trace(model, ["w001 w002 w003"] * 50)
    whole, page = (
        len(json.dumps(found.as_json(decimals=decimals), separators=(",", ":"))) for decimals in (None, 3)
    )
    assert len(found.rows) == 200
    assert page < 5_000_000
    assert whole < 7_000_000


def test_gradients_keep_their_digits_over_all_sizes() -> None:
    found = trace(recurrent("gru"), LINES)
    assert found.gradients is not None
    norms = np.array([[0.0, 0.0, 0.0], [123456.0, 1.23456e-30, 0.0], [9.9999e-4, math.inf, 40.06]])
    document = replace(found, gradients=replace(found.gradients, x=norms)).as_json()
    assert document["gradients"]["x"] == [[0.0], [123000.0, 1.23e-30], [1e-3, None, 40.1]]
