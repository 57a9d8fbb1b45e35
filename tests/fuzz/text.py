"""Text: blocks of any size say the same, every tokenizer counts what is there, a cached corpus is the
same."""

from __future__ import annotations

import gzip
import io
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np

from elman.errors import TextError
from elman.text import encoding, reading
from elman.text.building import TextSettings
from elman.text.corpus import Corpus, Text, encode_string, load_corpus
from elman.text.encoding import Encoder
from elman.text.reading import open_blocks
from elman.text.tokenizers import BPE, Tokenizer, get_tokenizer
from elman.text.vocabulary import Vocabulary
from fuzz.target import Target, scratch

SAMPLE = (
    "Mr. Smith said [laughter]: “It isn’t 1,200.5!” No. 3…\n\n a\u00a0b\tc \u2028d <unk> é\U0001f600\r\nend"
)
OTHERS = (
    b"\x1f\x9d",
    b"BZh",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
    b"PK\x03\x04",
    b"%PDF-",
    b"PAR1",
    b"\x7fELF",
    b"\x1f\x8b",
)
MARKS = (
    b"\n", b"\r\n", b"\r", b"\t", b"\x0b", b"\x0c", b"\xef\xbb\xbf", b"\xc2\xa0", b"\xc2\x85",
    b"\xe2\x80\xa8", b"\xe3\x80\x80",
    b"\x1c", b"\x1f", b"\xcc\x81", b"\xf0\x9f\x98\x80", b"<s>", b"</s>", b"<unk>", b". A", b"...", b"Mr. ",
    b"U.S. ", b"[x]",
    b"\"", b"\xe2\x80\x99s ", b"1,000.5", b"\xe2\x90\xa3", b"\x1f\x8b", b"\xff\xfe", b"\0", b"<C3>",
)  # fmt: skip


def run(data: bytes) -> None:
    """First byte: the size of the blocks that are read; then the file."""
    path = scratch() / "text.txt"
    size, data = (data[0] if data else 0), data[1:]
    path.write_bytes(data)
    whole, refused = _read(path, reading.BLOCK)
    assert (whole, bool(refused)) == ((pieces := _read(path, size + 1))[0], bool(pieces[1]))
    if not data.startswith(OTHERS):
        plain = data.removeprefix(b"\xef\xbb\xbf")
        try:
            plain.decode()
            text = b"\0" not in plain and not data.startswith((b"\xff\xfe", b"\xfe\xff"))
        except UnicodeDecodeError:
            text = False
        assert text == (not refused), "what is UTF-8 without NUL is a text, and nothing else"
        if text:
            ended = plain if plain.endswith(b"\n") or not plain else plain + b"\n"
            assert whole == re.sub(rb"\r*\n", b"\n", ended)


def _read(path: Path, size: int) -> tuple[bytes, TextError | None]:
    """What is read in blocks of a size, or why it is not all read."""
    usual, reading.BLOCK = reading.BLOCK, size
    read = []
    try:
        for block in open_blocks(path):
            assert block.endswith(b"\n")
            read.append(block)
    except TextError as error:
        return b"", error
    finally:
        reading.BLOCK = usual
    return b"".join(read), None


_BPE: list[BPE] = []


def bpe() -> BPE:
    """A small one, learned once."""
    if not _BPE:
        _BPE.append(BPE.train([SAMPLE, "the cat sat on the mat, the cat said that"], 290))
    return _BPE[0]


def tokenize(data: bytes) -> None:
    """First byte: the tokenizer; then a text: in blocks, compiled and not, against line by line."""
    names = ("words", "characters", "bytes", "prose")
    choice, data = (data[0] % 5 if data else 0), data[1:]
    try:
        text = data.replace(b"\0", b"").decode()
    except UnicodeDecodeError:
        return
    text = text if text.endswith("\n") else text + "\n"
    _one(get_tokenizer(names[choice]) if choice < 4 else bpe(), text)


