"""Tensors and JSON on disk, read with suspicion.

Files are safetensors (github.com/huggingface/safetensors) and JSON. The library encodes and decodes
tensors; here their sizes and SHA-256 are checked before anything is allocated, and every JSON value goes
through its schema. Not here: how bytes reach the disk (disk.py), what the files mean (checkpoint.py).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar

import torch
from pydantic import StringConstraints, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from elman.disk import open_file, unreadable, write_bytes
from elman.errors import FormatError

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
DAMAGED = "the file is damaged, cut off, or was not written by Elman."
Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
"""A SHA-256."""
Value = TypeVar("Value")


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


def read_json(path: Path, *, largest: int = LARGEST_JSON, digest: str | None = None) -> dict[str, Any]:
    """A JSON object. FormatError: absent, too large, not JSON, a key twice, not an object, other digest."""
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > largest:
                raise FormatError(f"{path}: {size:,} bytes; at most {largest:,} are read.", reason=DAMAGED)
            data = file.read(size)  # takes so much memory at once
    except OSError as error:
        raise unreadable(path, error) from error
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise FormatError(f"{path}: its SHA-256 is not the recorded one.", reason=DAMAGED)
    return _parse_object(data, path, "")


def checked(schema: type[Value], document: object, place: Path | str) -> Value:
    """A JSON value as `schema` (a pydantic model, a dataclass …) has it, strictly: no string for a number.

    FormatError names the first field that is wrong.
    """
    try:
        text = json.dumps(document)
        return TypeAdapter(schema).validate_json(text, strict=True)
    except (ValidationError, ValueError, RecursionError) as error:
        told = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            field = ".".join(str(part)[:40] for part in first["loc"])
            told = f"{field}: {first['msg']}" if field else first["msg"]
        raise FormatError(f"{place}: {told}.", reason=DAMAGED) from error


def digest_of(document: object) -> str:
    """SHA-256 of a JSON value, however it is laid out."""
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def require_format(path: Path, document: Mapping[str, Any], name: str, version: int) -> None:
    """FormatError unless a JSON object says that it is `name` in this version."""
    if document.get("format") != name:
        raise FormatError(f"{path}: not an {name} file.", reason=DAMAGED)
    if document.get("version") != version:
        raise FormatError(
            f"{path}: version {document.get('version')!r:.40}; this Elman reads {version}.",
            remedy="use the Elman that wrote it, or save it again.",
        )


def require_whole(path: Path, document: Mapping[str, Any]) -> None:
    """FormatError unless `digest` is that of all the rest."""
    rest = {name: value for name, value in document.items() if name != "digest"}
    if document.get("digest") != digest_of(rest):
        raise FormatError(f"{path}: its content is not what was written.", reason=DAMAGED)


def read_tensors(
    path: Path, expected: Shapes | Callable[[Shapes], None] | None = None, *, digest: str | None = None
) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU.

    `expected` (names, shapes, dtypes; or a check of those found), the file's length and its SHA-256 are
    compared before a tensor is allocated. FormatError names what is wrong.
    """
    try:
        with open_file(path) as file:
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
