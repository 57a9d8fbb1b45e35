"""Building a corpus: one streaming pass over the text, into a folder of ids.

Tokens get provisional numbers as they come; those of the training part are counted, the vocabulary
is made of them, and the file is renumbered in place. So a word seen only in valid or test never enters
the vocabulary, and a gigabyte of text needs no gigabyte of memory.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Interval
from numpy.typing import NDArray

from elman.errors import OptionError, TextError
from elman.text.cache import FORMAT, write_description
from elman.text.encoding import Encoder, encode_all
from elman.text.opening import Progress
from elman.text.sources import SPLITS, Blocks, CorpusSource
from elman.text.tokenizers import BPE, TOKENIZERS, Tokenizer, get_tokenizer
from elman.text.vocabulary import MAX_TOKENS, RARE, UNK, Vocabulary

_CHUNK = 1 << 22
_HELD_OUT = 0.05
PROSE = ("numbers", "lowercase", "brackets", "wrapped")
WORDS_KEPT = 10_000
"""Size of a vocabulary of words unless told otherwise, as in the Penn Treebank's tables."""

Report = Callable[[str, int, int], None]
"""progress(what, done, total): bytes of the source read; total 0 where unknown."""


@dataclass(frozen=True)
class TextSettings:
    """How a text becomes tokens. None stands for the default of the source. Raises OptionError."""

    tokenizer: Literal["words", "prose", "characters", "bytes", "bpe"] | None = None
    """What a token is. By default prose for files that look like it, else words between blanks."""
    vocabulary_size: Annotated[int, Interval(ge=0, le=MAX_TOKENS)] | None = None
    """Most frequent tokens kept, the unknown symbol and sentence end included; 0: all. By default 10000 for
    words and prose (all where the text writes <unk> itself), all for the rest."""
    min_count: Annotated[int, Interval(ge=1, le=10**9)] | None = None
    """Tokens that the training part holds less often become the unknown symbol. By default 1, but 2 where
    nothing else would be unknown: then words seen once are."""
    numbers: bool = True
    """Prose: every number becomes the token N."""
    lowercase: bool = True
    """Prose: capital letters are lowered."""
    brackets: bool | None = None
    """Prose: what stands in square brackets is read like the rest (not in built-ins: stage notes)."""
    wrapped: bool | None = None
    """Prose: a file's lines are joined to paragraphs, which blank lines end (where they look wrapped)."""
    bpe_size: Annotated[int, Interval(ge=256, le=100_000)] = 8000
    """BPE: subwords learned at most, the 256 bytes included."""

    def __post_init__(self) -> None:
        if self.tokenizer is not None and self.tokenizer not in TOKENIZERS:
            get_tokenizer(self.tokenizer)
        limits = (
            ("vocabulary_size", self.vocabulary_size or 3, 3, MAX_TOKENS, ", or 0 for all tokens"),
            ("min_count", 1 if self.min_count is None else self.min_count, 1, 10**9, ""),
            ("bpe_size", self.bpe_size, 256, 100_000, ""),
        )
        for name, value, low, high, also in limits:
            if not low <= value <= high:
                raise OptionError(
                    f"{name} is {value}.",
                    remedy=f"give --{name.replace('_', '-')} from {low} to {high:,}{also}.",
                )

    def resolved(self, source: CorpusSource) -> dict[str, Any]:
        """The settings with the source's defaults, and only those that matter."""
        name = self.tokenizer or source.tokenizer
        if name in ("bytes", "bpe") and (self.vocabulary_size or (self.min_count or 1) > 1):
            raise OptionError(
                f"--vocabulary-size and --min-count do not go with --tokenizer {name}.",
                reason="every byte belongs to the vocabulary, so that no text is unknown.",
                remedy="leave them out; for subwords, --bpe-size is their number.",
            )
        found: dict[str, Any] = {
            "tokenizer": name,
            "vocabulary_size": self.vocabulary_size,
            "min_count": self.min_count,
        }
        if name == "prose":
            found |= {"numbers": self.numbers, "lowercase": self.lowercase, "wrapped": self.wrapped}
            found["brackets"] = source.looks is not None if self.brackets is None else self.brackets
            found["unicode"] = unicodedata.unidata_version
        if name == "bpe":
            found |= {"bpe_size": self.bpe_size}
        return found


