"""Texts as ids with words and bytes counted; three splits, one vocabulary, a cache that may be lost."""

from __future__ import annotations

import gzip
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

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


def test_prose_bytes_between_sentences_belong_to_the_one_before(tmp_path: Path) -> None:
    train = "\n[note]\nOne. Two!  \n\n[Laughter]\nThree.\n"
    made = load_corpus(
        folder(tmp_path / "f", train, "\nFour.\n", "Five.\n"), TextSettings(tokenizer="prose", brackets=False)
    )
    assert made.train.bytes.tolist() == [8 + 5, 7 + 1 + 11, 7]
    assert made.train.words.tolist() == [1 + 1, 1 + 1, 1]
    assert made.valid.bytes.tolist() == [1 + 6]  # a blank line at the start of a part stays in that part
    assert made.train.bytes.sum() == len(train)


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
