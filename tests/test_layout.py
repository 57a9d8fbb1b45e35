"""The tree in README.md is complete, imports go only upward in it, and rooms stay liveable."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "elman"
FORBIDDEN = {"pickle", "shelve", "marshal", "urllib.request", "requests", "socket"}
ENTRY = re.compile(r"^(?P<indent>[│ ]*)[├└]── (?P<name>[\w.]+/?)")


def tree() -> list[str]:
    """Paths under src/elman as README.md lists them, in its order."""
    readme = (ROOT / "README.md").read_text("utf-8")
    block = readme.split("src/elman/\n", 1)[1].split("```", 1)[0]
    paths: list[str] = []
    folder = ""
    for line in block.splitlines():
        found = ENTRY.match(line)
        if not found:
            if not line.strip():
                break
            continue
        name = found["name"]
        depth = len(found["indent"]) // 4
        if name.endswith("/"):
            folder = name
        else:
            paths.append(f"{folder}{name}" if depth else name)
            folder = folder if depth else ""
    return paths


def sources() -> list[str]:
    return sorted(
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if not (path.name == "__init__.py" and path.parent != PACKAGE)
    )


def module_of(path: str) -> str:
    name = "elman." + path.removesuffix(".py").replace("/", ".")
    return name.removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Every elman module that a file names in an import, lazy ones included, TYPE_CHECKING ones not."""
    parsed = ast.parse(path.read_text("utf-8"))
    skipped = {
        id(node)
        for branch in ast.walk(parsed)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for node in ast.walk(branch)
    }
    found: set[str] = set()
    for node in ast.walk(parsed):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("elman"):
            found.update({node.module} - {"elman"})
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.startswith("elman"))
    return found


def test_the_readme_lists_every_file_and_no_other() -> None:
    listed = [path for path in tree() if path.endswith(".py")]
    assert len(listed) == len(set(listed))
    assert sorted(listed) == sources()


def test_imports_go_only_upward() -> None:
    order = {module_of(path): place for place, path in enumerate(tree()) if path.endswith(".py")}
    wrong = [
        f"{path} imports {name}, which stands below it"
        for path in tree()
        if path.endswith(".py") and path != "__init__.py"
        for name in imports(PACKAGE / path)
        if name in order and order[name] >= order[module_of(path)]
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_the_command_line() -> None:
    for path in sources():
        if not path.startswith("cli/"):
            assert not any(name.startswith("elman.cli") for name in imports(PACKAGE / path)), path


@pytest.mark.parametrize("path", sources())
def test_a_file_is_at_most_300_lines_and_says_what_it_is(path: str) -> None:
    text = (PACKAGE / path).read_text("utf-8")
    assert text.count("\n") <= 300
    assert ast.get_docstring(ast.parse(text)), "a module begins with what it is"


@pytest.mark.parametrize("path", sources())
def test_a_signature_has_at_most_eight_parameters(path: str) -> None:
    for node in ast.walk(ast.parse((PACKAGE / path).read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef) and not path.startswith("cli/"):
            # `self` is not a choice of the caller; recurrence.py has torch.nn's own constructor
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            if path != "recurrence.py":
                assert len([n for n in names if n not in ("self", "cls")]) <= 8, f"{path}: {node.name}"


def test_nothing_unsafe_is_called() -> None:
    """No pickle, no torch.load, no eval or exec, no network client in the package."""
    for path in sources():
        for node in ast.walk(ast.parse((PACKAGE / path).read_text("utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"eval", "exec", "torch.load", "torch.save", "__import__"}, path
            if isinstance(node, ast.Import | ast.ImportFrom):
                named = {alias.name for alias in node.names} | {getattr(node, "module", "") or ""}
                assert not named & FORBIDDEN, path


def test_every_public_name_resolves() -> None:
    import elman

    assert list(elman.__all__) == sorted(elman.__all__)
    for name in elman.__all__:
        assert getattr(elman, name) is not None


def test_importing_elman_and_its_command_line_does_not_load_torch() -> None:
    script = "import sys, elman.cli.app; assert 'torch' not in sys.modules, 'torch is loaded'"
    subprocess.run([sys.executable, "-c", script], check=True)
