"""Encoding in bulk equals the tokenizer line by line, and a user's own text streams."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elman.errors import TextError
from elman.kernels import native
from elman.text import corpus, encoding, reading
from elman.text.corpus import encode_string, encode_text, load_corpus
from elman.text.tokenizers import Bytes, Characters, Prose, Tokenizer, Words
from elman.text.vocabulary import Vocabulary


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


PARTS = [
    "a",
    "Mr.",
    "The",
    " ",
    "  ",
    "\t",
    "\n",
    "\n\n",
    ". ",
    "é",
    "\u00a0",
    "[note]",
    "\r\n",
    "\r",
    "😀",
    "x",
    "seven77",
    "eighteig",
    "eighteih",
    "nine9nine",
    "nine9ninf",
    "seventeen17171717",
    "\v",
    "\f",
    "\x0e",
    "\x08",
    "\x1f!",
]


@pytest.fixture(params=["compiled", "Python"], autouse=True)
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test here runs with the compiled table of words and without it."""
    if request.param == "compiled" and not native.available():
        pytest.skip("the kernels are not in this installation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "compiled", native.WordTable if request.param == "compiled" else None)
        patch.setattr(encoding, "_kept", {})
        yield


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.lists(st.sampled_from(PARTS), max_size=30).map("".join))
@pytest.mark.parametrize("tokenizer", [Words(), Prose(), Characters(), Bytes()], ids=repr)
@pytest.mark.parametrize("block", [5, 1 << 20])
def test_bulk_encoding_equals_the_tokenizer_line_by_line(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, block: int, text: str
) -> None:
    plain = text + "\n" * (bool(text) and not text.endswith("\n"))
    plain = re.sub("\r+\n", "\n", plain)
    sentences = [tokens for line in plain.split("\n")[:-1] for tokens in tokenizer.split(line)]
    vocabulary = Vocabulary(
        ["<unk>", "</s>", "a", "mr", ".", "é", "␣", "<C3>", "eighteig", "nine9nine", "seven77"]
    )
    wanted = [number for tokens in sentences for number in [*vocabulary.ids(tokens), 1]]
    found = encode_string(text, tokenizer, vocabulary)
    assert found.ids.tolist() == wanted
    assert found.sentences == len(sentences) == len(found.words) == len(found.ends)
    if sentences:
        assert found.bytes.sum() == len(plain.encode())
        assert found.words.sum() == len(plain.encode().split())
    path = write(tmp_path_factory.mktemp("encode") / "text", text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BLOCK", block)
        if not found.words.any():
            with pytest.raises(TextError, match="no word"):
                encode_text(path, tokenizer, vocabulary)
            return
        again = encode_text(path, tokenizer, vocabulary)
    for name in ("ids", "words", "bytes"):
        assert np.array_equal(getattr(again, name), getattr(found, name))


def test_too_many_different_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "MAX_TYPES", 20)
    path = write(tmp_path / "log.txt", "".join(f"id{number} x\n" for number in range(40)))
    with pytest.raises(TextError, match="more than 20 different words") as caught:
        load_corpus(path)
    assert "bpe" in caught.value.remedy
    encode_text(path, Words(), Vocabulary(["<unk>", "</s>", "x"]))  # a fixed vocabulary has no such limit


def test_encode_text_maps_what_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, vocabulary = write(tmp_path / "t", "a b\nb\n"), Vocabulary(["<unk>", "</s>", "b"])
    small = encode_text(path, Words(), vocabulary)
    monkeypatch.setattr(corpus, "_IN_MEMORY", 0)
    seen: list[int] = []
    large = encode_text(str(path), Words(), vocabulary, progress=lambda what, done, total: seen.append(total))
    assert isinstance(large.ids, np.memmap)
    assert large.stream().tolist() == small.stream().tolist() == [1, 0, 2, 1, 2, 1]
    assert set(seen) == {6}
    with pytest.raises(TextError, match="line 2: the word </s>"):
        encode_text(write(tmp_path / "u", "a\n</s>\n"), Words(), vocabulary)
    with pytest.raises(TextError, match="does not exist"):
        encode_text(tmp_path / "absent", Words(), vocabulary)
    with pytest.raises(TextError, match="surrogate"):
        encode_string("\ud800", Words(), vocabulary)
    assert encode_string("", Words(), vocabulary).stream().tolist() == [1]


def test_new_words_get_the_next_number_either_way() -> None:
    """Enough words for the table to grow several times, of 1 to 30 letters, which share beginnings."""
    rng = np.random.default_rng(3)
    letters = np.array(list("abé—😀<>\x7f"))
    words = ["".join(rng.choice(letters, rng.integers(1, 31))) for _ in range(9000)]
    words = [word for word in words if word not in ("<s>", "</s>")]
    lines = [" ".join(words[at : at + size]) for at in range(0, 9000, 7) for size in (7, 0, 3)]
    block = ("\n".join(lines) + "\n").encode()
    sink = BytesIO()
    encoder = encoding.Encoder(Words(), None, sink)
    for half in (block, block[block.index(b"\n") + 1 :]):
        encoder.add(half)
    numbers: dict[str, int] = {"<unk>": 0, "</s>": 1}
    wanted = [
        numbers.setdefault(word, len(numbers))
        for half in (lines, lines[1:])
        for line in half
        for word in [*line.split(" "), "</s>"]
        if word
    ]
    assert np.frombuffer(sink.getvalue(), "<i4").tolist() == wanted
    assert encoder.tokens() == list(numbers)
    assert len(numbers) > 5000
    assert encoder.words.tolist() == [len(line.split()) for half in (lines, lines[1:]) for line in half]
    assert encoder.bytes.tolist() == [len(line.encode()) + 1 for half in (lines, lines[1:]) for line in half]


def test_the_table_of_a_vocabulary_is_made_once_and_goes_with_it() -> None:
    if encoding.compiled is None:
        return
    vocabulary = Vocabulary(["<unk>", "</s>", "b"])
    for line in ("a b", "b", "new words"):
        encode_string(line, Words(), vocabulary)
    assert len(encoding._kept) == 1
    assert len(encoding._kept[id(vocabulary)]) == 3  # it has not grown
    del vocabulary
    gc.collect()
    assert len(encoding._kept) == 0
