"""`make compare` gives the text as it was named, and a folder of that name to the results."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


@pytest.mark.parametrize(
    ("corpus", "name"),
    [
        ("sotu-modern", "sotu-modern"),
        ("folder/", "folder"),
        ("a/folder//", "folder"),
        ("/the/place/novel.txt", "novel.txt"),
        ("v1.2.tar", "v1.2.tar"),
        ("my novel.txt", "my novel.txt"),
        ('war & peace/it\'s "one"', 'it\'s "one"'),
        (".", ROOT.name),
    ],
)
def test_the_name_of_the_results(corpus: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    stand_in = tmp_path / "elman"
    stand_in.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    stand_in.chmod(0o755)
    command = ["make", "--no-print-directory", "-o", ".venv/compare.stamp", "compare"]
    command += [f"BIN={tmp_path}", f"CORPUS={corpus}", "PRESET=quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = ["compare", corpus, "--preset", "quick", "--save", f"runs/compare-{name}-quick"]
    assert json.loads(done.stdout.splitlines()[-1]) == wanted
