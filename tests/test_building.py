"""Building a corpus in one pass: vocabulary of the training part only, the split, what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from elman.errors import OptionError, TextError
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.surprisal import surprisals
from elman.text import building, corpus, reading
from elman.text.corpus import TextSettings, encode_string, load_corpus

LINES = [f"w{number % 7} x{number % 3} y{number % 11}" for number in range(60)]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def folder(path: Path, train: str, valid: str, test: str) -> Path:
    path.mkdir(exist_ok=True)
    for name, text in (("train", train), ("valid", valid), ("test", test)):
        write(path / f"{name}.txt", text)
    return path


def test_words_seen_only_later_never_enter(tmp_path: Path) -> None:
    made = load_corpus(write(tmp_path / "t", "\n".join(["a b"] * 18 + ["valid_only a", "test_only b"])))
    assert made.vocabulary.tokens == ("<unk>", "</s>", "a", "b")
    assert made.valid.ids.tolist() == [0, 2, 1]
    assert made.test.ids.tolist() == [0, 3, 1]


def test_settings_limit_the_vocabulary(tmp_path: Path) -> None:
    source = folder(tmp_path / "f", "a a a b b c\n", "c\n", "b\n")
    assert load_corpus(source, TextSettings(vocabulary_size=3)).vocabulary.tokens == ("<unk>", "</s>", "a")
    assert load_corpus(source, TextSettings(min_count=2)).vocabulary.tokens == ("<unk>", "</s>", "a", "b")
    assert load_corpus(source, TextSettings(vocabulary_size=0)).vocabulary.tokens == (
        "<unk>",
        "</s>",
        "a",
        "b",
    )
    assert len(load_corpus(source, TextSettings(vocabulary_size=0, min_count=1)).vocabulary) == 5
    for wrong in ({"vocabulary_size": 2}, {"min_count": 0}, {"bpe_size": 255}, {"tokenizer": "wrods"}):
        with pytest.raises(OptionError):
            TextSettings(**wrong)  # type: ignore[arg-type]


def natural(lines: int) -> str:
    """Words drawn as in a text: a few frequent ones, and new ones without end."""
    draw = np.random.default_rng(4)
    return "".join(" ".join(f"w{rank}" for rank in draw.zipf(1.3, 9)) + "\n" for _ in range(lines))


def test_a_files_vocabulary_leaves_events_to_the_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = natural(400).splitlines()
    path = write(tmp_path / "t.txt", "\n".join(lines))
    made = load_corpus(path)
    counts = Counter(word for line in lines[:360] for word in line.split())
    once = [word for word, count in counts.items() if count == 1]
    assert len(once) > 100
    assert set(made.vocabulary.tokens[2:]) == set(counts) - set(once)
    assert made.train.unknown == len(once) == made.vocabulary.trained_unknown
    assert made.kept == "words seen more than once"
    assert f"{len(once):,} of the {made.train.events:,} training events" in made.vocabulary_in_words
    assert load_corpus(path).kept == made.kept  # from the cache
    whole = load_corpus(path, TextSettings(vocabulary_size=0, min_count=1))
    assert set(whole.vocabulary.tokens[2:]) == set(counts)
    assert whole.train.unknown == 0
    assert "figures on texts with unknown words mislead" in whole.vocabulary_in_words
    monkeypatch.setattr(building, "WORDS_KEPT", 50)
    few = load_corpus(path, cache=tmp_path / "few")
    assert len(few.vocabulary) == 50
    assert few.train.unknown == sum(sorted(counts.values())[: len(counts) - 48])
    assert few.kept == "the 48 most frequent words"
    prepared = write(tmp_path / "prepared.txt", "\n".join(lines).replace("w7 ", "<unk> "))
    kept = load_corpus(prepared, cache=tmp_path / "few")
    assert len(kept.vocabulary) > 50
    assert kept.kept == "all words of the training text, which writes <unk> itself"
    assert len(load_corpus(prepared, TextSettings(vocabulary_size=50)).vocabulary) == 50


def test_what_is_unknown_to_other_tokenizers(tmp_path: Path) -> None:
    text = "the cat sat on the mat\n" * 300 + "é\n" + "the cat\n" * 99
    path = write(tmp_path / "t.txt", text)
    letters = load_corpus(path, TextSettings(tokenizer="characters"))
    assert "é" not in letters.vocabulary
    assert letters.vocabulary.trained_unknown == letters.train.unknown == 1
    assert letters.kept == "characters seen more than once"
    raw = load_corpus(path, TextSettings(tokenizer="bytes"))
    assert len(raw.vocabulary) == 2 + 241
    assert raw.kept == "all bytes, so that nothing can be <unk>"
    assert (raw.vocabulary.trained_unknown, raw.test.unknown) == (0, 0)
    strange = encode_string("\tzebra ñ €\x01😀\n", raw.tokenizer, raw.vocabulary)
    assert strange.unknown == 0
    assert raw.tokenizer.join([raw.vocabulary.token(at) for at in strange.ids[:-1]]) == "\tzebra ñ €\x01😀"
    pytest.importorskip("tokenizers", reason="the extra bpe is not installed")
    subwords = load_corpus(path, TextSettings(tokenizer="bpe", bpe_size=270))
    assert encode_string('1 " zebra ñ €😀', subwords.tokenizer, subwords.vocabulary).unknown == 0
    assert subwords.kept == "all subwords, so that nothing can be <unk>"


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


EVERY = (chr(c) for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000)
BYTES_OF_TEXT = {byte for letter in EVERY for byte in letter.encode()}


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_no_text_is_unknown_to_bytes_and_subwords(tmp_path: Path, tokenizer: str) -> None:
    """All 256 bytes belong to the vocabulary, whatever the training text holds."""
    if tokenizer == "bpe":
        pytest.importorskip("tokenizers", reason="the extra bpe is not installed")
    path = write(tmp_path / "t", "the cat sat on the mat\nthe dog sat\n" * 20)
    made = load_corpus(path, TextSettings(tokenizer=tokenizer, bpe_size=290))  # type: ignore[arg-type]
    strange = '1 " é \u3000 \U0001f600 </s> <unk> \u0416' + "".join(map(chr, range(11, 0x800)))
    found = encode_string(strange, made.tokenizer, made.vocabulary)
    assert found.unknown == 0
    assert found.sentences == 1
    model = estimate(made.train, made.vocabulary, made.tokenizer, KneserNeySettings(order=3))
    for text in ("the cat", strange):
        (sentence,) = surprisals(model, [text])
        assert not any(token.unknown for token in sentence.tokens)
        assert all(0 < token.nats < 30 for token in sentence.tokens)
    _, logs = model.advance(model.start(1), torch.tensor([1]))
    assert logs.exp().sum().item() == pytest.approx(1, abs=1e-6)
    expected = len(BYTES_OF_TEXT - {10}) + 2 if tokenizer == "bytes" else len(made.tokenizer.alphabet) + 2
    assert len(made.vocabulary) == expected
    for option in ({"vocabulary_size": 100}, {"min_count": 2}):
        with pytest.raises(OptionError, match=f"do not go with --tokenizer {tokenizer}"):
            load_corpus(path, TextSettings(tokenizer=tokenizer, **option))  # type: ignore[arg-type]
    load_corpus(path, TextSettings(tokenizer=tokenizer, vocabulary_size=0))  # type: ignore[arg-type]
