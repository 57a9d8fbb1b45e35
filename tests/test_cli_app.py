"""The command line's frame: how mistakes are told, and what it does with odd streams."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from table_model import run_cli

ENTRY = "from elman.cli import main; main()"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """What `line` gives in a shell that knows `elman`."""
    given = {**os.environ, "ELMAN_ENTRY": ENTRY, "PY": sys.executable, **environment}
    line = f'elman() {{ "$PY" -c "$ELMAN_ENTRY" "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", line], env=given, capture_output=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--lr", "nan"), "--lr nan is out of range.\nRemedy: give a number above 0"),
        (("--nhid", "0"), "--nhid 0 is out of range.\nRemedy: give a whole number from 1"),
        (("--hidden-size", "0"), "--hidden-size 0 is out of range."),
        (("--epochs", "1.5"), "--epochs 1.5 is not a whole number."),
        (("--order", "11"), "--order 11 is out of range.\nRemedy: give a whole number from 1 to 10."),
        (("--prune", "0", "a"), "--prune a: input"),
        (("--optimizer", "x"), "--optimizer x: input should be 'sgd', 'adam' or 'adamw'."),
        (("--model", "transformer"), '"rnn-relu", "feedforward", "ngram".'),
        (("--nosuch", "3"), "Unknown option: --nosuch."),
        (("--lr",), "--lr requires an argument"),
        (("kjv",), "Unused Tokens: ['kjv']"),
    ],
)
def test_a_wrong_option_is_named_in_plain_lines(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run_cli("train", "pydoc", *arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Remedy: give a" in told or "Remedy: `elman train --help`" in told
    assert "pydantic" not in told
    assert "default factory" not in told


def test_flags_are_checked_together_only_with_the_file_of_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = tmp_path / "run.toml"
    options.write_text('bptt = 70\noptimizer = "sgd"\n')
    flags = ("--update-interval", "60", "--momentum", "0.9", "--dry-run")
    assert run_cli("train", "pydoc", "--config", str(options), *flags) == 0
    capsys.readouterr()
    assert run_cli("train", "pydoc", *flags) == 2
    assert "is longer than bptt=35" in capsys.readouterr().err


def test_a_locale_without_unicode() -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = shell("elman mix --help", **ascii_only)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "P = Σ wᵢ Pᵢ" in done.stdout.decode("utf-8")


def test_a_path_that_is_not_unicode_is_shown_byte_by_byte() -> None:
    done = shell(r"elman evaluate $'mod\xff' text")
    assert done.returncode == 2
    assert rb"mod\xff does not exist" in done.stderr


def test_closed_streams() -> None:
    done = shell("elman data - <&-")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"elman: standard input is closed.")
    done = shell("elman data --json >&-")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_once() -> None:
    done = shell("elman data --json > /dev/full")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "elman: No space left on device.",
        "Likely reason: the disk, or its quota, is full.",
        "Remedy: make room, or write to another place.",
    ]


def test_numbers_are_whole_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert run_cli("data", "pydoc", "--lines", "0") == 0
    assert "55,475" in capsys.readouterr().out


def test_a_beam_too_wide_to_end() -> None:
    from elman.beam import BeamSettings
    from elman.errors import OptionError

    with pytest.raises(OptionError, match="--beam 10,001 "):
        BeamSettings(beam=10_001)


VERBS = ("data", "train", "evaluate", "score", "compare", "generate", "mix", "inspect", "export")


@pytest.mark.parametrize("verb", VERBS)
def test_every_help_page_has_examples_to_copy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run_cli(verb, "--help") == 0
    page = capsys.readouterr().out
    assert f"elman {verb}" in page.partition("Examples:")[2]
    assert max(map(len, page.splitlines())) <= 80


@pytest.mark.parametrize("verb", ["inspect", "export"])
def test_a_model_is_an_argument_not_an_option(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert run_cli(verb, "--help") == 0
    assert "--model" not in capsys.readouterr().out


def test_brackets_in_a_path_are_printed_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = Path("a [bold] [", "red] [b.txt")  # the path as a whole holds a closing tag
    text.parent.mkdir()
    text.write_text("".join(f"a sentence of the year {year}\n" for year in range(1900, 1960)), "utf-8")
    assert run_cli("train", str(text), "--model", "ngram", "--order", "2", "--save", "m[red]/[/red]") == 0
    captured = capsys.readouterr()
    assert "saved in m[red]/[/red]" in captured.out
    assert str(text) in captured.err
