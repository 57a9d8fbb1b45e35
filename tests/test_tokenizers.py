"""Sentences, tokens, offsets and readable text for each tokenizer."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman.errors import ElmanError, FormatError, OptionError, TextError
from elman.text import bpe as bpe_module
from elman.text.prose import sentence_spans
from elman.text.tokenizers import (
    BPE,
    TOKENIZERS,
    Bytes,
    Characters,
    Prose,
    Tokenizer,
    Words,
    get_tokenizer,
    tokenizer_from_json,
)

LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=60)
PROSE_LINES = st.lists(
    st.sampled_from(
        [
            "Mr.",
            "word",
            "The",
            "U.S.",
            "3,000.5",
            "don’t",
            '"So',
            'it."',
            "[Applause]",
            "—",
            "no.",
            "Is",
            "it?",
            "é",
        ]
    ),
    max_size=25,
).map(" ".join)


def sentences_of(line: str, tokenizer: Tokenizer | None = None) -> list[str]:
    return [" ".join(tokens) for tokens in (tokenizer or Prose()).split(line)]


@pytest.fixture(scope="module")
def subwords() -> BPE:
    pytest.importorskip("tokenizers", reason="the extra bpe is not installed")
    return BPE.train(["the cat sat on the mat — naïve", "the dog and the cat"] * 10, 300)


@given(line=LINES | PROSE_LINES)
@pytest.mark.parametrize(
    "tokenizer", [Words(), Prose(), Prose(numbers=False), Characters(), Bytes()], ids=repr
)
def test_offsets_spans_and_fast_path_agree(tokenizer: Tokenizer, line: str) -> None:
    try:
        sentences = tokenizer.sentences(line)
    except TextError:
        assert {"<s>", "</s>"} & set(re.split("[ \t\n\r\v\f]+", line))
        return
    assert [[token.text for token in sentence] for sentence in sentences] == tokenizer.split(line)
    spans = tokenizer.spans(line)
    assert "".join(line[start:end] for start, end in spans) in (line, "")
    place = 0
    for (first, last), sentence in zip(spans, sentences, strict=True):
        for token in sentence:
            assert first <= token.start < token.end <= last
            assert token.start >= place or tokenizer.name == "bytes"
            place = token.end
            assert not re.search("[ \t\n\r\v\f]", token.text)


def test_words_split_at_ascii_white_space_only() -> None:
    line = " a\tb\u00a0c  d\u2003e\x1cf\x85g\v<unk> "
    assert Words().split(line) == [["a", "b\u00a0c", "d\u2003e\x1cf\x85g", "<unk>"]]
    assert Words().split(line)[0] == [word.decode() for word in line.encode().split()]
    assert [tuple(token) for token in Words().sentences("  ab c")[0]] == [("ab", 2, 4), ("c", 5, 6)]
    assert Words().sentences("") == [[]]
    assert Words().join(["a", "b"]) == "a b"


@pytest.mark.parametrize("mark", ["<s>", "</s>"])
def test_marks_are_refused_as_words(mark: str) -> None:
    with pytest.raises(TextError, match=mark) as caught:
        Words().split(f"{mark} a b")
    assert "remove the marks" in caught.value.remedy
    assert Words().split(f"a{mark}") == [[f"a{mark}"]]
    assert len(Characters().split(mark)[0]) == len(mark)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("It rained. We left.", ["it rained .", "we left ."]),
        ("Is it? Yes! Go…", ["is it ?", "yes !", "go …"]),
        ("Mr. Smith met Dr. Jones. They spoke.", ["mr . smith met dr . jones .", "they spoke ."]),
        ("J. Q. Adams won. He said so.", ["j . q . adams won .", "he said so ."]),
        ("The U.S. Army left the U.S. It was late.", ["the u . s . army left the u . s .", "it was late ."]),
        ("At 5 p.m. we met.", ["at N p . m . we met ."]),
        ("See Art. 5 and No. 7 there.", ["see art . N and no . N there ."]),
        ('He said "No." Then he left.', ['he said " no . "', "then he left ."]),
        ("(It was late.) We left.", ["( it was late . )", "we left ."]),
        ("“Go.” “Why?” (Because.)", ["“ go . ”", "“ why ? ”", "( because . )"]),
        ("1. The debt. 2. The army.", ["N . the debt .", "N . the army ."]),
        ("It costs $3.50 or 1,000,000.5 dollars.", ["it costs $ N or N dollars ."]),
        ("Wait ... and see. e.g. this", ["wait . . . and see . e . g . this"]),
        ("Thank you. [Applause] We go on. [Laughter]", ["thank you .", "we go on ."]),
        ("[Laughter]", []),
        ("[Applause. Then more.] So.", ["so ."]),
        ("", []),
        ("  \t\u00a0 ", []),
        ("No full stop", ["no full stop"]),
        ("Don’t. Don't.", ["don't .", "don't ."]),
        ("Żółć. Ünïcode naïve œuvre.", ["żółć .", "ünïcode naïve œuvre ."]),
        ("He was 65. Then came July. It rained.", ["he was N .", "then came july .", "it rained ."]),
        ("so do I. The end.", ["so do i .", "the end ."]),
        ("the way—Mr. Speaker—is long.", ["the way — mr . speaker — is long ."]),
        ("John Jr. and Co. Inc. made it. In. Out.", ["john jr . and co . inc . made it .", "in .", "out ."]),
        ("snake_case x²", ["snake _ case x²"]),
    ],
)
def test_prose(line: str, wanted: list[str]) -> None:
    assert sentences_of(line) == wanted


def test_prose_options_and_offsets() -> None:
    line = "Go. [Laughter] It’s  3,000 “Ünits”."
    assert sentences_of("In 1913, 5 men.", Prose(numbers=False)) == ["in 1913 , 5 men ."]
    second = Prose().sentences(line)[1]
    assert [(token.text, line[token.start : token.end]) for token in second] == [
        ("it's", "It’s"),
        ("N", "3,000"),
        ("“", "“"),
        ("ünits", "Ünits"),
        ("”", "”"),
        (".", "."),
    ]
    assert sentence_spans("One. Two.") == [(0, 5), (5, 9)]


def test_prose_joins_readably() -> None:
    tokens = ["he", "said", ",", '"', "no", ".", '"', "(", "it", "is", "$", "N", ")", "a", "-", "b"]
    assert Prose().join(tokens) == 'he said, "no." (it is $N) a-b'


def test_characters_show_white_space() -> None:
    assert Characters().split("a b\tc") == [["a", "␣", "b", "␉", "c"]]
    assert Characters().join(["a", "␣", "é", "␉"]) == "a é\t"
    assert [tuple(token) for token in Characters().sentences("é ")[0]] == [("é", 0, 1), ("␣", 1, 2)]


@given(line=LINES.filter(lambda line: "␣" not in line))
def test_bytes_and_characters_round_trip(line: str) -> None:
    assert Bytes().join(Bytes().split(line)[0]) == line
    assert Bytes().split(line)[0] == [Bytes().split(chr(byte))[0][0] if byte < 128 else f"<{byte:02X}>"
                                      for byte in line.encode()]  # fmt: skip
    shown = set("␣␉␊␋␌␍")
    if not shown & set(line):
        assert Characters().join(Characters().split(line)[0]) == line


def test_the_bytes_of_a_character_share_its_offsets() -> None:
    assert [tuple(token) for token in Bytes().sentences("aé")[0]] == [
        ("a", 0, 1),
        ("<C3>", 1, 2),
        ("<A9>", 1, 2),
    ]
    assert Bytes().join(["<C3>", "x", "nothing"]) == "\ufffdx?"


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


def test_by_name() -> None:
    assert set(TOKENIZERS) == {"words", "prose", "characters", "bytes", "bpe"}
    assert get_tokenizer("prose", numbers=False) == Prose(numbers=False) != Prose()
    assert hash(Words()) == hash(get_tokenizer("words"))
    with pytest.raises(OptionError, match="perhaps you meant words"):
        get_tokenizer("wrods")
    with pytest.raises(OptionError, match="numbers"):
        get_tokenizer("words", numbers=True)
    for tokenizer in (Words(), Prose(), Prose(numbers=False), Characters(), Bytes()):
        assert tokenizer_from_json(json.loads(json.dumps(tokenizer.as_json()))) == tokenizer


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"name": 3},
        {"name": "nltk"},
        {"name": "prose", "numbers": 1},
        {"name": "words", "extra": 1},
    ],
)
def test_what_is_no_stored_tokenizer(value: object) -> None:
    with pytest.raises(FormatError, match="tokenizer"):
        tokenizer_from_json(value)
