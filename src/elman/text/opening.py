"""A source as a stream of unpacked bytes: a file, a pipe or standard input; gzip, bzip2 and xz.

An archive is recognized by its first bytes, never by the name. A file is what it was when it was opened: one
that changes while it is read is refused, as is one that is not what its digest says. A named pipe waits a
moment for somebody to write into it. Not here: what is a text (reading.py).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import stat
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

from elman.errors import TextError

Source = Path | Literal["-"]
Progress = Callable[[int], None]
"""Called with the bytes of the file (as stored, compressed or not) read so far."""

BUFFER = 1 << 20
WAIT = 10.0
"""Seconds in which a named pipe must find a writer."""

_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
_BZIP2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")
_ENOUGH = 10  # bytes that tell an archive from a text
_OWN_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)|/dev/stdin")


def name_of(source: Source) -> str:
    """How messages name a source."""
    return "standard input" if source == "-" else str(source)


def read_once(source: Source) -> bool:
    """Whether it flows, a pipe or standard input, and so is gone once it was read. False where nothing is."""
    try:
        return source == "-" or stat.S_ISFIFO(os.stat(source).st_mode)
    except (OSError, ValueError):
        return False


def content_digest(source: Path, progress: Progress | None = None) -> str:
    """SHA-256 of a file as it is stored, hexadecimal. Raises TextError."""
    digest = hashlib.sha256()
    with _opened(source, progress, "") as raw:
        while piece := raw.read(BUFFER):
            digest.update(piece)
    return digest.hexdigest()


class Stream:
    """The bytes of a source, unpacked.

    packed  what it is packed with: gzip, bzip2, xz, or ""
    """

    def __init__(self, raw: io.BufferedReader[_Counted], name: str) -> None:
        self.name, self._done = name, 0
        start = raw.peek(_ENOUGH)[:_ENOUGH]
        self.packed, self._stream = _unpacked(raw, start, name)

    def read(self, size: int) -> bytes:
        """Some bytes, at most `size`, as soon as there are any; none at the end. Raises TextError."""
        try:
            piece = self._stream.read1(size)
        except EOFError:
            raise TextError(
                f"{self.name}: the {self.packed} archive ends too early, after {self._done:,} bytes of text.",
                reason="a download or copy was interrupted.",
                remedy=f"fetch it again; test it with: {self.packed} -t {self.name}",
            ) from None
        except OSError as error:
            if error.errno is None and self.packed:
                raise self._damaged(error) from None
            raise TextError(f"{self.name}: reading stopped after {self._done:,} bytes: {error}.") from None
        except (zlib.error, _lzma_error()) as error:
            raise self._damaged(error) from None
        self._done += len(piece)
        return piece

    def _damaged(self, error: Exception) -> TextError:
        return TextError(
            f"{self.name}: the {self.packed} archive is damaged after {self._done:,} bytes ({error}).",
            remedy=f"fetch it again; test it with: {self.packed} -t {self.name}",
        )


@contextmanager
def open_stream(source: Source, progress: Progress | None = None, digest: str = "") -> Iterator[Stream]:
    """A source, open. digest: its SHA-256 (`content_digest`) where it must be the same as before."""
    with _opened(source, progress, digest) as raw:
        yield Stream(raw, name_of(source))


def _unpacked(raw: io.BufferedReader[_Counted], start: bytes, name: str) -> tuple[str, io.BufferedIOBase]:
    if start.startswith(_MAGIC[0]):
        return "gzip", cast(io.BufferedIOBase, gzip.GzipFile(fileobj=raw))
    try:
        if _BZIP2.match(start):
            import bz2

            return "bzip2", cast(io.BufferedIOBase, bz2.BZ2File(raw))
        if start.startswith(_MAGIC[2]):
            import lzma

            return "xz", cast(io.BufferedIOBase, lzma.LZMAFile(raw))
    except ImportError:
        raise TextError(
            f"{name} is an archive that this Python cannot unpack.",
            remedy="unpack it first: bunzip2 or unxz.",
        ) from None
    return "", raw


def _may_be_packed(start: bytes) -> bool:
    """Whether more bytes must be seen to tell."""
    alike = any(start.startswith(magic) or magic.startswith(start) for magic in _MAGIC)
    return alike and len(start) < _ENOUGH


def _lzma_error() -> type[Exception]:
    lzma: Any = sys.modules.get("lzma")
    return lzma.LZMAError if lzma else zlib.error


@contextmanager
def _opened(source: Source, progress: Progress | None, digest: str) -> Iterator[io.BufferedReader[_Counted]]:
    if source == "-":
        if sys.stdin is None:  # closed by the shell: <&-
            raise TextError("standard input is closed.", remedy="pipe a text in, or name a file.")
        stdin = cast(io.BufferedIOBase, sys.stdin.buffer)
        with io.BufferedReader(_Counted(stdin, "standard input", progress, ""), BUFFER) as raw:
            yield raw
        return
    try:
        if source.is_dir():
            raise TextError(f"{source} is a folder, not a text file.", remedy="give a file in it.")
        file = _open_file(source)
    except FileNotFoundError:
        raise TextError(f"{source} does not exist.", remedy="check the path.") from None
    except PermissionError:
        raise TextError(f"{source} may not be read.", remedy="check its permissions: ls -l") from None
    except (OSError, ValueError) as error:
        raise TextError(f"{source} cannot be opened: {error}.") from None
    with file, io.BufferedReader(_Counted(file, str(source), progress, digest), BUFFER) as raw:
        yield raw


def _open_file(path: Path) -> io.BufferedIOBase:
    mode = os.stat(path).st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise TextError(
            f"{path} is a device, not a text file.", remedy="give a file, or - for standard input."
        )
    if not stat.S_ISFIFO(mode):
        return path.open("rb")
    if own := _OWN_DESCRIPTOR.fullmatch(str(path)):  # <(command) may have ended: as it is, not opened anew
        return open(os.dup(int(own[1] or 0)), "rb")
    return _open_pipe(path)


def _open_pipe(path: Path) -> io.BufferedIOBase:
    """A named pipe, as soon as somebody writes into it."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    end, first = time.monotonic() + WAIT, b""
    try:
        while not first:
            try:
                first = os.read(number, 1)
            except BlockingIOError:  # somebody is there who has not written yet
                break
            if not first and time.monotonic() > end:
                raise TextError(
                    f"{path} is a pipe into which nobody writes.",
                    reason=f"none came in {WAIT:.0f} seconds.",
                    remedy="start what writes into it first.",
                )
            if not first:
                time.sleep(0.02)
        os.set_blocking(number, True)
    except BaseException:
        os.close(number)
        raise
    file = open(number, "rb")  # noqa: SIM115  the caller closes it
    return _Begun(first, file) if first else file


