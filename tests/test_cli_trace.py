"""`elman trace`: the table, the JSON, the page, and mistakes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from cli_example import run_verb, save_two_models
from elman.checkpoint import load_model
from elman.cli import trace as _registered  # noqa: F401  (the verb)
from elman.trace import TraceOptions, trace

LINES = ["w001 w003 nowhere", "w002", "w004 w001 w001 w010"]


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    return run_verb(capsys, "trace", *arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_two_models(tmp_path, 2)
    (tmp_path / "text.txt").write_text("\n".join(LINES))  # no newline at the end
    return tmp_path


def test_json_is_the_trace(folder: Path, capsys) -> None:
    code, out, err = run(capsys, folder / "lstm" / "run", folder / "text.txt", "--json", "--top", 3)
    expected = trace(load_model(folder / "lstm" / "run"), LINES, options=TraceOptions(top=3)).as_json()
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["model"].pop("name")
    del expected["model"]["name"]
    assert found == json.loads(json.dumps(expected))
    assert found["layers"][1]["gates"]["f"]


def test_several_models_are_a_list_and_a_window_a_window(folder: Path, capsys) -> None:
    models = [folder / "lstm" / "run", folder / "gru" / "run"]
    options = ("--json", "--first", 2, "--last", 6, "--state", "reset")
    code, out, _ = run(capsys, *models, folder / "text.txt", *options)
    found = json.loads(out)
    assert code == 0
    assert [each["model"]["name"] for each in found] == ["lstm", "gru"]
    assert [(each["first"], len(each["tokens"]), each["state"]) for each in found] == [(2, 4, "reset")] * 2


def test_the_table_says_what_was_expected(folder: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(LINES).encode())))
    code, out, err = run(capsys, folder / "gru" / "run", "-")
    model = load_model(folder / "gru" / "run")
    rows = trace(model, LINES, options=TraceOptions(gates=False, gradients=False)).rows
    lines = out.splitlines()
    assert (code, err) == (0, "")
    shown = [line.split() for line in lines[3 : 3 + len(rows)]]
    assert [cells[1] for cells in shown] == [row.event.token + "*" * row.event.unknown for row in rows]
    assert [float(cells[2]) for cells in shown] == [round(row.event.bits, 2) for row in rows]
    assert [int(cells[3]) for cells in shown] == [row.rank for row in rows]
    assert [cells[4] for cells in shown] == [row.top[0][0] for row in rows]
    assert "* not in the vocabulary" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["MODEL"], "needs at least one model and a text"),
        (["MODEL", "nowhere.txt"], "nowhere.txt does not exist"),
        (["MODEL", "TEXT", "--first", "9", "--last", "3"], "rows 9 to 3 are not in a text of 11"),
        (["MODEL", "TEXT", "--frist", "9"], "unknown option: --frist"),
        (["MODEL", "EMPTY"], "the text is empty"),
        (["MODEL", "LONG", "--json"], "too many for gates and gradients"),
        (["MODEL", "TEXT", "--html", "no/such/folder/page.html"], "there is no folder no/such/folder"),
    ],
)
def test_mistakes_say_what_to_do(folder: Path, capsys, arguments: list[str], words: str) -> None:
    (folder / "empty.txt").write_text("")
    (folder / "long.txt").write_text("w001 w002 w003\n" * 51)
    places = {
        "MODEL": folder / "gru" / "run",
        "TEXT": folder / "text.txt",
        "EMPTY": folder / "empty.txt",
        "LONG": folder / "long.txt",
    }
    code, out, err = run(capsys, *(places.get(each, each) for each in arguments))
    assert (code, out) == (2, "")
    assert words in " ".join(err.split())


def test_a_long_text_without_detail(folder: Path, capsys) -> None:
    (folder / "long.txt").write_text("w001 w002 w003\n" * 60)
    code, out, _ = run(capsys, folder / "gru" / "run", folder / "long.txt", "--json", "--no-detail")
    found = json.loads(out)
    assert (code, len(found["tokens"]), found["layers"]) == (0, 240, [])


def test_the_page_holds_every_model_and_loads_nothing(folder: Path, capsys) -> None:
    models = [folder / "lstm" / "run", folder / "gru" / "run"]
    page = folder / "it.html"
    code, out, err = run(capsys, *models, folder / "text.txt", "--html", page)
    assert (code, out) == (0, "")
    assert "opens in any browser" in err
    html = page.read_text("utf-8")
    data = html.split('<script type="application/json" id="explore-data">', 1)[1].split("</script>", 1)[0]
    document = json.loads(data)
    assert [card["name"] for card in document["models"]] == ["lstm", "gru"]
    (text,) = document["texts"]
    assert text["text"].split("\n") == LINES
    assert all(each["layers"] and each["gradients"] for each in text["traces"].values())
    assert 'src="http' not in html
    code, _, err = run(capsys, models[0], folder / "text.txt", "--html", page, "--first", 3)
    assert code == 2
    assert "a page shows all" in " ".join(err.split())


def test_what_stands_before_a_reserved_word_is_traced_and_its_line_told(folder: Path, capsys) -> None:
    (folder / "bad.txt").write_text("w001 w003\n" * 20 + "w002 </s> w001\nw001\n")
    code, out, err = run(capsys, folder / "lstm" / "run", folder / "bad.txt")
    assert code == 2
    assert "tokens 0 to 60 of 60" in out
    assert "bad.txt, line 21: the word </s>" in " ".join(err.split())
    for options in (("--json",), ("--first", 2)):
        code, out, err = run(capsys, folder / "lstm" / "run", folder / "bad.txt", *options)
        assert (code, out) == (2, "")
        assert "line 21: the word </s>" in " ".join(err.split())


@pytest.mark.parametrize(("options", "listed"), [((), 3), (("--top", 1), 1), (("--top", 7), 7)])
def test_the_table_lists_as_many_as_were_asked_for(
    folder: Path, capsys, options: tuple[object, ...], listed: int
) -> None:
    code, out, _ = run(capsys, folder / "gru" / "run", folder / "text.txt", *options)
    rows = [line for line in out.splitlines() if " %" in line]
    assert code == 0
    assert len(rows) > 3
    assert {line.count(" %") for line in rows} == {listed}
