"""`elman score`: rows of surprisals() as TSV, JSONL and JSON; live from a pipe; what bad input is told."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
import textwrap
from pathlib import Path

import pytest

import elman.cli.evaluate  # noqa: F401
from elman.checkpoint import load_model
from elman.surprisal import SentenceSurprisal, surprisals
from table_model import close as exactly_close
from table_model import run_cli, save_small_models

LINES = ["the cat sat on the zebra", "", "a mat\\ of\tthe cat", "the dog"]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("score")
    save_small_models(folder)
    (folder / "text.txt").write_text("\n".join(LINES), "utf-8")
    return folder


@pytest.fixture(autouse=True)
def _inside(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(room)


def close(left: float, right: float) -> bool:
    """Equal in float32: a recurrent model's sums differ in the last place with where its arrays lie."""
    return exactly_close(left, right, relative=1e-6)


def expected(model: str = "words", state: str = "reset") -> list[SentenceSurprisal]:
    return list(surprisals(load_model(model), LINES, state=state))  # type: ignore[arg-type]


def table(out: str) -> list[dict[str, str]]:
    """By Python's own reader of CSV."""
    return list(csv.DictReader(io.StringIO(out, newline=""), delimiter="\t", strict=True))


@pytest.mark.parametrize("state", ["reset", "carry"])
@pytest.mark.parametrize("model", ["words", "letters", "prose"])
def test_tsv_has_a_row_for_each_token(model: str, state: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("score", model, "text.txt", "--state", state) == 0
    out, err = capsys.readouterr()
    rows = table(out)
    flat = [(each, token) for each in expected(model, state) for token in each.tokens]
    assert len(rows) == len(flat)
    for row, (sentence, token) in zip(rows, flat, strict=True):
        assert (row["line"], row["sentence"]) == (str(sentence.line), str(sentence.sentence))
        assert float(row["bits"]) == pytest.approx(token.bits, rel=1e-6, abs=1e-6)
        assert row["unknown"] == str(int(token.unknown))
        assert sentence.text[int(row["start"]) : int(row["end"])] == token.text
    assert f"state={state}, </s> counted: {len(expected(model))} sentences" in err


def test_tsv_fields_are_what_stood_in_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("score", "letters", "text.txt") == 0
    third = [row for row in table(capsys.readouterr().out) if row["line"] == "3"]
    assert [row["text"] for row in third[4:7]] == ["t", "\\", " "]
    assert third[9]["text"] == "\t"
    assert run_cli("score", "words", "text.txt", "--per", "sentence") == 0
    assert table(capsys.readouterr().out)[2]["text"] == "a mat\\ of\tthe cat"


@pytest.mark.parametrize("unknown", ["word", "skip"])
def test_sentences_have_their_log_probabilities(unknown: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--per", "sentence", "--format", "jsonl", "--unknown", unknown)
    assert run_cli("score", "words", "text.txt", *options) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for row, sentence in zip(rows, expected(), strict=True):
        kept = [token for token in sentence.tokens if unknown == "word" or not token.unknown]
        nats = math.fsum(token.nats for token in kept)
        assert row["events"] == len(kept)
        assert row["unknown"] == sentence.unknown
        assert close(row["ln"], -nats)
        assert close(row["log10"], -nats / math.log(10))
        assert close(row["bits"], nats / math.log(2))


def test_skipped_unknowns_have_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("score", "words", "text.txt", "--unknown", "skip") == 0
    out, err = capsys.readouterr()
    assert all((row["bits"] == "") == (row["unknown"] == "1") for row in table(out))
    assert "unknown=skip" in err
    assert run_cli("score", "words", "text.txt", "--unknown", "skip", "--format", "jsonl") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["token"] for row in rows if row["bits"] is None] == ["zebra", "mat\\", "dog"]


def test_words_of_a_character_model_are_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("score", "letters", "text.txt", "--per", "word") == 0
    rows = table(capsys.readouterr().out)
    assert [row["word"] for row in rows if row["line"] == "1"] == [*LINES[0].split(), "</s>"]
    flat = [word for sentence in expected("letters") for word in sentence.words()]
    assert [float(row["bits"]) for row in rows] == pytest.approx([word.bits for word in flat], rel=1e-6)


@pytest.mark.parametrize("unknown", ["word", "skip"])
def test_json_is_one_document_with_totals(unknown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("score", "words", "text.txt", "--json", "--unknown", unknown) == 0
    document = json.loads(capsys.readouterr().out)
    sentences = expected()
    assert document["sentences"] == 4
    assert document["unknown"] == 3
    nats = sum(each.nats if unknown == "word" else each.known_nats for each in sentences)
    assert close(document["nats"], nats)
    assert document["events"] == len(document["rows"]) - (3 if unknown == "skip" else 0)
    assert document["perplexity"] == pytest.approx(math.exp(nats / document["events"]))
    assert document["protocol"] == f"per word, unknown={unknown}, state=reset, </s> counted"


class Pipe(io.RawIOBase):
    """Standard input of which one line comes at a time; notes what was on stdout before each."""

    def __init__(self, lines: list[str], stdout: io.StringIO) -> None:
        self.lines, self.stdout, self.before = list(lines), stdout, list[int]()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        self.before.append(self.stdout.getvalue().count("</s>"))
        piece = (self.lines.pop(0) + "\n").encode() if self.lines else b""
        buffer[: len(piece)] = piece
        return len(piece)


def live(monkeypatch: pytest.MonkeyPatch) -> tuple[Pipe, str]:
    out = io.StringIO()
    pipe = Pipe(LINES, out)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(pipe)))
    monkeypatch.setattr(sys, "stdout", out)
    assert run_cli("score", "words", "-") == 0
    return pipe, out.getvalue()


