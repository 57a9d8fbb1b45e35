"""What is run, on what, and what must be there afterwards: all of the old or all of the new."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from elman.checkpoint import load_checkpoint, load_model
from elman.run_folder import is_run
from elman.storage import read_tensors

from .server import Trial, trial

TEXT = "the cat sat on the mat\na dog ran under it and then\nthe mat was red\n" * 12
SMALL = ("--nhid=5", "--emsize=4", "--batch-size=4", "--bptt=6", "--dropout=0.3", "--schedule=constant")
CELLS = ("rnn", "rnn-relu", "gru", "lstm", "feedforward")
State = dict[str, bytes]


def training(cell: str, *more: str) -> tuple[str, ...]:
    layers = () if cell == "feedforward" else ("--nlayers=2",)
    return ("train", "text.txt", f"--model={cell}", *SMALL, *layers, *more)


@dataclass(frozen=True)
class Scene:
    """A verb that writes.

    targets  what it replaces or makes
    loose    its bytes hold a date or a duration: whole is then that it ends as it should
    """

    name: str
    arguments: tuple[str, ...]
    targets: tuple[str, ...] = ()
    loose: Callable[[Path], bool] | None = None


def _page(path: Path) -> bool:
    return path.read_text("utf-8").rstrip().endswith("</html>")


def _picture(path: Path) -> bool:
    return path.read_text("utf-8").rstrip().endswith("</svg>")


def _tensors(path: Path) -> bool:
    """The order of its metadata is not the same twice."""
    return bool(read_tensors(path))


def _run(path: Path) -> bool:
    """A run whose every checkpoint that is named loads, without a note."""
    if not path.exists():
        return True
    return is_run(path) and not load_checkpoint(path).notes and load_model(path) is not None


def _folder(path: Path) -> bool:
    """What a comparison has finished loads, and its numbers are JSON."""
    for found in path.glob("*/outcome.json"):
        json.loads(found.read_text("utf-8"))
        load_model(found.parent)
    for page in path.glob("*.html"):
        if not _page(page):
            return False
    return all(json.loads(found.read_text("utf-8")) for found in path.glob("comparison.json"))


COMPARE = ("compare", "text.txt", "--models=kn2,rnn", "--preset=quick")
SCENES = (
    Scene("train, new", training("gru", "--epochs=1", "--save=new"), ("new",), _run),
    Scene("train, resumed", training("lstm", "--epochs=2", "--save=run", "--resume"), ("run",), _run),
    Scene("train, overwriting", training("rnn", "--epochs=1", "--save=run", "--overwrite"), ("run",), _run),
    Scene("n-gram", ("train", "text.txt", "--model=ngram", "--order=3", "--save=kn", "--overwrite"), ("kn",)),
    Scene("mix", ("mix", "lstm", "kn", "--tune=text.txt", "--save=mix", "--overwrite"), ("mix",)),
    Scene("export arpa", ("export", "kn", "kn.arpa", "--overwrite"), ("kn.arpa",)),
    Scene("export arpa.gz", ("export", "kn", "kn.arpa.gz", "--overwrite"), ("kn.arpa.gz",)),
    Scene("export vectors", ("export", "lstm", "e.vec", "--overwrite"), ("e.vec",)),
    Scene("export tensors", ("export", "lstm", "l.safetensors", "--overwrite"), ("l.safetensors",), _tensors),
    Scene("export int8", ("export", "lstm", "int8", "--to=int8", "--overwrite"), ("int8",)),
    Scene("trace", ("trace", "lstm", "line.txt", "--html=trace.html"), ("trace.html",)),
    Scene("explore", ("explore", "lstm", "kn", "--export=explore.html"), ("explore.html",)),
    Scene("figure", ("memory", "gates", "lstm", "text.txt", "--figure=g.svg"), ("g.svg",), _picture),
    Scene("report", ("compare", "lstm", "kn", "--text=text.txt", "--report=r.html"), ("r.html",), _page),
    Scene("compare", (*COMPARE, "--jobs=1", "--save=cmp"), ("cmp",), _folder),
    Scene("data", ("data", "text.txt")),
    Scene("evaluate", ("evaluate", "lstm", "text.txt", "--json")),
    Scene("score", ("score", "lstm", "text.txt", "--json")),
    Scene("generate", ("generate", "lstm", "--json")),
)  # fmt: skip

OLD = (
    training("lstm", "--epochs=1", "--save=run"),
    training("lstm", "--epochs=0", "--save=lstm"),
    ("train", "text.txt", "--model=ngram", "--order=2", "--save=kn"),
    ("mix", "lstm", "kn", "--tune=text.txt", "--save=mix", "--state=reset"),
)


def template(folder: Path) -> Path:
    """The old things that the scenes replace. Files hold the word old."""
    folder.mkdir()
    (folder / "text.txt").write_text(TEXT)
    (folder / "line.txt").write_text("the cat sat on the mat\n")
    for arguments in OLD:
        done = trial(arguments, folder)
        assert done.status == 0, done.told
    shutil.rmtree(folder / "cache", ignore_errors=True)
    for scene in SCENES:
        for name in scene.targets:
            if "." in name:
                (folder / name).write_text("old </svg></html>")
    done = trial(("export", "lstm", "int8", "--to=bfloat16"), folder)
    assert done.status == 0, done.told
    return folder


def fresh(template: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder, symlinks=True)
    return folder


def content(folder: Path, scene: Scene) -> State:
    """The bytes of all files of the targets but a lock."""
    found = {}
    for name in scene.targets:
        path = folder / name
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and file.name != ".lock":
                found[str(file.relative_to(folder))] = file.read_bytes()
    return found


def faults(scene: Scene, folder: Path, done: Trial, old: State, new: State) -> list[str]:
    """What is wrong after a trial; empty where nothing is lost and what was told is true."""
    wrong = []
    found = content(folder, scene)
    if scene.loose is not None:
        if not (found == old or all(scene.loose(folder / name) for name in scene.targets)):
            wrong.append("a target is neither the old nor whole")
    elif found not in (old, new):
        wrong.append("a target is neither the old nor the new")
    if done.status is None:
        return wrong
    wrong = [f"{each} (exit status {done.status})" for each in wrong]
    if "Traceback" in done.told or done.status not in (0, 1, 2):
        wrong.append(f"exit status {done.status}: {done.told[-400:]}")
    if done.status == 0 and scene.loose is None and found != new:
        wrong.append("exit status 0, but the target is not the new")
    if done.status == 0 and scene.loose is not None and scene.targets and found == old and old != new:
        wrong.append("exit status 0, but the target is the old")
    if done.status and "elman: " not in done.told:
        wrong.append(f"exit status {done.status} without a word")
    if done.status and not done.failed:
        wrong.append(f"exit status {done.status}, though nothing failed: {done.told[-400:]}")
    removing = done.failed in ("unlink", "unlinkat", "rmdir")
    left = [path.name for path in folder.rglob(".tmp-*")] + [
        path.name for path in folder.rglob(".building-*")
    ]
    if left and not removing:
        wrong.append(f"left behind: {', '.join(left[:3])}")
    return wrong
