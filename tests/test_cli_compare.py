"""`elman compare` end to end on the standard library's text, and what it says to mistakes."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import elman.cli.compare as verb
import elman.cli.evaluate
import elman.cli.train
from elman.checkpoint import load_model, save_model
from elman.cli import app
from elman.compare import contest, lineup
from elman.compare.contest import Begun
from elman.compare.lineup import Spec
from elman.errors import DivergenceError
from elman.evaluate import event_nats
from elman.text.corpus import TextSettings, encode_text, load_corpus

TRAINING = {"optimizer": "adam", "lr": 5e-3, "epochs": 1, "max_steps": 9, "batch_size": 16, "bptt": 9}
SIZES = {"embedding_size": 7, "hidden_size": 7}
TINY = (
    Spec("unigram", "Unigram", "ngram", {"smoothing": "kneser-ney", "order": 1}),
    Spec("kn5", "Kneser-Ney 3", "ngram", {"smoothing": "kneser-ney", "order": 3}),
    Spec("lstm", "LSTM", "recurrent", {"cell": "lstm", "num_layers": 1, **SIZES}, TRAINING),
    Spec("lstm-kn5", "LSTM + Kneser-Ney 3", "mixture", parts=("lstm", "kn5")),
)
TEXT = "the function returns a string .\n\nit is a list of names\nthe object is used when called\n" * 9


@dataclass
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def elman(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> object:
    """Runs the command in an empty folder with the tiny line-up as the quick preset."""
    monkeypatch.setitem(lineup.PRESETS, "quick", TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> Ran:
        with pytest.raises(SystemExit) as ended:
            app.main(["compare", *arguments])
        caught = capsys.readouterr()
        return Ran(int(ended.value.code or 0), caught.out, caught.err)

    return run


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two saved models and a text."""
    folder = tmp_path_factory.mktemp("saved")
    corpus = load_corpus("pydoc", cache=folder / "cache")
    for event in contest.run(corpus, TINY[1:3], contest.Settings()):
        if isinstance(event, contest.Finished):
            save_model(event.outcome.model, folder / event.outcome.spec.name)
    (folder / "text.txt").write_text(TEXT)
    return folder


def test_the_whole_ladder(elman, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    ran = elman("pydoc", "--preset", "quick", "--save", "runs")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:5]] == [spec.label for spec in TINY]
    assert all(len(line) <= 80 for line in lines[:5])
    assert "LSTM is" in ran.out
    assert "Kneser-Ney 3" in ran.out
    assert "How it was counted" in ran.out
    table = ran.out[ran.out.index("unknown words") :].splitlines()
    assert [line.split("  ")[0] for line in table[1:5]] == [spec.label for spec in TINY]
    assert all(len(line) <= 80 for line in table[:5])
    corpus = load_corpus("pydoc")  # its text differs a little between versions of Python
    unknown, events = corpus.train.unknown, corpus.train.events
    assert unknown > 500
    assert f"In training {unknown:,} of {events:,} events were ({unknown / events:.1%})." in ran.out
    assert f"words seen more than once; {unknown:,} of the {events:,} training events" in " ".join(
        ran.err.split()
    )
    assert "\x1b" not in ran.out
    document = json.loads((tmp_path / "runs" / "comparison.json").read_text())
    assert [entry["name"] for entry in document["entries"]] == [spec.name for spec in TINY]
    assert document["subject"]["trained_unknown"] == unknown
    row, score = table[1].split(), document["entries"][0]["row"]["score"]
    assert row[1:3] == [f"{score['unknown'] / score['events']:.1%}", f"{score['unknown_share']:.1%}"]
    assert float(row[3]) == pytest.approx(score["known_perplexity"], abs=0.05)
    assert (tmp_path / "runs" / "elman-report.html").read_text().startswith("<!doctype html>")
    assert "Report: runs/elman-report.html" in ran.err
    again = elman("pydoc", "--preset", "quick", "--save", "runs", "--json", "--no-report")
    second = json.loads(again.out)
    assert second["report"] is None
    assert [entry["row"] for entry in second["entries"]] == [entry["row"] for entry in document["entries"]]
    assert "(1 of" not in again.err, "nothing is trained twice"


