"""What the explore page is answered with: the numbers of `trace` and `similar`, here or in the process."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("litestar")
from elman.checkpoint import load_model, save_model
from elman.errors import OptionError
from elman.explore import answers
from elman.explore.answers import Explorer, load
from elman.explore.work import Work
from elman.memory.state_index import index_states, states_over
from elman.memory.units import similar
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.ngram.arpa_writing import write_arpa
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.text.corpus import encode_string, encode_text
from elman.trace import TraceOptions, trace
from neural_oracle import WORDS, vocabulary

LINES = ["w003 w001 nowhere w007", "", "w002 w002"]
EVENTS = 9  # 4 + 2 tokens, and `</s>` of three sentences
CELLS = ("lstm", "gru", "rnn")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of three cells, a Kneser-Ney trigram as an ARPA file, and a text."""
    path = tmp_path_factory.mktemp("models")
    torch.manual_seed(1)
    words = vocabulary(13).tokens[2:]
    lines = [" ".join(words[(3 * k + j * j) % len(words)] for j in range(k % 7 + 2)) for k in range(60)]
    (path / "text.txt").write_text("\n".join(lines) + "\n")
    for cell in CELLS:
        config = RecurrentConfig(cell=cell, embedding_size=3, hidden_size=5, num_layers=2, init_scale=1.5)
        save_model(RecurrentModel(vocabulary(13), WORDS, config), path / cell)
    text = encode_text(path / "text.txt", WORDS, vocabulary(13))
    write_arpa(estimate(text, vocabulary(13), WORDS, KneserNeySettings(order=3)), path / "kn3.arpa")
    return path


def order(
    folder: Path, kept: Path, *names: str, reference: bool = True, state: str = "carry"
) -> dict[str, Any]:
    return {
        "models": [[Path(name).stem, str(folder / name)] for name in names],
        "folder": str(kept),
        "reference": ["a text", str(folder / "text.txt")] if reference else None,
        "state": state,
    }


def quiet(*_: object) -> None:
    pass


def question(kind: str, **parts: object) -> dict[str, Any]:
    return {"kind": kind, "lines": LINES, "text": "\n".join(LINES), "state": "carry"} | parts


@pytest.mark.parametrize("state", ["carry", "reset"])
def test_read_and_trace_are_those_of_the_trace(folder: Path, tmp_path: Path, state: Any) -> None:
    names = [*CELLS, "kn3.arpa"]
    facts, answer = load(order(folder, tmp_path, *names, reference=False), quiet)
    assert facts["reference"] is None
    assert [(card["id"], card["name"]) for card in facts["models"]] == [
        (f"m{k}", Path(name).stem) for k, name in enumerate(names)
    ]
    found = answer(question("read", models=["m3", "m0", "m2"], state=state))["traces"]
    assert list(found) == ["m3", "m0", "m2"]
    for key, document in found.items():
        name = names[int(key[1])]
        shallow = TraceOptions(state=state, gates=False, gradients=False)
        assert document == trace(
            load_model(folder / name), LINES, name=Path(name).stem, options=shallow
        ).as_json(decimals=3)
        assert (document["total"], document["layers"], document["gradients"]) == (EVENTS, [], None)
    for key, name in (("m1", "gru"), ("m3", "kn3.arpa")):
        deep = TraceOptions(state=state, first=2, last=7)
        expected = trace(load_model(folder / name), LINES, name=Path(name).stem, options=deep).as_json(
            decimals=3
        )
        assert answer(question("trace", model=key, state=state, first=2, last=7)) == expected
    with pytest.raises(OptionError, match="not in a text of 9 tokens"):
        answer(question("trace", model="m0", first=0, last=EVENTS + 1))