def test_standard_input_gives_the_rows_of_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("score", "words", "text.txt") == 0
    rows = table(capsys.readouterr().out)
    found = table(live(monkeypatch)[1])
    assert [{**row, "bits": ""} for row in found] == [{**row, "bits": ""} for row in rows]
    for row, other in zip(found, rows, strict=True):
        assert close(float(row["bits"]), float(other["bits"]))


def test_each_line_is_answered_before_the_next_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, _ = live(monkeypatch)
    assert pipe.before[:5] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arguments", "stdin", "told"),
    [
        (("missing", "text.txt"), b"", "missing does not exist"),
        (("words", "missing.txt"), b"", "missing.txt does not exist"),
        (("words", "-"), b"", "standard input is empty"),
        (("words", "-"), b"\xff\xfet\0h\0e\0\n\0", "standard input is UTF-16 text"),
        (("words", "-"), b"the c\0at\n", "line 1, byte 5: a NUL byte"),
        (("words", "-"), b"the cat\ncaf\xe9\n", "line 2, byte 11: 0xE9 is not UTF-8"),
        (("words", "-"), b"the </s>\n", "standard input, line 1: the word </s> is a mark of Elman's own"),
        (("words", "."), b"", "is a folder, not a text file"),
        (("words", "text.txt", "--per", "letter"), b"", "Invalid value"),
        (("words", "text.txt", "--format", "csv"), b"", "Invalid value"),
        (("words", "text.txt", "--state", "both"), b"", "Invalid value"),
        (("words", "text.txt", "--unit", "word"), b"", "Unknown option: --unit"),
        (("words",), b"", "requires an argument"),
    ],
)
def test_bad_input_is_told(
    arguments: tuple[str, ...],
    stdin: bytes,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    assert run_cli("score", *arguments) == 2
    err = capsys.readouterr().err
    assert told in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


@pytest.mark.parametrize("bad", ["a </s> b", "caf\udce9", "a \0 b"])
def test_good_lines_are_printed_before_a_bad_one_is_told(
    bad: str, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (room / "bad.txt").write_bytes(("the cat\n" * 200 + bad + "\nthe cat\n").encode(errors="surrogateescape"))
    assert run_cli("score", "words", "bad.txt") == 2
    out, err = capsys.readouterr()
    assert len(table(out)) == 600
    assert "line 201" in err
    assert "bad.txt" in err
    assert "Traceback" not in err


def test_wrapped_lines_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    words = "The cat sat on the old mat, and a dog that was not there before looked on. "
    Path("novel.txt").write_text("\n\n".join(textwrap.fill(words * n, 60) for n in range(3, 40)) + "\n")
    assert run_cli("score", "words", "novel.txt", "--per", "sentence") == 0
    assert "look wrapped at 60 columns, and each was scored as a sentence" in capsys.readouterr().err
    assert run_cli("score", "words", "text.txt") == 0
    assert "wrapped" not in capsys.readouterr().err