def test_some_models_without_a_report(elman, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    ran = elman("pydoc", "--preset", "quick", "--models", "unigram, kn5", "--no-report", "--unknown", "skip")
    assert ran.code == 0, ran.err
    assert "LSTM" not in ran.out
    assert "left out of the count" in ran.out
    assert not list(tmp_path.iterdir())


def test_ctrl_c_keeps_what_is_done(elman, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    original = contest.run

    def interrupted(*arguments: object):  # type: ignore[no-untyped-def]
        for event in original(*arguments):  # type: ignore[arg-type]
            if isinstance(event, Begun) and event.spec.name == "lstm":
                raise KeyboardInterrupt
            yield event

    monkeypatch.setattr(contest, "run", interrupted)
    ran = elman("pydoc", "--preset", "quick", "--report", "page.html")
    assert ran.code == 0
    assert "Stopped by Ctrl-C" in ran.out
    assert "Kneser-Ney 3" in ran.out
    assert Path("page.html").is_file()


def test_saved_models_on_a_text(elman, saved: Path) -> None:  # type: ignore[no-untyped-def]
    models = [f"counted={saved / 'kn5'}", str(saved / "lstm")]
    ran = elman(*models, "--text", str(saved / "text.txt"), "--json", "--no-report")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert [entry["name"] for entry in document["entries"]] == ["counted", "lstm"]
    for entry, name in zip(document["entries"], ("kn5", "lstm"), strict=True):
        model = load_model(saved / name)
        text = encode_text(saved / "text.txt", model.tokenizer, model.vocabulary)
        nats = np.concatenate(list(event_nats(model, text)))
        assert entry["row"]["score"]["nats"] == pytest.approx(float(nats.sum()), rel=1e-6)
    assert document["entries"][1]["reset"] is not None
    assert document["baseline"] == "counted"


def test_a_corpus_name_is_its_test_part(elman, saved: Path) -> None:  # type: ignore[no-untyped-def]
    ran = elman(str(saved / "kn5"), "--text", "pydoc", "--no-report")
    assert ran.code == 0, ran.err
    assert "2,193 events" in ran.out or "events in" in ran.out


def scores(saved: Path, wrong: bool = False) -> str:
    """The counted model's own scores as an outside tool would write them."""
    model = load_model(saved / "kn5")
    text = encode_text(saved / "text.txt", model.tokenizer, model.vocabulary)
    nats = np.concatenate(list(event_nats(model, text)))
    tokens = [model.vocabulary.token(int(id)) for id in text.ids]
    if wrong:
        tokens[2] = "returned"
    return "".join(f"{token}\t{-value:.12g}\n" for token, value in zip(tokens, nats, strict=True))


def test_scores_of_another_program(elman, saved: Path) -> None:  # type: ignore[no-untyped-def]
    Path("other.tsv").write_text(scores(saved))
    text = str(saved / "text.txt")
    ran = elman(str(saved / "kn5"), "--text", text, "--scores", "other=other.tsv", "--json", "--no-report")
    assert ran.code == 0, ran.err
    mine, theirs = json.loads(ran.out)["entries"]
    assert theirs["kind"] == "outside"
    assert theirs["row"]["figure"] == pytest.approx(mine["row"]["figure"], rel=1e-9)
    Path("other.tsv").write_text(scores(saved, wrong=True))
    ran = elman(str(saved / "kn5"), "--text", text, "--scores", "other=other.tsv", "--no-report")
    assert ran.code == 2
    assert "line 3: token 'returned' where the text has 'returns'" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sotu-modem"], "sotu-modern"),
        (["none.txt"], "none.txt does not exist"),
        (["pydoc", "kjv"], "2 corpora are given: pydoc, kjv"),
        (["SAVED/kn5"], "is a saved model, but no text is given"),
        (["--text", "SAVED/text.txt"], "--text is given, but no model"),
        (["SAVED/none", "--text", "SAVED/text.txt"], "does not exist"),
        (["SAVED/kn5", "--text", "SAVED/none.txt"], "none.txt does not exist"),
        (["SAVED/kn5", "SAVED/kn5", "--text", "SAVED/text.txt"], "two models are called 'kn5'"),
        (["SAVED/kn5", "--text", "SAVED/text.txt", "--save", "x"], "--save belongs to training"),
        (["SAVED/kn5", "--text", "SAVED/text.txt", "--scores", "x.tsv"], "--scores 'x.tsv' has no name"),
        (["SAVED/kn5", "--text", "SAVED/text.txt", "--baseline", "x"], "the baseline 'x' is not among"),
        (["pydoc", "--preset", "quick", "--models", "lsmt"], "perhaps you meant lstm"),
        (["pydoc", "--preset", "quick", "--baseline", "kn4"], "--baseline 'kn4' is not among the models"),
        (["pydoc", "--preset", "fast"], "fast"),
        (["pydoc", "--split", "test"], "--split is of a text for saved models"),
        (["SAVED/kn5", "--text", "SAVED/text.txt", "--min-count", "3"], "--min-count belongs to training"),
        (["pydoc", "--bootstrap", "3"], "--bootstrap 3 is out of range"),
        (["pydoc", "--seed", "-1"], "--seed -1 is out of range"),
        (["pydoc", "--report", "SAVED"], "is a folder"),
        (["pydoc", "--report", "nowhere/page.html"], "cannot be written to nowhere/page.html"),
        (["pydoc", "--save", "SAVED/text.txt"], "text.txt cannot be made"),
    ],
)
def test_mistakes_are_told(elman, saved: Path, arguments: list[str], message: str) -> None:  # type: ignore[no-untyped-def]
    ran = elman(*(argument.replace("SAVED", str(saved)) for argument in arguments))
    assert ran.code == 2
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert not ran.out


