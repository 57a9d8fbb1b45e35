"""A share of `make faults`: nothing is lost, what is told is true, a resumed run is the uninterrupted one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("g++") is None, reason="the faults are preloaded: Linux and g++"
)


@pytest.mark.slow
def test_a_tenth_of_the_campaign(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    record = tmp_path / "faults.json"
    done = subprocess.run(
        [sys.executable, "-m", "faults.campaign", "--share", "0.1", "--seed", "2", "--record", str(record)],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    found = json.loads(record.read_text())
    assert found["kills"] >= 110
    assert found["failing calls"] >= 50
    assert found["resume points"] >= 110
    assert found["wrong"] == []
