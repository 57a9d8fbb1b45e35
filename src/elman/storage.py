"""A folder of tensors and JSON that is whole or not there: written crash-safe, read with suspicion.

Files are safetensors (github.com/huggingface/safetensors) and JSON. The library encodes and decodes
tensors; here they reach the disk (fsync) before they are named, and their sizes and SHA-256 are checked
before anything is allocated. Not here: what the files mean (checkpoint.py).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
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
        raise refused(folder, error) from error
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
        raise refused(path, error) from error
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


def write_bytes(path: Path, data: bytes) -> str:
    """Write a new file through to the disk; its SHA-256. The mode is 0666 less the umask."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        rest = memoryview(data)
        while rest:  # a write may be short
            rest = rest[os.write(descriptor, rest[: 64 << 20]) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return hashlib.sha256(data).hexdigest()


def write_json(path: Path, document: object) -> str:
    """A new JSON file, through to the disk; its SHA-256."""
    return write_bytes(
        path, json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1).encode() + b"\n"
    )


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """A new safetensors file, through to the disk; its SHA-256."""
    return write_bytes(path, encode_tensors(tensors))


def encode_tensors(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file. Tensors that share memory are written one by one."""
    own: dict[str, Tensor] = {}
    taken = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in taken:  # the library refuses shared memory
            tensor = tensor.clone()
        taken.add(tensor.untyped_storage().data_ptr())
        own[name] = tensor
    return save(own, metadata)


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

    `expected` (names, shapes, dtypes; or a check of those found), the file's length and its SHA-256 are
    compared before a tensor is allocated. FormatError names what is wrong.
    """
    try:
        with path.open("rb") as file:
            _check_header(file, path)
            # read, not mapped: a file that changes later must not change the tensors
            with safe_open(path, framework="pt", backend="pread") as content:
                found = _shapes(content, path)
                if callable(expected):
                    expected(found)
                elif expected is not None:
                    check_shapes(path, expected, found)
                file.seek(0)
                if digest is not None and hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise FormatError(f"{path}: its SHA-256 is not the recorded one.", reason=DAMAGED)
                tensors: dict[str, Tensor] = content.get_tensors()
                return tensors
    except OSError as error:
        raise unreadable(path, error) from error
    except SafetensorError as error:
        raise FormatError(f"{path}: {error}.", reason=DAMAGED) from error


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


def _check_header(file: BinaryIO, path: Path) -> None:
    """What the library lets pass: a header of 100 MB, a name twice, any number of tensors."""
    start, length = file.read(8), os.fstat(file.fileno()).st_size
    size = int.from_bytes(start, "little")
    if len(start) < 8 or size > min(LARGEST_HEADER, length - 8):
        raise FormatError(f"{path}: a header of {size:,} bytes in a file of {length:,}.", reason=DAMAGED)
    header = _parse_object(file.read(size), path, "header: ")
    if len(header) > MOST_TENSORS:
        raise FormatError(
            f"{path}: {len(header):,} tensors; at most {MOST_TENSORS:,} are read.", reason=DAMAGED
        )


def _shapes(content: Any, path: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """The shape and dtype of each tensor of an opened file; FormatError where torch has none such."""
    found = {}
    for name in content.keys():  # noqa: SIM118 (the library's object is no mapping)
        described = content.get_slice(name)
        shape, dtype = tuple(described.get_shape()), described.get_dtype()
        if dtype not in DTYPES:
            raise FormatError(f"{path}: {name[:80]!r} has the dtype {dtype}.", reason=DAMAGED)
        if math.prod(max(1, extent) for extent in shape) >= 1 << 48:  # no data, yet strides overflow
            raise FormatError(f"{path}: sizes of {name[:80]!r} are not valid.", reason=DAMAGED)
        found[name] = shape, DTYPES[dtype]
    return found


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


def refused(path: Path, error: OSError) -> ElmanError:
    """An OSError of writing, told as cause and remedy."""
    return ElmanError(
        f"{path}: cannot be written: {error.strerror or error}.",
        reason="the disk is full, read-only, or not yours; what was saved before is kept.",
        remedy="make room or choose another --save folder.",
    )
