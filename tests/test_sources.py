"""What a corpus argument means, and what is said when it means nothing."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pytest

from elman.errors import TextError
from elman.text.corpus import TextSettings, load_corpus


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


LINES = [f"w{number % 7} x{number % 3} y{number % 11}" for number in range(60)]


def test_folders_that_are_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(TextError, match=r"has no train\.txt"):
        load_corpus(tmp_path)
    write(tmp_path / "train.txt", "a\n")
    with pytest.raises(TextError, match=r"has no valid\.txt"):
        load_corpus(tmp_path)
    write(tmp_path / "valid.txt.gz", gzip.compress(b"a\n"))
    write(tmp_path / "test.txt", "")
    with pytest.raises(TextError, match=r"test\.txt: there is no word"):
        load_corpus(tmp_path)
    write(tmp_path / "test.txt", "a b\n")
    assert load_corpus(tmp_path).valid.ids.tolist() == [2, 1]


def test_missing_paths_suggest_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "corpus.txt", "a\n")
    with pytest.raises(TextError, match=r"perhaps you meant .*corpus\.txt"):
        load_corpus(tmp_path / "corpsu.txt")
    with pytest.raises(TextError, match="perhaps you meant sotu-modern"):
        load_corpus("sotu-modrn")
    with pytest.raises(TextError, match="pydoc"):
        load_corpus("nothing-like-it")
    with pytest.raises(TextError, match="does not exist"):
        load_corpus(tmp_path / "no" / "such" / "folder.txt")
    with pytest.raises(TextError, match=r"cannot be looked at|does not exist"):
        load_corpus("x" * 5000 + ".txt")


def test_standard_input_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(LINES).encode())))
    made = load_corpus("-", cache=tmp_path / "cache")
    assert made.train.sentences == 54
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\nc\n")))
    with pytest.raises(TextError, match="only once"):
        load_corpus("-", TextSettings(tokenizer="bpe"))