def told(source: CorpusSource, settings: TextSettings, resolved: dict[str, Any]) -> list[str]:
    """How a prose text of the user's own is read, and what would read it otherwise."""
    if source.looks is None or resolved["tokenizer"] != "prose":
        return []
    parts = []
    if settings.tokenizer is None:
        parts.append(
            "this looks like running prose, so sentences, words and marks are told apart "
            "(--tokenizer words: a sentence a line, tokens between blanks)"
        )
    if width := source.looks.width if settings.wrapped is None else 0:
        parts.append(f"lines are wrapped at {width} columns, so they are joined to paragraphs (--no-wrapped)")
    if settings.lowercase:
        parts.append("capital letters are lowered (--no-lowercase)")
    if settings.numbers:
        parts.append("numbers become N (--no-numbers)")
    return ["; ".join(parts) + "."] if parts else []


def key_of(source: CorpusSource, resolved: dict[str, Any]) -> str:
    """The cache key: content, settings and format, 32 hexadecimal digits."""
    parts = [FORMAT, source.content, len(source.parts), resolved]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def build(source: CorpusSource, resolved: dict[str, Any], folder: Path, report: Report) -> None:
    """Write the corpus into an empty folder. Raises TextError; OSError when the folder cannot be written."""
    tokenizer = _tokenizer(source, resolved, report)
    marks = [0]
    with (folder / "whole.i32").open("wb") as sink:
        sink.write(np.array([Vocabulary.eos_id], dtype="<i4").tobytes())
        encoder = Encoder(tokenizer, None, sink)
        for name, part, size in zip(source.names, source.parts, source.sizes, strict=True):
            encoder.begin(name)
            blocks = part(_reporter(report, f"reading {Path(name).name}", size))
            encode_all(encoder, blocks if source.looks is None else tokenizer.paragraphs(blocks))
            _require_words(encoder, marks[-1], len(encoder.words), name)
            marks.append(len(encoder.words))
    if len(marks) == 2:
        marks = cut(marks[1], source.names[0])
        for at, split in enumerate(SPLITS):
            _require_words(encoder, marks[at], marks[at + 1], f"{source.names[0]}, its {split} part")
    ids = folder / "whole.i32"
    events = [0, *(_events_of(ids, mark) for mark in marks[1:])]
    vocabulary, kept = _vocabulary(encoder.tokens(), ids, events[1], resolved, tokenizer)
    digest = _renumber(ids, vocabulary.ids(encoder.tokens()), f"{vocabulary.digest} {marks}")
    description = {
        "sentences": marks,
        "events": events,
        "digest": digest,
        "tokenizer": tokenizer.as_json(),
        "vocabulary": vocabulary.as_json(),
        "kept": kept,
        "dropped": encoder.dropped,
    }
    write_description(folder, description, encoder.words, encoder.bytes)


def _tokenizer(source: CorpusSource, resolved: dict[str, Any], report: Report) -> Tokenizer:
    name = resolved["tokenizer"]
    if name == "prose":
        return get_tokenizer(name, **{key: resolved[key] for key in PROSE})
    if name != "bpe":
        return get_tokenizer(name)
    if source.content == "":
        raise TextError(
            f"subwords are learned in a pass of their own, but {source.names[0]} can be read only once.",
            remedy="write the text to a file first.",
        )
    part, size = source.parts[0], source.sizes[0]
    stop: int | None = None
    if len(source.parts) == 1:
        lines = sum(block.count(b"\n") for block in part(_reporter(report, "counting lines", size)))
        stop = cut(lines, source.names[0])[1]
    return BPE.train(
        islice(_lines(part, _reporter(report, "learning subwords", size)), stop), resolved["bpe_size"]
    )


def _lines(part: Blocks, progress: Progress) -> Iterator[str]:
    for block in part(progress):
        yield from block.decode()[:-1].split("\n")


def _reporter(report: Report, what: str, size: int) -> Progress:
    return lambda done: report(what, done, size)


