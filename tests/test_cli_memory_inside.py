"""`elman memory gates`, `connectivity` and `units`: tables, JSON, pictures, mistakes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch

from elman.checkpoint import load_model, save_model
from elman.memory.connectivity import connectivity
from elman.memory.gates import gate_statistics
from elman.memory.state_index import index_states, states_over
from elman.memory.units import similar
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.text.corpus import encode_string, encode_text
from neural_oracle import WORDS, vocabulary
from table_model import run_cli

PHRASE = "w001 w004 w002 w000 w003 w001"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run_cli("memory", *map(str, arguments))
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    for cell in ("lstm", "gru", "rnn"):
        config = RecurrentConfig(cell=cell, embedding_size=3, hidden_size=5, num_layers=2, init_scale=1.0)
        save_model(RecurrentModel(vocabulary(13), WORDS, config), tmp_path / cell / "run")
    words = vocabulary(13).tokens[2:]
    lines = [" ".join(words[(3 * k + j * j) % len(words)] for j in range(k % 7 + 2)) for k in range(30)]
    (tmp_path / "text.txt").write_text("\n".join(lines) + "\n")
    text = encode_text(tmp_path / "text.txt", WORDS, vocabulary(13))
    save_model(estimate(text, vocabulary(13), WORDS, KneserNeySettings(order=2)), tmp_path / "kn2" / "run")
    return tmp_path


def models(folder: Path, *names: str) -> list[Path]:
    return [folder / name / "run" for name in names]


@pytest.mark.parametrize("state", ["carry", "reset"])
def test_gates_as_json(folder: Path, capsys: pytest.CaptureFixture[str], state: str) -> None:
    given = models(folder, "rnn", "gru", "lstm")
    code, out, _ = run(capsys, "gates", *given, folder / "text.txt", "--state", state, "--json")
    assert code == 0
    for path, told in zip(given, json.loads(out)["models"], strict=True):
        model = load_model(path)
        text = encode_text(folder / "text.txt", model.tokenizer, model.vocabulary)
        wanted = gate_statistics(model, text, state=state).as_json()  # type: ignore[arg-type]
        assert told == {"model": str(path), **json.loads(json.dumps(wanted))}


def test_gates_as_a_table_and_a_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    picture = folder / "gates.svg"
    given = models(folder, "rnn", "gru", "lstm")
    code, out, err = run(capsys, "gates", *given, folder / "text.txt", "--figure", picture)
    assert (code, err) == (0, "")
    model = load_model(folder / "lstm" / "run")
    report = gate_statistics(model, encode_text(folder / "text.txt", model.tokenizer, model.vocabulary))
    table = out.partition("lstm (lstm)")[2]
    rows = {(int(w[0]), w[1]): w for line in table.splitlines() if (w := line.split()) and w[0] in ("1", "2")}
    for gate in report.gates:
        shown = rows[gate.layer, gate.name]
        assert f"{gate.mean:.3f}" in shown
        assert [float(cell) for cell in shown[-9:-4]] == pytest.approx(gate.quantiles, abs=6e-4)
        assert [float(shown[k]) for k in (-4, -2)] == pytest.approx(
            [100 * gate.low, 100 * gate.high], abs=0.06
        )
    for each in report.time_constants:
        (line,) = (
            w for w in table.splitlines() if w.split()[:4] == [str(each.layer), "time", "constant", "f"]
        )
        assert [float(cell) for cell in line.split()[4:9]] == pytest.approx(each.quantiles(), abs=0.06)
        assert float(line.split()[9]) == pytest.approx(each.tokens.max(), abs=0.06)
    assert "lstm: f, layer 2" in picture.read_text()
    plain = folder / "plain.svg"
    assert run(capsys, "gates", folder / "rnn" / "run", folder / "text.txt", "--figure", plain)[0] == 0
    assert "no gate that keeps" in plain.read_text()


def test_connectivity_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = models(folder, "kn2", "gru")
    options = ("--exchanges", 3, "--seed", 4, "--json")
    code, out, _ = run(capsys, "connectivity", *given, PHRASE, *options)
    assert code == 0
    document = json.loads(out)
    assert document["text"] == PHRASE
    for path, told in zip(given, document["models"], strict=True):
        model = load_model(path)
        ids = encode_string(PHRASE, model.tokenizer, model.vocabulary).ids[:-1]  # it need not be over
        assert told == {"model": str(path), **connectivity(model, ids, exchanges=3, seed=4).as_json()}
    assert document["models"][0]["tokens"] == PHRASE.split()


def test_connectivity_of_words_a_file_and_standard_input(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = folder / "gru" / "run"
    _, words, _ = run(capsys, "connectivity", model, PHRASE)
    (folder / "phrase.txt").write_text(PHRASE + "\n")
    _, file, _ = run(capsys, "connectivity", model, folder / "phrase.txt")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{PHRASE}\n".encode())))
    _, piped, _ = run(capsys, "connectivity", model, "-")
    assert words == file == piped
    (folder / "two.txt").write_text(f"{PHRASE}\n{PHRASE}\n")
    _, out, _ = run(capsys, "connectivity", model, folder / "two.txt", "--json")
    assert json.loads(out)["models"][0]["tokens"] == [*PHRASE.split(), "</s>", *PHRASE.split()]


def test_connectivity_as_a_table_and_a_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    picture = folder / "c.svg"
    code, out, err = run(capsys, "connectivity", *models(folder, "kn2", "lstm"), PHRASE, "--figure", picture)
    assert (code, err) == (0, "")
    model = load_model(folder / "kn2" / "run")
    ids = encode_string(PHRASE, model.tokenizer, model.vocabulary).ids[:-1]
    found = connectivity(model, ids)
    lines = out.splitlines()
    assert lines[0] == "kn2"
    for t, line in enumerate(lines[2:8]):
        assert line.split() == [found.tokens[t], found.inputs[t], f"{found.exchanged[t, t]:.2f}"]
    start = next(k for k, line in enumerate(lines) if line.split()[:2] == ["tokens", "back"])
    distances = [line.split()[:2] for line in lines[start + 1 :]]
    wanted = found.by_distance()
    assert distances == [[str(d), f"{wanted[d - 1]:.4f}"] for d in (1, 2, 3, 4, 5)]
    assert "token predicted" in picture.read_text()


def test_units_as_json_and_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, reference = folder / "lstm" / "run", folder / "text.txt"
    options = ["--first", 2, "--last", 4, "--layer", 2, "--part", "c", "--threshold", 0.05]
    options += ["--state", "reset"]
    code, out, _ = run(capsys, "units", path, reference, PHRASE, *options, "--json")
    assert code == 0
    model = load_model(path)
    index = index_states(model, encode_text(reference, WORDS, model.vocabulary), 2, "c", state="reset")
    states = states_over(
        model, encode_string(PHRASE, WORDS, model.vocabulary).ids[:-1], 2, "c", state="reset"
    )
    wanted = similar(index, states, 2, 4, 0.05)
    assert wanted["matches"]
    told = json.loads(out)
    assert told == {"model": str(path), "reference": str(reference), "text": PHRASE, **wanted}
    code, out, err = run(capsys, "units", path, reference, PHRASE, *options)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "tokens 2 to 4: w002 w000"
    assert f"{wanted['units'][0]['unit']} ({wanted['units'][0]['mean']:+.2f})" in lines[1]
    best = wanted["matches"][0]
    middle = " ".join(best["tokens"][best["from"] : best["to"]])
    assert any(f"{best['start']:,}  " in line and f"[ {middle} ]" in line for line in lines)
    _, out, _ = run(capsys, "units", path, reference, PHRASE, "--threshold", 5)
    assert "tokens 0 to 6" in out
    assert "no unit" in out
    assert "a lower --threshold" in out


def test_mistakes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gru, kn2, text = folder / "gru" / "run", folder / "kn2" / "run", folder / "text.txt"
    for arguments, says in (
        (("gates", kn2, text), "no gates"),
        (("gates", gru), "memory gates needs at least one model and a text"),
        (("gates", gru, text, "--wrong"), "unknown option: --wrong"),
        (("gates", gru, text, "--figure", "x.docx"), "no kind of picture"),
        (("connectivity", gru), "memory connectivity needs at least one model and a text"),
        (("connectivity", gru, " "), "the text is empty"),
        (("connectivity", gru, folder / "no.txt"), "no.txt does not exist"),
        (("connectivity", gru, "w001 " * 300), "300 tokens are too many"),
        (("connectivity", gru, PHRASE, "--exchanges", 0), "--exchanges 0 is out of range"),
        (("units", kn2, text, PHRASE), "no gates"),
        (("units", gru, text, PHRASE, "--part", "c"), "no state 'c'"),
        (("units", gru, text, PHRASE, "--first", 4, "--last", 9), "no stretch of a text of 6 tokens"),
        (("units", gru, text, PHRASE, "--threshold", -1), "--threshold -1 is out of range"),
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, ""), arguments
        assert says in err, arguments
        assert "Remedy: " in err, arguments


@pytest.mark.parametrize("command", ["gates", "connectivity", "units"])
def test_every_help_page_has_examples_to_copy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"elman memory {command}" in out.partition("Examples:")[2]
    assert max(map(len, out.splitlines())) <= 80
    assert command in run(capsys, "--help")[1]
