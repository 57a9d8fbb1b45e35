"""What README.md says is true: its example runs, its table is the recorded one, its verbs exist."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_writer", ROOT / "benchmarks" / "readme.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_example_runs(code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 1


def test_the_table_is_the_recorded_comparison() -> None:
    program = writer()
    block = program.comparison_block(program.load(program.COMPARISON))
    assert block in README


def test_the_pictures_shown_are_there() -> None:
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert shown
    for path in shown:
        assert (ROOT / path).is_file(), path


def test_every_verb_of_the_readme_exists_and_every_verb_is_in_the_readme() -> None:
    from elman.cli import VERBS

    named = set(re.findall(r"\belman ([a-z]+)\b", "".join(re.findall(r"```\n(.*?)```", README, re.DOTALL))))
    inside = set(re.findall(r"\belman memory ([a-z]+) ", README)) & set(VERBS)
    groups = {"score": "evaluate"}
    assert {groups.get(name, name) for name in named} | inside == set(VERBS)


def test_the_version_is_the_newest_of_the_changelog() -> None:
    import elman

    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    newest = re.search(r"^## (\S+)", changelog, re.MULTILINE)
    assert newest
    assert newest[1] == elman.__version__
    assert f'version = "{elman.__version__}"' in (ROOT / "pyproject.toml").read_text("utf-8")