def _require_words(encoder: Encoder, first: int, last: int, name: str) -> None:
    if not np.frombuffer(encoder.words, dtype=np.int32)[first:last].any():
        raise TextError(
            f"{name}: there is no word in it.",
            reason="it is empty"
            if first == last
            else "its lines are blank, or hold nothing the tokenizer keeps.",
            remedy="give a text with one sentence a line.",
        )


def cut(sentences: int, name: str) -> list[int]:
    """Where the parts of one text begin and end: 90 % train, 5 % valid, 5 % test, contiguous blocks."""
    if sentences < 3:
        raise TextError(
            f"{name} has {sentences} sentence{'s' * (sentences != 1)}: too few for train, valid and test.",
            reason="one sentence a line is expected.",
            remedy="give a longer text, or a folder with train.txt, valid.txt and test.txt.",
        )
    held_out = max(1, round(_HELD_OUT * sentences))
    return [0, sentences - 2 * held_out, sentences - held_out, sentences]


def _chunks(ids: Path) -> Iterator[NDArray[np.int32]]:
    """The ids after the leading `</s>`. Read, not mapped: mapped pages would count as memory of ours."""
    with ids.open("rb") as file:
        file.seek(4)
        while (chunk := np.fromfile(file, dtype="<i4", count=_CHUNK)).size:
            yield chunk


def _events_of(ids: Path, sentences: int) -> int:
    """Events of the first `sentences` sentences."""
    seen = at = 0
    for chunk in _chunks(ids):
        ends = np.flatnonzero(chunk == Vocabulary.eos_id)
        if seen + len(ends) >= sentences:
            return at + int(ends[sentences - seen - 1]) + 1
        seen += len(ends)
        at += len(chunk)
    return at


def _vocabulary(
    tokens: list[str], ids: Path, train_events: int, resolved: dict[str, Any], tokenizer: Tokenizer
) -> tuple[Vocabulary, str]:
    """The vocabulary, and which tokens it keeps, in words."""
    counts = np.zeros(len(tokens), dtype=np.int64)
    left = train_events
    for chunk in _chunks(ids):
        counts += np.bincount(chunk[:left], minlength=len(tokens))
        left -= len(chunk)
        if left <= 0:
            break
    numbers = dict(zip(tokens, counts.tolist(), strict=True))
    size, floor = resolved["vocabulary_size"], resolved["min_count"]
    prepared = counts[Vocabulary.unk_id] * RARE >= train_events
    if size is None and tokenizer.unit == "word" and not prepared:
        size = WORDS_KEPT
    vocabulary = Vocabulary.build(
        numbers,
        sentences=int(counts[Vocabulary.eos_id]),
        size=size or None,
        min_count=floor,
        alphabet=tokenizer.alphabet,
    )
    return vocabulary, _kept(vocabulary, counts, size or 0, tokenizer)


def _kept(vocabulary: Vocabulary, counts: NDArray[np.int64], size: int, tokenizer: Tokenizer) -> str:
    """Which tokens of the training text are kept, in words; counts [numbers] of it, specials first."""
    assert vocabulary.counts is not None
    what = f"{tokenizer.unit}s"
    rising = np.sort(counts[2:][counts[2:] > 0])
    lost = rising[: len(rising) - int((vocabulary.counts[2:] > 0).sum())]
    if not lost.size and tokenizer.alphabet:
        return f"all {what}, so that nothing can be {UNK}"
    if not lost.size:
        literal = vocabulary.trained_unknown
        return f"all {what} of the training text" + (f", which writes {UNK} itself" if literal else "")
    if len(vocabulary) == size:
        return f"the {size - 2:,} most frequent {what}"
    return f"{what} seen more than {'once' if lost[-1] == 1 else f'{lost[-1]:,} times'}"


def _renumber(ids: Path, table: NDArray[np.int32], header: str) -> str:
    """Provisional numbers → ids, in place; returns the digest of header (vocabulary, split) and ids."""
    digest = hashlib.sha256(header.encode())
    with ids.open("r+b") as file:
        file.seek(4)
        while True:
            place = file.tell()
            chunk = np.frombuffer(file.read(4 * _CHUNK), dtype="<i4")
            if not chunk.size:
                return digest.hexdigest()[:12]
            final = table[chunk].astype("<i4").tobytes()
            file.seek(place)
            file.write(final)
            digest.update(final)
