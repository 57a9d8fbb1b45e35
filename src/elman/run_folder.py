"""The folder of one training run: `step-000123/` …, `latest`, `best`, `log.jsonl`.

`latest` and `best` are small files that hold a step folder's name; a step folder is complete from the
moment it has its name. One process at a time trains here and holds `.lock`. Not here: what a step
folder holds (checkpoint.py).
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from elman.disk import TEMPORARY, clean, new_folder, open_file, refused, remove, replace_file, unreadable
from elman.errors import FormatError, OptionError

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


LOG, LOCK, OPTIONS = "log.jsonl", ".lock", "run.json"
LATEST, BEST = "latest", "best"
_OWN = {LATEST, BEST, LOG, LOCK, OPTIONS, "config.json", "vocabulary.json", "model.safetensors"}
_STEP = re.compile(r"step-(\d{6,12})(?:\.(\d{1,6}))?")


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the folder of a run, made if it is not there, for this process alone.

    The lock is the kernel's: it ends with the process, however that dies, and a `.lock` left behind
    means nothing. A file system without locks is trusted. Raises OptionError while another holds it.
    """
    if run.exists() and not run.is_dir():
        raise OptionError(f"{run} is not a folder.", remedy="choose another --save folder.")
    try:
        run.mkdir(parents=True, exist_ok=True)
        while (descriptor := _hold(run / LOCK)) is None:
            pass
    except BlockingIOError as error:
        raise OptionError(
            f"{run} is in use.",
            reason="another process trains and saves there.",
            remedy="wait for its end or stop it, or choose another --save folder.",
        ) from error
    except OSError as error:
        raise refused(run, error) from error
    try:
        yield
    finally:
        ours = _stands_at(descriptor, run / LOCK)  # not where the folder has been replaced meanwhile
        if ours and os.name != "nt":  # removed while it is held: who opened it before sees that it is gone
            remove(run / LOCK)
        os.close(descriptor)
        if ours and os.name == "nt":  # an open file cannot be removed there
            remove(run / LOCK)


def _hold(path: Path) -> int | None:
    """The descriptor of the locked file; None where its holder removed it meanwhile."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(descriptor)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            os.close(descriptor)
            raise BlockingIOError(error.errno, "locked") from error
    if _stands_at(descriptor, path):
        return descriptor
    os.close(descriptor)
    return None


def _stands_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def require_empty(run: Path) -> None:
    """OptionError unless nothing stands there, or only what a run leaves that never saved its weights."""
    if run.exists() and not run.is_dir():
        raise OptionError(f"{run} is a file.", remedy="--save needs the name of a folder.")
    if run.exists() and any(not _is_rest(path.name) for path in run.iterdir()):
        raise OptionError(
            f"{run} is not empty.",
            reason="something was saved there before.",
            remedy="--resume to continue that run, --overwrite to begin anew, or another --save folder.",
        )


def _is_rest(name: str) -> bool:
    return name in (LOCK, LOG, OPTIONS) or name.startswith(TEMPORARY)


def require_replaceable(folder: Path) -> None:
    """What --overwrite may replace: nothing, a run or a model that Elman wrote, and no other file.

    Raises FormatError where others stand there too, OptionError for a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"{folder} is not a folder.", remedy="choose another --save folder.")
    strange = _strange(folder) if folder.exists() else []
    if strange:
        raise FormatError(
            f"{folder} holds files that are not of a training run: {', '.join(strange[:3])}.",
            remedy="choose another --save folder.",
        )


def _strange(folder: Path) -> list[str]:
    found = []
    mixture = (folder / "config.json").is_file()  # its models stand in 0, 1 …
    for path in sorted(folder.iterdir()):
        name = path.name
        if mixture and re.fullmatch(r"\d{1,2}", name) and path.is_dir():
            found += [f"{name}/{each}" for each in _strange(path)]
        elif name not in _OWN and not _STEP.fullmatch(name) and not name.startswith(TEMPORARY):
            found.append(name)
    return found


@contextmanager
def in_place_of(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to write a run or a model into, which gets the name `folder` when the block ends well.

    What --overwrite may replace stays as it is until then; without it `folder` must be free. Raises
    OptionError and FormatError where it is not, OptionError while another process trains there.
    """
    with ExitStack() as stack:
        there = folder.is_dir()
        if there:
            lock = stack.enter_context(ExitStack())
            lock.enter_context(locked(folder))
            if os.name == "nt":  # a folder with an open file cannot be renamed there
                lock.close()
        (require_replaceable if overwrite else require_empty)(folder)
        yield stack.enter_context(new_folder(folder, replace=there))


def step_folder(run: Path, step: int) -> Path:
    """A free name for the state after `step` updates.

    A state saved anew at the same step (before and after validation, say) gets `.1`, `.2`: what
    `latest` names is never touched.
    """
    folder = run / f"step-{step:06d}"
    again = 0
    while folder.exists():
        again += 1
        folder = run / f"step-{step:06d}.{again}"
    return folder


def step_folders(run: Path) -> list[Path]:
    """All complete step folders, newest first."""
    try:
        found = [path for path in run.iterdir() if _STEP.fullmatch(path.name) and path.is_dir()]
    except OSError as error:
        raise unreadable(run, error) from error
    return sorted(found, key=_age, reverse=True)


def is_run(folder: Path) -> bool:
    """Whether a training run has saved here."""
    return (folder / LATEST).is_file() or (folder.is_dir() and bool(step_folders(folder)))


def pointer(run: Path, name: str) -> Path | None:
    """The step folder that `latest` or `best` names; None when it names none that is there."""
    try:
        with open_file(run / name) as file:
            text = file.read(64).decode("ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(run / name, error) from error
    return run / text if _STEP.fullmatch(text) and (run / text).is_dir() else None


def point(run: Path, name: str, folder: Path) -> None:
    """Make `latest` or `best` name a step folder, in one step."""
    replace_file(run / name, f"{folder.name}\n".encode())


def candidates(run: Path) -> list[Path]:
    """Step folders to resume from: `latest`, then older ones; all of them when `latest` is lost.

    A folder newer than `latest` is one whose save was cut short after it was written; it is not used.
    """
    folders = step_folders(run)
    latest = pointer(run, LATEST)
    return folders if latest is None else folders[folders.index(latest) :]


def prune(run: Path, keep: int) -> None:
    """Remove rubbish, folders newer than `latest`, and all but the latest `keep` and the best; nothing
    where that cannot be read."""
    clean(run)
    try:
        latest, best, folders = pointer(run, LATEST), pointer(run, BEST), step_folders(run)
    except FormatError:
        return
    if latest is None:
        return
    at = folders.index(latest)
    kept = {*folders[at : at + max(1, keep)], best}
    for folder in folders:
        if folder not in kept:
            # renamed first: a removal that is cut short must not leave half a step folder
            rubbish = folder.with_name(f"{TEMPORARY}old-{folder.name}")
            try:
                folder.rename(rubbish)
            except OSError:
                continue
            remove(rubbish)


def updates_of(folder: Path) -> int:
    """How many updates a step folder is after."""
    return _age(folder)[0]


def _age(folder: Path) -> tuple[int, int]:
    match = _STEP.fullmatch(folder.name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)
