"""`elman evaluate`: the numbers of evaluate(), the protocol above them, and what bad input is told."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

import elman.cli.evaluate  # noqa: F401
from elman.checkpoint import load_model, save_model
from elman.evaluate import evaluate
from elman.text.corpus import encode_string
from elman.text.vocabulary import Vocabulary
from table_model import close, run_cli, save_small_models

TEXT = "the cat sat on the zebra\n\na mat of the cat\nthe dog sat\non a mat\n"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    save_small_models(folder)
    (folder / "text.txt").write_text(TEXT, "utf-8")
    (folder / "corpus").mkdir()
    for split, extra in (("train", "the cat\n"), ("valid", "a mat\n"), ("test", "of the cat\n")):
        (folder / "corpus" / f"{split}.txt").write_text(TEXT + extra, "utf-8")
    return folder


@pytest.fixture(autouse=True)
def _inside(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(room)


def printed_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert run_cli("evaluate", *arguments, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


def test_json_holds_the_scores_of_evaluate(capsys: pytest.CaptureFixture[str]) -> None:
    model = load_model("words")
    text = encode_string(TEXT, model.tokenizer, model.vocabulary)
    document = printed_json(capsys, "words", "text.txt", "--state", "both", "--unknown", "both")
    (entry,) = document["models"]  # type: ignore[misc]
    assert entry["sentences"] == 5
    protocols = [("carry", "word"), ("carry", "skip"), ("reset", "word"), ("reset", "skip")]
    assert len(entry["scores"]) == 4
    for (state, unknown), found in zip(protocols, entry["scores"], strict=True):
        expected = evaluate(model, text, state=state, unknown=unknown).as_json()  # type: ignore[arg-type]
        assert found["protocol"] == expected["protocol"]
        assert (found["events"], found["unknown"]) == (expected["events"], 2)
        assert close(found["nats"], expected["nats"], relative=1e-6)  # type: ignore[arg-type]
        for table in ("by_frequency", "by_position"):
            assert sum(bucket["events"] for bucket in found[table]) == found["events"]


def test_the_table_says_how_it_was_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("ppl", "words", "text.txt", "--state", "both") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "text.txt: 5 sentences, 17 words, 64 bytes"
    assert lines[1] == "per word, unknown=word, state=carry, </s> counted"
    assert lines[2] == "per word, unknown=word, state=reset, </s> counted"
    assert lines[4].replace("per word", "per-word").split() == [
        *("model", "unit", "state", "unknown", "perplexity", "per-word", "bits/byte", "events", "<unk>"),
        *("of", "nats", "without"),
    ]
    assert [line.split()[:4] for line in lines[5:]] == [
        ["words", "word", "carry", "word"],
        ["words", "word", "reset", "word"],
    ]
    assert "words: 2 of 22 events (9.1 %) are <unk> and count like a word" in err


def test_skipped_unknowns_are_labelled_and_give_no_figure_per_word(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_cli("evaluate", "words", "text.txt", "--unknown", "skip") == 0
    out, err = capsys.readouterr()
    *row, without = out.splitlines()[-1].split()[4:]
    assert row == [without, "-", "-", "20", "2", "-"]
    assert 'left out: "excluding OOVs"' in err
    (entry,) = printed_json(capsys, "words", "text.txt", "--unknown", "skip")["models"]  # type: ignore[misc]
    (found,) = entry["scores"]
    assert (found["word_perplexity"], found["bits_per_byte"]) == (None, None)  # JSON says what the table says


def test_what_unknown_words_take_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    model = load_model("words")
    text = encode_string(TEXT, model.tokenizer, model.vocabulary)
    whole, known = (evaluate(model, text, unknown=policy) for policy in ("word", "skip"))  # type: ignore[arg-type]
    assert run_cli("evaluate", "words", "text.txt") == 0
    share = 1 - known.nats / whole.nats
    assert capsys.readouterr().out.splitlines()[-1].split()[-2:] == [
        f"{share:.1%}",
        f"{known.perplexity:,.2f}",
    ]
    Path("known.txt").write_text("the cat sat\n", "utf-8")
    assert run_cli("evaluate", "words", "known.txt") == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[-1] == "0"  # no such columns without any
    (entry,) = printed_json(capsys, "words", "text.txt")["models"]  # type: ignore[misc]
    assert entry["scores"][0]["known_perplexity"] == pytest.approx(known.perplexity, rel=1e-6)
    assert entry["scores"][0]["unknown_share"] == pytest.approx(share, rel=1e-5)


@pytest.mark.parametrize(("counts", "why"), [("zero", "never seen in its training"), (None, "does not tell")])
def test_a_model_that_never_learned_the_unknown_is_told(
    counts: str | None, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model("words")
    tokens = model.vocabulary.tokens
    model.vocabulary = Vocabulary(tokens, [0] + [3] * (len(tokens) - 1) if counts else None)
    save_model(model, Path(f"untrained-{counts}"))
    assert run_cli("evaluate", f"untrained-{counts}", "words", "text.txt") == 0
    err = " ".join(capsys.readouterr().err.split())
    assert f"untrained-{counts}: " in err
    assert why in err
    assert "pays for the 2 unknown words" in err
    assert " words: <unk>" not in err  # the other model did
    for quiet in (("known.txt",), ("text.txt", "--unknown", "skip")):
        Path("known.txt").write_text("the cat sat\n", "utf-8")
        assert run_cli("evaluate", f"untrained-{counts}", *quiet) == 0
        assert why not in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("models", "note"),
    [
        (("words", "letters"), "different tokens: compare them per word and in bits per byte"),
        (("words", "wide"), "know different words"),
    ],
)
def test_models_that_count_different_events_are_told_apart(
    models: tuple[str, str], note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("evaluate", *models, "text.txt") == 0
    out, err = capsys.readouterr()
    assert note in err
    assert [line.split()[0] for line in out.splitlines()[-2:]] == list(models)
    assert run_cli("evaluate", "words", "text.txt") == 0
    assert note not in capsys.readouterr().err


def test_words_and_bytes_are_the_same_for_every_tokenizer(capsys: pytest.CaptureFixture[str]) -> None:
    document = printed_json(capsys, "words", "letters", "prose", "text.txt")
    counted = {
        (entry["scores"][0]["words"], entry["scores"][0]["bytes"])
        for entry in document["models"]  # type: ignore[attr-defined]
    }
    assert counted == {(17, 64)}


def test_bits_per_byte_of_less_than_the_text_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("evaluate", "words", "prose", "text.txt") == 0
    out, err = capsys.readouterr()
    words, prose = (line.split() for line in out.splitlines()[-2:])
    assert prose[6].endswith("*")
    assert not words[6].endswith("*")
    assert "* of less than the text, as the tokens do not tell all of it (blanks, and" in err
    document = printed_json(capsys, "words", "prose", "letters", "text.txt")
    flags = [entry["scores"][0]["protocol"]["normalized"] for entry in document["models"]]  # type: ignore[attr-defined]
    assert flags == [False, True, False]


def test_breakdown_prints_both_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("evaluate", "words", "text.txt", "--breakdown") == 0
    out = capsys.readouterr().out
    assert "training count" in out
    assert "place in sentence" in out
    assert "</s>" in out


@pytest.mark.parametrize(
    ("arguments", "events"),
    [
        (("corpus",), 26),
        (("corpus", "--split", "valid"), 25),
        (("corpus", "--split", "train"), 25),
        (("text.txt",), 22),
        (("text.txt", "--split", "train"), 14),  # 3 of 5 sentences, as training cuts them
        (("text.txt", "--split", "test"), 4),
    ],
)
def test_the_split_that_is_asked_for_is_scored(
    arguments: tuple[str, ...], events: int, capsys: pytest.CaptureFixture[str]
) -> None:
    document = printed_json(capsys, "words", *arguments)
    assert document["models"][0]["scores"][0]["events"] == events  # type: ignore[index]


def test_a_built_in_corpus_is_scored_on_its_test_split(capsys: pytest.CaptureFixture[str]) -> None:
    document = printed_json(capsys, "prose", "pydoc")
    assert document["models"][0]["scores"][0]["events"] > 500  # type: ignore[index]


@pytest.mark.parametrize("models", [("words",), ("words", "letters")])
def test_standard_input_is_read_once_for_all_models(
    models: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    document = printed_json(capsys, *models, "-")
    for entry in document["models"]:  # type: ignore[attr-defined]
        assert entry["scores"][0]["words"] == 17


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "at least one model and a text"),
        (("words",), "at least one model and a text"),
        (("words", "letters"), "letters is a model, not a text"),
        (("missing", "text.txt"), "missing does not exist"),
        (("text.txt", "text.txt"), "is a file that is not called .arpa"),
        (("words", "text.text"), "perhaps you meant"),
        (("words", "empty.txt"), "there is no word in it"),
        (("words", "utf16.txt"), "is UTF-16 text"),
        (("words", "marks.txt"), "</s> is a mark of Elman's own"),
        (("words", "text.txt", "--batch-size", "0"), "--batch-size 0 is out of range"),
        (("words", "text.txt", "--state", "kept"), "Invalid value"),
        (("words", "text.txt", "--unknown", "drop"), "Invalid value"),
        (("words", "corpus", "--split", "dev"), "Invalid value"),
        (("words", "text.txt", "--batches", "3"), "unknown option: --batches"),
        (("-", "text.txt"), "can be the text, not a model"),
        (("words", "only"), "has no train.txt"),
        (("words", "short.txt", "--split", "test"), "too few for train, valid and test"),
    ],
)
def test_bad_input_is_told(arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.txt").write_bytes(b"")
    Path("utf16.txt").write_bytes("the cat\n".encode("utf-16"))
    Path("marks.txt").write_text("the </s> cat\n", "utf-8")
    Path("short.txt").write_text("the cat\n", "utf-8")
    Path("only").mkdir(exist_ok=True)
    assert run_cli("evaluate", *arguments) == 2
    out, err = capsys.readouterr()
    assert told in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    assert out == ""
