"""Per-token scores of another program, checked token by token against the text.

Formats, told apart by their first field; plain or gzip, UTF-8:

    token<TAB>number          one token a line, `</s>` after each sentence. A first line may name the
                              columns: `token` and one of log_probability (natural, the default),
                              log2_probability, log10_probability, nats or bits (the last two are
                              surprisals, positive); other columns are ignored, fields quoted as in
                              CSV files. So every table of tokens that `elman score` writes is read, as
                              JSONL too. Blank lines are skipped.
    word=id length log10      what KenLM's `query -v word` prints, parted by tabs or line ends

Not here: whether such a score may be compared (table.py).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from elman.compare.bootstrap import Floats
from elman.errors import FormatError, OptionError, ProtocolError
from elman.text.corpus import Text
from elman.text.fields import fields_of
from elman.text.opening import Source
from elman.text.reading import open_lines
from elman.text.vocabulary import Vocabulary

LogBase = Literal["e", "2", "10"]
BASES: dict[str, float] = {"e": 1.0, "2": math.log(2), "10": math.log(10)}

COLUMNS = {
    "nats": 1.0,
    "bits": math.log(2),
    "log_probability": -1.0,
    "log2_probability": -math.log(2),
    "log10_probability": -math.log(10),
}
"""What to multiply a column by to get nats."""

KENLM = re.compile(r"(?P<word>.*)=(?P<id>\d+) (?P<length>\d+) (?P<log10>\S+)\Z", re.DOTALL)
NUMBER = re.compile(r"\s*[-+]?\.?\d")
KENLM_TOTALS = (
    "Total:",
    "Perplexity including",
    "Perplexity excluding",
    "OOVs:",
    "Tokens:",
    "Name:",
    "Loading",
)


@dataclass(frozen=True)
class OutsideToken:
    """One row: where it stands, its token, its nats (NaN: not given), whether the tool calls it unknown
    (None: not said)."""

    place: str
    token: str
    nats: float
    unknown: bool | None


def read_score_file(
    path: str | Path, text: Text, vocabulary: Vocabulary, *, base: LogBase | None = None
) -> Floats:
    """Nats [N] float64 of every event of `text`, in its order.

    base  of the logarithm where no header names the column (None: natural)
    A token agrees when it has the text's id: the same token, or one outside the vocabulary where the
    text holds `<unk>`; that one may be without a number (NaN) or infinite, for unknown="skip". Raises
    FormatError naming the line and both tokens, ProtocolError where the tool left `</s>` out or knows
    other words than the vocabulary.
    """
    path = Path(path)
    nats = np.empty(text.events, dtype=np.float64)
    seen = 0
    for row in score_rows(path, base=base):
        if seen == text.events:
            raise FormatError(
                f"{path}, {row.place}: token {row.token!r} after the end of the text.",
                reason=f"the file scores more than the text's {text.events:,} events.",
                remedy="give the scores of exactly this text.",
            )
        expected = int(text.ids[seen])
        _require_same(path, row, expected, vocabulary)
        if expected != vocabulary.unk_id and not math.isfinite(row.nats):
            raise _no_number(path, row)
        nats[seen] = row.nats
        seen += 1
    if seen < text.events:
        missing = vocabulary.token(int(text.ids[seen]))
        raise FormatError(
            f"{path} ends after {seen:,} tokens; the text has {text.events:,} events, next {missing!r}.",
            reason="the file was cut off, or scores another text.",
            remedy="score the whole text again, </s> of the last sentence included.",
        )
    return nats


def score_rows(path: Source, *, base: LogBase | None = None) -> Iterator[OutsideToken]:
    """The rows of a score file as they stand, before any text is known. Raises FormatError."""
    if base is not None and base not in BASES:
        raise OptionError(f"log base {base!r} is unknown.", remedy="give --log-base e, 2 or 10.")
    lines = ((number, line.decode("utf-8")) for number, line in enumerate(open_lines(path), start=1))
    first = next(((number, line) for number, line in lines if line.strip()), None)
    if first is None:
        raise FormatError(f"{path} is empty.", remedy="give one token and its log-probability a line.")
    head = fields_of(first[1])
    if KENLM.match(head[0]):
        yield from _kenlm(path, first, lines)
    elif first[1].startswith('{"'):
        yield from _objects(path, _again(first, lines))
    elif "bits" in head and ("word" in head or "log10" in head):
        raise _not_by_token(path)
    elif "token" in head and not any(NUMBER.match(field) for field in head):
        yield from _table(path, lines, *_columns(path, head, base))
    else:
        yield from _table(path, _again(first, lines), 0, 1, -BASES[base or "e"], strict=True)


def _again(first: tuple[int, str], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from rest


def _columns(path: Source, head: list[str], base: LogBase | None) -> tuple[int, int, float]:
    """(token column, number column, factor) of a header."""
    named = [name for name in head if name in COLUMNS]
    if not named:
        raise FormatError(
            f"{path}, line 1: no column of scores among {', '.join(head)}.",
            remedy=f"name one of {', '.join(COLUMNS)}.",
        )
    if base is not None and f"log{'' if base == 'e' else base}_probability" not in named:
        raise OptionError(
            f"--log-base {base} contradicts the header of {path}, which names {named[0]}.",
            remedy="leave --log-base out: the header says it.",
        )
    return head.index("token"), head.index(named[0]), COLUMNS[named[0]]


def _table(
    path: Source,
    lines: Iterator[tuple[int, str]],
    token: int,
    number: int,
    factor: float,
    *,
    strict: bool = False,
) -> Iterator[OutsideToken]:
    for place, line in lines:
        if not line:
            continue
        fields = line.split("\t") if strict else fields_of(line)
        if len(fields) <= max(token, number) or (strict and len(fields) != 2):
            raise FormatError(
                f"{path}, line {place}: {len(fields)} fields in {line[:60]!r}.",
                reason="a line is a token, a tab and its log-probability.",
                remedy="separate the two with one tab; name the columns in a first line if there are more.",
            )
        yield OutsideToken(
            f"line {place}",
            fields[token],
            _nats(path, f"line {place}", fields[token], fields[number], factor),
            None,
        )


def _objects(path: Source, lines: Iterator[tuple[int, str]]) -> Iterator[OutsideToken]:
    """JSONL: an object with `token` and `bits` on each line."""
    for number, line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or "bits" not in row:
            raise FormatError(f"{path}, line {number}: no JSON object with `bits`: {line[:60]!r}.")
        if not isinstance(row.get("token"), str):
            raise _not_by_token(path)
        written = "" if row["bits"] is None else str(row["bits"])
        place = f"line {number}"
        yield OutsideToken(place, row["token"], _nats(path, place, row["token"], written, math.log(2)), None)


def _not_by_token(path: Source) -> FormatError:
    return FormatError(
        f"{path} has a row for each word or sentence.",
        reason="scores are checked and compared token by token.",
        remedy="write it with: elman score MODEL TEXT --per token",
    )


def _kenlm(path: Source, first: tuple[int, str], lines: Iterator[tuple[int, str]]) -> Iterator[OutsideToken]:
    for line_number, line in _again(first, lines):
        for position, field in enumerate(line.split("\t"), start=1):
            if not field.strip():
                continue
            place = f"line {line_number}, entry {position}"
            match = KENLM.match(field)
            if match is None and field.startswith(KENLM_TOTALS):
                break  # its number stands after a tab
            if match is None:
                raise FormatError(
                    f"{path}, {place}: {field[:60]!r} is not `word=id length log10`.",
                    remedy="write the file with KenLM's `query -v word`.",
                )
            nats = _nats(path, place, match["word"], match["log10"], -math.log(10))
            yield OutsideToken(place, match["word"], nats, int(match["id"]) == 0)


def _nats(path: Source, place: str, token: str, written: str, factor: float) -> float:
    """NaN where no number is given; infinity for a probability of zero."""
    if written in ("", "NA"):
        return math.nan
    try:
        value = float(written) * factor
    except ValueError:
        raise FormatError(f"{path}, {place}: {written!r} is not a number (token {token!r}).") from None
    if math.isnan(value):
        raise FormatError(f"{path}, {place}: token {token!r} has the score {written}.")
    if value < -1e-6:
        raise FormatError(
            f"{path}, {place}: token {token!r} has the score {written}, a probability above one.",
            reason="the numbers are surprisals or probabilities, not log-probabilities.",
            remedy="name the column in a first line: token<TAB>bits, say.",
        )
    return max(value, 0.0)


def _no_number(path: Source, row: OutsideToken) -> FormatError:
    if math.isnan(row.nats):
        return FormatError(f"{path}, {row.place}: token {row.token!r} has no number.")
    return FormatError(
        f"{path}, {row.place}: token {row.token!r} has a probability of zero.",
        reason="so the perplexity is infinite.",
        remedy="score with a model that gives every token, <unk> too, a probability.",
    )


def _require_same(path: Source, row: OutsideToken, expected: int, vocabulary: Vocabulary) -> None:
    if vocabulary.id(row.token) == expected:
        if row.unknown is not None and row.unknown != (expected == vocabulary.unk_id):
            known = "does not know" if row.unknown else "knows"
            raise ProtocolError(
                f"{path}, {row.place}: the tool {known} {row.token!r}, the models here do the opposite.",
                reason="it was trained with another vocabulary.",
                remedy="train it on the same training text with the same words as <unk>.",
            )
        return
    wanted = vocabulary.token(expected)
    if expected == vocabulary.eos_id:
        raise ProtocolError(
            f"{path}, {row.place}: token {row.token!r} where the text ends a sentence (</s>).",
            reason="the tool left </s> out, or scored another text.",
            remedy="count </s> in the tool: it is an event here.",
        )
    raise FormatError(
        f"{path}, {row.place}: token {row.token!r} where the text has {wanted!r}.",
        reason="the file scores another text or other tokens.",
        remedy="score the very same text, tokens parted as they are in it.",
    )
