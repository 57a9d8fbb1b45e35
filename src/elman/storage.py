"""A folder of tensors and JSON that is whole or not there: written crash-safe, read with suspicion.

Files are safetensors (github.com/huggingface/safetensors: 8 bytes of header length, a JSON header, raw
little-endian data without holes) and JSON. They are written here rather than by the library to stream
without a second copy in memory, to reach the disk (fsync) before they are named, and to check every
size before anything is allocated. Not here: what the files mean (checkpoint.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elman.errors import ElmanError, FormatError

Shapes = Mapping[str, tuple[tuple[int, ...], torch.dtype]]

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LARGEST_HEADER = LARGEST_JSON = 16 << 20
MOST_TENSORS = 4096
TEMPORARY = ".tmp-"
"""Prefix of everything unfinished; what still bears it after a crash is rubbish."""

DAMAGED = "the file is damaged, cut off, or was not written by Elman."


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, renamed to it when the block ends well; else removed.

    Whoever looks at `folder` sees all of it or nothing, after a crash or power loss too. `folder` must
    not exist or be empty. Raises ElmanError when the disk refuses (full, read-only).
    """
    temporary = folder.with_name(f"{TEMPORARY}{folder.name}-{uuid.uuid4().hex[:12]}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.mkdir(temporary)
        yield temporary
        sync_folder(temporary)
        os.rename(temporary, folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise _refused(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step: a reader sees the old file or the new one."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{uuid.uuid4().hex[:12]}")
    try:
        write_bytes(temporary, data)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


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


def write_bytes(path: Path, *parts: bytes | memoryview) -> str:
    """Write a new file through to the disk; its SHA-256. The mode is 0666 less the umask."""
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        for part in parts:
            rest = memoryview(part)
            digest.update(rest)
            while rest:  # a write may be short
                rest = rest[os.write(descriptor, rest[: 64 << 20]) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def write_json(path: Path, document: object) -> str:
    """A new JSON file, through to the disk; its SHA-256."""
    return write_bytes(
        path, json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1).encode() + b"\n"
    )


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """A new safetensors file, through to the disk; its SHA-256."""
    header: dict[str, Any] = {}
    parts: list[memoryview] = []
    offset = 0
    # wide elements first, so that each tensor lies aligned; then by name
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        tensor = tensors[name].detach().cpu().contiguous()
        data = tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else memoryview(b"")
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + data.nbytes],
        }
        parts.append(data)
        offset += data.nbytes
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return write_bytes(path, len(encoded).to_bytes(8, "little"), encoded, *parts)


def sync_folder(folder: Path) -> None:
    """Make names in `folder` last through a power loss. Windows cannot and need not."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path, *, largest: int = LARGEST_JSON, digest: str | None = None) -> dict[str, Any]:
    """A JSON object. FormatError: absent, too large, not JSON, a key twice, not an object, other digest."""
    try:
        size = path.stat().st_size
        if size > largest:
            raise FormatError(f"{path}: {size:,} bytes; at most {largest:,} are read.", reason=DAMAGED)
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise FormatError(f"{path}: its SHA-256 is not the recorded one.", reason=DAMAGED)
    return _parse_object(data, path, "")


def read_tensors(
    path: Path, expected: Shapes | Callable[[Shapes], None] | None = None, *, digest: str | None = None
) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU.

    `expected` (names, shapes, dtypes; or a check of those found) and the file's length are compared
    with the header before a tensor is allocated. FormatError names what is wrong.
    """
    try:
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            sha = hashlib.sha256()
            start = file.read(8)
            header_length = int.from_bytes(start, "little")
            if len(start) < 8 or header_length > min(LARGEST_HEADER, length - 8):
                raise FormatError(
                    f"{path}: a header of {header_length:,} bytes in a file of {length:,}.", reason=DAMAGED
                )
            encoded = file.read(header_length)
            sha.update(start)
            sha.update(encoded)
            layout = _layout(_parse_object(encoded, path, "header: "), length - 8 - header_length, path)
            found = {name: (shape, dtype) for name, shape, dtype in layout}
            if callable(expected):
                expected(found)
            elif expected is not None:
                check_shapes(path, expected, found)
            tensors = {}
            for name, shape, dtype in layout:
                tensor = torch.empty(shape, dtype=dtype)
                if tensor.numel():
                    view = tensor.reshape(-1).view(torch.uint8).numpy().data
                    if file.readinto(view) != view.nbytes:
                        raise FormatError(f"{path}: ends within {name}.", reason=DAMAGED)
                    sha.update(view)
                tensors[name] = tensor
    except OSError as error:
        raise unreadable(path, error) from error
    if digest is not None and sha.hexdigest() != digest:
        raise FormatError(f"{path}: its SHA-256 is not the recorded one.", reason=DAMAGED)
    return tensors


