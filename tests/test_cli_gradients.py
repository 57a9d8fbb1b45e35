"""`elman gradients`: the demonstration and trained models, as tables, JSON and pictures; mistakes."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from cli_example import run_verb, save_two_models, write_text
from elman.checkpoint import load_model, save_model
from elman.cli import gradients as gradients
from elman.gradients.flow import FlowOptions, gradient_flow
from elman.gradients.sweep import SweepOptions, at_initialization, sweep
from elman.neural.feedforward import FeedforwardConfig, FeedforwardModel
from elman.text.corpus import encode_text
from neural_oracle import WORDS, vocabulary

SMALL = ("--nhid", 12, "--lags", 20, "--radii", 0.8, 1.2, "--inputs", 0, 0.5)


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    return run_verb(capsys, "gradients", *arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_two_models(tmp_path, 1)
    write_text(tmp_path / "text.txt")
    return tmp_path


def finite(value: object) -> object:
    """As JSON has it: what is no number is null."""
    text = json.dumps(value).replace("NaN", "null").replace("-Infinity", "null").replace("Infinity", "null")
    return json.loads(text)


def test_the_demonstrations_json_is_what_was_measured(capsys) -> None:
    code, out, err = run(capsys, *SMALL, "--cells", "rnn-relu", "lstm", "--clip", 0.5, "--seed", 3, "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    options = SweepOptions(
        cells=("rnn_relu", "lstm"),
        hidden_size=12,
        lags=20,
        radii=(0.8, 1.2),
        inputs=(0.0, 0.5),
        clip=0.5,
        seed=3,
    )
    names = {"rnn_relu": "rnn-relu", "lstm": "lstm"}
    expected = {
        "initialization": at_initialization(options, (0.0, 1.0, 3.0)),
        "sweep": sweep(options),
    }
    for part, points in expected.items():
        assert document[part] == finite([p.as_json() | {"cell": names[p.cell]} for p in points])
    assert document["options"]["cells"] == ["rnn-relu", "lstm"]
    assert [p["gate_bias"] for p in document["initialization"]] == [0, 0, 1, 3]


def test_the_demonstrations_table_and_picture(tmp_path: Path, capsys) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "sweep.svg"
    code, out, err = run(capsys, *SMALL, "--figure", picture)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    header = next(place for place, line in enumerate(lines) if "at rest  input 0.5" in line)
    assert lines[header].split() == ["cell", "radius", "of", "U", "theory", "at", "rest", "input", "0.5"]
    first = lines[header + 1].split()
    assert first[:2] == ["rnn", "0.8"]
    assert float(first[2]) == pytest.approx(math.log(0.8), abs=5e-4)
    assert sum(line.startswith("lstm  ") for line in lines) == 5  # at initialization, two tables of two radii
    assert any(line.startswith("lstm, gate bias 3 ") for line in lines)
    assert "clipped to 5" in out
    assert "gru" in picture.read_text()
    assert max(map(len, lines)) <= 100


def test_a_gate_bias_of_ones_own_stands_alone(capsys) -> None:
    code, out, _ = run(capsys, *SMALL, "--cells", "gru", "--gate-bias", 2)
    assert code == 0
    assert "gru, gate bias 2" in out
    assert "gate bias 3" not in out


def test_at_rest_alone_nothing_is_clipped(capsys) -> None:
    code, out, _ = run(capsys, *SMALL[:-2], 0, "--cells", "rnn", "rnn-relu")
    assert code == 0
    assert "clipping" not in out
    assert next(line for line in out.splitlines() if line.startswith("rnn-relu  ") and "0.8" in line.split())


MODELS = ("--lags", 15, "--passages", 4, "--losses", 3, "--spectra", 2)


def test_models_json_is_what_was_measured(folder: Path, capsys) -> None:
    models = [folder / "gru" / "run", folder / "lstm" / "run"]
    code, out, _ = run(capsys, *models, folder / "text.txt", *MODELS, "--json")
    document = json.loads(out)
    assert code == 0
    assert [each["model"] for each in document["models"]] == [str(path) for path in models]
    for path, each in zip(models, document["models"], strict=True):
        model = load_model(path)
        text = encode_text(folder / "text.txt", model.tokenizer, model.vocabulary)
        expected = gradient_flow(model, text, FlowOptions(lags=15, passages=4, losses=3, spectra=2))
        assert each == {"model": str(path), **finite(expected.as_json())}  # type: ignore[dict-item]


def test_models_table_and_picture(folder: Path, capsys) -> None:
    pytest.importorskip("matplotlib")
    picture = folder / "gradients.svg"
    models = [folder / "gru" / "run", folder / "lstm" / "run"]
    code, out, err = run(capsys, *models, folder / "text.txt", *MODELS, "--figure", picture)
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert [line[:4] for line in lines if line[1:3] == ["1", "c"]] == [
        ["lstm", "1", "c", lags] for lags in ("1-15", "1-10", "10-15")
    ]
    model = load_model(models[0])
    text = encode_text(folder / "text.txt", model.tokenizer, model.vocabulary)
    found = gradient_flow(model, text, FlowOptions(lags=15, passages=4, losses=3, spectra=2))
    slope = found.decays()[0].slope
    assert next(line for line in lines if line[:4] == ["gru", "1", "h", "1-15"])[4] == f"{slope.value:+.4f}"
    assert f"gru {found.radius.value:.2f}" in out
    bias = next(b for b in found.biases if (b.steps, b.parameter) == (5, "all"))
    assert next(line for line in lines if line[:1] == ["5"] and "to" in line)[1] == f"{bias.cosine.value:.3f}"
    assert "lstm, c" in picture.read_text()


def test_spectra_can_be_left_out(folder: Path, capsys) -> None:
    model = folder / "gru" / "run"
    options = (*MODELS[:-1], 0)
    code, out, _ = run(capsys, model, folder / "text.txt", *options, "--figure", folder / "x.png")
    assert code == 0
    assert "Jacobian" not in out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--wrong",), "unknown option: --wrong"),
        (("--figure", "picture.docx"), "picture.docx is no kind of picture"),
        (("--radii", 0), "out of range"),
        (("--lags", 3), "too few"),
        (("--cells", "mamba"), "mamba"),
        (("--passages", 3), "--passages does nothing here: there is no model"),
        (("--split", "valid"), "--split does nothing here"),
    ],
    ids=str,
)
def test_mistakes_without_models(capsys, options: tuple[object, ...], says: str) -> None:
    code, out, err = run(capsys, *options)
    assert (code, out) == (2, "")
    assert says in err
    assert "Remedy: " in err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--nhid", 3), "--nhid does nothing here: models are read as they are"),
        (("--gate-bias", 0), "--gate-bias does nothing here"),
        (("--lags", 10_000), "too few for a passage of 10,020"),
        (("--passages", 0), "--passages 0 is out of range"),
    ],
    ids=str,
)
def test_mistakes_with_models(folder: Path, capsys, options: tuple[object, ...], says: str) -> None:
    code, out, err = run(capsys, folder / "gru" / "run", folder / "text.txt", *options)
    assert (code, out) == (2, "")
    assert says in err
    assert "Remedy: " in err


def test_a_model_alone_is_not_enough(folder: Path, capsys) -> None:
    code, _, err = run(capsys, folder / "gru" / "run")
    assert code == 2
    assert "gradients needs at least one model and a text" in err


def test_a_model_without_a_recurrence_is_refused(folder: Path, capsys) -> None:
    config = FeedforwardConfig(embedding_size=3, hidden_size=5)
    save_model(FeedforwardModel(vocabulary(13), WORDS, config), folder / "ff")
    code, out, err = run(capsys, folder / "gru" / "run", folder / "ff", folder / "text.txt")
    assert (code, out) == (2, "")
    assert "no gates and no gradients" in err


def test_without_matplotlib(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    code, _, err = run(capsys, "--figure", "x.svg")
    assert code == 2
    assert "matplotlib is not installed" in err


@pytest.mark.parametrize(("spectra", "panels"), [(0, 2), (1, 3)])
def test_a_panel_that_would_be_empty_is_not_drawn(
    folder: Path, capsys, tmp_path: Path, spectra: int, panels: int
) -> None:
    pytest.importorskip("matplotlib")
    figure = tmp_path / "flow.svg"
    small = ("--lags", 10, "--passages", 1, "--losses", 1, "--spectra", spectra)
    code, _, err = run(capsys, folder / "gru" / "run", folder / "text.txt", *small, "--figure", figure)
    assert code == 0, err
    assert figure.read_text("utf-8").count('id="axes_') == panels
