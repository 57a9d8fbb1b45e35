"""What would move a terminal is shown, on terminals and in errors; in a pipe data stay data."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elman import storage
from elman.checkpoint import save_model
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.text.tokenizers import Words
from elman.text.vocabulary import Vocabulary
from elman.visible import json_text, visible
from table_model import run_cli

EVIL = "\x1b]0;owned\x07"
ENTRY = [sys.executable, "-c", "from elman.cli import main; main()"]


def test_controls_and_odd_bytes_are_written_out() -> None:
    assert visible(f"a{EVIL}\tb\n") == "a\\x1b]0;owned\\x07\tb\n"
    assert visible("\x9b31m\x7f\r") == "\\x9b31m\\x7f\\x0d"
    assert visible(os.fsdecode(b"mod\xff")) == "mod\\xff"
    assert visible("\ud800\u2028") == "\\ud800\\u2028"
    assert visible("Größe 🙂 [bold] שלום") == "Größe 🙂 [bold] שלום"


@given(st.text(st.characters(exclude_categories=[])))
def test_json_is_utf8_without_controls_and_means_the_same(text: str) -> None:
    shown = json_text({"a": [text]})
    shown.encode()
    assert json.loads(shown) == {"a": [text]}
    assert visible(shown) == shown


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model whose likeliest token renames the window."""
    vocabulary = Vocabulary(["<unk>", "</s>", EVIL, "\x9b31m"])
    config = RecurrentConfig(embedding_size=3, hidden_size=4, num_layers=1)
    made = RecurrentModel(vocabulary, Words(), config)
    with torch.no_grad():
        made.output.bias.copy_(torch.tensor([-9.0, -2.0, 4.0, 3.0]))
    save_model(made, tmp_path / "model")
    return tmp_path / "model"


def on_a_terminal(*arguments: str) -> bytes:
    """What a terminal is sent."""
    process, terminal = pty.fork()
    if process == 0:
        os.execve(ENTRY[0], [*ENTRY, *arguments], os.environ | {"TERM": "xterm", "OMP_NUM_THREADS": "1"})
    seen = b""
    try:
        while piece := os.read(terminal, 1 << 16):
            seen += piece
    except OSError:  # the other end is closed
        pass
    os.waitpid(process, 0)
    os.close(terminal)
    return seen


def test_a_terminal_is_not_moved(model: Path) -> None:
    for arguments in (
        ("generate", str(model), "--length", "20"),
        ("inspect", str(model), "--neighbours", EVIL),
    ):
        seen = on_a_terminal(*arguments)
        assert b"owned" in seen
        assert b"\x1b]0" not in seen
        assert b"\xc2\x9b" not in seen


def test_in_a_pipe_data_stay_data(model: Path) -> None:
    done = subprocess.run([*ENTRY, "generate", str(model), "--length", "20"], capture_output=True, check=True)
    assert EVIL.encode() in done.stdout


def test_errors_show_them_anywhere(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = storage.read_tensors(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    digest = storage.write_tensors(model / "model.safetensors", tensors | {EVIL: torch.zeros(1)})
    document = json.loads((model / "config.json").read_text())
    document["files"]["model.safetensors"] = digest
    (model / "config.json").write_text(json.dumps(document))
    assert run_cli("inspect", str(model)) == 2
    assert run_cli("inspect", f"absent{EVIL}[bold]") == 2
    told = capsys.readouterr().err
    assert "holds unknown \\x1b]0;owned" in told
    assert "absent\\x1b]0;owned[bold]" in told
    assert "\x1b" not in told


TEXT = "the cat sat on the mat\na dog ran under it and then\n" * 40
SMALL = ("--nhid=5", "--emsize=4", "--nlayers=1", "--batch-size=3", "--bptt=7", "--epochs=1")


def test_names_that_are_not_utf8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = os.fsdecode(b"\xff")
    Path(odd).mkdir()
    text, lstm, kn, mix = f"{odd}/t{odd}.txt", f"{odd}/lstm{odd}", f"{odd}/kn{odd}", f"{odd}/mix{odd}"
    Path(text).write_text(TEXT)
    Path("line.txt").write_text("the cat sat on the mat\n")
    for arguments in (
        ("train", text, *SMALL, "--save", lstm),
        ("train", text, "--save", lstm, "--resume", "--json"),
        ("train", text, "--model", "ngram", "--order", "2", "--save", kn),
        ("train", text, "--model", "ngram", "--order", "2", "--save", kn, "--overwrite", "--json"),
        ("evaluate", lstm, text, "--json"),
        ("score", lstm, text),
        ("generate", lstm, "--json"),
        ("mix", lstm, kn, "--tune", text, "--save", mix, "--json"),
        ("inspect", mix),
        ("trace", lstm, "line.txt", "--json"),
        ("trace", lstm, text, "--html", f"{odd}/p.html"),
        ("explore", lstm, "--export", f"{odd}/e{odd}.html"),
        ("export", kn, f"{odd}/kn{odd}.arpa.gz"),
        ("export", lstm, f"{odd}/v{odd}.vec", "--json"),
        ("export", lstm, f"{odd}/i{odd}", "--to", "int8"),
        ("compare", lstm, kn, "--text", text, "--report", f"{odd}/r{odd}.html", "--json"),
        ("compare", text, "--models", "kn2,kn3", "--save", f"{odd}/c{odd}", "--jobs", "1"),
        ("memory", "gates", lstm, text, "--figure", f"{odd}/g{odd}.svg"),
        ("memory", lstm, text, "--histories", "1", "--events", "9", "--figure", f"{odd}/m{odd}.svg"),
        ("data", text, "--json"),
        ("inspect", f"absent{odd}"),
    ):
        code = run_cli(*arguments)
        printed = capfd.readouterr()
        assert code == (2 if f"absent{odd}" in arguments else 0), printed.err
        assert "Traceback" not in printed.err
        if "--json" in arguments:
            json.loads(printed.out)
    page = Path(f"{odd}/r{odd}.html").read_bytes()
    page.decode("utf-8")
    assert not list(tmp_path.rglob(".tmp-*"))
