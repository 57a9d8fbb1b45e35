"""Sentences, tokens, offsets and readable text for each tokenizer."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman.errors import FormatError, OptionError, TextError
from elman.text.tokenizers import (
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


def test_by_name() -> None:
    assert set(TOKENIZERS) == {"words", "prose", "characters", "bytes", "bpe"}
    assert get_tokenizer("prose", numbers=False) == Prose(numbers=False) != Prose()
    kept = Prose(lowercase=False, brackets=True, wrapped=True)
    assert kept.texts("It’s [Not] 12.") == ["It's", "[", "Not", "]", "N", "."]
    assert Prose().texts("It’s [Not] 12.") == ["it's", "N", "."]
    assert tokenizer_from_json(kept.as_json()) == kept != Prose()
    assert Prose().as_json() == {"name": "prose", "numbers": True}  # as models saved before have it
    with pytest.raises(FormatError, match="`lowercase` must be true or false"):
        tokenizer_from_json({"name": "prose", "lowercase": 1})
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
