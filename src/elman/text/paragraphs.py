"""What a text looks like, and its wrapped lines joined to paragraphs: pure functions on bytes, streaming.

Two kinds of text come as files. Prepared ones have a sentence a line and tokens between blanks, like the
Penn Treebank's. Running prose has marks glued to words ("word,") and, where its lines are wrapped at a width,
sentences that go on in the next line. `looks` tells them apart by the first mebibyte, cautiously: what is not
clearly prose is left as it is. Not here: where sentences end (prose.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from itertools import pairwise

SAMPLE = 1 << 20
"""Bytes by which a text is judged."""
LONG = 1 << 16
"""Bytes after which a paragraph is cut where a line ends a sentence: the text has no blank lines."""

_PLAIN = 0.85
"""Share of words that are letters with marks around them, at least: less in code, tables and logs."""
_GLUED = 0.01
"""Share of words with a mark glued to them, at least: the Penn Treebank has none, prose 5 to 15 %."""
_FULL = 0.9
"""A wrapped line with the next line's first word is at least this share of the width."""
_FEWEST = 50
"""Words by which anything can be told."""

_WORD = re.compile(
    r"[\"'“”‘’«(\[_*—–-]*[^\W\d_]+(?:[-'’.—–]+[^\W\d_]+)*[.,;:!?…]*[\"'”’»)\]_*—–-]*[.,;:!?…]*"
)
_MARK = re.compile(r"[,;:!?][\"'”’»)\]_*]*$")
_END = re.compile(r"[.:!?…][\"'”’»)\]_*]*$")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True)
class Looks:
    """prose: running prose; width: columns at which lines are wrapped, 0 where they are not."""

    prose: bool
    width: int = 0


def looks(sample: bytes) -> Looks:
    """What a text is, by its beginning: whole lines of UTF-8."""
    lines = [line.rstrip() for line in sample.decode().split("\n")]
    return Looks(True, _width(lines)) if _is_prose(lines) else Looks(False)


def _is_prose(lines: list[str]) -> bool:
    words = Counter(word for line in lines for word in line.split())
    total = sum(words.values())
    plain = sum(count for word, count in words.items() if _WORD.fullmatch(word))
    glued = sum(count for word, count in words.items() if len(word) > 1 and _MARK.search(word))
    alone = words[","] + words["."]
    full = [line for line in lines if line]
    ended = sum(1 for line in full if len(line.split()[-1]) > 1 and _END.search(line))
    marked = glued >= _GLUED * total or 2 * ended >= len(full)
    return total >= _FEWEST and plain >= _PLAIN * total and marked and 10 * alone <= glued + ended


def _width(lines: list[str]) -> int:
    pairs = [(line, after) for line, after in pairwise(lines) if line and after and not deeper(line, after)]
    if len(pairs) < max(3, sum(1 for line in lines if line) // 10):
        return 0
    lengths = sorted(len(line) for line, _ in pairs)
    width = lengths[len(lengths) * 19 // 20]
    full = sum(1 for line, after in pairs if len(line) + 1 + len(after.split()[0]) >= _FULL * width)
    on = sum(1 for line, after in pairs if not _END.search(line) and _goes_on(after))
    return width if 5 * full >= 3 * len(pairs) and 3 * on >= len(pairs) else 0


def deeper(line: str | bytes, after: str | bytes) -> bool:
    """Whether the second line begins further to the right: the first line of another paragraph."""
    return len(after) - len(after.lstrip()) > len(line) - len(line.lstrip())


def _goes_on(line: str) -> bool:
    letter = _LETTER.search(line)
    return letter is not None and letter[0].islower()


def peek(blocks: Iterator[bytes]) -> tuple[bytes, Generator[bytes, None, None]]:
    """The first SAMPLE bytes of blocks of whole lines, cut at a line end, and all the blocks."""
    taken: list[bytes] = []
    size = 0
    for block in blocks:
        taken.append(block)
        size += len(block)
        if size >= SAMPLE:
            break
    sample = b"".join(taken)[:SAMPLE]
    return sample[: sample.rfind(b"\n") + 1], _again(taken, blocks)


def _again(taken: list[bytes], blocks: Iterator[bytes]) -> Generator[bytes, None, None]:
    with _closing(blocks):
        yield from taken
        yield from blocks


def _closing(blocks: Iterator[bytes]) -> AbstractContextManager[object]:
    """Closes the file behind blocks as soon as nobody wants more of them."""
    return closing(blocks) if isinstance(blocks, Generator) else nullcontext()


def as_paragraphs(blocks: Iterator[bytes], wrapped: bool | None) -> Iterator[bytes]:
    """Blocks of lines as blocks of paragraphs; None: where the lines look wrapped."""
    if wrapped is None:
        sample, blocks = peek(blocks)
        wrapped = looks(sample).width > 0
    return joined(blocks) if wrapped else blocks


def joined(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines joined to paragraphs, a line each: no byte more or less, as a blank stands for each line end.

    A blank line ends a paragraph, and so does a line that begins further to the right.
    """
    kept: list[bytes] = []
    size = 0
    with _closing(blocks):
        for block in blocks:
            made: list[bytes] = []
            for line in block[:-1].split(b"\n"):
                blank = not line.strip()
                if kept and (blank or deeper(kept[-1], line) or (size > LONG and _over(kept[-1], size))):
                    made.append(b" ".join(kept))
                    kept, size = [], 0
                if blank:
                    made.append(line)
                else:
                    kept.append(line)
                    size += len(line) + 1
            if made:
                yield b"\n".join(made) + b"\n"
        if kept:
            yield b" ".join(kept) + b"\n"


def _over(line: bytes, size: int) -> bool:
    return size > 16 * LONG or _END.search(line[-99:].decode(errors="ignore").rstrip()) is not None
