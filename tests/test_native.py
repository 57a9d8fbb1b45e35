"""The door to the compiled kernels: what is there, what is chosen, what is said where they are not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch

from elman.errors import OptionError
from elman.kernels import native


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
    wrong = asked("vax")
    assert wrong.returncode != 0
    assert "choose one of best, torch, " in wrong.stderr