def _one(tokenizer: Tokenizer, text: str) -> None:
    given, text = text, re.sub(r"\r*\n", "\n", text)
    lines = text.split("\n")[:-1]
    try:
        split = [sentence for line in lines for sentence in tokenizer.split(line)]
    except TextError:
        split = None
    try:
        encoder, ids = _encode(tokenizer, None, text)
    except TextError:
        assert split is None, "it was split, but not encoded"
        return
    assert split is not None, "it was encoded, but not split"
    tokens = encoder.tokens()
    assert [tokens[id] for id in ids] == [token for sentence in split for token in (*sentence, "</s>")]
    assert encoder.events == len(ids) == sum(len(sentence) + 1 for sentence in split)
    assert len(encoder.words) == len(encoder.bytes) == len(split)
    if split:  # what stands between sentences counts with one of them
        assert sum(encoder.bytes) == len(text.encode())
        assert sum(encoder.words) == len(text.encode().split())
    kept, encoding.compiled = encoding.compiled, None
    try:
        again, same = _encode(tokenizer, None, text)
    finally:
        encoding.compiled = kept
    assert ids == same
    assert (encoder.words, encoder.bytes, tokens) == (again.words, again.bytes, again.tokens())
    _spans(tokenizer, lines)
    known = Vocabulary(["<unk>", "</s>", *(token for token in tokens[2::2] if token not in ("<s>", "</s>"))])
    whole = encode_string(given, tokenizer, known)
    assert whole.ids.tolist() == [known.id(tokens[id]) if id != 1 else 1 for id in ids]
    assert (whole.words.tolist(), whole.bytes.tolist()) == (encoder.words.tolist(), encoder.bytes.tolist())


def _encode(tokenizer: Tokenizer, vocabulary: Vocabulary | None, text: str) -> tuple[Encoder, list[int]]:
    """Two blocks, cut at a line end in the middle."""
    sink, raw = io.BytesIO(), text.encode()
    encoder = Encoder(tokenizer, vocabulary, sink)
    cut = raw.find(b"\n", len(raw) // 2) + 1
    for block in (raw[:cut], raw[cut:]):
        if block:
            encoder.add(block)
    return encoder, np.frombuffer(sink.getvalue(), "<i4").tolist()


def _spans(tokenizer: Tokenizer, lines: list[str]) -> None:
    """Sentences tile their line; tokens stand in order within their sentence."""
    for line in lines:
        spans = tokenizer.spans(line)
        assert not spans or (spans[0][0], spans[-1][1]) == (0, len(line))
        assert all(before[1] == after[0] for before, after in pairwise(spans))
        for (first, last), sentence in zip(spans, tokenizer.sentences(line), strict=True):
            at = first
            for token in sentence:
                assert first <= token.start <= token.end <= last
                assert token.start >= at or tokenizer.unit in (
                    "byte",
                    "subword",
                )  # bytes of one character share it
                at = token.end


def build(data: bytes) -> None:
    """First byte: the settings; then the text. The corpus, built and cached, is what its text is."""
    path, cache = scratch() / "corpus.txt", scratch() / "cache"
    choice, data = (data[0] if data else 0), data[1:]
    path.write_bytes(data)
    names = ("words", "characters", "bytes", "prose")
    settings = TextSettings(
        tokenizer=names[choice % 4],  # type: ignore[arg-type]
        vocabulary_size=(0, 3, 7, 50)[choice // 4 % 4],
        min_count=1 + choice // 16 % 3,
    )
    shutil.rmtree(cache, ignore_errors=True)
    built, again = (load_corpus(path, settings, cache=cache) for _ in range(2))
    assert built.digest == again.digest
    assert built.vocabulary == again.vocabulary
    assert built.notes == again.notes
    for one, other in zip(_parts(built), _parts(again), strict=True):
        assert np.array_equal(one.ids, other.ids)
        assert np.array_equal(one.words, other.words)
        assert np.array_equal(one.bytes, other.bytes)
        assert one.events == len(one.ids)
        assert one.sentences == len(one.ends) > 0
        assert 0 <= one.ids.min() <= one.ids.max() < len(built.vocabulary)
        assert one.words.sum() > 0
    counts = built.vocabulary.counts
    assert counts is not None
    assert np.array_equal(np.bincount(built.train.ids, minlength=len(counts)), counts)


def _parts(corpus: Corpus) -> tuple[Text, Text, Text]:
    return corpus.train, corpus.valid, corpus.test


def seeds() -> list[bytes]:
    return [
        b"\xff" + SAMPLE.encode(),
        b"\x03" + SAMPLE.encode(),
        b"\x10" + gzip.compress(SAMPLE.encode(), mtime=0),
    ]


def texts() -> list[bytes]:
    return [bytes([choice]) + SAMPLE.encode() for choice in range(5)]


def corpora() -> list[bytes]:
    return [bytes([choice]) + SAMPLE.encode() * 3 for choice in (0, 1, 2, 3, 53)]


TEXT = Target(run, seeds, MARKS)
TOKENIZERS = Target(tokenize, texts, MARKS, largest=512)
CORPUS = Target(build, corpora, MARKS, largest=1024)
