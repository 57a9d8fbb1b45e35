"""`elman mix`: the table, the JSON, the saved mixture, and mistakes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from elman.checkpoint import load_model, save_model
from elman.cli import app
from elman.cli import mix as mix
from elman.evaluate import evaluate
from elman.mixture import Mixture
from elman.neural.feedforward import FeedforwardConfig, FeedforwardModel
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.text.corpus import encode_text
from neural_oracle import WORDS, vocabulary

V = 13


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        app.main(["mix", *map(str, arguments)])
    shown = capsys.readouterr()
    return int(caught.value.code or 0), shown.out, shown.err


@pytest.fixture
def folder(tmp_path):
    """Three small models over one vocabulary, one over another, and a held-out text."""
    torch.manual_seed(1)
    sizes = {"embedding_size": 3, "hidden_size": 5, "init_scale": 1.0}
    words = vocabulary(V)
    save_model(RecurrentModel(words, WORDS, RecurrentConfig(num_layers=1, **sizes)), tmp_path / "lstm")
    save_model(RecurrentModel(words, WORDS, RecurrentConfig(cell="gru", **sizes)), tmp_path / "gru")
    save_model(FeedforwardModel(words, WORDS, FeedforwardConfig(**sizes)), tmp_path / "window")
    save_model(FeedforwardModel(vocabulary(V + 1), WORDS, FeedforwardConfig(**sizes)), tmp_path / "other")
    random = np.random.default_rng(2)
    lines = [" ".join(random.choice(words.tokens[2:], size=random.integers(1, 8))) for _ in range(30)]
    (tmp_path / "held-out.txt").write_text("\n".join(lines) + "\n", "utf-8")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for split in ("train", "valid", "test"):
        (corpus / f"{split}.txt").write_text(
            "\n".join(lines[:5] if split == "valid" else lines) + "\n", "utf-8"
        )
    return tmp_path


def test_mixes_saves_and_reports(folder, capsys) -> None:
    models = [folder / "lstm", folder / "gru", folder / "window"]
    saved = folder / "mixture"
    code, out, _ = run(capsys, *models, "--tune", folder / "held-out.txt", "--save", saved, "--json")
    assert code == 0
    document = json.loads(out)
    assert math.isclose(sum(each["weight"] for each in document["models"]), 1, abs_tol=1e-9)
    mixture = load_model(saved)
    assert isinstance(mixture, Mixture)
    np.testing.assert_allclose(mixture.weights, [each["weight"] for each in document["models"]], rtol=1e-9)
    text = encode_text(folder / "held-out.txt", mixture.tokenizer, mixture.vocabulary)
    score = evaluate(mixture, text)
    told = document["mixture"]["score"]
    assert told["events"] == score.events
    assert math.isclose(told["nats"], score.nats, rel_tol=1e-9)
    assert told["protocol"] == {
        "unit": "word",
        "unknown": "word",
        "state": "carry",
        "end_of_sentence": True,
        "normalized": False,
    }
    for path, each in zip(models, document["models"], strict=True):
        own = evaluate(load_model(path), text)
        assert math.isclose(each["score"]["nats"], own.nats, rel_tol=1e-6)
        assert told["perplexity"] <= each["score"]["perplexity"] * (1 + 1e-6)


def test_the_table(folder, capsys) -> None:
    code, out, err = run(capsys, folder / "lstm", folder / "gru", "--tune", folder / "held-out.txt")
    assert code == 0
    assert not err.strip()
    lines = out.splitlines()
    assert lines[0].startswith(f"tuned on {folder / 'held-out.txt'}: ")
    assert "state=carry" in lines[0]
    assert [line.split()[0] for line in lines[2:]] == [
        "model",
        str(folder / "lstm"),
        str(folder / "gru"),
        "mixture",
    ]
    weights = [float(line.split()[1]) for line in lines[3:5]]
    assert abs(sum(weights) - 1) < 2e-4


def test_a_corpus_is_tuned_on_its_validation_part(folder, capsys) -> None:
    models = (folder / "lstm", folder / "window")
    events = {}
    for split in (None, "valid", "test"):
        chosen = () if split is None else ("--split", split)
        _, out, _ = run(capsys, *models, "--tune", folder / "corpus", "--json", *chosen)
        events[split] = json.loads(out)["mixture"]["score"]["events"]
    assert events[None] == events["valid"] < events["test"]


def test_state_reset(folder, capsys) -> None:
    shared = (folder / "lstm", folder / "gru", "--tune", folder / "held-out.txt", "--json")
    _, out, _ = run(capsys, *shared, "--state", "reset")
    reset = json.loads(out)["mixture"]["score"]
    assert reset["protocol"]["state"] == "reset"
    _, out, _ = run(capsys, *shared)
    assert json.loads(out)["mixture"]["score"]["nats"] != reset["nats"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lstm", "--tune", "held-out.txt"), "at least two models"),
        (("lstm", "gru", "--tune", "absent.txt"), "does not exist"),
        (("lstm", "absent", "--tune", "held-out.txt"), "does not exist"),
        (("lstm", "gru", "--tune", "held-out.txt", "--save", "window"), "is not empty"),
        (("lstm", "gru", "--tune", "held-out.txt", "--save", "held-out.txt"), "is not empty"),
        (("lstm", "gru"), "tune"),
    ],
)
def test_mistakes_are_told(folder, capsys, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(folder)
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert not out
    assert message in err
    assert "Traceback" not in err


def test_a_model_that_lacks_words_is_told(folder, capsys) -> None:
    models = (folder / "lstm", folder / "other")
    code, out, err = run(capsys, *models, "--tune", folder / "held-out.txt", "--json")
    assert code == 0
    note = f"{models[0]} lacks 1 of the {V + 1} words: each of them and <unk> has 1/2 of the probability"
    assert json.loads(out)["notes"][0].startswith(note)
    assert note in err


def test_overwrite(folder, capsys) -> None:
    shared = (folder / "lstm", folder / "gru", "--tune", folder / "held-out.txt", "--save", folder / "window")
    code, _, err = run(capsys, *shared, "--overwrite")
    assert code == 0
    assert "saved to" in err
    assert isinstance(load_model(folder / "window"), Mixture)


def test_help_has_examples(capsys) -> None:
    code, out, err = run(capsys, "--help")
    assert code == 0
    assert "elman mix runs/lstm" in out + err
