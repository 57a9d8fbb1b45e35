"""The lines of an ARPA file as columns: one pass, a block of lines at a time, checked in bulk.

The lexical half of reading: tabs, blanks, numbers, how many lines. Not here: what the words mean and
whether the n-grams fit together (arpa.py). Only when a check fails are lines looked at one by one, to name
the first wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from elman.errors import FormatError
from elman.ngram.counts import Ints
from elman.ngram.tables import Doubles
from elman.text.reading import open_blocks
from elman.text.vocabulary import BOS

LONGEST_NUMBER = 40
"""Characters of a number."""
_BLANKS = re.compile(rb"[ \t]+")
_NAME = re.compile(r"(.+)\.(?:arpa|lm)(?:\.(?:gz|bz2|xz))?")
_NO_BACKOFF = re.compile(rb"^([^\t\n]+\t[^\t\n]+)$", re.MULTILINE)


def arpa_stem(name: str) -> str | None:
    """The name of an ARPA file without its endings; None for another name."""
    match = _NAME.fullmatch(name)
    return None if match is None else match[1]


class Columns(NamedTuple):
    """Some consecutive n-grams of one order.

    prob     float64 [M], log10
    words    n columns of M words
    backoff  float64 [M], log10; 0 where the line has none
    lines    int64 [M], their numbers
    """

    prob: Doubles
    words: list[list[bytes]]
    backoff: Doubles
    lines: Ints


class Lines:
    """A reading position in a file; `number` is the line read last. Raises TextError for what is no text.

    strict    what KenLM refuses is an error; else it is read, and `report` says so
    encoding  of the file; the lines are UTF-8
    """

    def __init__(self, path: Path, *, strict: bool = False, encoding: str = "utf-8") -> None:
        self.path, self.strict, self.number = path, strict, 0
        self._blocks: Iterator[bytes] = open_blocks(path, encoding=encoding)
        self._block, self._at = b"", 0
        self._told: dict[str, tuple[int, int]] = {}

    def tell(self, what: str, *, line: int | None = None, times: int = 1, kenlm: bool = False) -> None:
        """Keep in mind what stands otherwise than it should; raise FormatError instead under `strict`.

        kenlm  whether KenLM reads it too, and as the same
        """
        line = self.number if line is None else line
        if self.strict and not kenlm:
            raise self.wrong(what, "--strict takes what KenLM takes, but nothing listed twice.", line=line)
        first, before = self._told.get(what, (line, 0))
        self._told[what] = (first, before + times)

    def report(self) -> list[str]:
        """A sentence on each thing that was told: where it first stands, and how often."""
        return [
            f"line {line}: {what}{f' ({times:,} times in all)' if times > 1 else ''}."
            for what, (line, times) in self._told.items()
        ]

    def line(self) -> bytes | None:
        """The next line without its end; None at the end of the file."""
        piece = self._take(1)
        return piece[:-1] if piece else None

    def skip_blank(self) -> bytes | None:
        """The next line that is not blank; None at the end of the file."""
        while (line := self.line()) is not None and not line.strip():
            pass
        return line

    def columns(self, n: int, size: int, *, highest: bool) -> Iterator[Columns]:
        """The `size` n-grams of one order, block by block. Raises FormatError."""
        left = size
        while left:
            block = self._take(left)
            if not block:
                raise self.wrong(f"order {n}: the file ends {left} n-grams before the {size} announced")
            found = self._parse(block, block.count(b"\n"), n, highest)
            left -= len(found.prob)
            yield found

    def wrong(self, what: str, reason: str = "", *, line: int | None = None) -> FormatError:
        """An error at the line read last, or at another one."""
        return FormatError(
            f"{self.path}, line {self.number if line is None else line}: {what}.",
            reason=reason or "the file is damaged, cut off, or was not written by an n-gram toolkit.",
            remedy="write it again, with lmplz, SRILM or `elman export --to arpa`.",
        )

    def _take(self, most: int) -> bytes:
        """At most so many whole lines, at least one; empty at the end of the file."""
        if self._at == len(self._block):
            self._block, self._at = next(self._blocks, b""), 0
        end = len(self._block)
        if most == 1 and end:
            end = self._block.index(b"\n", self._at) + 1
        elif self._block.count(b"\n", self._at) > most:
            ends = np.flatnonzero(np.frombuffer(self._block, np.uint8, offset=self._at) == 10)
            end = self._at + int(ends[most - 1]) + 1
        piece, self._at = self._block[self._at : end], end
        self.number += piece.count(b"\n")
        return piece

    def _parse(self, block: bytes, rows: int, n: int, highest: bool) -> Columns:
        first = self.number - rows + 1
        lines = np.arange(first, first + rows)
        tabs = block.count(b"\t")
        if rows < tabs < 2 * rows:  # some lines have a backoff weight and some have none
            full = _NO_BACKOFF.sub(rb"\1\t0", block)
            tabs = full.count(b"\t")
        else:
            full = block
        marks = np.frombuffer(full, np.uint8)
        marks = marks[(marks == 9) | (marks == 10) | (marks == 32)]
        pattern = [9, *[32] * (n - 1), *([9] if tabs == 2 * rows else []), 10]
        width = len(pattern)
        fields = full.split()
        # every byte is in a field or separates two: no other white space, no empty field
        if (
            not len(fields) == len(marks) == rows * width
            or sum(map(len, fields)) + len(marks) != len(full)
            or (marks.reshape(rows, width) != pattern).any()
        ):
            fields, lines, width = *self._fields(block, n, first), n + 2
        prob = _numbers(fields[::width])
        backoff = _numbers(fields[n + 1 :: width]) if width == n + 2 else np.zeros(len(lines))
        if prob is None or backoff is None or (prob > 0).any() or (highest and backoff.any()):
            raise self._first_wrong(block, n, first, highest)
        for row in np.flatnonzero(np.isneginf(prob)):
            text, word = fields[row * width : row * width + 2]
            kenlm = text == b"-inf" or not text.lower().startswith(b"-inf")
            if not (kenlm and word == BOS.encode()):  # which is never predicted
                what = f"order {n}: a log10 probability of -inf, so of an event that is impossible"
                self.tell(what, line=int(lines[row]), kenlm=kenlm)
        for row in np.flatnonzero(np.isneginf(backoff)):
            self.tell(f"order {n}: a backoff weight of -inf", line=int(lines[row]))
        return Columns(prob, [fields[place::width] for place in range(1, n + 1)], backoff, lines)

    def _fields(self, block: bytes, n: int, first: int) -> tuple[list[bytes], Ints]:
        """n + 2 fields of each n-gram, whatever blanks and tabs are between; the line numbers."""
        fields: list[bytes] = []
        numbers = []
        kenlm = _kenlm_line(n)
        for number, line in enumerate(block[:-1].split(b"\n"), start=first):
            own = _BLANKS.split(line.strip(b" \t"))
            if own == [b""]:
                continue
            if len(own) not in (n + 1, n + 2) or own != line.split() or line.startswith(b"\\"):
                raise self._first_wrong(block, n, first)
            usual = (
                own[0] + b"\t" + b" ".join(own[1 : n + 1]) + b"".join(b"\t" + text for text in own[n + 1 :])
            )
            if line != usual:
                read = kenlm.fullmatch(line) is not None
                self.tell("other blanks and tabs than usual", line=number, kenlm=read)
            fields += own if len(own) == n + 2 else (*own, b"0")
            numbers.append(number)
        return fields, np.array(numbers, dtype=np.int64)

    def _first_wrong(self, block: bytes, n: int, first: int, highest: bool = False) -> FormatError:
        for number, line in enumerate(block[:-1].split(b"\n"), start=first):
            if what := _fault(line, n, highest):
                return self.wrong(f"order {n}: {what}", line=number)
        return self.wrong(f"order {n}: lines from {first} on are malformed")


def _kenlm_line(n: int) -> re.Pattern[bytes]:
    """Lines that KenLM reads: a tab before the backoff weight and behind the probability of a single word."""
    words = rb"\t[ \t]*[^ \t]+" if n == 1 else rb"(?:[ \t]+[^ \t]+){%d}" % n
    return re.compile(rb"[ \t]*[^ \t]+" + words + rb"(?:\t[ \t]*[^ \t]+)?")


def _numbers(fields: list[bytes]) -> Doubles | None:
    """float64 [M], or None when one is no number; what float32 cannot hold becomes -inf, as in KenLM."""
    if max(map(len, fields), default=0) > LONGEST_NUMBER:
        return None
    text = np.array(fields)
    try:
        values = text.astype(np.float64)
    except ValueError:
        return None
    largest = float(np.finfo(np.float32).max)
    if not (values <= largest).all() or b"_" in b"".join(fields):
        return None
    return np.where(values < -largest, -np.inf, values)


def _fault(line: bytes, n: int, highest: bool) -> str:
    """What is wrong with one line, "" if nothing."""
    if line.startswith(b"\\"):
        return f"fewer n-grams than \\data\\ announces: found {shown(line)}"
    fields = _BLANKS.split(line.strip(b" \t"))
    if fields == [b""]:
        return ""
    if len(fields) not in (n + 1, n + 2) or fields != line.split():
        return f"expected a number, {n} words and perhaps a number: {shown(line)}"
    backoffs = [("backoff weight", text) for text in fields[n + 1 :]]
    for what, text in (("probability", fields[0]), *backoffs):
        value = _numbers([text])
        if value is None:
            return f"the {what} {shown(text)} is not a number"
        if what == "probability" and value[0] > 0:
            return f"positive log probability {shown(text)}: no probability is above 1"
        if what != "probability" and highest and value[0]:
            return f"a backoff weight {shown(text)} at the highest order"
    return ""


def shown(line: bytes | None) -> str:
    """A line as messages quote it."""
    return "the end of the file" if line is None else repr(line[:60].decode("utf-8", "replace"))
