"""What a text looks like, by real texts; wrapped lines joined, no byte more or less."""

from __future__ import annotations

import random
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman.text import paragraphs
from elman.text.builtin import BUILTIN
from elman.text.corpus import TextSettings, encode_text, load_corpus
from elman.text.heldout import HeldOut
from elman.text.paragraphs import Looks, joined, looks, peek
from elman.text.reading import open_blocks
from elman.text.tokenizers import Prose

ROOT = Path(__file__).parents[1]
STORY = (
    "It was late, and nobody had come. The man in the grey coat waited by the door; he looked at his "
    'watch, and then at the rain. "Is there no other way?" he asked. There was none, of course, or none '
    "that he knew of, and so he went on waiting until the lamps in the street were lit, one after "
    "another, by a boy."
)
"""A paragraph without capital letters that a wrapped line would begin with by chance more than once."""


def wrapped(width: int, count: int = 12, indent: str = "") -> str:
    """Paragraphs of a story, each other than the last, hard-wrapped, blank lines between them."""
    draw = random.Random(3)
    paragraphs = []
    for _ in range(count):
        sentences = STORY.split(". ")
        draw.shuffle(sentences)
        paragraphs.append(". ".join(sentences))
    return "\n\n".join(textwrap.fill(each, width, initial_indent=indent) for each in paragraphs) + "\n"


def sentence_a_line(tokens: bool) -> str:
    lines = STORY.replace("? ", "?\n").replace(". ", ".\n").split("\n") * 12
    return "".join((" ".join(Prose().texts(line)) if tokens else line) + "\n" for line in lines)


@pytest.mark.parametrize("width", [50, 65, 72, 78, 100])
def test_wrapped_prose_is_recognised(width: int) -> None:
    found = looks(wrapped(width).encode())
    assert found.prose
    assert width - 8 <= found.width <= width
    crlf_is_gone_before = looks(wrapped(width, indent="   ").encode())
    assert crlf_is_gone_before.width == found.width or crlf_is_gone_before.width >= width - 8


def test_other_texts_are_left_as_they_are() -> None:
    assert looks(sentence_a_line(tokens=False).encode()) == Looks(True, 0)
    assert looks((STORY + "\n").encode() * 9) == Looks(True, 0)  # a paragraph a line
    assert looks(sentence_a_line(tokens=True).encode()) == Looks(False)
    # like the Penn Treebank: no mark but in abbreviations, numbers as N, each line begins small
    bank = (
        "mr. <unk> is chairman of <unk> n.v. the dutch publishing group\nthe u.s. rose N % to $ N a share\n"
    )
    assert looks(bank.encode() * 40) == Looks(False)
    assert looks(textwrap.fill(bank.replace("\n", " ") * 40, 70).encode()) == Looks(False)
    assert looks(b"") == looks(b"\n\n \n") == looks(b"Too few words, alas.\n") == Looks(False)
    numbers = "\n".join(f"{k}, {k * k}, {k / 7:.3f}, item {k}," for k in range(200))
    assert looks(numbers.encode()) == Looks(False)


@pytest.mark.parametrize(
    "path", ["src/elman/text/corpus.py", "native/words.cpp", "pyproject.toml", "Makefile"]
)
def test_code_is_no_prose(path: str) -> None:
    assert looks((ROOT / path).read_bytes()) == Looks(False)


LICENCES = Path("/usr/share/common-licenses")


@pytest.mark.skipif(not (LICENCES / "GPL-3").is_file(), reason="no folder of licences (not Debian)")
@pytest.mark.parametrize("name", ["GPL-3", "LGPL-2.1", "Apache-2.0", "GFDL-1.3", "MPL-2.0", "Artistic"])
def test_licences_are_wrapped_prose(name: str) -> None:
    found = looks((LICENCES / name).read_bytes())
    assert found.prose
    assert 60 <= found.width <= 80


def test_help_topics_a_paragraph_a_line() -> None:
    text = "".join(BUILTIN["pydoc"].parts().train)
    assert looks(text.encode()) == Looks(True, 0)
    lines = [textwrap.fill(line, 70) for line in text.split("\n")]
    assert looks("\n\n".join(lines).encode()).width == 70


def blocks_of(text: bytes, cuts: list[int]) -> Iterator[bytes]:
    """Whole lines, in blocks that end near the cuts."""
    start = 0
    for cut in sorted(cuts):
        stop = text.rfind(b"\n", 0, cut % (len(text) + 1)) + 1
        if stop > start:
            yield text[start:stop]
            start = stop
    if start < len(text):
        yield text[start:]


LINES = st.lists(st.sampled_from(["a b", "c.", "", "  ", "  d e", "\tf", "é g", "h [i"]), max_size=12)


@given(lines=LINES, cuts=st.lists(st.integers(0, 99), max_size=4))
def test_joining_keeps_every_byte_and_word_whatever_the_blocks(lines: list[str], cuts: list[int]) -> None:
    text = "".join(line + "\n" for line in lines).encode()
    whole = b"".join(joined(iter([text] if text else [])))
    assert b"".join(joined(blocks_of(text, cuts))) == whole
    assert len(whole) == len(text)
    assert whole.split() == text.split()
    assert whole.replace(b"\n", b" ") == text.replace(b"\n", b" ")


