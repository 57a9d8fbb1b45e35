"""One definition of a blank and of a word: counting (compiled and not), scoring, tracing and offsets agree.

The oracle is `bytes.split()`: words are what stands between ASCII white space. Over all of Unicode.
"""

from __future__ import annotations

import math
import re
import sys
import unicodedata
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from elman.errors import TextError
from elman.kernels import native
from elman.surprisal import SentenceSurprisal, TokenSurprisal, rows, surprisals
from elman.text import encoding
from elman.text.corpus import Text, encode_string
from elman.text.tokenizers import BPE, Tokenizer, Words, get_tokenizer
from elman.text.vocabulary import WORD
from elman.trace import TraceOptions, trace
from table_model import TableModel, close

BLANKS = " \t\v\f\r"  # within a line
UNICODE_BLANKS = "".join(c for c in map(chr, range(0x110000)) if c.isspace() and c not in BLANKS + "\n")
MARKS = ["</s>", "<s>", "<unk>", "␣", "<2423>", "<C3>", "Ġ", "[note]", ".", "?!", "Mr.", "12"]

PIECES = st.one_of(
    st.sampled_from(BLANKS),
    st.sampled_from(UNICODE_BLANKS),
    st.sampled_from(MARKS),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\0"), max_size=3),
)
LINES = st.lists(PIECES, max_size=12).map("".join)
TOKENIZERS = ["words", "prose", "characters", "bytes", "bpe"]


@cache
def tokenizer_of(name: str) -> Tokenizer:
    if name != "bpe":
        return get_tokenizer(name)
    pytest.importorskip("tokenizers", reason="the extra bpe is not installed")
    return BPE.train(["the cat sat  on the mat — naïve", "a\u3000b\u00a0c </s> the dog"] * 10, 290)


@cache
def model_of(name: str) -> TableModel:
    tokens = {"bpe": "Ġ Ġthe t e Ċ Ã ł Â", "bytes": "␣ < / s > <C3> <A0>", "characters": "␣ ␉ < / s >"}
    return TableModel(tokens.get(name, "a . < b the N note").split(), tokenizer=tokenizer_of(name))


def test_the_blanks_meant_here_are_those_that_went_wrong() -> None:
    assert set("\u00a0\u0085\u2028\u2029\u3000\x1c\x1d\x1e\x1f") <= set(UNICODE_BLANKS)


def sentences_of(model: TableModel, line: str) -> list[SentenceSurprisal]:
    try:
        return list(surprisals(model, [line]))
    except TextError:
        assert {"<s>", "</s>"} & {word.decode() for word in line.encode().split()}
        assert isinstance(model.tokenizer, Words)
        return []


@pytest.mark.parametrize("name", TOKENIZERS)
@given(line=LINES)
@example(line="a\u00a0b\u0085c\u2028d\u3000e\x1cf\x1fg h")
@example(line=" </s>  </s> ")
@example(line="␣ ␣")
@example(line="a.\u00a0B. \u2028[note] C\u3000.[note]D  ")
def test_rows_by_word_are_the_words_and_sum_to_the_sentence(name: str, line: str) -> None:
    found = sentences_of(model_of(name), line)
    for sentence in found:
        piece = line[sentence.start : sentence.end]
        *words, end = sentence.words()
        assert [word.text for word in words] == [raw.decode() for raw in piece.encode().split()]
        assert (end.token, end.text, end.start) == ("</s>", "", end.end)
        assert close(math.fsum(word.nats for word in (*words, end)), sentence.nats)
        assert sum(word.tokens for word in (*words, end)) == len(sentence.tokens)
        place = sentence.start
        for word in words:
            assert line[word.start : word.end] == word.text
            assert set(line[place : word.start]) <= set(BLANKS)
            place = word.end
        assert set(line[place : sentence.end]) <= set(BLANKS)
        table = list(rows(sentence, per="word"))
        assert [row["text"] for row in table] == [*(word.text for word in words), ""]
        assert [row["bits"] is None for row in table] == [not word.tokens for word in (*words, end)]
    if found:
        assert "".join(line[s.start : s.end] for s in found) == line
        assert "".join(str(row["text"]) for s in found for row in rows(s, per="sentence")) == line


@pytest.mark.parametrize("name", TOKENIZERS)
@given(lines=st.lists(LINES, max_size=3))
@example(lines=["a\u00a0b", "\u3000", "c\x1cd e"])
def test_as_many_words_as_are_counted(name: str, lines: list[str]) -> None:
    model = model_of(name)
    text = re.sub("\r+\n", "\n", "".join(line + "\n" for line in lines))
    found = [sentences_of(model, line) for line in text.split("\n")[:-1]]
    if name != "prose" and not all(found):
        assert {b"<s>", b"</s>"} & set(text.encode().split())
        return
    found = [sentence for each in found for sentence in each]
    if not found:
        return
    counted = [counts(text, model, compiled) for compiled in (True, False)]
    for one in counted:
        assert one.words.sum() == len(text.encode().split())
        assert one.events == sum(len(sentence.tokens) for sentence in found)
        assert one.sentences == len(found)
        if name != "prose":  # where lines without a sentence count with the sentence before them
            assert one.words.tolist() == [len(sentence.words()) - 1 for sentence in found]
    assert np.array_equal(counted[0].words, counted[1].words)
    traced = trace(model, text.split("\n")[:-1], options=TraceOptions(top=1, state="reset"))  # type: ignore[arg-type]
    assert [row.event for row in traced.rows] == [
        event for s in surprisals(model, text.split("\n")[:-1]) for event in s.tokens
    ]


