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
from elman.ngram.tables import Doubles
from elman.text.reading import open_blocks

LONGEST_NUMBER = 40
"""Characters of a number."""
_NO_BACKOFF = re.compile(rb"^([^\t\n]+\t[^\t\n]+)$", re.MULTILINE)


class Columns(NamedTuple):
    """Some consecutive n-grams of one order.

    prob     float64 [M], log10
    words    n columns of M words
    backoff  float64 [M], log10; 0 where the line has none
    line     number of the first line
    """

    prob: Doubles
    words: list[list[bytes]]
    backoff: Doubles
    line: int


class Lines:
    """A reading position in a file; `number` is the line read last. Raises TextError for what is no text."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, 0
        self._blocks: Iterator[bytes] = open_blocks(path)
        self._block, self._at = b"", 0

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
            rows = block.count(b"\n")
            yield self._parse(block, rows, n, highest)
            left -= rows

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
        if not len(fields) == len(marks) == rows * width or sum(map(len, fields)) + len(marks) != len(full):
            raise self._first_wrong(block, n, first)
        if (marks.reshape(rows, width) != pattern).any():
            raise self._first_wrong(block, n, first)
        prob = _numbers(fields[::width])
        backoff = _numbers(fields[n + 1 :: width]) if width == n + 2 else np.zeros(rows)
        if prob is None or backoff is None or (prob > 0).any() or (highest and backoff.any()):
            raise self._first_wrong(block, n, first, highest)
        return Columns(prob, [fields[place::width] for place in range(1, n + 1)], backoff, first)

    def _first_wrong(self, block: bytes, n: int, first: int, highest: bool = False) -> FormatError:
        for number, line in enumerate(block[:-1].split(b"\n"), start=first):
            if what := _fault(line, n, highest):
                return self.wrong(f"order {n}: {what}", line=number)
        return self.wrong(f"order {n}: lines from {first} on are malformed")


def _numbers(fields: list[bytes]) -> Doubles | None:
    """float64 [M], or None when one is no number that float32 can hold."""
    if max(map(len, fields)) > LONGEST_NUMBER:
        return None
    text = np.array(fields)
    try:
        values = text.astype(np.float64)
    except ValueError:
        return None
    if not (np.abs(values) <= np.finfo(np.float32).max).all() or b"_" in b"".join(fields):
        return None
    return values


def _fault(line: bytes, n: int, highest: bool) -> str:
    """What is wrong with one line, "" if nothing."""
    if not line.strip() or line.startswith(b"\\"):
        return f"fewer n-grams than \\data\\ announces: found {shown(line)}"
    prob, tab, rest = line.partition(b"\t")
    if not tab or b" " in prob.strip():
        return f"no tab after the probability: {shown(line)}"
    words, tab, backoff = rest.partition(b"\t")
    if words.split(b" ") != words.split() or len(words.split()) != n or b"\t" in backoff:
        return f"expected {n} words with single blanks and then a tab or the end: {shown(line)}"
    for what, text in (("probability", prob), *((("backoff weight", backoff),) if tab else ())):
        value = _numbers([text]) if text == text.strip() else None
        if value is None:
            return f"the {what} {shown(text)} is not a finite number"
        if what == "probability" and value[0] > 0:
            return f"positive log probability {shown(text)}: no probability is above 1"
        if what != "probability" and highest and value[0]:
            return f"a backoff weight {shown(text)} at the highest order"
    return ""


def shown(line: bytes | None) -> str:
    """A line as messages quote it."""
    return "the end of the file" if line is None else repr(line[:60].decode("utf-8", "replace"))