def test_help_shows_examples(elman) -> None:  # type: ignore[no-untyped-def]
    ran = elman("--help")
    assert ran.code == 0
    assert "elman compare --preset quick" in ran.out + ran.err
    assert verb.DEFAULT_CORPUS in ran.out + ran.err


def novel(path: Path) -> Path:
    """A text with words that are frequent, rare and new."""
    draw = np.random.default_rng(6)
    rows = (" ".join(f"w{rank}" for rank in draw.zipf(1.5, 9)) for _ in range(300))
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_file_that_was_split_is_scored_on_its_test_part(elman, capsys) -> None:  # type: ignore[no-untyped-def]
    text = str(novel(Path("novel.txt")))
    with pytest.raises(SystemExit):
        app.main(["train", text, "--model", "ngram", "--order", "2", "--save", "kn2", "--json"])
    trained = json.loads(capsys.readouterr().out)
    with pytest.raises(SystemExit):
        app.main(["evaluate", "kn2", text, "--json"])
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["split"] == "test"
    assert "was split for training" in evaluated["notes"][0]
    assert evaluated["models"][0]["scores"][0]["perplexity"] == pytest.approx(trained["test"]["perplexity"])
    ran = elman("kn2", "--text", text, "--json", "--no-report")
    document = json.loads(ran.out)
    assert document["entries"][0]["row"]["figure"] == pytest.approx(trained["test"]["perplexity"])
    assert document["subject"]["origin"] == "test part of file novel.txt"
    assert "was split for training" in document["notes"][0]
    assert "note: novel.txt was split for training" in ran.err
    for split, events in (("whole", 3000), ("train", 2700), ("valid", 150)):
        ran = elman("kn2", "--text", text, "--split", split, "--json", "--no-report")
        assert json.loads(ran.out)["subject"]["events"] == events


