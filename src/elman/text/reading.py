"""Files as lines of valid UTF-8, streaming: a gigabyte never lies in memory.

Not a tokenizer: it knows bytes and lines only. Gzip, bzip2 and xz are recognized by their first bytes, never
by the name.
A byte-order mark is dropped, CRLF becomes LF, a last line without a line end gets one. What is no text
(UTF-16, binary, NUL, invalid UTF-8, a damaged archive) raises TextError with file, line and byte offset.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

from elman.errors import OptionError, TextError

BLOCK = 1 << 20
"""Bytes read at once."""
MAX_LINE = 1 << 24
"""Bytes of the longest line that is read: beyond it, a file has no lines."""

Source = Path | Literal["-"]
Progress = Callable[[int], None]
"""Called with the bytes of the file (as stored, compressed or not) read so far."""

_BZIP2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")

_FORMATS = (
    (b"\x1f\x9d", "a compress (.Z) archive", "uncompress it first"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive", "unzstd it first"),
    (b"PK\x03\x04", "a zip archive (or an office document)", "unzip it first, or save it as plain text"),
    (b"%PDF-", "a PDF document", "save it as plain text"),
    (b"PAR1", "a Parquet table", "write its text column to a plain text file"),
    (b"\x7fELF", "a program", "give a text file"),
)


def name_of(source: Source) -> str:
    """How messages name a source."""
    return "standard input" if source == "-" else str(source)


def open_lines(source: Source) -> Iterator[bytes]:
    """The lines of a file without their ends. Raises TextError."""
    for block in open_blocks(source):
        yield from block[:-1].split(b"\n")


def open_blocks(
    source: Source, progress: Progress | None = None, *, encoding: str = "utf-8"
) -> Iterator[bytes]:
    """Blocks of whole lines, each line ended by one LF, valid UTF-8 without NUL. Raises TextError.

    source    a path, or "-" for standard input
    encoding  of the source, one that extends ASCII. Raises OptionError for another
    """
    _require_encoding(encoding)
    name = name_of(source)
    with _open(source, progress) as stream:
        line, offset, kept = 1, 0, b""
        while True:
            fresh = _read(stream, name, offset)
            at_end = not fresh
            if offset == 0 and (kept + fresh)[:3] == b"\xef\xbb\xbf":
                kept, fresh = b"", (kept + fresh)[3:]
                offset = 3
            if at_end and kept:
                fresh = b"\n"
            cut = fresh.rfind(b"\n") + 1
            if not cut:
                kept += fresh
                if at_end:
                    return
                if len(kept) > MAX_LINE:
                    raise _endless(name, line)
                continue
            block, kept = kept + fresh[:cut], fresh[cut:]
            size = len(block)
            if encoding != "utf-8":
                block = _recoded(block, encoding, name, line)
            _require_text(block, name, line, offset)
            offset += size
            block = with_line_feeds(block)
            line += block.count(b"\n")
            yield block


def with_line_feeds(text: bytes) -> bytes:
    """Each CRLF as LF. So is CRCRLF, which text-mode copies leave: a text read twice is the same text."""
    return re.sub(rb"(?<!\r)\r++\n", b"\n", text) if b"\r\n" in text else text


def content_digest(source: Path, progress: Progress | None = None) -> str:
    """SHA-256 of the file as it is stored, hexadecimal. Raises TextError."""
    digest = hashlib.sha256()
    with _open_plain(source) as file:
        done = 0
        while piece := file.read(BLOCK):
            digest.update(piece)
            done += len(piece)
            if progress:
                progress(done)
    return digest.hexdigest()


@contextmanager
def _open_plain(path: Path) -> Iterator[io.BufferedReader]:
    try:
        if path.is_dir():
            raise TextError(f"{path} is a folder, not a text file.", remedy="give a file in it.")
        file = path.open("rb")
    except FileNotFoundError:
        raise TextError(f"{path} does not exist.", remedy="check the path.") from None
    except PermissionError:
        raise TextError(f"{path} may not be read.", remedy="check its permissions: ls -l") from None
    except (OSError, ValueError) as error:
        raise TextError(f"{path} cannot be opened: {error}.") from None
    with file:
        yield file


@contextmanager
def _open(source: Source, progress: Progress | None) -> Iterator[io.BufferedIOBase]:
    if source == "-":
        if sys.stdin is None:  # closed by the shell: <&-
            raise TextError("standard input is closed.", remedy="pipe a text in, or name a file.")
        with io.BufferedReader(
            _Counted(cast(io.BufferedIOBase, sys.stdin.buffer), progress), BLOCK
        ) as counted:
            yield _unpacked(counted)
        return
    with _open_plain(source) as file, io.BufferedReader(_Counted(file, progress), BLOCK) as counted:
        yield _unpacked(counted)


def _unpacked(stream: io.BufferedReader[_Counted]) -> io.BufferedIOBase:
    start = stream.peek(10)[:10]
    if start.startswith(b"\x1f\x8b"):
        return cast(io.BufferedIOBase, gzip.GzipFile(fileobj=stream))
    if _BZIP2.match(start):
        return cast(io.BufferedIOBase, bz2.BZ2File(stream))
    if start.startswith(b"\xfd7zXZ\0"):
        return cast(io.BufferedIOBase, lzma.LZMAFile(stream))
    return cast(io.BufferedIOBase, stream)


class _Counted(io.RawIOBase):
    """A stream that tells how much of it was read; closing it leaves the stream to its owner."""

    def __init__(self, stream: io.BufferedIOBase, progress: Progress | None) -> None:
        self._stream, self._progress, self._done = stream, progress, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        piece = self._stream.read1(len(buffer))  # what is there: a pipe is answered as it flows
        buffer[: len(piece)] = piece
        self._done += len(piece)
        if self._progress:
            self._progress(self._done)
        return len(piece)


def _read(stream: io.BufferedIOBase, name: str, offset: int) -> bytes:
    packer = {gzip.GzipFile: "gzip", bz2.BZ2File: "bzip2", lzma.LZMAFile: "xz"}.get(type(stream), "")
    try:
        return stream.read1(BLOCK)
    except EOFError:
        raise TextError(
            f"{name}: the {packer} archive ends too early, after about {offset:,} bytes of text.",
            reason="a download or copy was interrupted.",
            remedy=f"fetch it again; test it with: {packer} -t {name}",
        ) from None
    except (OSError, zlib.error, lzma.LZMAError) as error:
        if packer and getattr(error, "errno", None) is None:  # not of the disk
            raise TextError(
                f"{name}: the {packer} archive is damaged after about {offset:,} bytes of text ({error}).",
                remedy=f"fetch it again; test it with: {packer} -t {name}",
            ) from None
        raise TextError(f"{name}: reading stopped after {offset:,} bytes: {error}.") from None


def _require_encoding(encoding: str) -> None:
    try:
        usable = "\\data 0\n".encode(encoding) == b"\\data 0\n"
    except (LookupError, UnicodeError):
        usable = False
    if not usable:
        raise OptionError(
            f"encoding {encoding!r} is unknown, or does not extend ASCII.",
            remedy="for instance latin-1, windows-1252 or gb18030; convert others: iconv -t UTF-8.",
        )


def _recoded(block: bytes, encoding: str, name: str, line: int) -> bytes:
    """A block of whole lines as UTF-8."""
    try:
        return block.decode(encoding).encode()
    except UnicodeError as error:
        at = getattr(error, "start", 0)
        raise TextError(
            f"{name}: line {line + block.count(10, 0, at)}: 0x{block[at]:02X} is not {encoding}.",
            remedy="give another encoding.",
        ) from None


def _require_text(block: bytes, name: str, line: int, offset: int) -> None:
    if len(block) > MAX_LINE and max(map(len, block.split(b"\n"))) > MAX_LINE:
        raise _endless(name, line)
    if offset == 0:
        _require_known_format(block, name)
    nul = block.find(b"\0")
    try:
        block.decode("utf-8")
        bad, value = -1, 0
    except UnicodeDecodeError as error:
        bad, value = error.start, block[error.start]
    if nul >= 0 and (sixteen := _looks_like_utf16(block)):
        raise _utf16(name, f"{sixteen}, without a byte-order mark")
    if nul >= 0 and (bad < 0 or nul < bad):
        raise TextError(
            f"{name}: line {line + block.count(10, 0, nul)}, byte {offset + nul:,}: a NUL byte.",
            reason="this is a binary file, not text.",
            remedy="give plain UTF-8 text, one sentence a line.",
        )
    if bad >= 0:
        number = line + block.count(10, 0, bad)
        raise TextError(
            f"{name}: line {number}, byte {offset + bad:,}: 0x{value:02X} is not UTF-8.",
            reason="the file is in another encoding (often Latin-1 or Windows-1252), or cut in a character.",
            remedy=f"convert it: iconv -f WINDOWS-1252 -t UTF-8 {name} > text.txt",
        )


def _require_known_format(start: bytes, name: str) -> None:
    for order, mark in (("little-endian", b"\xff\xfe"), ("big-endian", b"\xfe\xff")):
        if start.startswith(mark):
            raise _utf16(name, order)
    for magic, what, remedy in _FORMATS:
        if start.startswith(magic):
            raise TextError(f"{name} is {what}, not text.", remedy=f"{remedy}.")


def _looks_like_utf16(block: bytes) -> str:
    """Text in Latin letters has a NUL in every other place."""
    even, odd = block[0:4000:2], block[1:4000:2]
    if odd.count(0) > 0.4 * len(odd) and even.count(0) < 0.1 * len(even):
        return "little-endian"
    if even.count(0) > 0.4 * len(even) and odd.count(0) < 0.1 * len(odd):
        return "big-endian"
    return ""


def _utf16(name: str, order: str) -> TextError:
    encoding = "UTF-16LE" if order.startswith("little") else "UTF-16BE"
    encoding = encoding if "without" in order else "UTF-16"
    return TextError(
        f"{name} is UTF-16 text ({order}), not UTF-8.",
        remedy=f"convert it: iconv -f {encoding} -t UTF-8 {name} > text.txt",
    )


def _endless(name: str, line: int) -> TextError:
    return TextError(
        f"{name}: a line is longer than {MAX_LINE >> 20} MiB, at or after line {line}.",
        reason="the file has no line ends; one sentence a line is expected.",
        remedy=f"break it, for instance: fold -s -w 1000 {name} > text.txt",
    )
