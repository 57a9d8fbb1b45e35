"""The text that models are scored on: a whole text, or the part of it that they have not seen.

Of a corpus (built-in name or folder) it is one of the three parts. A single file is scored whole, unless a
model was trained from it by splitting. That is known without any record: a vocabulary holds how often each
token stood in the training text, and no other text has just these counts.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Literal, Protocol
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from elman.errors import ElmanError, TextError
from elman.text.building import cut
from elman.text.builtin import BUILTIN
from elman.text.corpus import Text, encode_blocks, encode_text
from elman.text.opening import Source, content_digest, name_of, read_once
from elman.text.reading import open_blocks
from elman.text.sources import SPLITS, find_corpus, looks_of
from elman.text.tokenizers import Prose, Tokenizer
from elman.text.vocabulary import Vocabulary

Split = Literal["whole", "train", "valid", "test"]
_CHUNK = 1 << 22


class Reader(Protocol):
    """A model, as far as it matters here: what it takes for tokens."""

    vocabulary: Vocabulary
    tokenizer: Tokenizer


class HeldOut:
    """A text in the tokens of each of some models; alike ones read it once.

    part    what of it is scored: "whole", or a part of it
    notes   what a user should be told: a part was taken, or the training text itself is scored
    """

    def __init__(
        self, source: str, models: Sequence[Reader], split: Split | None = None, *, usual: Split = "test"
    ) -> None:
        """source: a file, "-", a built-in name or a folder; usual: the part taken where `split` says none.

        Raises TextError.
        """
        self.source = source
        self.notes: tuple[str, ...] = ()
        self._corpus = find_corpus(source) if source in BUILTIN or Path(source).is_dir() else None
        if self._corpus is None and source != "-" and not Path(source).exists():
            find_corpus(source)  # says what is near
        self._readers: list[Reader] = []
        for model in models:
            if self._at(model) is None:
                self._readers.append(model)
        where: Source = "-" if source == "-" else Path(source)
        self._name, self._path = name_of(where), Path(source)
        if self._corpus is None and read_once(where):
            self._keep(where)
        self._content = "" if self._corpus is not None else content_digest(self._path)
        self.part: Split = split or ("whole" if self._corpus is None else usual)
        self._texts = [self._encode(reader) for reader in self._readers]
        self._bytes: tuple[int, int] | None = None
        if self._corpus is None:
            self._choose(split, usual)
        self._tell_reading()
        if not all(text.events for text in self._texts):
            raise TextError(
                f"{source} is empty: there is no event to score.", remedy="give a text with a line."
            )

    @property
    def name(self) -> str:
        """How a table names the text."""
        return self.source if self.part == "whole" else f"{self.source}, {self.part} part"

    @property
    def origin(self) -> str:
        """What it is, in words."""
        what = f"file {self.source}" if self._corpus is None else self.source
        return what if self.part == "whole" else f"{self.part} part of {what}"

    def of(self, model: Reader) -> Text:
        """The text in the tokens of one of the models."""
        at = self._at(model)
        assert at is not None, "a text is read for the models it was made for"
        return self._texts[at]

    @property
    def digest(self) -> str:
        """12 hexadecimal digits of the text itself."""
        digest = hashlib.sha256()
        at, (start, stop) = 0, self._bytes or (0, 1 << 62)
        for block in self._blocks():
            digest.update(block[max(0, start - at) : max(0, stop - at)])
            at += len(block)
        return digest.hexdigest()[:12]

    def _at(self, model: Reader) -> int | None:
        for at, reader in enumerate(self._readers):
            if reader.tokenizer == model.tokenizer and reader.vocabulary == model.vocabulary:
                return at
        return None

    def _places(self) -> list[int]:
        """Which of the corpus's three parts are read."""
        return [at for at, name in enumerate(SPLITS) if self.part in (name, "whole")]

    def _blocks(self) -> Iterator[bytes]:
        if self._corpus is None:
            yield from open_blocks(self._path, digest=self._content)
            return
        for at in self._places():
            yield from self._corpus.parts[at](None)

    def _keep(self, source: Source) -> None:
        """What can be read only once (a pipe) goes to a file of our own: every model reads it."""
        try:
            handle, path = tempfile.mkstemp(prefix="elman-")
            self._path = Path(path)
            finalize(self, self._path.unlink, missing_ok=True)
            with open(handle, "wb") as file:
                for block in open_blocks(source):
                    file.write(block)
        except OSError as error:
            raise ElmanError(
                f"{self._name}: no room for it in {tempfile.gettempdir()}: {error.strerror}.",
                remedy="free some space, or set TMPDIR to a folder on another disk.",
            ) from None

    def _encode(self, reader: Reader) -> Text:
        tokens = reader.tokenizer, reader.vocabulary
        if self._corpus is None:
            return encode_blocks(self._blocks(), self._name, *tokens)
        if self.source in BUILTIN:
            return encode_blocks(self._blocks(), self.source, *tokens)
        paths = [Path(self._corpus.names[at]) for at in self._places()]
        return reduce(joined, (encode_text(path, *tokens) for path in paths))

    def _choose(self, split: Split | None, usual: Split) -> None:
        """The part of a single text that training cuts off it, the same bytes for every model."""
        pairs = list(zip(self._readers, self._texts, strict=True))
        owner = next((text for reader, text in pairs if trained_by_splitting(reader.vocabulary, text)), None)
        if split is None and owner is not None:
            self.part = usual
            self.notes = (
                f"{self.source} was split for training: its {usual} part is taken, which no model was "
                "trained on (--split whole, train, valid or test says which).",
            )
        if self.part == "whole":
            if split is None and any(holds(reader.vocabulary, text) for reader, text in pairs):
                self.notes = (
                    f"{self.source} is what a model was trained on: its figures here say nothing of others.",
                )
            return
        first = self._texts[0] if owner is None else owner
        marks, at = cut(first.sentences, self.source), SPLITS.index(self.part)
        ends = [np.concatenate([[0], np.cumsum(text.bytes, dtype=np.int64)]) for text in self._texts]
        wanted = np.concatenate([[0], np.cumsum(first.bytes, dtype=np.int64)])
        shared = reduce(np.intersect1d, ends)  # where a sentence of every model begins
        begin = int(shared[np.searchsorted(shared, wanted[marks[at]])])
        end = int(shared[np.searchsorted(shared, wanted[marks[at + 1]], side="right") - 1])
        if begin >= end:
            raise TextError(
                f"{self.source}: there is no sentence in its {self.part} part that all models cut alike.",
                reason="a sentence of one of them reaches over the whole part.",
                remedy="score the models one by one, or give a text with more lines.",
            )
        self._bytes = begin, end
        self._texts = [
            replace(
                text.part(int(np.searchsorted(own, begin)), int(np.searchsorted(own, end))),
                dropped=text.dropped,
            )
            for text, own in zip(self._texts, ends, strict=True)
        ]

    def _tell_reading(self) -> None:
        """What a user should know of how prose was read."""
        styles = [reader.tokenizer.style for reader in self._readers if isinstance(reader.tokenizer, Prose)]
        if self._corpus is not None and self._corpus.looks is None:
            return
        seen = looks_of(self._path) if self._corpus is None else self._corpus.looks
        if seen and seen.width and any(style.wrapped is None for style in styles):
            self.notes += (f"{self.source}: lines are wrapped at {seen.width} columns, so prose joins them.",)
        if dropped := max(text.dropped for text in self._texts):
            self.notes += (f"{self.source}: {dropped:,} words in square brackets are left out.",)


def joined(first: Text, second: Text) -> Text:
    """One text after another."""
    return Text(
        np.concatenate([first.ids, second.ids]),
        np.concatenate([first.words, second.words]),
        np.concatenate([first.bytes, second.bytes]),
        dropped=first.dropped + second.dropped,
    )


def holds(vocabulary: Vocabulary, text: Text) -> bool:
    """Whether a text is the one that the vocabulary was counted on."""
    counts = vocabulary.counts
    if counts is None or counts[Vocabulary.eos_id] != text.sentences or counts.sum() != text.events:
        return False
    found: NDArray[np.int64] = np.zeros(len(vocabulary), dtype=np.int64)
    for at in range(0, text.events, _CHUNK):
        found += np.bincount(text.ids[at : at + _CHUNK], minlength=len(vocabulary))
    return bool((found == counts).all())


def trained_by_splitting(vocabulary: Vocabulary, text: Text) -> bool:
    """Whether the vocabulary was counted on the training part of a text that was split."""
    return text.sentences > 2 and holds(vocabulary, text.part(0, cut(text.sentences, "the text")[1]))
