"""Where sentences end in prose, and what its tokens are."""

from __future__ import annotations

import pytest

from elman.text.prose import sentence_spans
from elman.text.tokenizers import Prose, Tokenizer


def sentences_of(line: str, tokenizer: Tokenizer | None = None) -> list[str]:
    return [" ".join(tokens) for tokens in (tokenizer or Prose()).split(line)]


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
