"""Files as lines of valid UTF-8, streaming: a gigabyte never lies in memory.

Not a tokenizer: it knows bytes and lines only. A byte-order mark is dropped, CRLF becomes LF, a last line
without a line end gets one. What is no text (UTF-16, binary, NUL, invalid UTF-8) raises TextError with file,
line and byte offset, after the lines before it; so does what has no end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from elman.errors import OptionError, TextError
from elman.text.opening import Progress, Source, name_of, open_stream, read_once

BLOCK = 1 << 20
"""Bytes read at once."""
MAX_LINE = 1 << 24
"""Bytes of the longest line that is read: beyond it, a file has no lines."""
MAX_FLOW = 1 << 34
"""Bytes read from a pipe or standard input, which may have no end."""
MAX_HELD = 1 << 30
"""Bytes of a text that is held in memory."""

_FORMATS = (
    (b"\x1f\x9d", "a compress (.Z) archive", "uncompress it first"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive", "unzstd it first"),
    (b"PK\x03\x04", "a zip archive (or an office document)", "unzip it first, or save it as plain text"),
    (b"%PDF-", "a PDF document", "save it as plain text"),
    (b"PAR1", "a Parquet table", "write its text column to a plain text file"),
    (b"\x7fELF", "a program", "give a text file"),
)


def open_lines(source: Source) -> Iterator[bytes]:
    """The lines of a file without their ends. Raises TextError."""
    for block in open_blocks(source):
        yield from block[:-1].split(b"\n")


def read_text(source: Source) -> str:
    """A whole text, in memory. Raises TextError."""
    blocks, size = [], 0
    for block in open_blocks(source):
        blocks.append(block)
        size += len(block)
        if size > MAX_HELD:
            raise TextError(
                f"{name_of(source)} is longer than {MAX_HELD >> 20:,} MiB, too long to be held in memory.",
                remedy="give a shorter text.",
            )
    return b"".join(blocks).decode()


def open_blocks(
    source: Source,
    progress: Progress | None = None,
    *,
    encoding: str = "utf-8",
    digest: str = "",
    endless: bool = False,
) -> Iterator[bytes]:
    """Blocks of whole lines, each line ended by one LF, valid UTF-8 without NUL. Raises TextError.

    source    a path, or "-" for standard input
    encoding  of the source, one that extends ASCII. Raises OptionError for another
    digest    of the file (`content_digest`), where it must be the one that was seen before
    endless   each line is answered as it comes, so that a pipe needs no end
    """
    _require_encoding(encoding)
    name, limit = name_of(source), MAX_FLOW if read_once(source) and not endless else None
    with open_stream(source, progress, digest) as stream:
        line, offset, kept = 1, 0, b""
        while True:
            fresh = stream.read(BLOCK)
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
            if (fault := _fault(block, name, line, offset)) is not None:
                if fault[0]:
                    yield with_line_feeds(block[: fault[0]])
                raise fault[1]
            offset += size
            if limit is not None and offset > limit:
                raise TextError(
                    f"{name} has not ended after {offset >> 20:,} MiB.",
                    reason="what writes into it never stops.",
                    remedy="write the text to a file first.",
                )
            block = with_line_feeds(block)
            line += block.count(b"\n")
            yield block


def with_line_feeds(text: bytes) -> bytes:
    """Each CRLF as LF. So is CRCRLF, which text-mode copies leave: a text read twice is the same text."""
    return re.sub(rb"(?<!\r)\r++\n", b"\n", text) if b"\r\n" in text else text


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


def _fault(block: bytes, name: str, line: int, offset: int) -> tuple[int, TextError] | None:
    """What makes a block no text, and how many of its bytes are whole lines before that."""
    if len(block) > MAX_LINE and max(map(len, block.split(b"\n"))) > MAX_LINE:
        return 0, _endless(name, line)
    if offset == 0 and (other := _known_format(block, name)) is not None:
        return 0, other
    nul = block.find(b"\0")
    try:
        block.decode("utf-8")
        bad, value = -1, 0
    except UnicodeDecodeError as error:
        bad, value = error.start, block[error.start]
    if nul >= 0 and (sixteen := _looks_like_utf16(block)):
        return 0, _utf16(name, f"{sixteen}, without a byte-order mark")
    if nul >= 0 and (bad < 0 or nul < bad):
        return block.rfind(b"\n", 0, nul) + 1, TextError(
            f"{name}: line {line + block.count(10, 0, nul)}, byte {offset + nul:,}: a NUL byte.",
            reason="this is a binary file, not text.",
            remedy="give plain UTF-8 text, one sentence a line.",
        )
    if bad >= 0:
        number = line + block.count(10, 0, bad)
        return block.rfind(b"\n", 0, bad) + 1, TextError(
            f"{name}: line {number}, byte {offset + bad:,}: 0x{value:02X} is not UTF-8.",
            reason="the file is in another encoding (often Latin-1 or Windows-1252), or cut in a character.",
            remedy=f"convert it: iconv -f WINDOWS-1252 -t UTF-8 {name} > text.txt",
        )
    return None


def _known_format(start: bytes, name: str) -> TextError | None:
    for order, mark in (("little-endian", b"\xff\xfe"), ("big-endian", b"\xfe\xff")):
        if start.startswith(mark):
            return _utf16(name, order)
    for magic, what, remedy in _FORMATS:
        if start.startswith(magic):
            return TextError(f"{name} is {what}, not text.", remedy=f"{remedy}.")
    return None


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
