"""What a corpus argument means, and what is said when it means nothing."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import shutil
import subprocess
import sys
import threading
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


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_process_substitution_is_a_corpus(tmp_path: Path) -> None:
    write(tmp_path / "t.txt", "\n".join(LINES))
    script = (
        "import sys; from elman.text.corpus import load_corpus; made = load_corpus(sys.argv[1]); "
        "print(made.digest, made.train.sentences)"
    )
    found = run(f"'{sys.executable}' -c '{script}' <(cat t.txt)", tmp_path)
    made = load_corpus(tmp_path / "t.txt")
    assert (found.stdout, found.stderr) == (f"{made.digest} 54\n", "")
    found = run(f"'{sys.executable}' -c '{script}' <(true)", tmp_path)
    assert "it is empty" in found.stderr


def test_a_named_pipe_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):  # refused before all of it was read
            path.write_text("\n".join(LINES))

    once = "pipe can be read only once"
    for settings, message in ((TextSettings(), ""), (TextSettings(tokenizer="bpe"), once)):
        writer = threading.Thread(target=write)
        writer.start()
        if message:
            with pytest.raises(TextError, match=message):
                load_corpus(path, settings, cache=tmp_path / "cache")
        else:
            assert load_corpus(path, settings, cache=tmp_path / "cache").train.sentences == 54
        rest = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a writer that nobody has read from can end
        writer.join()
        os.close(rest)
    assert not (tmp_path / "cache").exists()