@pytest.mark.parametrize("state", ["carry", "reset"])
@pytest.mark.parametrize(("cell", "parts"), [("lstm", "hc"), ("gru", "h"), ("rnn", "h")])
def test_similar_is_that_of_the_units(
    folder: Path, tmp_path: Path, state: Any, cell: str, parts: Any
) -> None:
    facts, answer = load(order(folder, tmp_path, "kn3.arpa", cell, state=state), quiet)
    model = load_model(folder / cell)
    text = encode_text(folder / "text.txt", model.tokenizer, model.vocabulary)
    assert facts["reference"] == {"name": "a text", "tokens": text.events}
    ids = np.asarray(encode_string("\n".join(LINES) + "\n", model.tokenizer, model.vocabulary).ids)
    assert len(ids) == EVENTS
    for layer in (1, 2):
        for part in parts:
            for threshold in (None, 0.02):
                index = index_states(model, text, layer, part, state=state)
                states = states_over(model, ids, layer, part, state="reset")
                asked = question(
                    "similar", model="m1", layer=layer, part=part, first=1, last=4, state="reset"
                )
                found = answer(asked | {"threshold": threshold})
                assert found == similar(index, states, 1, 4, threshold)
                assert threshold is None or found["units"]
    with pytest.raises(OptionError, match="has no gates"):
        answer(question("similar", model="m0", layer=1, part="h", first=0, last=1, threshold=0.1))
    with pytest.raises(OptionError, match="in layer 3"):
        answer(question("similar", model="m1", layer=3, part="h", first=0, last=1, threshold=0.1))


def test_the_next_process_repeats_nothing_that_takes_long(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, int]] = []
    facts, answer = load(order(folder, tmp_path, "lstm", "kn3.arpa"), lambda *what: told.append(what))
    assert {doing for doing, _, _ in told} == {"loading lstm", "loading kn3", "lstm reads a text"}
    assert told[-1][1] == told[-1][2] == facts["reference"]["tokens"]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("done again")

    monkeypatch.setattr("elman.explore.reference.after_reading", refuse)
    monkeypatch.setattr("elman.ngram.arpa.read_arpa", refuse)
    again, answer_again = load(order(folder, tmp_path, "lstm", "kn3.arpa"), quiet)
    assert again == facts
    for asked in (
        question("similar", model="m0", layer=2, part="c", first=1, last=3, threshold=None),
        question("read", models=["m0", "m1"]),
    ):
        assert answer_again(asked) == answer(asked)


def test_a_reference_needs_a_model_with_states(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no model here has states"):
        load(order(folder, tmp_path, "kn3.arpa"), quiet)


def test_full_traces_are_cut_where_gates_would_be_too_many(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "DETAIL", 4)
    explorer = Explorer({name: load_model(folder / name) for name in ("lstm", "kn3.arpa")})
    recurrent = explorer.full_trace("m0", LINES, "carry")
    assert (len(recurrent["tokens"]), recurrent["total"], len(recurrent["layers"])) == (EVENTS, EVENTS, 2)
    assert [len(rows) for layer in recurrent["layers"] for rows in layer["states"].values()] == [4] * 4
    assert len(recurrent["gradients"]["x"]) == 4
    counted = explorer.full_trace("m1", LINES, "carry")
    assert (len(counted["tokens"]), counted["layers"]) == (EVENTS, [])
    monkeypatch.setattr(answers, "DETAIL", 200)
    assert len(explorer.full_trace("m0", LINES, "reset")["tokens"]) == EVENTS


def test_the_real_process_answers_as_we_do(folder: Path, tmp_path: Path) -> None:
    given = order(folder, tmp_path / "a", "gru", "kn3.arpa")
    asked = [
        question("read", models=["m0", "m1"]),
        question("trace", model="m0", first=0, last=EVENTS),
        question("similar", model="m0", layer=1, part="h", first=2, last=4, threshold=0.05),
        question("trace", model="m0", first=0, last=99),
    ]
    for name in "ab":
        (tmp_path / name).mkdir()

    async def ask() -> list[tuple[int, Any]]:
        async with Work(given) as work:
            found = [await work.ask(each) for each in asked]
            return [(each.status, json.loads(each.body)) for each in found]

    *found, refused = asyncio.run(ask())
    _, answer = load(given | {"folder": str(tmp_path / "b")}, quiet)
    for (status, document), each in zip(found, asked, strict=False):
        assert status == 200
        assert document == json.loads(json.dumps(answer(each)))
    assert refused[0] == 400
    assert refused[1]["error"]["cause"].startswith("rows 0 to 99 are not in a text of 9 tokens")
