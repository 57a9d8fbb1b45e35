"""Files as lines: what is accepted, and the message for each thing that is no text."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman.errors import TextError
from elman.text import opening, reading
from elman.text.opening import content_digest
from elman.text.reading import open_blocks, open_lines, read_text


def lines_of(tmp_path: Path, content: bytes) -> list[bytes]:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    return list(open_lines(path))


def refused(tmp_path: Path, content: bytes) -> TextError:
    with pytest.raises(TextError) as caught:
        lines_of(tmp_path, content)
    assert "text.txt" in caught.value.cause
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"\n\n", [b"", b""]),
        (b"one", [b"one"]),
        (b"one two\nthree\n", [b"one two", b"three"]),
        (b"one two\nthree", [b"one two", b"three"]),
        (b"one\r\ntwo\r\n", [b"one", b"two"]),
        (b"one\r\ntwo\r", [b"one", b"two"]),
        (b"one\rtwo\r\r\n", [b"one\rtwo"]),
        (b"\xef\xbb\xbfone\n", [b"one"]),
        (b"\xef\xbb\xbf", []),
        (b"one\n\xef\xbb\xbftwo\n", [b"one", b"\xef\xbb\xbftwo"]),
        ("na\u00efve\u00a0x\u2028y\x85z\n".encode(), ["na\u00efve\u00a0x\u2028y\x85z".encode()]),
        (b"a\x0bb\x0cc\x1cd\n", [b"a\x0bb\x0cc\x1cd"]),
    ],
)
def test_lines(tmp_path: Path, content: bytes, lines: list[bytes]) -> None:
    assert lines_of(tmp_path, content) == lines
    assert lines_of(tmp_path, gzip.compress(content)) == lines


@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200))
def test_blocks_of_any_size_give_the_same_lines(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("reading") / "text.txt"
    path.write_bytes(text.encode())
    wanted = text.removeprefix("\ufeff").encode()
    wanted = wanted if wanted.endswith(b"\n") or not wanted else wanted + b"\n"
    wanted = re.sub(b"\r+\n", b"\n", wanted)
    with pytest.MonkeyPatch.context() as patch:
        for size in (3, 7, 1000):
            patch.setattr(reading, "BLOCK", size)
            blocks = list(open_blocks(path))
            assert b"".join(blocks) == wanted
            assert all(block.endswith(b"\n") for block in blocks)


@pytest.mark.parametrize("size", [4, 16, 1 << 20])
def test_invalid_utf8_is_named_by_line_and_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(reading, "BLOCK", size)
    error = refused(tmp_path, b"first line\nsecond\ncaf\xe9 x\nlast\n")
    assert "line 3, byte 21: 0xE9 is not UTF-8" in error.cause
    assert "Latin-1" in error.reason
    assert "iconv" in error.remedy


def test_a_character_cut_at_the_end_and_an_encoded_surrogate_are_invalid(tmp_path: Path) -> None:
    assert "line 1, byte 2" in refused(tmp_path, b"ab\xc3").cause
    assert "line 2, byte 3" in refused(tmp_path, b"ab\n\xed\xa0\x80\n").cause


def test_byte_offsets_count_the_byte_order_mark_and_carriage_returns(tmp_path: Path) -> None:
    assert "line 2, byte 7" in refused(tmp_path, b"\xef\xbb\xbfab\r\n\xff\n").cause


def test_a_nul_byte_is_binary(tmp_path: Path) -> None:
    error = refused(tmp_path, b"some text\nand a \0 byte\n")
    assert "line 2, byte 16: a NUL byte" in error.cause
    assert "binary" in error.reason


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("mark", [True, False])
def test_utf16_is_recognized(tmp_path: Path, encoding: str, mark: bool) -> None:
    text = ("\ufeff" if mark else "") + "Café au lait\nand so on\n"
    error = refused(tmp_path, text.encode(encoding))
    order = "little-endian" if encoding.endswith("le") else "big-endian"
    assert f"UTF-16 text ({order}" in error.cause
    assert ("without a byte-order mark" in error.cause) is not mark
    assert "iconv -f UTF-16" in error.remedy


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x28\xb5\x2f\xfd\n", "zstandard"),
        (b"PK\x03\x04\n", "zip"),
        (b"%PDF-1.7\n", "PDF"),
        (b"PAR1\n", "Parquet"),
        (b"\x7fELF\n", "program"),
    ],
)
def test_other_formats_are_named(tmp_path: Path, content: bytes, what: str) -> None:
    assert what in refused(tmp_path, content).cause


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_texts_are_read(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    for content in (b"some words\nin lines\n" * 90_000, b"", b"BZh9 is a word\n"):
        path = tmp_path / "text"
        path.write_bytes(pack(content))
        assert b"".join(open_blocks(path)) == content
    path.write_bytes(b"BZh91 is a word of plain text\n")
    assert list(open_lines(path)) == [b"BZh91 is a word of plain text"]


def test_damaged_gzip(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"some words in a line\n" * 300 + bytes(range(32, 127)) + b"\n"))
    assert "ends too early" in refused(tmp_path, bytes(packed[:-9])).cause
    assert "ends too early" in refused(tmp_path, bytes(packed[:5])).cause
    packed[-6] ^= 255  # the checksum
    assert "damaged" in refused(tmp_path, bytes(packed)).cause
    packed[12] ^= 255  # the data
    assert "damaged" in refused(tmp_path, bytes(packed)).cause
    assert "damaged" in refused(tmp_path, gzip.compress(b"fine\n") + b"garbage").cause


def test_a_file_without_line_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_LINE", 1 << 20)
    assert "longer than 1 MiB" in refused(tmp_path, b"word " * 500_000).cause
    assert "fold" in refused(tmp_path, b"x\n" + b"word " * 210_000 + b"\ny\n").remedy
    assert len(lines_of(tmp_path, b"word " * 200_000 + b"\n" + b"word " * 200_000)) == 2


def test_missing_folder_and_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TextError, match="does not exist"):
        list(open_lines(tmp_path / "absent.txt"))
    with pytest.raises(TextError, match="is a folder"):
        list(open_lines(tmp_path))
    with pytest.raises(TextError, match="cannot be opened"):
        list(open_lines(tmp_path / ("long" * 200)))
    with pytest.raises(TextError, match="cannot be"):
        list(open_lines(tmp_path / "nul\0name"))
    (tmp_path / "secret.txt").write_text("x\n")

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)  # root may read anything, so the refusal is staged
    with pytest.raises(TextError, match="may not be read"):
        list(open_lines(tmp_path / "secret.txt"))


def test_an_error_while_reading_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(opening, "_unpacked", lambda *_: ("", Broken()))
    assert "reading stopped" in str(refused_quietly(tmp_path))


def refused_quietly(tmp_path: Path) -> TextError:
    with pytest.raises(TextError) as caught:
        lines_of(tmp_path, b"x\n")
    return caught.value


@pytest.mark.parametrize("packed", [False, True])
def test_standard_input(monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    content = b"\xef\xbb\xbfone\r\ntwo"
    stdin = io.TextIOWrapper(io.BytesIO(gzip.compress(content) if packed else content))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert list(open_lines("-")) == [b"one", b"two"]
    assert not stdin.buffer.closed


def test_progress_counts_the_stored_bytes(tmp_path: Path) -> None:
    path = tmp_path / "text.txt.gz"
    path.write_bytes(gzip.compress(b"a line\n" * 5000))
    seen: list[int] = []
    list(open_blocks(path, seen.append))
    assert seen[-1] == path.stat().st_size
    assert seen == sorted(seen)


def test_content_digest_is_sha256(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    seen: list[int] = []
    wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert content_digest(path, seen.append) == wanted
    assert seen == [3]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_archives_of_several_members_and_what_is_wrong_with_one(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    first, second = b"\xef\xbb\xbfone\r\ntw", "o né\nlast".encode()
    assert lines_of(tmp_path, pack(first) + pack(second)) == [b"one", "two né".encode(), b"last"]
    packed = pack(b"some words in a line\n" * 300 + bytes(range(32, 127)) + b"\n")
    assert "archive ends too early" in refused(tmp_path, packed[:-9]).cause
    assert "archive is damaged" in refused(tmp_path, packed[:20] + b"XXXX" + packed[24:]).cause


@pytest.mark.parametrize("bad", [b"caf\xe9 x\n", b"a \0 byte\n"])
def test_the_lines_before_a_bad_one_come_first(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"first line\r\nsecond\n" + bad + b"last\n")
    lines = open_lines(path)
    assert [next(lines), next(lines)] == [b"first line", b"second"]
    with pytest.raises(TextError, match="line 3"):
        next(lines)


def feeding(path: Path, *pieces: bytes) -> threading.Thread:
    """Somebody who writes into a named pipe."""

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)
                time.sleep(0.05)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_a_named_pipe_is_read_as_it_flows(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    for packed in (False, True):
        content = "one\ntwo né\nthree".encode()
        content = gzip.compress(content) if packed else content
        thread = feeding(path, content[:12], content[12:])
        assert list(open_lines(path)) == [b"one", "two né".encode(), b"three"]
        thread.join()


def test_a_named_pipe_that_nobody_fills_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    monkeypatch.setattr(opening, "WAIT", 0.1)
    with pytest.raises(TextError, match="into which nobody writes"):
        list(open_lines(path))


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom", "/dev/null"])
def test_a_device_is_no_text(device: str) -> None:
    with pytest.raises(TextError, match="is a device"):
        list(open_lines(Path(device)))
    with pytest.raises(TextError, match="is a device"):
        content_digest(Path(device))


def test_what_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            line = b"and so on\n"
            buffer[:] = (line * (len(buffer) // len(line) + 1))[: len(buffer)]
            return len(buffer)

    monkeypatch.setattr(reading, "MAX_FLOW", 5 << 20)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Endless())))
    with pytest.raises(TextError, match="standard input has not ended after 5 MiB"):
        list(open_blocks("-"))
    blocks = open_blocks("-", endless=True)
    assert sum(len(next(blocks)) for _ in range(10)) > 5 << 20
    monkeypatch.setattr(reading, "MAX_HELD", 3 << 20)
    with pytest.raises(TextError, match="longer than 3 MiB, too long to be held"):
        read_text("-")


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    """It grows faster than it is read, is cut, or is written anew; one that is only removed is whole."""
    path = tmp_path / "text.txt"
    for change in ("grow", "cut", "rewrite", "remove", "nothing"):
        path.write_bytes(b"a line of text\n" * 300_000)
        os.utime(path, ns=(1, 1))
        seen = 0
        blocks = open_blocks(path)
        try:
            for block in blocks:
                seen += len(block)
                if change == "grow":
                    with path.open("ab") as file:
                        file.write(b"another\n" * 200_000)
                elif change in ("cut", "rewrite"):
                    with path.open("r+b") as file:
                        file.truncate(3 << 20) if change == "cut" else file.write(b"b line")
                if change == "remove":
                    path.unlink(missing_ok=True)
        except TextError as error:
            found = str(error)
            assert "text.txt changed while it was read" in found
            assert change in ("grow", "cut", "rewrite")
            assert seen <= 6 << 20
        else:
            assert change in ("remove", "nothing")
            assert seen == 15 * 300_000


def test_a_file_is_what_its_digest_says_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.txt.gz"
    path.write_bytes(gzip.compress(b"a line\n" * 5000))
    digest = content_digest(path)
    assert b"".join(open_blocks(path, digest=digest)) == b"a line\n" * 5000
    path.write_bytes(gzip.compress(b"b line\n" * 5000))
    with pytest.raises(TextError, match="changed while it was read"):
        list(open_blocks(path, digest=digest))


def test_files_of_the_system_that_have_no_size_are_read() -> None:
    if Path("/proc/self/status").exists():
        assert any(line.startswith(b"Name:") for line in open_lines(Path("/proc/self/status")))
