"""Encoded corpora on disk: memory-mapped ids, built once, found again under a key of content and settings.

A folder of raw little-endian int32 files and corpus.json with a checksum of each. It is written under
another name and renamed, so a half-written one is never found; a damaged one is built again. Deleting
the cache folder is always safe.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import tempfile
import time
import zlib
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

FORMAT = 3
"""Part of every key: raise it when tokenizers, splits or this layout change."""
_FILES = ("whole", "words", "bytes")
_BUILDING = ".building-"
_DAY = 86_400.0


class DamagedCache(Exception):
    """A cached corpus is there but not whole; the loader builds it again."""


def cache_folder(given: Path | None = None) -> Path:
    """The folder of cached corpora: as given, else ELMAN_CACHE, else the user's cache folder."""
    root = given or os.environ.get("ELMAN_CACHE") or platformdirs.user_cache_dir("elman", appauthor=False)
    return Path(root) / "corpora"


def read_cache(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[np.int32]]] | None:
    """(description, arrays) of a cached corpus, or None where there is none. Raises DamagedCache."""
    try:
        if not folder.is_dir():
            return None
        description = json.loads((folder / "corpus.json").read_text("utf-8"))
        arrays: dict[str, NDArray[np.int32]] = {}
        for name in _FILES:
            path, recorded = folder / f"{name}.i32", description["files"][name]
            if path.stat().st_size != recorded["bytes"] or checksum(path) != recorded["crc32"]:
                raise DamagedCache(f"{path} is not what was written")
            arrays[name] = map_ids(path)
        return description, arrays
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCache(f"{folder}: {error}") from None


def write_description(
    folder: Path, description: dict[str, Any], words: array[int], sizes: array[int]
) -> None:
    """Finish a folder that already holds whole.i32: the counts by sentence, checksums, corpus.json last."""
    for name, values in (("words", words), ("bytes", sizes)):
        np.frombuffer(values, dtype=np.int32).astype("<i4").tofile(folder / f"{name}.i32")
    description["files"] = {
        name: {"bytes": path.stat().st_size, "crc32": checksum(path)}
        for name, path in ((name, folder / f"{name}.i32") for name in _FILES)
    }
    with (folder / "corpus.json").open("w", encoding="utf-8") as file:
        json.dump(description, file, ensure_ascii=False)


def building_folder(root: Path) -> Path:
    """A new folder in the cache to build in; leftovers of killed programs, a day old, are removed."""
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(f"{_BUILDING}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _DAY:
                shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=_BUILDING, dir=root))


def publish(built: Path, folder: Path) -> Path:
    """Move a finished folder to its place; where another program was faster, keep that one. → where it is."""
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
    try:
        built.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(built, ignore_errors=True)
    return folder


def forget(folder: Path) -> None:
    """Remove a temporary folder whose files are mapped: at once where the system allows it, else at exit."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def map_ids(path: Path) -> NDArray[np.int32]:
    """The int32 numbers of a file, memory-mapped, read-only."""
    return np.memmap(path, dtype="<i4", mode="r")


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    value = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            value = zlib.crc32(piece, value)
    return value
