"""`elman memory`: the table, the JSON, the picture, and mistakes."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path

import pytest

from cli_example import run_verb, save_two_models, write_text
from elman.checkpoint import load_model
from elman.cli import memory as memory
from elman.cli.models_and_text import short_names
from elman.memory.context import usable_context
from elman.text.corpus import encode_text


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    return run_verb(capsys, "memory", *arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_two_models(tmp_path, 1)
    write_text(tmp_path / "text.txt")
    return tmp_path


def test_json_holds_what_was_measured(folder: Path, capsys) -> None:
    models = [folder / "gru" / "run", folder / "lstm" / "run"]
    options = ("--histories", 1, 3, 9, "--events", 50, "--seed", 4, "--json")
    code, out, _ = run(capsys, *models, folder / "text.txt", *options)
    document = json.loads(out)
    assert code == 0
    assert [each["model"] for each in document["models"]] == [str(path) for path in models]
    for path, each in zip(models, document["models"], strict=True):
        model = load_model(path)
        text = encode_text(folder / "text.txt", model.tokenizer, model.vocabulary)
        expected = usable_context(model, text, (1, 3, 9), events=50, seed=4).as_json()
        assert {key: each[key] for key in expected} == expected


def test_table_and_picture(folder: Path, capsys) -> None:
    pytest.importorskip("matplotlib")
    picture = folder / "memory.svg"
    code, out, err = run(
        capsys, folder / "gru" / "run", folder / "lstm" / "run", folder / "text.txt", "--figure", picture
    )
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[2].split() == ["history", "gru", "lstm"]
    assert [line.split()[0] for line in lines[3:-5]] == [
        "1",
        "2",
        "3",
        "4",
        "5",
        "7",
        "10",
        "15",
        "20",
        "30",
        "50",
        "70",
        "100",
        "150",
        "whole",
    ]  # 164 events
    assert any(re.match(r"gru uses [\w ]+ tokens of history \(by the ends", line) for line in lines)
    assert lines[-1].endswith("events are few: take a longer text, or shorter --histories.")
    assert "lstm" in picture.read_text()
    assert run(capsys, *[folder / "gru" / "run"] * 2, folder / "text.txt", "--events", 9, "--json")[0] == 0


def test_loss_is_shown_in_per_cent_of_the_perplexity(folder: Path, capsys) -> None:
    model = load_model(folder / "gru" / "run")
    text = encode_text(folder / "text.txt", model.tokenizer, model.vocabulary)
    cut = usable_context(model, text, (1,)).cuts[0]
    _, out, _ = run(capsys, folder / "gru" / "run", folder / "text.txt", "--histories", 1)
    assert f"{cut.perplexity:.1f}" in out
    assert f"{100 * math.expm1(cut.loss):+7.1f} %" in out


def test_short_names() -> None:
    assert short_names(["runs/a/run", "runs/b/run"]) == {"runs/a/run": "a", "runs/b/run": "b"}
    assert short_names(["runs/a", "runs/a/b"]) == {"runs/a": "a", "runs/a/b": "b"}
    assert short_names(["x/lstm", "y/gru"]) == {"x/lstm": "lstm", "y/gru": "gru"}
    assert short_names(["x/lstm", "y/lstm"]) == {"x/lstm": "x/lstm", "y/lstm": "y/lstm"}
    assert short_names(["only/one/model"]) == {"only/one/model": "one"}
    assert short_names(["model", "run"]) == {"model": "model", "run": "run"}
    assert short_names(["twice", "twice"]) == {"twice": "twice"}
    assert short_names(["c/gru-8126047f", "c/lstm-8587902d/run"]) == {
        "c/gru-8126047f": "gru",
        "c/lstm-8587902d/run": "lstm",
    }
    assert short_names(["gru-8126047f", "gru-0000ffff"]) == {
        "gru-8126047f": "gru-8126047f",
        "gru-0000ffff": "gru-0000ffff",
    }


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--histories", 3, 2), "do not rise"),
        (("--histories", 100_000), "none has 100,000 before it"),
        (("--events", 0), "--events 0 is out of range"),
        (("--wrong",), "unknown option: --wrong"),
        (("--figure", "picture.docx"), "picture.docx is no kind of picture"),
    ],
    ids=str,
)
def test_mistakes(folder: Path, capsys, options: tuple[object, ...], says: str) -> None:
    code, out, err = run(capsys, folder / "gru" / "run", folder / "text.txt", *options)
    assert (code, out) == (2, "")
    assert says in err
    assert "Remedy: " in err


def test_a_model_alone_is_not_enough(folder: Path, capsys) -> None:
    code, _, err = run(capsys, folder / "gru" / "run")
    assert code == 2
    assert "memory needs at least one model and a text" in err


def test_without_matplotlib(folder: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    code, _, err = run(capsys, folder / "gru" / "run", folder / "text.txt", "--figure", folder / "x.svg")
    assert code == 2
    assert "matplotlib is not installed" in err
