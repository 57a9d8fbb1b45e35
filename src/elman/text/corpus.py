"""A text as ids with its words and bytes counted; three splits as one corpus, memory-mapped.

Not the place where corpora are built (building.py) or kept (cache.py).
S sentences, N events (tokens and one `</s>` for each sentence).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman.errors import ElmanError, FormatError, TextError
from elman.text import cache as store
from elman.text.building import Report, TextSettings, build, key_of, told
from elman.text.encoding import Encoder, encode_all
from elman.text.opening import Source, name_of
from elman.text.reading import open_blocks, with_line_feeds
from elman.text.sources import SPLITS, CorpusSource, find_corpus
from elman.text.tokenizers import Tokenizer, tokenizer_from_json
from elman.text.vocabulary import Vocabulary

__all__ = ["Corpus", "Report", "Text", "TextSettings", "encode_string", "encode_text", "load_corpus"]

_CHUNK = 1 << 22


@dataclass(frozen=True, eq=False)
class Text:
    """A text as a model sees it, and what it was before.

    ids    int32 [N], perhaps memory-mapped; `</s>` (1) ends every sentence
    words  int32 [S], words between ASCII white space of the original text, by sentence
    bytes  int32 [S], UTF-8 bytes of the original text, one for each line end included, by sentence;
           bytes between two sentences belong to the one before
    whole  int32 [N+1], `ids` with `</s>` in front where it is stored so; else None
    dropped  words in bracketed notes that the tokenizer left out of the whole text
    """

    ids: NDArray[np.int32]
    words: NDArray[np.int32]
    bytes: NDArray[np.int32]
    whole: NDArray[np.int32] | None = field(default=None, repr=False)
    dropped: int = 0

    @property
    def events(self) -> int:
        """N: predicted tokens, `</s>` included."""
        return len(self.ids)

    @property
    def sentences(self) -> int:
        """S."""
        return len(self.words)

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """int64 [S]: where the `</s>` stand in `ids`."""
        found = [
            np.flatnonzero(self.ids[at : at + _CHUNK] == Vocabulary.eos_id) + at
            for at in range(0, len(self.ids), _CHUNK)
        ]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    @cached_property
    def unknown(self) -> int:
        """Events that are `<unk>`."""
        starts = range(0, len(self.ids), _CHUNK)
        return sum(int(np.count_nonzero(self.ids[at : at + _CHUNK] == Vocabulary.unk_id)) for at in starts)

    def part(self, first: int, last: int) -> Text:
        """Sentences [first, last) as a text of their own (views, no copy)."""
        first, last = max(0, min(first, self.sentences)), max(0, min(last, self.sentences))
        start = int(self.ends[first - 1]) + 1 if first else 0
        stop = max(start, int(self.ends[last - 1]) + 1 if last else 0)
        whole = None if self.whole is None else self.whole[start : stop + 1]
        last = max(first, last)
        return Text(self.ids[start:stop], self.words[first:last], self.bytes[first:last], whole)

    def stream(self) -> NDArray[np.int32]:
        """int32 [N+1]: `</s>` and then the ids: event t is predicted from stream()[: t + 1]."""
        if self.whole is not None:
            return self.whole
        return np.concatenate([np.array([Vocabulary.eos_id], dtype=np.int32), self.ids])


@dataclass(frozen=True, eq=False)
class Corpus:
    """Three splits under one vocabulary, which knows the training split only.

    name    the built-in name, or the path as given
    origin  what was split how, in words
    digest  12 hexadecimal digits over the ids of the three splits and the vocabulary
    notes   what a user should be told
    kept    which tokens of the training part are in the vocabulary, in words
    """

    name: str
    train: Text
    valid: Text
    test: Text
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    origin: str
    digest: str
    notes: tuple[str, ...] = ()
    kept: str = ""

    @property
    def vocabulary_in_words(self) -> str:
        """Its size, what is in it, and how much of the training part is left to `<unk>`."""
        whole, unknown = f"vocabulary {len(self.vocabulary):,}: {self.kept}; ", self.train.unknown
        events = self.train.events
        if unknown:
            return whole + f"{unknown:,} of the {events:,} training events ({unknown / events:.1%}) are <unk>"
        told = "no training event is <unk>, so figures on texts with unknown words mislead (--min-count 2)"
        return whole.removesuffix("; ") if self.tokenizer.alphabet else whole + told


def load_corpus(
    source: str | Path,
    settings: TextSettings | None = None,
    *,
    cache: Path | None = None,
    progress: Report | None = None,
) -> Corpus:
    """A corpus ready for training and evaluation, from the cache when it was built before.

    source    a built-in name, a folder with train.txt, valid.txt and test.txt, one text file (split into
              90/5/5 % contiguous blocks of sentences), or "-" for standard input
    cache     folder for encoded corpora; None: ELMAN_CACHE or the user's cache folder
    progress  called with (what, bytes done, bytes in all)
    Raises TextError for what is no text or too little, ElmanError for what is not installed, or no place.
    """
    found = find_corpus(source)
    resolved = (settings or TextSettings()).resolved(found)
    report: Report = progress or (lambda what, done, total: None)
    root = store.cache_folder(cache)
    folder = root / key_of(found, resolved)
    notes = [*found.notes, *told(found, settings or TextSettings(), resolved)]
    if found.content:
        try:
            if cached := store.read_cache(folder):
                return _corpus(found, *cached, notes)
        except (store.DamagedCache, FormatError):
            notes.append(f"the cached corpus in {folder} was damaged and has been built again.")
        try:
            return _corpus(found, *_build_in(root, folder, found, resolved, report), notes)
        except OSError as error:
            notes.append(f"the cache {root} cannot be written ({error.strerror}); this corpus is not kept.")
    try:
        return _corpus(found, *_build_aside(found, resolved, report), notes)
    except OSError as error:
        raise ElmanError(
            f"no place to keep the encoded text: {error}.",
            reason="the disk is full, or may not be written; ids need about the size of the text.",
            remedy="free some space, or set ELMAN_CACHE and TMPDIR to folders on another disk.",
        ) from None


Built = tuple[dict[str, Any], dict[str, NDArray[np.int32]]]


def _build_in(
    root: Path, folder: Path, source: CorpusSource, resolved: dict[str, Any], report: Report
) -> Built:
    building = store.building_folder(root)
    try:
        build(source, resolved, building, report)
        built = _read(building)
        store.publish(building, folder)  # what is mapped stays mapped, wherever it lies
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return built


def _build_aside(source: CorpusSource, resolved: dict[str, Any], report: Report) -> Built:
    """Build in a temporary folder that is gone when the program ends."""
    building = Path(tempfile.mkdtemp(prefix="elman-"))
    try:
        build(source, resolved, building, report)
        return _read(building)
    finally:
        store.forget(building)


def _read(building: Path) -> Built:
    try:
        built = store.read_cache(building)
    except store.DamagedCache as error:
        raise OSError(None, str(error)) from None
    if built is None:
        raise OSError(None, "the folder vanished")
    return built


def _corpus(
    source: CorpusSource, description: dict[str, Any], arrays: dict[str, NDArray[np.int32]], notes: list[str]
) -> Corpus:
    try:
        marks, events = description["sentences"], description["events"]
        vocabulary = Vocabulary.from_json(description["vocabulary"])
        tokenizer = tokenizer_from_json(description["tokenizer"])
        train, valid, test = (_slice(arrays, marks[at : at + 2], events[at : at + 2]) for at in range(3))
        digest, kept, dropped = str(description["digest"]), str(description["kept"]), description["dropped"]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise FormatError(f"cached corpus: {error!r}") from None
    if dropped and source.looks is not None:
        notes.append(f"{dropped:,} words in square brackets are left out (--brackets reads them).")
    origin = source.origin
    if len(source.parts) == 1:
        counts = "/".join(f"{marks[at + 1] - marks[at]:,}" for at in range(3))
        origin += f", split into contiguous blocks of {counts} sentences for {'/'.join(SPLITS)}"
    return Corpus(source.name, train, valid, test, vocabulary, tokenizer, origin, digest, tuple(notes), kept)


def _slice(arrays: dict[str, NDArray[np.int32]], sentences: list[int], events: list[int]) -> Text:
    """One split. By recorded places: looking for them would read all of a large file."""
    (first, last), (start, stop) = sentences, events
    whole = arrays["whole"][start : stop + 1]
    return Text(whole[1:], arrays["words"][first:last], arrays["bytes"][first:last], whole)


_IN_MEMORY = 1 << 26
"""Bytes of ids from which a user's own text stays on disk."""