def counts(text: str, model: TableModel, compiled: bool) -> Text:
    if compiled and not native.available():
        compiled = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "compiled", native.WordTable if compiled else None)
        patch.setattr(encoding, "_kept", {})
        return encode_string(text, model.tokenizer, model.vocabulary)


@pytest.mark.parametrize("name", ["characters", "bytes", "bpe"])
@given(line=LINES)
@example(line="␣ <2423> ␉")
@example(line=UNICODE_BLANKS + BLANKS + UNICODE_BLANKS[::-1])
def test_joining_the_tokens_gives_back_the_line(name: str, line: str) -> None:
    tokenizer = tokenizer_of(name)
    (tokens,) = tokenizer.sentences(line)
    assert tokenizer.join([token.text for token in tokens]) == line
    pieces = dict.fromkeys((token.start, token.end) for token in tokens)
    covered = {place for start, end in pieces for place in range(start, end)}
    assert covered == set(range(len(line)))
    assert not any(re.search(r"[ \t\n\r\v\f]", token.text) for token in tokens)


LETTERS = [chr(c) for c in range(1, sys.maxunicode + 1) if c != 10 and not 0xD800 <= c < 0xE000]
"""All code points that may stand in a line."""


def lines_of(letters: list[str]) -> list[str]:
    """In chunks, each code point between letters and, again, between blanks."""
    chunks = [letters[at : at + 4096] for at in range(0, len(letters), 4096)]
    return ["b".join(chunk) + " ".join(chunk) for chunk in chunks]


def test_every_code_point_is_a_blank_for_all_or_for_none() -> None:
    for line in lines_of(LETTERS):
        words = [raw.decode() for raw in line.encode().split()]
        assert WORD.findall(line) == words
        assert Words().texts(line) == words
        text = re.sub("\r+\n", "\n", line + "\n")
        for compiled in (True, False):
            for name in ("words", "characters"):
                assert counts(text, model_of(name), compiled).words.tolist() == [len(text.encode().split())]


def test_code_points_of_every_kind_are_summed_with_its_word() -> None:
    """A token for each code point, of 1 nat: a word has as many nats as letters, and its blank."""
    strange = {c for c in LETTERS if c.isspace() or unicodedata.category(c) in ("Cc", "Cf", "Zs", "Zl", "Zp")}
    for line in lines_of(sorted(strange | set(LETTERS[::97]))):
        tokens = [TokenSurprisal(c, c, at, at + 1, 1.0, False) for at, c in enumerate(line)]
        tokens.append(TokenSurprisal("</s>", "", len(line), len(line), 1.0, False))
        for begins in (False, True):
            sentence = SentenceSurprisal(1, 1, line, tuple(tokens), blank_begins=begins)
            *words, end = sentence.words()
            assert [word.text for word in words] == [raw.decode() for raw in line.encode().split()]
            assert [word.token.strip(BLANKS) for word in words] == [word.text for word in words]
            assert "".join(word.token for word in words) == (line.rstrip(BLANKS) if begins else line)
            assert sum(word.nats for word in words) + end.nats == len(tokens)


def test_a_blank_goes_one_way() -> None:
    """Characters: with the word it ends. Subwords: with the word it begins, alone as well as fused."""
    line = "  the   cat  "
    (letters,) = surprisals(model_of("characters"), [line])
    assert [word.token for word in letters.words()] == ["␣␣the␣␣␣", "cat␣␣", "</s>"]
    assert [word.tokens for word in letters.words()] == [8, 5, 1]
    (subwords,) = surprisals(model_of("bpe"), [line])
    assert [word.token for word in subwords.words()] == ["ĠĠthe", "ĠĠĠcat", "</s>"]
    assert subwords.words()[-1].tokens == len(subwords.tokens) - sum(w.tokens for w in subwords.words()[:-1])
    assert subwords.words()[-1].tokens > 1
    (blank,) = surprisals(model_of("characters"), ["   "])
    assert [(word.text, word.tokens) for word in blank.words()] == [("", 4)]


def test_a_mark_that_stands_as_text_is_a_word_of_letters() -> None:
    for name in ("characters", "bytes", "bpe"):
        (sentence,) = surprisals(model_of(name), ["a </s> <s> </s>"])
        words = sentence.words()[:-1]
        assert [word.text for word in words] == ["a", "</s>", "<s>", "</s>"]
        assert [(row["text"], row["start"] == row["end"]) for row in rows(sentence, per="word")] == [
            ("a", False),
            ("</s>", False),
            ("<s>", False),
            ("</s>", False),
            ("", True),
        ]
        assert all(word.tokens >= 3 for word in words[1:])
        text = encode_string("a </s> <s> </s>\n", model_of(name).tokenizer, model_of(name).vocabulary)
        assert (text.sentences, text.words.tolist()) == (1, [4])
