"""run.json mutated: the run is resumed as it was, or the option that is wrong is told; never a traceback."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest

from table_model import run_cli
from test_damage import mutants

FLAGS = ("--nhid=5", "--emsize=4", "--nlayers=1", "--batch-size=3", "--bptt=7", "--epochs=1")


def test_every_value_of_run_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module("elman.cli.train")
    text = tmp_path / "text"
    text.write_text("a b c d\nb c a\n" * 40)
    options = ("--vocabulary-size", "5", "--clip", "1", "--optimizer", "adamw", "--dropout", "0.1")
    assert run_cli("train", str(text), *FLAGS, *options, "--save", str(tmp_path / "run")) == 0
    path = tmp_path / "run" / "run.json"
    whole, codes = json.loads(path.read_text()), []
    for document in (*mutants(whole, 0.15), [], [whole], 7, "x", None):
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        (tmp_path / "copy" / "run.json").write_text(json.dumps(document))
        codes.append(run_cli("train", str(text), "--save", str(tmp_path / "copy"), "--resume"))
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        shutil.rmtree(tmp_path / "copy")
    assert set(codes) == {0, 2}
    assert codes.count(2) > 30