def encode_text(
    source: Path | str,
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    *,
    progress: Report | None = None,
    digest: str = "",
) -> Text:
    """A file (or "-") as a model sees it; streams. digest: as `open_blocks` takes it. Raises TextError."""
    path: Source = "-" if source == "-" else Path(source)
    name = name_of(path)
    size = path.stat().st_size if isinstance(path, Path) and path.is_file() else 0
    blocks = open_blocks(path, lambda done: progress(name, done, size) if progress else None, digest=digest)
    return encode_blocks(blocks, name, tokenizer, vocabulary)


def encode_blocks(blocks: Iterator[bytes], name: str, tokenizer: Tokenizer, vocabulary: Vocabulary) -> Text:
    """Blocks of whole lines as a model sees them; memory-mapped when large. Raises TextError."""
    try:
        with tempfile.TemporaryFile() as sink:
            sink.write(np.array([Vocabulary.eos_id], dtype="<i4").tobytes())
            encoder = Encoder(tokenizer, vocabulary, sink)
            encoder.begin(name)
            encode_all(encoder, tokenizer.paragraphs(blocks))
            sink.flush()
            sink.seek(0)
            whole: NDArray[np.int32] = (
                np.frombuffer(sink.read(), dtype="<i4")
                if encoder.events * 4 < _IN_MEMORY
                else np.memmap(sink, dtype="<i4", mode="r")
            )
    except OSError as error:
        raise ElmanError(
            f"{name}: no room for its ids in {tempfile.gettempdir()}: {error.strerror}.",
            remedy="free some space, or set TMPDIR to a folder on another disk.",
        ) from None
    text = _encoded(encoder, whole)
    if not text.words.any():
        raise TextError(
            f"{name}: there is no word in it.",
            reason="it is empty, or all its lines are blank.",
            remedy="give a text with one sentence a line.",
        )
    return text


def encode_string(text: str, tokenizer: Tokenizer, vocabulary: Vocabulary) -> Text:
    """A text given as a string, lines separated by LF. The empty string has no sentence. Raises TextError."""
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise TextError(f"character {error.start} is half a surrogate pair, which is no text.") from None
    sink = BytesIO()
    sink.write(np.array([Vocabulary.eos_id], dtype="<i4").tobytes())
    encoder = Encoder(tokenizer, vocabulary, sink)
    if raw:
        raw = raw if raw.endswith(b"\n") else raw + b"\n"
        encoder.add(with_line_feeds(raw))
    return _encoded(encoder, np.frombuffer(sink.getvalue(), dtype="<i4"))


def _encoded(encoder: Encoder, whole: NDArray[np.int32]) -> Text:
    words, sizes = (np.array(values, dtype=np.int32) for values in (encoder.words, encoder.bytes))
    return Text(whole[1:], words, sizes, whole, encoder.dropped)
