"""Subwords: offsets, storage, and what a damaged model or a panic becomes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman.errors import ElmanError, FormatError
from elman.text import bpe as bpe_module
from elman.text.tokenizers import BPE, tokenizer_from_json


@pytest.fixture(scope="module")
def subwords() -> BPE:
    pytest.importorskip("tokenizers", reason="the extra bpe is not installed")
    return BPE.train(["the cat sat on the mat — naïve", "the dog and the cat"] * 10, 300)


@given(line=st.text("the catdogsamn —ï\U0001f600\t", max_size=30))
def test_subword_offsets_cover_the_line(subwords: BPE, line: str) -> None:
    (tokens,) = subwords.sentences(line)
    assert subwords.join([token.text for token in tokens]) == line
    place = 0
    for token in tokens:
        assert token.start <= place <= token.end
        place = token.end
    assert place == len(line)
    assert subwords.split(line) == [[token.text for token in tokens]]
    assert [subwords.subwords[number] for number in subwords.encode([line])[0]] == [t.text for t in tokens]


def test_subwords_are_learned_and_stored(subwords: BPE) -> None:
    assert len(subwords.subwords) <= 300
    assert subwords.split("the cat") == [["the", "Ġcat"]]
    stored = tokenizer_from_json(json.loads(json.dumps(subwords.as_json())))
    assert stored == subwords
    assert stored.split("naïve dog") == subwords.split("naïve dog")


def damaged(model: dict[str, object], **changes: object) -> dict[str, object]:
    return {"name": "bpe", "model": {**model, **changes}}


def test_damaged_subword_models_are_refused(subwords: BPE) -> None:
    model = subwords.model
    vocab, merges = model["vocab"], model["merges"]
    some = next(iter(vocab))
    without_letter = {token: at for at, token in enumerate([*[t for t in vocab if t != "a"], "aaa"])}
    for value in (
        {"name": "bpe", "model": None},
        {"name": "bpe", "model": {"vocab": vocab}},
        {"name": "bpe"},
        damaged(model, vocab=[]),
        damaged(model, merges={}),
        damaged(model, vocab={"a": 0}, merges=[]),
        damaged(model, vocab={**vocab, some: 10**9}),
        damaged(model, vocab={**vocab, some: -1}),
        damaged(model, vocab={**vocab, some: "0"}),
        damaged(model, vocab={**vocab, "": len(vocab)}),
        damaged(model, vocab={**vocab, "x" * 10_001: len(vocab)}),
        damaged(model, vocab={**vocab, "</s>": len(vocab)}),
        damaged(model, merges=[["a"]]),
        damaged(model, merges=[["a", 1]]),
        damaged(model, merges=["a b"]),
        damaged(model, merges=[["a", "nowhere"]]),
        damaged(model, merges=merges * 1000),
        damaged(model, vocab=without_letter, merges=[]),
    ):
        with pytest.raises(FormatError):
            tokenizer_from_json(value)


class Panic(BaseException):
    """As the library's PanicException: no Exception."""


def test_a_panic_becomes_an_error_and_an_interruption_stays() -> None:
    def panics() -> None:
        raise Panic("index out of bounds")

    def stops() -> None:
        raise KeyboardInterrupt

    with pytest.raises(FormatError, match="Panic"):
        bpe_module.guarded(panics, "BPE")
    with pytest.raises(KeyboardInterrupt):
        bpe_module.guarded(stops, "BPE")


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ElmanError, match=r"elman\[bpe\]"):
        BPE.train(["a b"], 300)
