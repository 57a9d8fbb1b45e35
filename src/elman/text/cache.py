"""Encoded corpora on disk: memory-mapped ids, built once, found again under a key of content and settings.

A folder of raw little-endian int32 files and corpus.json with a checksum of each. It is written under
another name and renamed, so a half-written one is never found; a damaged one is built again. Deleting
the cache folder is always safe.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
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

from elman.visible import json_text

FORMAT = 3
"""Part of every key: raise it when tokenizers, splits or this layout change."""
_FILES = ("whole", "words", "bytes")
_BUILDING = ".building-"
_DAY = 86_400.0
_ATTEMPTS = 10


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
        if description.pop("sha256") != _digest(description):
            raise DamagedCache(f"{folder}: corpus.json is not what was written")
        arrays: dict[str, NDArray[np.int32]] = {}
        for name in _FILES:
            path, recorded = folder / f"{name}.i32", description["files"][name]
            if path.stat().st_size != recorded["bytes"] or checksum(path) != recorded["crc32"]:
                raise DamagedCache(f"{path} is not what was written")
            arrays[name] = map_ids(path)
        return description, arrays
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
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
    whole = description | {"sha256": _digest(description)}
    (folder / "corpus.json").write_text(json_text(whole), encoding="utf-8")


def _digest(description: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def building_folder(root: Path) -> Path:
    """A new folder in the cache to build in; leftovers of killed programs, a day old, are removed."""
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(f"{_BUILDING}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _DAY:
                shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=_BUILDING, dir=root))


def publish(built: Path, folder: Path) -> None:
    """Move a finished folder to its place. A whole one that is there stays, as another program was faster; a
    damaged one goes. Raises OSError where neither can be done."""
    for _ in range(_ATTEMPTS):
        try:
            built.rename(folder)
            return
        except OSError:
            try:
                if read_cache(folder) is not None:
                    shutil.rmtree(built, ignore_errors=True)
                    return
            except DamagedCache:
                aside = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=folder.parent))
                with contextlib.suppress(OSError):  # another program may have moved it
                    folder.rename(aside)
                shutil.rmtree(aside, ignore_errors=True)
    built.rename(folder)


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
