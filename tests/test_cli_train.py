"""`elman train`: what is saved, printed and refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elman.cli.train  # noqa: F401  registers the command
from elman.checkpoint import load_checkpoint, load_model
from elman.evaluate import evaluate
from elman.text.corpus import load_corpus
from table_model import run_cli

SMALL = (
    "--nhid",
    "5",
    "--emsize",
    "4",
    "--nlayers",
    "1",
    "--batch-size",
    "3",
    "--bptt",
    "7",
    "--epochs",
    "2",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of three files: sentences over eleven words."""
    where = tmp_path_factory.mktemp("corpus")
    draw = np.random.default_rng(3)
    words = np.array(["the", "a", "cat", "dog", "mat", "sat", "ran", "on", "under", "and", "then"])
    for split, sentences in (("train", 60), ("valid", 9), ("test", 11)):
        lines = (" ".join(draw.choice(words, draw.integers(0, 9))) for _ in range(sentences))
        (where / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return where


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run_cli("train", *arguments, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    assert run_cli("train", *arguments) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return " ".join(captured.err.split())


@pytest.mark.parametrize("model", ["lstm", "gru", "rnn", "rnn-relu", "feedforward"])
def test_a_neural_model_is_trained_saved_and_scored(
    capsys: pytest.CaptureFixture[str], folder: Path, model: str
) -> None:
    flags = [flag for flag in SMALL if model != "feedforward" or flag not in ("--nlayers", "1")]
    document = as_json(capsys, str(folder), "--model", model, *flags, "--save", "run")
    corpus, loaded = load_corpus(folder), load_model("run")
    for part in ("valid", "test"):
        assert document[part] == evaluate(loaded, getattr(corpus, part)).as_json()
    assert [row["epoch"] for row in document["epochs"]] == [1, 2]
    assert document["stopped"] == "finished"
    assert document["parameters"] == loaded.parameter_count  # type: ignore[attr-defined]
    assert document["options"]["model"] == model
    best = document["epochs"][document["best_epoch"] - 1]
    assert best["valid"] == document["valid"]


@pytest.mark.parametrize(
    "flags",
    [
        ("--order", "3"),
        ("--order", "3", "--prune", "0", "1"),
        ("--smoothing", "add-k", "--add-k", "0.5", "--order", "2"),
        ("--smoothing", "stupid-backoff"),
    ],
)
def test_an_ngram_is_counted_by_the_same_verb(
    capsys: pytest.CaptureFixture[str], folder: Path, flags: tuple[str, ...]
) -> None:
    document = as_json(capsys, str(folder), "--model", "ngram", *flags, "--save", "kn")
    assert document["test"] == evaluate(load_model("kn"), load_corpus(folder).test).as_json()


def test_an_epoch_is_a_line_and_the_end_names_the_protocol(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert run_cli("train", str(folder), *SMALL, "--samples", "1", "--save", "run") == 0
    captured = capsys.readouterr()
    lines = [line for line in captured.out.splitlines() if line.startswith("|")]
    assert len(lines) == 2
    for number, line in enumerate(lines, start=1):
        assert line.startswith(f"| epoch   {number}/2 | lr ")
        assert all(word in line for word in ("train ppl", "valid ppl", "tokens/s"))
    assert "test perplexity" in captured.out
    assert "per word, unknown=word, state=carry, </s> counted" in captured.out
    assert "saved in run" in captured.out


def test_resuming_needs_no_options_and_refuses_others(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    flags = (*SMALL, "--schedule", "plateau", "--dropout", "0.2")
    whole = as_json(capsys, str(folder), *flags, "--save", "whole")
    as_json(capsys, str(folder), *flags, "--save", "run", "--max-steps", "9")
    message = told(capsys, str(folder), "--save", "run", "--resume", "--lr", "0.5")
    assert "this would not be the same run: lr: 0.002 in the run, 0.5 now" in message
    message = told(capsys, str(folder), "--save", "run", "--resume", "--nhid", "6")
    assert "hidden_size: 5 in the run, 6 now" in message
    message = told(capsys, str(folder), "--save", "run", "--resume", "--min-count", "30")
    assert "vocabulary: " in message
    again = as_json(capsys, str(folder), "--save", "run", "--resume", "--max-steps", "1000")
    assert again["test"] == whole["test"]
    assert run_cli("train", str(folder), "--save", "run", "--resume") == 0
    assert "this run has finished after 2 epochs" in capsys.readouterr().err
    longer = as_json(capsys, str(folder), "--save", "run", "--resume", "--epochs", "3")
    assert [row["epoch"] for row in longer["epochs"]] == [3]


def test_ctrl_c_keeps_the_best_evaluates_and_resumes(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import elman.cli.train_display as display

    flags = (*SMALL[:-2], "--epochs", "3", "--dropout", "0.3")
    whole = as_json(capsys, str(folder), *flags, "--save", "whole")
    line = display._line

    def pressed(*arguments: Any) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return line(*arguments)

    monkeypatch.setattr(display, "_line", pressed)
    assert run_cli("train", str(folder), *flags, "--save", "run") == 130
    captured = capsys.readouterr()
    assert "interrupted; --resume continues exactly here" in captured.err
    assert "test perplexity" in captured.out
    assert load_checkpoint(Path("run")).record["progress"]["epoch"] == 1
    monkeypatch.setattr(display, "_line", line)
    again = as_json(capsys, str(folder), "--save", "run", "--resume")
    assert again["test"] == whole["test"]
    assert [row["epoch"] for row in again["epochs"]] == [2, 3]


def test_a_file_of_options_and_flags_above_it(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    Path("run.toml").write_text(
        'model = "gru"\nnhid = 6\n[training]\nepochs = 7\nbatch-size = 2\nlr = 0.01\n[text]\nmin_count = 2\n'
    )
    document = as_json(
        capsys, str(folder), "--config", "run.toml", "--lr", "0.03", "--tied", "--emsize", "6", "--dry-run"
    )
    assert document["model"] == "gru"
    assert (document["options"]["hidden_size"], document["options"]["tied"]) == (6, True)
    chosen = document["training"]
    assert (chosen["epochs"], chosen["batch_size"], chosen["lr"]) == (7, 2, 0.03)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr = ", "Invalid value"),
        ("learning_rate = 3", "no option is called learning_rate"),
        ("batchsize = 3", "perhaps batch_size is meant"),
        ("lr = -3", "option lr = -3"),
        ("nhid = 0", "--nhid 0"),
        ('model = "transformer"', "--model transformer is not known"),
        ("tokenizer = 07:32:00", "--tokenizer 07:32:00: input should be 'words'"),
        ("tokenizer = 50", "--tokenizer 50: input should be 'words'"),
        ("[[tokenizer]]", "--tokenizer [{}]: input should be 'words'"),
        ('vocabulary_size = "many"', "--vocabulary-size many: input should be a valid integer"),
        ('model = "ngram"\norder = 50', "--order 50: input should be less than or equal to 10"),
        ('model = "ngram"\nsmoothing = "add-k"\nadd_k = inf', "--add-k inf: input should be a finite number"),
    ],
)
def test_a_wrong_file_of_options(
    capsys: pytest.CaptureFixture[str], folder: Path, text: str, message: str
) -> None:
    Path("run.toml").write_text(text)
    assert message in told(capsys, str(folder), "--config", "run.toml", "--dry-run")


def test_zarembas_small_lstm_in_plain_options(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    flags = (
        "--model lstm --nhid 200 --emsize 200 --nlayers 2 --dropout 0 --optimizer sgd --loss sum --lr 1 "
        "--clip 5 --bptt 20 --batch-size 20 --schedule zaremba --decay 2 --decay-after 4 --epochs 13 "
        "--init-scale 0.1"
    )
    document = as_json(capsys, str(folder), *flags.split(), "--dry-run")
    size = document["vocabulary"]
    layer = 4 * 200 * (200 + 200 + 2)
    assert document["parameters"] == size * 200 + 2 * layer + 200 * size + size
    assert (
        document["training"] | {"optimizer": "sgd", "loss": "sum", "lr": 1.0, "clip": 5.0}
        == document["training"]
    )
    assert not list(Path.cwd().iterdir())


def test_word_vectors_are_where_it_starts(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    Path("vectors.txt").write_text("2 4\ncat 1 2 3 4\nmat 5 6 7 8\n")
    flags = ("--vectors", "vectors.txt", "--optimizer", "sgd", "--lr", "1e-30", "--save", "run")
    as_json(capsys, str(folder), *SMALL, *flags)
    model: Any = load_model("run")
    assert model.embedding.weight[model.vocabulary.id("mat")].tolist() == [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--model", "ngram", "--nhid", "5"), "--model ngram has no --nhid"),
        (("--model", "lstm", "--order", "5"), "--model lstm has no --order"),
        (("--model", "lstm", "--window", "3"), "--model lstm has no --window"),
        (("--model", "feedforward", "--nlayers", "3"), "--model feedforward has no --nlayers"),
        (("--model", "ngram", "--lr", "1"), "an n-gram is counted, not trained: it has no --lr"),
        (("--model", "ngram", "--smoothing", "add-k", "--prune", "1"), "add-k is not pruned"),
        (("--model", "ngram", "--add-k", "1"), "kneser-ney adds nothing"),
        (("--model", "ngram", "--vectors", "v.txt"), "takes neither --vectors nor --resume"),
        (("--model", "gru", "--forget-bias", "1"), "a gru has no forget gate"),
        (("--tied", "--emsize", "4"), "tied weights need equal sizes"),
        (("--bptt", "5", "--update-interval", "9"), "update_interval=9 is longer than bptt=5"),
        (("--momentum", "0.9"), "momentum is of sgd"),
        (("--batch-size", "100000"), "--batch-size 100000"),
        (("--batch-size", "9000"), "fewer than batch_size=9000"),
        (("--lr", "0"), "lr"),
        (("--epochs", "many"), "epochs"),
        (("--nhidd", "5"), "--nhid"),
        (("--resume",), "--resume needs the folder of the run"),
        (("--config", "none.toml"), "none.toml: cannot be read"),
        (("--vectors", "none.txt"), "none.txt"),
    ],
)
def test_wrong_options(
    capsys: pytest.CaptureFixture[str], folder: Path, flags: tuple[str, ...], message: str
) -> None:
    assert message in told(capsys, str(folder), *flags)


def test_a_folder_in_use_is_refused_until_told(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    ngram = ("--model", "ngram", "--order", "2")
    assert run_cli("train", str(folder), *ngram, "--save", "run") == 0
    for flags in (ngram, SMALL):
        message = told(capsys, str(folder), *flags, "--save", "run")
        assert "run is not empty" in message
        assert "--overwrite" in message
    assert run_cli("train", str(folder), *SMALL, "--save", "run", "--overwrite") == 0
    assert type(load_model("run")).__name__ == "RecurrentModel"
    assert run_cli("train", str(folder), *ngram, "--save", "run", "--overwrite") == 0
    assert type(load_model("run")).__name__ == "NgramModel"
    Path("run/notes.txt").write_text("mine")
    assert "notes.txt" in told(capsys, str(folder), *ngram, "--save", "run", "--overwrite")


def test_help_is_grouped_and_needs_no_torch() -> None:
    code = (
        "import sys, elman.cli.train; from elman.cli.app import app; "
        "app(['train', '--help']); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for word in (
        "Model",
        "Training",
        "Text",
        "Output",
        "--nhid",
        "--update-interval",
        "Zaremba's small LSTM",
    ):
        assert word in done.stdout


def test_a_place_that_cannot_be_used_is_told_before_the_text_is_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.txt").write_text("mine")
    message = told(capsys, "no-such-corpus", "--save", "one.txt")
    assert "one.txt is a file" in message
    Path("kept").mkdir()
    Path("kept/notes.txt").write_text("mine")
    assert "kept is not empty" in told(capsys, "no-such-corpus", "--save", "kept")


def test_a_folder_that_never_got_weights_may_be_used_again(tmp_path: Path) -> None:
    from elman.errors import OptionError
    from elman.run_folder import LOCK, LOG, OPTIONS, require_empty

    for name in (LOCK, LOG, OPTIONS):  # what is left when a full disk stops the first checkpoint
        (tmp_path / name).write_text("{}")
    require_empty(tmp_path)
    (tmp_path / "latest").write_text("step-000000")
    with pytest.raises(OptionError, match="not empty"):
        require_empty(tmp_path)


def test_what_is_unknown_in_training_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.txt").write_text("".join(f"the cat sat on mat {at}\n" for at in range(40)))
    document = as_json(capsys, "t.txt", "--model", "ngram", "--order", "2")
    assert (document["trained_unknown"], document["training_events"]) == (36, 36 * 7)
    assert document["kept"] == "words seen more than once"
    err = told(capsys, "t.txt", "--model", "ngram", code=0)
    assert "vocabulary 7: words seen more than once; 36 of the 252 training events (14.3%) are <unk>" in err
    whole = ("--vocabulary-size", "0", "--min-count", "1")
    err = told(capsys, "t.txt", "--model", "ngram", *whole, "--save", "whole", code=0)
    assert "vocabulary 43: all words of the training text; no training event is <unk>" in err
    assert load_model("whole").vocabulary.trained_unknown == 0


@pytest.mark.parametrize("backend", ["auto", "fused", "torch", "reference"])
def test_every_backend_can_be_chosen(capsys: pytest.CaptureFixture[str], folder: Path, backend: str) -> None:
    from elman.kernels import native

    flags = (str(folder), *SMALL, "--backend", backend, "--max-steps", "2")
    if backend == "fused" and not native.available():
        assert "the fused kernels are not there" in told(capsys, *flags)
        return
    assert run_cli("train", *flags, "--save", "run") == 0
    if backend != "auto":
        assert f"(kernels: {native.running()})" in capsys.readouterr().out
    assert load_model("run").config.backend == backend  # type: ignore[attr-defined]


def test_what_is_done_otherwise_than_it_sounds_is_told(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from elman.kernels import native

    flags = (str(folder), *SMALL, "--max-steps", "2", "--precision", "bf16")
    assert run_cli("train", *flags) == 0
    err = " ".join(capsys.readouterr().err.split())
    assert "--max-steps 2 cuts the cosine schedule short: it is planned for the" in err
    rounds = not native.available() or native.require().bf16_is_faster()
    assert ("compute in float32 all the same" in err) == (not rounds)
    assert run_cli("train", *flags, "--backend", "torch", "--schedule", "constant") == 0
    assert "note: --" not in capsys.readouterr().err