def test_what_ends_a_paragraph() -> None:
    text = "one\ntwo\n\n \nthree\n   four\n   five\nsix\n\nseven\n"
    assert (
        b"".join(joined(iter([text.encode()]))).decode()
        == "one two\n\n \nthree\n   four    five six\n\nseven\n"
    )


def test_a_text_without_blank_lines_is_cut_where_sentences_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paragraphs, "LONG", 200)
    text = textwrap.fill(STORY * 30, 60).encode() + b"\n"
    lines = b"".join(joined(iter([text]))).splitlines()
    assert len(lines) > 5
    assert all(200 < len(line) < 16 * 200 for line in lines[:-1])
    assert all(line.rstrip()[-1:] in b'.?"' for line in lines[:-1])
    endless = b"word " * 10 + b"\n"
    assert max(map(len, b"".join(joined(iter([endless * 200]))).splitlines())) < 16 * 200 + 2 * len(endless)


def test_the_beginning_is_looked_at_without_being_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paragraphs, "SAMPLE", 20)
    text = b"".join(b"line %d\n" % k for k in range(9))
    for cuts in ([], [9], [3, 30, 50]):
        sample, blocks = peek(blocks_of(text, cuts))
        assert sample == b"line 0\nline 1\n"  # the same whatever the blocks
        assert b"".join(blocks) == text


def test_a_wrapped_novel_has_the_sentences_of_its_paragraphs(tmp_path: Path) -> None:
    """Wrapping changes nothing but where lines end: the same sentences, words and bytes."""
    flat, hard = tmp_path / "flat.txt", tmp_path / "hard.txt"
    text = wrapped(70, 60)
    hard.write_text(text)
    flat.write_text("\n\n".join(part.replace("\n", " ") for part in text[:-1].split("\n\n")) + "\n")
    one, other = load_corpus(flat), load_corpus(hard)
    assert one.tokenizer.name == other.tokenizer.name == "prose"
    assert one.digest == other.digest
    for split in ("train", "valid", "test"):
        left, right = getattr(one, split), getattr(other, split)
        assert left.bytes.tolist() == right.bytes.tolist()
        assert left.words.tolist() == right.words.tolist()
    assert (
        sum(getattr(other, split).bytes.sum() for split in ("train", "valid", "test")) == hard.stat().st_size
    )
    assert "looks like running prose" in one.notes[0]
    assert "--tokenizer words" in one.notes[0]
    assert "wrapped" not in one.notes[0]
    assert "wrapped at 70 columns, so they are joined to paragraphs (--no-wrapped)" in other.notes[0]
    assert load_corpus(hard).notes == other.notes  # from the cache
    lines = load_corpus(hard, TextSettings(wrapped=False))
    assert lines.train.sentences > 1.5 * other.train.sentences
    assert load_corpus(flat, TextSettings(tokenizer="words")).notes == ()
    # a model of it reads other wrapped files alike, and says so
    assert encode_text(hard, other.tokenizer, other.vocabulary).sentences == sum(
        getattr(other, split).sentences for split in ("train", "valid", "test")
    )
    assert "wrapped at 70 columns, so prose joins them" in HeldOut(str(hard), [other]).notes[1]


def test_nothing_is_dropped_unsaid(tmp_path: Path) -> None:
    path = tmp_path / "novel.txt"
    path.write_text(wrapped(70, 30).replace("a boy", "[a small boy] of 12"))
    made = load_corpus(path)
    assert {"[", "]"} <= set(made.vocabulary.tokens)
    assert not any("left out" in note for note in made.notes)
    without = load_corpus(path, TextSettings(brackets=False, numbers=False, lowercase=False))
    assert not {"[", "]", "boy"} & set(without.vocabulary.tokens)
    assert {"12", "It", "The"} <= set(without.vocabulary.tokens)
    assert without.notes[-1] == "90 words in square brackets are left out (--brackets reads them)."
    assert "lowered" not in without.notes[0]
    assert "numbers become" not in without.notes[0]
    assert "90 words in square brackets are left out" in HeldOut(str(path), [without]).notes[-1]
    assert load_corpus("pydoc").tokenizer.as_json() == {"name": "prose", "numbers": True}  # as ever


def test_a_refused_file_is_closed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(wrapped(70, 20).encode() + b"\xff\n")
    closed = []

    def watched() -> Iterator[bytes]:
        try:
            yield from open_blocks(path)
        finally:
            closed.append(True)

    found = Prose(wrapped=True).paragraphs(watched())
    with pytest.raises(Exception, match="not UTF-8"):
        list(found)
    assert closed
    text = tmp_path / "good.txt"
    text.write_text(wrapped(70, 20))
    path = text
    closed.clear()
    early = Prose().paragraphs(watched())
    next(early)
    early.close()  # type: ignore[attr-defined]
    assert closed