class _Begun(io.BufferedIOBase):
    """A stream of which the first bytes have been read."""

    def __init__(self, first: bytes, rest: io.BufferedIOBase) -> None:
        self._first, self._rest = first, rest

    def fileno(self) -> int:
        return self._rest.fileno()

    def read1(self, size: int = -1) -> bytes:
        first, self._first = self._first, b""
        return first or self._rest.read1(size)

    def close(self) -> None:
        self._rest.close()


class _Counted(io.RawIOBase):
    """A stream that tells how much of it was read, and is what it was; closing leaves it to its owner."""

    def __init__(self, stream: io.BufferedIOBase, name: str, progress: Progress | None, digest: str) -> None:
        self._stream, self._name, self._progress, self._done = stream, name, progress, 0
        self._wanted, self._digest = digest, hashlib.sha256() if digest else None
        self._before = self._now()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        piece = self._stream.read1(len(buffer))  # what is there: a pipe is answered as it flows
        while not self._done and piece and _may_be_packed(piece):
            if not (more := self._stream.read1(len(buffer) - len(piece))):
                break
            piece += more
        buffer[: len(piece)] = piece
        self._done += len(piece)
        if self._digest:
            self._digest.update(piece)
        if not piece or (self._before and self._done > self._before[0]):
            self._require_the_same(at_end=not piece)
        if piece and self._progress:
            self._progress(self._done)
        return len(piece)

    def _now(self) -> tuple[int, int] | None:
        """Size and time of a file; None for what has neither."""
        try:
            found = os.fstat(self._stream.fileno())
        except (OSError, ValueError):  # no file of the system's
            return None
        return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None

    def _require_the_same(self, *, at_end: bool) -> None:
        changed = (
            self._digest.hexdigest() != self._wanted
            if self._digest and at_end
            else self._now() != self._before
        )
        if changed:
            raise TextError(
                f"{self._name} changed while it was read.",
                reason="another program writes into it, or has put another file in its place.",
                remedy="run the command again when it is finished.",
            )
