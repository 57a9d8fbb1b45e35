"""Blocks of lines → ids, with words and bytes of each sentence counted, in bulk.

One pass serves both uses. With a vocabulary, ids are final. Without one, each new token gets the next
number (0 is `<unk>`, 1 is `</s>` already); the loader counts the training part and renumbers.
Not a reader (reading.py validates the bytes) and not a store (cache.py keeps the ids).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from itertools import chain, repeat
from typing import IO, Protocol
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from elman.errors import TextError
from elman.text.tokenizers import (
    BPE,
    BYTE_TEXTS,
    Bytes,
    Characters,
    Prose,
    Tokenizer,
    Words,
    require_no_marks,
)
from elman.text.vocabulary import ASCII_SPACE, EOS, UNK, Vocabulary

MAX_TYPES = 5_000_000
"""Different tokens that are counted at most: about a gigabyte of table."""


class WordTable(Protocol):
    """Words and their numbers, in compiled code."""

    def __len__(self) -> int: ...

    def tokens(self) -> list[str]:
        """By number."""
        ...

    def encode(
        self, block: bytes, grow: bool
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]] | None:
        """Whole lines of words → ids, and of each line words and bytes, as `Encoder._add_words` gives them.

        grow  a new word gets the next number; else it is unknown
        None where a word is literally `<s>` or `</s>`.
        """
        ...


compiled: Callable[[Sequence[str]], WordTable] | None = None
"""Tokens → a table of them. kernels/native.py puts it here when the kernels are loaded."""

_kept: dict[int, WordTable] = {}  # by identity: comparing or hashing a vocabulary takes as long as its tokens


def _words_of(vocabulary: Vocabulary | None) -> WordTable | None:
    """A table that may grow, or the one of a vocabulary: made once, as a text may be one line."""
    if compiled is None:
        return None
    if vocabulary is None:
        return compiled((UNK, EOS))
    if id(vocabulary) not in _kept:
        _kept[id(vocabulary)] = compiled(vocabulary.tokens)
        finalize(vocabulary, _kept.pop, id(vocabulary), None)
    return _kept[id(vocabulary)]


_IS_SPACE = np.zeros(256, dtype=bool)
_IS_SPACE[[ord(space) for space in ASCII_SPACE]] = True


class Encoder:
    """Encodes one text, block by block, into a file of int32 ids.

    sink   binary file that receives the ids
    words, bytes  array("i") [S], by sentence, as in `Text`
    events  ids written
    dropped  words in bracketed notes that the tokenizer leaves out
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary | None, sink: IO[bytes]) -> None:
        self.tokenizer, self.vocabulary, self._sink = tokenizer, vocabulary, sink
        self.words, self.bytes = array("i"), array("i")
        self.events = self.dropped = 0
        self.begin("the text")
        tokens = (UNK, EOS) if vocabulary is None else vocabulary.tokens
        as_bytes = isinstance(tokenizer, Words)
        self._words = _words_of(vocabulary) if as_bytes else None
        if self._words is not None:
            tokens = ()
        self._table: dict[str | bytes, int] = {
            token.encode() if as_bytes else token: at for at, token in enumerate(tokens)
        }
        self._codes: NDArray[np.int32] | None = None

    def begin(self, name: str) -> None:
        """A new file or part begins: messages name it, and no sentence reaches back over its start."""
        self.name, self._line, self._floor = name, 1, len(self.words)
        self._lead_words = self._lead_bytes = 0

    def add(self, block: bytes) -> None:
        """Encode a block of whole lines. Raises TextError."""
        if isinstance(self.tokenizer, Words):
            ids = self._add_words(block)
        elif isinstance(self.tokenizer, Characters):
            ids = self._by_code(block, np.frombuffer(block.decode().encode("utf-32-le"), np.uint32), 0x110000)
        elif isinstance(self.tokenizer, Bytes):
            ids = self._by_code(block, np.frombuffer(block, np.uint8), 256)
        elif isinstance(self.tokenizer, BPE):
            ids = self._add_subwords(self.tokenizer, block)
        else:
            ids = self._add_sentences(block)
        self._line += block.count(b"\n")
        self.events += len(ids)
        self._sink.write(ids.astype("<i4", copy=False).data)
        types = len(self._table if self._words is None else self._words)
        if types > MAX_TYPES and self.vocabulary is None:
            raise TextError(
                f"{self.name}: more than {MAX_TYPES:,} different words before line {self._line:,}.",
                reason="these are not words: a log, identifiers, or a language written without blanks.",
                remedy="--tokenizer bpe, characters or bytes, or tokenize the text first.",
            )

    def tokens(self) -> list[str]:
        """The token of each number given so far."""
        if self._words is not None:
            return self._words.tokens()
        return [token.decode() if isinstance(token, bytes) else token for token in self._table]

    def _numbers(self, tokens: Sequence[str | bytes]) -> NDArray[np.int32]:
        """int32 [n]: the number of each token; new ones get the next, or are unknown to a vocabulary."""
        absent = -1 if self.vocabulary is None else Vocabulary.unk_id
        ids = np.fromiter(map(self._table.get, tokens, repeat(absent)), np.int32, len(tokens))
        if absent < 0:
            for at in np.flatnonzero(ids < 0).tolist():
                ids[at] = self._table.setdefault(tokens[at], len(self._table))
        return ids

    def _add_words(self, block: bytes) -> NDArray[np.int32]:
        if self._words is not None and (encoded := self._words.encode(block, self.vocabulary is None)):
            self._count(*encoded[1:])
            return encoded[0]
        if b"<s>" in block or b"</s>" in block:
            for number, line in enumerate(block.split(b"\n"), self._line):
                require_no_marks((word.decode() for word in line.split()), f"{self.name}, line {number}")
        words = block.replace(b"\n", b" </s> ").split()
        ids = self._numbers(words)
        ends = np.flatnonzero(ids == Vocabulary.eos_id)
        self._count(np.diff(ends, prepend=-1) - 1, _line_bytes(block))
        return ids

    def _by_code(self, block: bytes, codes: NDArray[np.unsignedinteger], size: int) -> NDArray[np.int32]:
        """One token for each code (code point or byte); LF is `</s>`."""
        if self._codes is None:
            self._codes = np.full(size, -1, dtype=np.int32)
            self._codes[10] = Vocabulary.eos_id
        ids: NDArray[np.int32] = self._codes[codes]
        if (ids < 0).any():
            for code in np.unique(codes[ids < 0]).tolist():
                text = BYTE_TEXTS[code] if size == 256 else self.tokenizer.texts(chr(code))[0]
                self._codes[code] = self._numbers([text])[0]
            ids = self._codes[codes]
        self._count(_line_words(block), _line_bytes(block))
        return ids

    def _add_subwords(self, tokenizer: BPE, block: bytes) -> NDArray[np.int32]:
        if self._codes is None:
            self._codes = np.array([Vocabulary.eos_id, *self._numbers(tokenizer.subwords)], dtype=np.int32)
        encoded = tokenizer.encode(block.decode().split("\n")[:-1])
        flat = np.fromiter(chain.from_iterable((*ids, -1) for ids in encoded), np.int64)
        self._count(_line_words(block), _line_bytes(block))
        return self._codes[flat + 1]

    def _add_sentences(self, block: bytes) -> NDArray[np.int32]:
        """Any tokenizer, line by line: none, one or several sentences from each."""
        tokens: list[str] = []
        style = self.tokenizer.style if isinstance(self.tokenizer, Prose) else None
        for line in block.decode().split("\n")[:-1]:
            self.dropped += style.dropped(line) if style else 0
            spans = self.tokenizer.spans(line)
            for start, end in spans:
                piece = line[start:end]
                tokens += self.tokenizer.texts(piece)
                tokens.append(EOS)
                raw = piece.encode()
                self._count_one(len(raw.split()), len(raw) + (end == len(line)))
            if not spans:
                raw = line.encode()
                self._count_between(len(raw.split()), len(raw) + 1)
        return self._numbers(tokens)

    def _count(self, words: NDArray[np.integer], sizes: NDArray[np.integer]) -> None:
        self.words.frombytes(words.astype(np.int32, copy=False).tobytes())
        self.bytes.frombytes(sizes.astype(np.int32, copy=False).tobytes())

    def _count_one(self, words: int, size: int) -> None:
        self.words.append(words + self._lead_words)
        self.bytes.append(size + self._lead_bytes)
        self._lead_words = self._lead_bytes = 0

    def _count_between(self, words: int, size: int) -> None:
        """A line without a sentence counts with the sentence before, or the first one of the part."""
        if len(self.words) > self._floor:
            self.words[-1] += words
            self.bytes[-1] += size
        else:
            self._lead_words += words
            self._lead_bytes += size


def encode_all(encoder: Encoder, blocks: Iterator[bytes]) -> None:
    """Encode every block; where one is refused, the file behind `blocks` is closed at once."""
    with closing(blocks) if isinstance(blocks, Generator) else nullcontext():
        for block in blocks:
            encoder.add(block)


def _line_bytes(block: bytes) -> NDArray[np.int64]:
    """Bytes of each line, its LF included."""
    return np.diff(np.flatnonzero(np.frombuffer(block, np.uint8) == 10), prepend=-1)


def _line_words(block: bytes) -> NDArray[np.int64]:
    """Words between ASCII white space, of each line."""
    raw = np.frombuffer(block, np.uint8)
    space = _IS_SPACE[raw]
    starts = np.flatnonzero(~space & np.concatenate([[True], space[:-1]]))
    before = np.searchsorted(starts, np.flatnonzero(raw == 10))
    return np.diff(before, prepend=0)