def check_shapes(path: Path, expected: Shapes, found: Shapes) -> None:
    """FormatError unless both hold the same names with the same shapes and dtypes."""
    reason = "the file is damaged or belongs to another model."
    if missing := sorted(expected.keys() - found.keys()):
        raise FormatError(f"{path}: lacks {', '.join(missing[:4])}.", reason=reason)
    if unknown := sorted(found.keys() - expected.keys()):
        raise FormatError(
            f"{path}: holds unknown {', '.join(name[:80] for name in unknown[:4])}.", reason=reason
        )
    for name, (shape, dtype) in expected.items():
        if found[name] != (shape, dtype):
            has = f"{found[name][1]} {list(found[name][0])}"
            raise FormatError(f"{path}: {name} is {has}, not {dtype} {list(shape)}.", reason=reason)


def _layout(header: dict[str, Any], room: int, path: Path) -> list[tuple[str, tuple[int, ...], torch.dtype]]:
    """(name, shape, dtype) in the order of the data, which fill `room` bytes without hole or overlap."""
    header.pop("__metadata__", None)
    if len(header) > MOST_TENSORS:
        raise FormatError(
            f"{path}: {len(header):,} tensors; at most {MOST_TENSORS:,} are read.", reason=DAMAGED
        )
    rows = []
    for name, entry in header.items():
        try:
            dtype, shape, (begin, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
            numbers = [*shape, begin, end]
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"{path}: header: tensor {name[:80]!r} is not described.", reason=DAMAGED
            ) from error
        if any(type(number) is not int or not 0 <= number < 1 << 48 for number in numbers) or len(shape) > 8:
            raise FormatError(f"{path}: header: sizes of {name[:80]!r} are not valid.", reason=DAMAGED)
        size = dtype.itemsize
        for extent in shape:
            size *= extent
        if end - begin != size:
            raise FormatError(
                f"{path}: header: {name[:80]!r} has {end - begin} bytes, not {size}.", reason=DAMAGED
            )
        rows.append((begin, end, name, tuple(shape), dtype))
    rows.sort(key=lambda row: row[:2])
    at = 0
    for begin, end, name, _, _ in rows:
        if begin != at:
            raise FormatError(f"{path}: header: hole or overlap before {name[:80]!r}.", reason=DAMAGED)
        at = end
    if at != room:
        raise FormatError(f"{path}: {room:,} bytes of data, {at:,} described.", reason=DAMAGED)
    return [(name, shape, dtype) for _, _, name, shape, dtype in rows]


def _parse_object(data: bytes, path: Path, where: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise FormatError(f"{path}: {where}a key stands there twice.", reason=DAMAGED)
        return found

    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: {where}not JSON: {error}.", reason=DAMAGED) from error
    if not isinstance(document, dict):
        raise FormatError(f"{path}: {where}a {type(document).__name__} instead of an object.", reason=DAMAGED)
    return document


def unreadable(path: Path, error: OSError) -> FormatError:
    """An OSError of reading, told as cause and remedy."""
    return FormatError(
        f"{path}: cannot be read: {error.strerror or error}.", remedy="check the path and its rights."
    )


def _refused(path: Path, error: OSError) -> ElmanError:
    return ElmanError(
        f"{path}: cannot be written: {error.strerror or error}.",
        reason="the disk is full, read-only, or not yours; what was saved before is kept.",
        remedy="make room or choose another --save folder.",
    )