def test_the_line_up_takes_the_text_options(elman, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    text = str(novel(Path("novel.txt")))
    options = ("--preset", "quick", "--models", "kn5,lstm", "--jobs", "2", "--json", "--no-report")
    ran = elman(text, *options, "--vocabulary-size", "20")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert document["subject"]["vocabulary"] == 20
    ran = elman(text, *options, "--tokenizer", "characters", "--save", "runs")
    assert json.loads(ran.out)["protocol"]["unit"] == "character"
    ran = elman(text, *options, "--min-count", "5")
    counts = load_corpus(text, TextSettings(min_count=5)).vocabulary
    assert json.loads(ran.out)["subject"]["vocabulary"] == len(counts) < 100


def test_each_process_of_a_line_up_reads_the_text_as_told(elman, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    three = (*TINY, Spec("gru", "GRU", "recurrent", {"cell": "gru", "num_layers": 1, **SIZES}, TRAINING))
    monkeypatch.setitem(lineup.PRESETS, "quick", three)
    text = str(novel(Path("novel.txt")))
    options = ("--preset", "quick", "--models", "lstm,gru", "--json", "--no-report")
    ran = elman(text, *options, "--jobs", "2", "--vocabulary-size", "20")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["subject"]["vocabulary"] == 20


def test_a_text_on_standard_input(elman, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    models = [str(saved / "kn5"), str(saved / "lstm")]
    file = json.loads(elman(*models, "--text", str(saved / "text.txt"), "--json", "--no-report").out)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    piped = json.loads(elman(*models, "--text", "-", "--json", "--no-report").out)
    assert piped["entries"][0]["row"] == file["entries"][0]["row"]
    assert piped["subject"]["digest"] == file["subject"]["digest"]


@pytest.mark.parametrize("text", ["the cat sat\non the mat\nthe dog ran\n", "a b c\n" * 30])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_tiny_text_trains_every_model(elman, monkeypatch, text: str, jobs: str) -> None:  # type: ignore[no-untyped-def]
    """A preset's 64 columns are more than such a text has events; no option of compare could help."""
    wide = {**TRAINING, "batch_size": 64}
    line_up = [Spec(s.name, s.label, s.kind, s.options, wide if s.training else {}, s.parts) for s in TINY]
    gru = Spec("gru", "GRU", "recurrent", {"cell": "gru", "num_layers": 1, **SIZES}, wide)
    monkeypatch.setitem(lineup.PRESETS, "quick", (*line_up[:3], gru, line_up[3]))
    Path("tiny.txt").write_text(text)
    ran = elman("tiny.txt", "--preset", "quick", "--jobs", jobs, "--json", "--no-report")
    assert ran.code == 0, ran.err
    entries = {entry["name"]: entry for entry in json.loads(ran.out)["entries"]}
    assert list(entries) == ["unigram", "kn5", "lstm", "gru", "lstm-kn5"]
    events = load_corpus("tiny.txt").train.events
    assert entries["lstm"]["details"]["batch size"] == str(max(1, events // 20))


def test_an_error_keeps_the_rows_that_are_done(elman, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    original = contest.run

    def failing(*arguments: object):  # type: ignore[no-untyped-def]
        for event in original(*arguments):  # type: ignore[arg-type]
            if isinstance(event, Begun) and event.spec.name == "lstm":
                raise DivergenceError("the loss is NaN.", remedy="wait for better weather.")
            yield event

    monkeypatch.setattr(contest, "run", failing)
    ran = elman("pydoc", "--preset", "quick", "--save", "runs")
    assert ran.code == 2
    assert "the loss is NaN.\nRemedy: wait for better weather." in ran.err
    assert "Stopped by an error: the loss is NaN. The models" in ran.out
    assert [line.split("  ")[0] for line in ran.out.splitlines()[1:3]] == ["Unigram", "Kneser-Ney 3"]
    assert "How it was counted" in ran.out
    document = json.loads(Path("runs/comparison.json").read_text())
    assert [entry["name"] for entry in document["entries"]] == ["unigram", "kn5"]
    monkeypatch.setattr(contest, "run", lambda *_: (_ for _ in ()).throw(DivergenceError("nothing went.")))
    ran = elman("pydoc", "--preset", "quick")
    assert (ran.code, ran.out) == (2, "")
    assert "nothing went." in ran.err
