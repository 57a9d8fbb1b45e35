"""The door to the compiled kernels: what is there, what is chosen, what is said where they are not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import elman.cli.inspect  # noqa: F401  (the verb)
from elman.checkpoint import load_model, save_model
from elman.errors import Note, OptionError
from elman.kernels import native
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from neural_oracle import WORDS, ids_for, vocabulary


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler here")
@pytest.mark.skipif(os.environ.get(native.ENVIRONMENT) == "torch", reason="switched off by the environment")
def test_where_there_is_a_compiler_there_are_kernels() -> None:
    """An installation falls back to pure Python without a word; the tests must not pass for that reason."""
    assert native.available(), native._absent
    assert native.instruction_sets()[-1] == "portable"


@pytest.mark.skipif(not native.available(), reason="this installation has no compiled kernels")
def test_an_instruction_set_for_a_while() -> None:
    before = native.require().instruction_set()
    for name in native.instruction_sets():
        with native.instruction_set(name):
            assert native.require().instruction_set() == name
    assert native.require().instruction_set() == before
    with pytest.raises(OptionError, match="no kernels for 'vax'"), native.instruction_set("vax"):
        pass
    with pytest.raises(ValueError, match="not contiguous"):
        native.address(torch.zeros(3, 4).T)


def asked(wanted: str) -> subprocess.CompletedProcess[str]:
    program = "from elman.kernels import native; print(native.available(), native.instruction_sets())"
    environment = os.environ | {native.ENVIRONMENT: wanted}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not native.available(), reason="this installation has no compiled kernels")
def test_the_environment_chooses() -> None:
    assert asked("torch").stdout == "False ()\n"
    assert asked("portable").stdout.startswith("True")
    assert asked("").stdout == asked("best").stdout  # empty is as if it were not there
    wrong = asked("vax")
    assert wrong.returncode != 0
    assert "choose one of best, torch, " in wrong.stderr


@pytest.mark.skipif(not native.available(), reason="this installation has no compiled kernels")
def test_a_model_stored_with_fused_kernels_loads_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RecurrentConfig(cell="gru", embedding_size=3, hidden_size=5, backend="fused")
    model = RecurrentModel(vocabulary(13), WORDS, config).eval()
    save_model(model, tmp_path / "run")
    assert load_model(tmp_path / "run").config.backend == "fused"  # type: ignore[attr-defined]
    monkeypatch.setattr(native, "_module", None)
    with pytest.warns(Note, match="asks for backend fused, which is not here"):
        again = load_model(tmp_path / "run")
    assert isinstance(again, RecurrentModel)
    assert again.config.backend == again.recurrence.backend == again.output.backend == "auto"
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    nats, _ = again.token_nats(ids_for(again, 5, 2), again.start(2))
    assert torch.isfinite(nats).all()


def test_what_computes_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from cli_example import run_verb, save_two_models

    save_two_models(tmp_path, 1)
    code, out, _ = run_verb(capsys, "inspect", tmp_path / "gru" / "run")
    assert code == 0
    assert f"kernels            {native.running()}\n" in out
    assert native.running() in ("torch", *native.instruction_sets())
