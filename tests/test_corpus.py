"""Texts as ids with words and bytes counted; three splits, one vocabulary, a cache that may be lost."""

from __future__ import annotations

import gzip
import io
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from elman.errors import OptionError, TextError
from elman.text import building, corpus, reading
from elman.text.corpus import Corpus, Text, TextSettings, encode_string, load_corpus
from elman.text.tokenizers import BPE, Words
from elman.text.vocabulary import Vocabulary

PTB = os.environ.get("ELMAN_PTB")
needs_ptb = pytest.mark.skipif(
    not PTB, reason="Penn Treebank absent: set ELMAN_PTB to a folder with train/valid/test.txt"
)
LINES = [f"w{number % 7} x{number % 3} y{number % 11}" for number in range(60)]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def folder(path: Path, train: str, valid: str, test: str) -> Path:
    path.mkdir(exist_ok=True)
    for name, text in (("train", train), ("valid", valid), ("test", test)):
        write(path / f"{name}.txt", text)
    return path


def tokens_of(made: Corpus, text: Text) -> list[str]:
    return [made.vocabulary.token(number) for number in text.ids.tolist()]


def test_a_folder_of_three_files(tmp_path: Path) -> None:
    made = load_corpus(folder(tmp_path / "f", "b a\n\na <unk> a\n", "a new\n", " b  testonly"))
    assert made.vocabulary.tokens == ("<unk>", "</s>", "a", "b")
    assert made.vocabulary.counts is not None
    assert made.vocabulary.counts.tolist() == [1, 3, 3, 1]
    assert made.train.ids.tolist() == [3, 2, 1, 1, 2, 0, 2, 1]
    assert made.train.ids.dtype == np.int32
    assert made.train.words.tolist() == [2, 0, 3]
    assert made.train.bytes.tolist() == [4, 1, 10]
    assert made.train.ends.tolist() == [2, 3, 7]
    assert (made.train.events, made.train.sentences, made.train.unknown) == (8, 3, 1)
    assert tokens_of(made, made.valid) == ["a", "<unk>", "</s>"]
    assert tokens_of(made, made.test) == ["b", "<unk>", "</s>"]
    assert made.test.bytes.tolist() == [12 + 1]  # a last line without its end counts as if it had one
    assert made.test.stream().tolist() == [1, 3, 0, 1]
    assert made.tokenizer == Words()
    assert "split as it came" in made.origin
    assert made.notes == ()
    for text in (made.train, made.valid, made.test):
        assert np.array_equal(text.stream()[1:], text.ids)


def test_parts_are_texts_of_their_own(tmp_path: Path) -> None:
    text = load_corpus(folder(tmp_path / "f", "b a\n\na b a\nc\n", "a\n", "b\n")).train
    bare = Text(text.ids, text.words, text.bytes)
    for first in range(-1, 6):
        for last in range(6):
            part, same = text.part(first, last), bare.part(first, last)
            wanted = range(max(0, first), max(max(0, min(first, 4)), min(last, 4)))
            assert part.sentences == len(wanted)
            assert part.words.tolist() == [text.words[at] for at in wanted]
            assert part.stream().tolist() == same.stream().tolist() == [1, *part.ids.tolist()]
            assert len(part.ends) == part.sentences
    assert [number for at in range(4) for number in text.part(at, at + 1).ids] == text.ids.tolist()
    assert text.part(1, 3).part(1, 2).ids.tolist() == text.part(2, 3).ids.tolist()


