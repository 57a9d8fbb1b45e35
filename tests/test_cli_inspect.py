"""`elman inspect`: every kind of model, neighbours, vectors, and mistakes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from elman import storage
from elman.checkpoint import TrainingState, save_checkpoint, save_model
from elman.cli import app
from elman.cli import compare as compare
from elman.cli import inspect as inspect
from elman.language_model import parameter_count
from elman.mixture import Mixture
from elman.neural.feedforward import FeedforwardConfig, FeedforwardModel
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.neural.streaming import StreamingModel
from elman.neural.vectors import neighbours, read_vectors
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.text.corpus import Text
from elman.tracing.document import model_card
from neural_oracle import WORDS, vocabulary

V = 15


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        app.main(["inspect", *map(str, arguments)])
    shown = capsys.readouterr()
    return int(caught.value.code or 0), shown.out, shown.err


def lstm() -> RecurrentModel:
    torch.manual_seed(1)
    return RecurrentModel(
        vocabulary(V), WORDS, RecurrentConfig(embedding_size=3, hidden_size=5, init_scale=1.0)
    )


def window() -> FeedforwardModel:
    torch.manual_seed(2)
    return FeedforwardModel(vocabulary(V), WORDS, FeedforwardConfig(embedding_size=3, hidden_size=5))


def ngram():
    ids = np.random.default_rng(1).integers(0, V, 400).astype(np.int32)
    ids[7::8] = 1
    sentences = int((ids == 1).sum())
    text = Text(ids, np.ones(sentences, np.int32), np.ones(sentences, np.int32))
    return estimate(text, vocabulary(V), WORDS, KneserNeySettings(order=3))


@pytest.mark.parametrize("weights", ["int8", "bfloat16", "float32"])
@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_counted_once_and_everywhere_alike(weights, tied, tmp_path, capsys) -> None:
    torch.manual_seed(1)
    sizes = {"embedding_size": 5, "hidden_size": 5, "num_layers": 2, "tied": tied}
    model = RecurrentModel(vocabulary(V), WORDS, RecurrentConfig(**sizes))
    quantized = StreamingModel(model, weights)
    assert parameter_count(quantized) == parameter_count(model) == sum(p.numel() for p in model.parameters())
    grams = ngram()
    rows = [len(table.keys) for table in grams.tables]
    assert parameter_count(grams) == rows[0] * 2 + rows[1] * 2 + rows[2]
    both = Mixture([quantized, grams], [1, 2])
    assert parameter_count(both) == parameter_count(model) + parameter_count(grams)
    (tmp_path / "text.txt").write_text("w000 w001\nw002\n" * 9, "utf-8")
    for name, each in {"quantized": quantized, "grams": grams, "both": both}.items():
        save_model(each, tmp_path / name)
        _, out, _ = run(capsys, tmp_path / name, "--json")
        assert json.loads(out)["parameters"] == parameter_count(each)
        assert model_card(each, name)["parameters"] == parameter_count(each)
    names = [str(tmp_path / name) for name in ("quantized", "grams", "both")]
    with pytest.raises(SystemExit):
        app.main(["compare", *names, "--text", str(tmp_path / "text.txt"), "--no-report", "--json"])
    counted = [entry["parameters"] for entry in json.loads(capsys.readouterr().out)["entries"]]
    assert counted == [parameter_count(each) for each in (quantized, grams, both)]


def test_a_recurrent_model(tmp_path, capsys) -> None:
    model = lstm()
    save_model(model, tmp_path / "lstm")
    code, out, err = run(capsys, tmp_path / "lstm", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["kind"] == "recurrent"
    assert found["parameters"] == model.parameter_count
    assert (found["cell"], found["hidden_size"], found["num_layers"]) == ("lstm", 5, 2)
    files = [file for file in (tmp_path / "lstm").rglob("*") if file.is_file()]
    assert found["disk_bytes"] == sum(file.stat().st_size for file in files) > 0
    assert found["vocabulary"]["size"] == V
    assert found["vocabulary"]["digest"] == model.vocabulary.digest
    assert found["vocabulary"]["head"][:3] == ["<unk>", "</s>", "w000"]
    assert found["vocabulary"]["training_events"] == int(model.vocabulary.counts.sum())
    assert found["tokenizer"] == {"name": "words", "unit": "word"}
    assert "training" not in found
    _, out, _ = run(capsys, tmp_path / "lstm")
    for part in (
        "recurrent",
        "lstm",
        f"{model.parameter_count:,}",
        model.vocabulary.digest,
        "words (unit: word)",
    ):
        assert part in out


def test_an_ngram_model_shows_counts_and_discounts(tmp_path, capsys) -> None:
    model = ngram()
    save_model(model, tmp_path / "kn3")
    _, out, _ = run(capsys, tmp_path / "kn3", "--json")
    found = json.loads(out)
    assert (found["kind"], found["order"]) == ("ngram", 3)
    assert found["ngrams"] == model.describe()["ngrams"]
    _, out, _ = run(capsys, tmp_path / "kn3")
    for order, size in model.describe()["ngrams"].items():
        line = next(line for line in out.splitlines() if line.startswith(f"{order}-grams"))
        assert f"{size:,}" in line
        assert "discounts" in line


def test_a_mixture_shows_its_weights(tmp_path, capsys) -> None:
    save_model(Mixture([ngram(), window(), lstm()], [0.5, 0.2, 0.3]), tmp_path / "mixture")
    _, out, _ = run(capsys, tmp_path / "mixture", "--json")
    found = json.loads(out)
    assert [(part["kind"], part["weight"]) for part in found["models"]] == [
        ("ngram", 0.5),
        ("feedforward", 0.2),
        ("recurrent", 0.3),
    ]
    code, out, _ = run(capsys, tmp_path / "mixture", "--neighbours", "w003", "-k", "2")
    assert code == 0
    assert "0.3000 ×" in out
    # the heaviest part that has an embedding is asked
    for word, cosine in neighbours(lstm(), vocabulary(V), "w003", 2):
        assert f"{cosine:7.4f}  {word}" in out


def test_neighbours_and_vectors(tmp_path, capsys) -> None:
    model = window()
    save_model(model, tmp_path / "window")
    out_file = tmp_path / "embedding.txt"
    arguments = ("--neighbours", "w001", "w002", "-k", "3", "--vectors", out_file, "--json")
    _, out, _ = run(capsys, tmp_path / "window", *arguments)
    found = json.loads(out)["neighbours"]
    for word in ("w001", "w002"):
        expected = neighbours(model, model.vocabulary, word, 3)
        assert [(each["word"], each["cosine"]) for each in found[word]] == expected
    matrix = read_vectors(out_file, model.vocabulary).matrix
    assert np.array_equal(matrix, model.embedding.weight.detach().numpy())


def test_a_training_run_tells_how_far_it_came(tmp_path, capsys) -> None:
    history = [
        {
            "epoch": 1,
            "step": 20,
            "lr": 1.0,
            "train_perplexity": 12.5,
            "valid_perplexity": 11.25,
            "seconds": 3.0,
        },
        {
            "epoch": 2,
            "step": 40,
            "lr": 1.0,
            "train_perplexity": 9.5,
            "valid_perplexity": 10.75,
            "seconds": 6.0,
        },
    ]
    record = {
        "step": 40,
        "progress": {"step": 40, "epoch": 2, "best_epoch": 2, "seconds": 6.0, "history": history},
        "run": {"config": {"epochs": 2}, "corpus": "abc"},
    }
    save_checkpoint(tmp_path / "run", TrainingState(lstm(), {}, {}, (), record), best=True)
    _, out, _ = run(capsys, tmp_path / "run", "--json")
    found = json.loads(out)
    assert found["training"]["history"] == history
    assert found["training"]["config"] == {"epochs": 2}
    assert found["folder"].endswith("step-000040")
    _, out, _ = run(capsys, tmp_path / "run")
    assert "2 epochs, 40 updates, 6 s" in out
    assert "best epoch 2: train perplexity 9.50, valid 10.75" in out


def test_a_record_of_another_shape_is_no_traceback(tmp_path, capsys) -> None:
    save_checkpoint(
        tmp_path / "run", TrainingState(lstm(), {}, {}, (), {"step": 1, "progress": 7, "run": []})
    )
    code, out, _ = run(capsys, tmp_path / "run")
    assert code == 0
    assert "recurrent" in out


def test_mistakes_are_told(tmp_path, capsys) -> None:
    save_model(lstm(), tmp_path / "lstm")
    save_model(ngram(), tmp_path / "kn3")
    for arguments, message in (
        ((tmp_path / "absent",), "does not exist"),
        ((tmp_path,), "holds no model"),
        ((tmp_path / "lstm", "--neighbours", "W001"), "'W001' is not in the vocabulary"),
        ((tmp_path / "lstm", "--neighbours", "w001", "-k", "0"), "-k 0 is out of range"),
        ((tmp_path / "kn3", "--neighbours", "w001"), "no embedding"),
        ((tmp_path / "kn3", "--vectors", tmp_path / "x.txt"), "no embedding"),
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert "Remedy" in err
    (tmp_path / "lstm" / "config.json").write_bytes(b"{")
    code, out, err = run(capsys, tmp_path / "lstm")
    assert code == 2
    assert storage.DAMAGED in err or "JSON" in err


def test_help_has_examples(capsys) -> None:
    code, out, err = run(capsys, "--help")
    assert code == 0
    assert "--neighbours congress" in out + err
