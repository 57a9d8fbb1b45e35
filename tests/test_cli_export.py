"""`elman export`: each format, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from elman.checkpoint import load_model, save_model
from elman.cli import app
from elman.cli import export as export
from elman.mixture import Mixture
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.neural.vectors import read_vectors
from elman.ngram.backoff import NgramModel
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.text.tokenizers import Words
from ngram_oracle import read_golden


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        app.main(["export", *map(str, arguments)])
    shown = capsys.readouterr()
    return int(caught.value.code or 0), shown.out, shown.err


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("models")
    text, vocabulary = read_golden("rhyme.txt")
    torch.manual_seed(3)
    trigram = estimate(text, vocabulary, Words(), KneserNeySettings(order=3))
    gru = RecurrentModel(
        vocabulary, Words(), RecurrentConfig(cell="gru", embedding_size=3, hidden_size=5, num_layers=1)
    )
    save_model(trigram, where / "kn3")
    save_model(gru, where / "gru")
    save_model(Mixture([trigram, gru], [0.5, 0.5]), where / "mixture")
    return where


@pytest.mark.parametrize("name", ["kn3.arpa", "kn3.arpa.gz"])
def test_arpa(models: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, models / "kn3", tmp_path / name, "--json")
    assert code == 0
    assert json.loads(out)["format"] == "arpa"
    again, model = load_model(tmp_path / name), load_model(models / "kn3")
    ids = torch.from_numpy(read_golden("rhyme.txt")[0].stream())[:40, None].long()
    assert torch.equal(again.token_nats(ids, again.start(1))[0], model.token_nats(ids, model.start(1))[0])


def test_vectors(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, models / "gru", tmp_path / "words.txt")[0] == 0
    model = load_model(models / "gru")
    assert read_vectors(tmp_path / "words.txt", model.vocabulary).size == 3


@pytest.mark.parametrize("name", ["kn3", "gru"])
def test_safetensors(models: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.bin"
    assert run(capsys, models / name, path, "--to", "safetensors")[0] == 0
    model = load_model(models / name)
    with safe_open(path, "pt") as file:
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    assert metadata["kind"] == model.kind
    again = type(model).from_parts(json.loads(metadata["config"]), arrays, model.vocabulary, model.tokenizer)
    ids = torch.from_numpy(read_golden("rhyme.txt")[0].stream())[:40, None].long()
    with torch.no_grad():
        assert torch.equal(again.token_nats(ids, again.start(1))[0], model.token_nats(ids, model.start(1))[0])


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("gru", ["x.arpa"], "only n-gram models have an ARPA form"),
        ("kn3", ["x.txt"], "no word embedding"),
        ("mixture", ["x.safetensors"], "several models"),
        ("kn3", ["x.onnx"], "does not tell the format"),
        ("absent", ["x.arpa"], "does not exist"),
        ("kn3", ["x.arpa", "--to", "onnx"], "onnx"),
    ],
)
def test_mistakes(
    models: Path,
    name: str,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = run(capsys, models / name, tmp_path / arguments[0], *arguments[1:])
    assert code == 2
    assert message in err
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_unasked(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kn3.arpa"
    path.write_text("mine")
    assert run(capsys, models / "kn3", path)[0] == 2
    assert path.read_text() == "mine"
    assert run(capsys, models / "kn3", path, "--overwrite")[0] == 0
    assert isinstance(load_model(path), NgramModel)