def test_one_file_is_split_by_blocks(tmp_path: Path) -> None:
    path = write(tmp_path / "one.txt", "\n".join(LINES))
    made = load_corpus(path)
    assert [text.sentences for text in (made.train, made.valid, made.test)] == [54, 3, 3]
    assert "54/3/3" in made.origin
    everything = [*tokens_of(made, made.train), *tokens_of(made, made.valid), *tokens_of(made, made.test)]
    assert everything == [token for line in LINES for token in [*line.split(), "</s>"]]
    assert made.vocabulary == Vocabulary.build(
        Counter(word for line in LINES[:54] for word in line.split()), sentences=54
    )
    packed = load_corpus(write(tmp_path / "one.txt.gz", gzip.compress("\r\n".join(LINES).encode())))
    assert packed.digest == made.digest
    assert load_corpus(str(path), TextSettings(min_count=6)).digest != made.digest


def test_words_seen_only_later_never_enter(tmp_path: Path) -> None:
    made = load_corpus(write(tmp_path / "t", "\n".join(["a b"] * 18 + ["valid_only a", "test_only b"])))
    assert made.vocabulary.tokens == ("<unk>", "</s>", "a", "b")
    assert made.valid.ids.tolist() == [0, 2, 1]
    assert made.test.ids.tolist() == [0, 3, 1]


def test_settings_limit_the_vocabulary(tmp_path: Path) -> None:
    source = folder(tmp_path / "f", "a a a b b c\n", "c\n", "b\n")
    assert load_corpus(source, TextSettings(vocabulary_size=3)).vocabulary.tokens == ("<unk>", "</s>", "a")
    assert load_corpus(source, TextSettings(min_count=2)).vocabulary.tokens == ("<unk>", "</s>", "a", "b")
    assert len(load_corpus(source, TextSettings(vocabulary_size=0)).vocabulary) == 5
    for wrong in ({"vocabulary_size": 2}, {"min_count": 0}, {"bpe_size": 255}, {"tokenizer": "wrods"}):
        with pytest.raises(OptionError):
            TextSettings(**wrong)  # type: ignore[arg-type]


def test_prose_bytes_between_sentences_belong_to_the_one_before(tmp_path: Path) -> None:
    train = "\n[note]\nOne. Two!  \n\n[Laughter]\nThree.\n"
    made = load_corpus(folder(tmp_path / "f", train, "\nFour.\n", "Five.\n"), TextSettings(tokenizer="prose"))
    assert made.train.bytes.tolist() == [8 + 5, 7 + 1 + 11, 7]
    assert made.train.words.tolist() == [1 + 1, 1 + 1, 1]
    assert made.valid.bytes.tolist() == [1 + 6]  # a blank line at the start of a part stays in that part
    assert made.train.bytes.sum() == len(train)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is empty"),
        ("\n \n\t\n\n", "blank"),
        ("token", "1 sentence: too few"),
        ("one\ntwo", "2 sentences: too few"),
        ("a\n" * 10 + "\n" * 4, "valid part: there is no word"),
        ("a b\nc <s> d\ne\n", "line 2: the word <s>"),
        ("a b\nc d\ne </s>\n", "line 3: the word </s>"),
        (b"a\nb\nc\xff\n", "line 3, byte 5"),
    ],
)
def test_files_that_cannot_be_a_corpus(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = write(tmp_path / "bad.txt", content)
    with pytest.raises(TextError) as caught:
        load_corpus(path)
    assert message in str(caught.value)
    assert "bad.txt" in caught.value.cause
    assert caught.value.remedy


def test_three_tokens_are_enough(tmp_path: Path) -> None:
    made = load_corpus(write(tmp_path / "t", "a\nb\nc"))
    assert [text.ids.tolist() for text in (made.train, made.valid, made.test)] == [[2, 1], [0, 1], [0, 1]]


def test_folders_that_are_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(TextError, match=r"has no train\.txt"):
        load_corpus(tmp_path)
    write(tmp_path / "train.txt", "a\n")
    with pytest.raises(TextError, match=r"has no valid\.txt"):
        load_corpus(tmp_path)
    write(tmp_path / "valid.txt.gz", gzip.compress(b"a\n"))
    write(tmp_path / "test.txt", "")
    with pytest.raises(TextError, match=r"test\.txt: there is no word"):
        load_corpus(tmp_path)
    write(tmp_path / "test.txt", "a b\n")
    assert load_corpus(tmp_path).valid.ids.tolist() == [2, 1]


def test_missing_paths_suggest_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "corpus.txt", "a\n")
    with pytest.raises(TextError, match=r"perhaps you meant .*corpus\.txt"):
        load_corpus(tmp_path / "corpsu.txt")
    with pytest.raises(TextError, match="perhaps you meant sotu-modern"):
        load_corpus("sotu-modrn")
    with pytest.raises(TextError, match="pydoc"):
        load_corpus("nothing-like-it")
    with pytest.raises(TextError, match="does not exist"):
        load_corpus(tmp_path / "no" / "such" / "folder.txt")
    with pytest.raises(TextError, match=r"cannot be looked at|does not exist"):
        load_corpus("x" * 5000 + ".txt")


