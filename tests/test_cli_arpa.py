"""ARPA files in every verb that takes them: notes on stderr, `--strict`, `--encoding`, packed ones."""

from __future__ import annotations

import bz2
import json
from pathlib import Path

import pytest

from table_model import run_cli
from test_arpa import SMALL

ODD = b"A model of the world\n" + SMALL.replace(b"\ta\t", b"   \xe9 ").replace(b"a b", b"\xe9 b").replace(
    b"<s> a", b"<s> \xe9"
)
NOTES = ("line 1: text before", "other blanks and tabs than usual", "do not sum to 1")
VERBS = {
    "evaluate": ["odd.arpa", "text.txt"],
    "score": ["odd.arpa", "text.txt"],
    "mix": ["odd.arpa", "odd.lm.bz2", "--tune", "text.txt"],
    "inspect": ["odd.arpa"],
    "export": ["odd.arpa", "again.arpa", "--overwrite"],
    "generate": ["odd.arpa", "--length", "3"],
    "trace": ["odd.arpa", "text.txt"],
    "memory": ["odd.arpa", "text.txt", "--histories", "1", "--histories", "2"],
    "memory connectivity": ["odd.arpa", "text.txt"],
    "compare": ["odd.arpa", "--text", "text.txt", "--no-report"],
    "explore": ["odd.arpa", "--export", "page.html"],
}


@pytest.fixture(autouse=True)
def _room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.arpa").write_bytes(ODD)
    (tmp_path / "odd.lm.bz2").write_bytes(bz2.compress(ODD))
    (tmp_path / "text.txt").write_text("é b é\nb é z\n\né\n" * 4, "utf-8")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_reads_tells_and_refuses(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*verb.split(), *VERBS[verb]]
    assert run_cli(*arguments, "--encoding", "latin-1") == 0
    out, err = capsys.readouterr()
    for note in NOTES:
        assert note in err
        assert note not in out or verb == "inspect"
    assert run_cli(*arguments, "--encoding", "latin-1", "--strict") == 2
    assert "--strict takes what KenLM takes, but nothing listed twice" in capsys.readouterr().err
    assert run_cli(*arguments) == 2
    assert "line 10" in (said := capsys.readouterr().err)
    assert "--encoding" in said


def test_notes_leave_json_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("evaluate", "odd.arpa", "text.txt", "--encoding", "latin-1", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["models"][0]["scores"][0]["unknown"] == 4
    assert "note: odd.arpa: line 1" in err


def test_sentences_without_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, more in (("one", ""), ("two", "-0.2 c\n")):
        words = f"-0.3 a\n-0.7 b\n-0.5 <UNK>\n{more}"
        data = f"\\data\\\nngram 1={3 + bool(more)}\n\n\\1-grams:\n{words}\n\\end\\\n"
        (tmp_path / f"{name}.arpa").write_text(data, "utf-8")
    (tmp_path / "ab.txt").write_text("a b\nb\n", "utf-8")
    assert run_cli("evaluate", "one.arpa", "ab.txt") == 0
    out, err = capsys.readouterr()
    assert "</s> not counted" in out
    assert out.split()[-5:] == ["3.69", "3.69", "-", "3", "0"]  # 10 ** (1.7 / 3)
    assert "without </s>" in err
    assert run_cli("compare", "one.arpa", "two.arpa", "--text", "ab.txt", "--no-report") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["one", "3.7"]
    assert run_cli("score", "one.arpa", "ab.txt", "--json") == 0
    totals = json.loads(capsys.readouterr().out)
    assert (totals["events"], round(totals["perplexity"], 2)) == (3, 3.69)
    assert run_cli("mix", "one.arpa", "two.arpa", "--tune", "ab.txt") == 0
    assert "inf" not in capsys.readouterr().out


def test_an_export_is_what_kenlm_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("export", "odd.arpa", "again.arpa", "--encoding", "latin-1") == 0
    assert run_cli("evaluate", "again.arpa", "text.txt", "--strict") == 0
