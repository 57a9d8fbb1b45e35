"""Files and folders that are whole or not there: written beside, through to the disk, then named in one step.

Whoever looks at a name sees what was there before or what is there now, also after a crash, a full disk or
a power loss. Every writer of Elman's goes through here. Not here: what the files mean.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import io
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from elman.errors import ElmanError, FormatError, OptionError
from elman.visible import json_text

TEMPORARY = ".tmp-"
"""Prefix of everything unfinished; what still bears it after a crash is rubbish."""

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your share of the disk is used up",
    errno.EROFS: "the file system can only be read",
    errno.EACCES: "you may not write there",
    errno.EPERM: "you may not write there",
    errno.EIO: "the disk fails",
    errno.ENOENT: "its folder is not there",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
}
_STREAMS = ("/dev/std", "/dev/fd/")
"""Names of what is open already, perhaps of a file: it is written on, not replaced."""
_BINARY = getattr(os, "O_BINARY", 0)
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


@contextmanager
def new_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder beside `folder`, which gets its name when the block ends well; else it is removed.

    `folder` must not exist or be empty; with `replace` a folder there changes places with the new one and
    only then is removed. A symbolic link is followed. Raises ElmanError when the disk refuses.
    """
    target = Path(os.path.realpath(folder))
    if target == Path(os.path.realpath(".")):
        raise OptionError(f"{folder} is the folder you are in.", remedy="name a folder in it.")
    temporary = _beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.mkdir(temporary)
        yield temporary
        sync_folder(temporary)
        if replace and target.is_dir():
            _exchange(temporary, target)
        else:
            os.rename(temporary, target)
        sync_folder(target.parent)
    except OSError as error:
        raise refused(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which replaces `path` in one step when the block ends well; else it is removed.

    A symbolic link is followed, and a file that is replaced hands its mode on. A device or a pipe is
    written to. Raises ElmanError when the disk refuses.
    """
    target = Path(os.path.realpath(path))
    temporary = _beside(target)
    try:
        before = _state(path)
        if before is not None and (not stat.S_ISREG(before.st_mode) or str(path).startswith(_STREAMS)):
            with os.fdopen(os.open(path, os.O_WRONLY | _BINARY), "wb") as file:
                yield file
            return
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if before is not None and hasattr(os, "fchmod"):
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            os.fsync(descriptor)
        os.replace(temporary, target)
        sync_folder(target.parent)
    except BrokenPipeError:  # the reader of a pipe has left: that is not the disk's doing
        raise
    except OSError as error:
        raise refused(path, error) from error
    finally:
        remove(temporary)


def replace_file(path: Path, data: bytes | str) -> None:
    """Put `data` (text as UTF-8) at `path` in one step: a reader sees the old file or the new one."""
    encoded = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    with new_file(path) as file:
        _write(file.fileno(), encoded)


def write_bytes(path: Path, data: bytes) -> str:
    """Write a new file through to the disk; its SHA-256. The mode is 0666 less the umask."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    try:
        _write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return hashlib.sha256(data).hexdigest()


def write_json(path: Path, document: object) -> str:
    """A new JSON file, through to the disk; its SHA-256."""
    return write_bytes(path, json_text(document, indent=1).encode() + b"\n")


def open_file(path: Path) -> io.BufferedReader:
    """A file open for reading. FormatError for what is none: a pipe or a device could be read for ever."""
    # without O_NONBLOCK a pipe would wait here for its writer
    descriptor = os.open(path, os.O_RDONLY | _BINARY | getattr(os, "O_NONBLOCK", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise FormatError(
                f"{path} is a pipe or a device, not a file.",
                reason="the folder is not one that Elman wrote.",
                remedy="give the folder of a model.",
            )
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def clean(folder: Path) -> None:
    """Remove what a killed save left behind. Silent where nothing may be removed (read-only)."""
    for path in folder.glob(f"{TEMPORARY}*"):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds; a refusal is not an error: it only takes room."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return


def sync_folder(folder: Path) -> None:
    """Make names in `folder` last through a power loss. Windows cannot and need not."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unreadable(path: Path, error: OSError) -> FormatError:
    """An OSError of reading, told as cause and remedy."""
    return FormatError(
        f"{path}: cannot be read: {error.strerror or error}.", remedy="check the path and its rights."
    )


def refused(path: Path, error: OSError) -> ElmanError:
    """An OSError of writing, told as cause and remedy."""
    reason = _REASONS.get(error.errno or 0, "the disk is full, read-only, or not yours")
    return ElmanError(
        f"{path}: cannot be written: {error.strerror or error}.",
        reason=f"{reason}; what was saved before is kept.",
        remedy="make room, or choose another place.",
    )


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:  # a write may be short
        rest = rest[os.write(descriptor, rest[: 64 << 20]) :]


def _beside(path: Path) -> Path:
    """A free name in the folder of `path`; within the system's limit of 255 bytes."""
    return path.with_name(f"{TEMPORARY}{path.name[:50]}-{uuid.uuid4().hex[:12]}")


def _state(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _exchange(one: Path, other: Path) -> None:
    """Two folders swap names: in one step where the system can, else with the second set aside between."""
    if sys.platform == "linux":
        call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        if call is not None:
            names = os.fsencode(one), os.fsencode(other)
            if call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
                return
            number = ctypes.get_errno()
            if number not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):  # a system or disk without it
                raise OSError(number, os.strerror(number), str(other))
    aside = _beside(other)
    os.rename(other, aside)
    try:
        os.rename(one, other)
    except OSError:
        os.rename(aside, other)
        raise
    os.rename(aside, one)