def test_standard_input_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(LINES).encode())))
    made = load_corpus("-", cache=tmp_path / "cache")
    assert made.train.sentences == 54
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\nc\n")))
    with pytest.raises(TextError, match="only once"):
        load_corpus("-", TextSettings(tokenizer="bpe"))


def test_subwords_are_learned_from_the_training_part_only(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="the extra bpe is not installed")
    lines = ["the cat sat on the mat"] * 18 + ["zyzzyva zyzzyva zyzzyva"] * 2
    made = load_corpus(write(tmp_path / "t", "\n".join(lines)), TextSettings(tokenizer="bpe", bpe_size=280))
    assert isinstance(made.tokenizer, BPE)
    assert not any("zz" in token for token in made.tokenizer.subwords)
    assert tokens_of(made, made.train)[:4] == ["the", "Ġcat", "Ġsat", "Ġon"]
    assert made.train.words.tolist() == [6] * 18
    assert made.train.bytes.tolist() == [23] * 18
    same = encode_string("\n".join(lines[:18]), made.tokenizer, made.vocabulary)
    assert same.ids.tolist() == made.train.ids.tolist()
    three = folder(tmp_path / "f", "\n".join(lines[:18]), lines[18], lines[19])
    assert load_corpus(three, TextSettings(tokenizer="bpe", bpe_size=280)).digest == made.digest


def test_long_texts_cross_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "one.txt", "\n".join(LINES))
    whole = load_corpus(path, cache=tmp_path / "a")
    monkeypatch.setattr(building, "_CHUNK", 7)
    monkeypatch.setattr(corpus, "_CHUNK", 5)
    monkeypatch.setattr(reading, "BLOCK", 11)
    small = load_corpus(path, cache=tmp_path / "b")
    assert small.digest == whole.digest
    assert small.vocabulary.as_json() == whole.vocabulary.as_json()
    assert small.train.ends.tolist() == whole.train.ends.tolist()
    assert small.train.unknown == whole.train.unknown


def test_progress_is_reported(tmp_path: Path) -> None:
    path, seen = write(tmp_path / "one.txt", "\n".join(LINES)), []
    load_corpus(
        path, cache=tmp_path / "cache", progress=lambda what, done, total: seen.append((what, done, total))
    )
    size = path.stat().st_size
    assert seen[-1] == ("reading one.txt", size, size)


@needs_ptb
def test_penn_treebank_counts() -> None:
    made = load_corpus(str(PTB))
    assert len(made.vocabulary) == 10_000
    splits = (made.train, made.valid, made.test)
    assert [text.events for text in splits] == [929_589, 73_760, 82_430]
    assert [text.sentences for text in splits] == [42_068, 3_370, 3_761]
    assert [text.unknown for text in splits] == [45_020, 3_485, 4_794]
    assert [int(text.words.sum()) for text in splits] == [887_521, 70_390, 78_669]
    assert [int(text.bytes.sum()) for text in splits] == [5_101_618, 399_782, 449_945]
