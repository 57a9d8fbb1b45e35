"""Per-token, per-word and per-sentence surprisal against sums over an oracle, with exact offsets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from elman.errors import OptionError, TextError
from elman.ngram.backoff import NgramModel
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.surprisal import SentenceSurprisal, grouped_surprisals, rows, surprisals
from elman.surprisal import rows as flat_rows
from elman.text.corpus import encode_string
from elman.text.tokenizers import get_tokenizer
from elman.text.vocabulary import Vocabulary
from table_model import TableModel, close, oracle

WORDS = TableModel(["the", "cat", "sat", "on", "mat", "of", "añejo"])
LINES = ["the cat sat", "", "  on  the\tzebra mat ", "cat", "añejo of the the", "sat on on of zebra"]
LETTERS = TableModel(list("abcdehnorst␣é"), tokenizer="characters")
PROSE = TableModel(["the", "cat", "sat", ".", ",", "N", "!", '"', "dog's"], tokenizer="prose")


def nats_of(model: TableModel, sentences: list[SentenceSurprisal], *, carry: bool) -> list[float]:
    ids: list[int] = []
    for sentence in sentences:
        ids += [model.vocabulary.id(token.token) for token in sentence.tokens]
    return oracle(model, ids, carry=carry)


@pytest.mark.parametrize("state", ["carry", "reset"])
@pytest.mark.parametrize("group", [1, 2, 3, 256])
@pytest.mark.parametrize("model", [WORDS, LETTERS, PROSE], ids=["words", "characters", "prose"])
def test_every_token_has_the_oracles_number(model: TableModel, state: str, group: int) -> None:
    found = list(surprisals(model, LINES, state=state, group=group))  # type: ignore[arg-type]
    flat = [token.nats for sentence in found for token in sentence.tokens]
    assert flat == nats_of(model, found, carry=state == "carry")
    assert all(token.bits == token.nats / math.log(2) for sentence in found for token in sentence.tokens)


@pytest.mark.parametrize("model", [WORDS, LETTERS, PROSE], ids=["words", "characters", "prose"])
def test_offsets_point_at_the_original_text(model: TableModel) -> None:
    for sentence in surprisals(model, [*LINES, 'The cat — "Sat." The dog’s 12 mats [Laughter] sat!']):
        assert sentence.tokens[-1].token == "</s>"
        assert sentence.tokens[-1].text == ""
        for token in sentence.tokens[:-1]:
            assert token.text == sentence.text[token.start : token.end] != ""


def test_lines_and_sentences_are_numbered() -> None:
    found = list(surprisals(WORDS, LINES))
    assert [(each.line, each.sentence) for each in found] == [(k, k) for k in range(1, 7)]
    prose = list(surprisals(PROSE, ["The cat sat. The cat! The dog", " ", "Cat."]))
    assert [(each.line, each.sentence) for each in prose] == [(1, 1), (1, 2), (1, 3), (3, 4)]


def test_unknown_tokens_are_flagged_and_sum_apart() -> None:
    found = list(surprisals(WORDS, LINES))
    assert [[t.text for t in each.tokens if t.unknown] for each in found] == [
        [],
        [],
        ["zebra"],
        [],
        [],
        ["zebra"],
    ]
    third = found[2]
    zebra = third.tokens[2]
    assert third.unknown == 1
    assert close(third.known_nats, third.nats - zebra.nats)
    assert close(third.nats, math.fsum(token.nats for token in third.tokens))


def test_a_blank_line_is_an_event() -> None:
    (blank,) = surprisals(WORDS, [""])
    assert [(t.token, t.start, t.end) for t in blank.tokens] == [("</s>", 0, 0)]


@pytest.mark.parametrize("line", ["the cat sat on", " the  cats\tsat ", "a", "", "   ", "térracè on"])
def test_words_of_a_character_model_sum_its_letters(line: str) -> None:
    """White space counts with the word it ends; in front of the first word, with that word."""
    (sentence,) = surprisals(LETTERS, [line])
    rows = sentence.words()
    expected: list[list[float]] = []
    texts = line.split()
    for token in sentence.tokens[:-1]:
        at_start = token.start == 0 or line[token.start - 1].isspace()
        if not expected or (at_start and not token.text.isspace() and line[: token.start].strip()):
            expected.append([])
        expected[-1].append(token.nats)
    ending = [sentence.tokens[-1].nats]
    if not texts:  # blanks alone count with the sentence's end
        expected, ending = [], [token.nats for token in sentence.tokens]
    assert [row.text for row in rows[:-1]] == texts
    assert [row.nats for row in rows] == [math.fsum(nats) for nats in [*expected, ending]]
    assert [row.tokens for row in rows] == [len(nats) for nats in [*expected, ending]]
    assert all(line[row.start : row.end] == row.text for row in rows[:-1])
    assert close(math.fsum(row.nats for row in rows), sentence.nats)


def test_words_of_prose_take_their_punctuation_and_a_note_has_no_number() -> None:
    (sentence,) = surprisals(PROSE, ["The cat, [Laughter] sat zebra!"])
    rows = sentence.words()
    assert [(row.text, row.tokens, row.unknown) for row in rows] == [
        ("The", 1, False),
        ("cat,", 2, False),
        ("[Laughter]", 0, False),
        ("sat", 1, False),
        ("zebra!", 2, True),
        ("", 1, False),
    ]
    assert rows[1].token == "cat,"
    table = flat_rows(sentence, per="word")
    assert [row["bits"] is None for row in table] == [row.tokens == 0 for row in rows]
    assert close(math.fsum(row.nats for row in rows), sentence.nats)


def test_words_of_a_word_model_are_its_tokens() -> None:
    for sentence in surprisals(WORDS, LINES):
        assert [(r.text, r.nats) for r in sentence.words()] == [(t.text, t.nats) for t in sentence.tokens]


def test_a_subword_that_begins_with_a_blank_belongs_to_the_word_after_it() -> None:
    from elman.surprisal import TokenSurprisal

    tokens = (
        TokenSurprisal("the", "the", 0, 3, 1.0, False),
        TokenSurprisal("Ġmat", " mat", 3, 7, 2.0, False),
        TokenSurprisal("s", "s", 7, 8, 4.0, False),
        TokenSurprisal("</s>", "", 8, 8, 8.0, False),
    )
    rows = SentenceSurprisal(1, 1, "the mats", tokens).words()
    assert [(row.text, row.nats) for row in rows] == [("the", 1.0), ("mats", 6.0), ("", 8.0)]


def test_lines_are_scored_as_they_come() -> None:
    """With groups of one, a sentence is out before the next line is asked for."""
    asked: list[int] = []

    def lines() -> Iterator[str]:
        for k in range(3):
            asked.append(k)
            yield "the cat"

    found = surprisals(WORDS, lines(), group=1)
    next(found)
    assert asked == [0]
    next(found)
    assert asked == [0, 1]


def test_groups_given_ready_made_count_as_one_text() -> None:
    grouped = list(grouped_surprisals(WORDS, [LINES[:2], [], LINES[2:3], LINES[3:]], state="carry"))
    assert grouped == list(surprisals(WORDS, LINES, state="carry"))


def test_a_state_that_is_not_carried_or_not_reset_is_caught() -> None:
    lines = ["the cat", "sat on", "mat of the", "of", "cat cat cat"]
    carried = [s.nats for s in surprisals(WORDS, lines, state="carry", group=2)]
    reset = [s.nats for s in surprisals(WORDS, lines, state="reset", group=2)]
    assert carried[0] == reset[0]
    assert not np.isclose(carried[1:], reset[1:]).any()


def test_bad_input_is_told() -> None:
    with pytest.raises(OptionError, match="group of 0 lines"):
        surprisals(WORDS, LINES, group=0)
    with pytest.raises(OptionError, match="'keep'"):
        list(surprisals(WORDS, LINES, state="keep"))  # type: ignore[arg-type]
    with pytest.raises(TextError, match="</s>"):
        list(surprisals(WORDS, ["the </s> cat"]))


def test_what_stands_before_a_bad_line_comes_first_and_the_line_is_told() -> None:
    found = surprisals(WORDS, [*LINES, "the <s> cat", "cat"], name="a.txt")
    assert [next(found).line for _ in LINES] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(TextError, match=r"^a.txt, line 7: the word <s> is a mark"):
        next(found)
    with pytest.raises(TextError, match=r"^the text, line 1: the word <s>"):
        next(surprisals(WORDS, ["<s>"]))


@pytest.mark.parametrize("model", [WORDS, LETTERS, PROSE], ids=["words", "characters", "prose"])
def test_alike_lines_are_scored_once(model: TableModel) -> None:
    lines = ["cat", "", "the cat", "", "cat", *[""] * 2000, "sat the", "the cat"]
    model.calls.clear()
    found = list(surprisals(model, lines))
    assert [token.nats for s in found for token in s.tokens] == nats_of(model, found, carry=False)
    assert sum(streams for steps, streams in model.calls) <= 16  # eight groups of lines


def test_no_lines_give_nothing() -> None:
    assert list(surprisals(WORDS, [])) == []


def ngram(text: str) -> NgramModel:
    words = get_tokenizer("words")
    vocabulary = Vocabulary.build(Counter(text.split()), sentences=text.count("\n"))
    return estimate(encode_string(text, words, vocabulary), vocabulary, words, KneserNeySettings(order=3))


def test_an_n_gram_model_says_how_much_of_the_context_it_matched() -> None:
    """By hand: the longest of the training text's n-grams, up to 3, that ends at each token."""
    training = "the cat sat on the mat\nthe dog sat\non the mat the cat\n" * 2
    listed = set()
    for line in training.splitlines():
        tokens = ["<s>", *line.split(), "</s>"]
        listed |= {tuple(tokens[k : k + n]) for n in (1, 2, 3) for k in range(len(tokens) - n + 1)}
    lines = ["the cat sat on the dog", "sat zebra the mat", "", "on the mat"]
    for group in (1, 3, 256):
        for sentence in surprisals(ngram(training), lines, group=group):
            tokens = ["<s>", *(token.token for token in sentence.tokens)]
            for end, token in enumerate(sentence.tokens, start=2):
                longest = [n for n in (1, 2, 3) if n <= end and tuple(tokens[end - n : end]) in listed]
                assert token.matched == max(longest, default=1)
                assert list(rows(sentence))[end - 2]["matched"] == token.matched


def test_an_n_gram_model_carries_nothing_over_a_sentence_end() -> None:
    model = ngram("the cat sat on the mat\nthe dog sat\na mat sat\n" * 3)
    found = [[s.nats for s in surprisals(model, LINES, state=state)] for state in ("carry", "reset")]  # type: ignore[arg-type]
    assert np.allclose(found[0], found[1], rtol=1e-12)


def test_rows_of_a_model_without_n_grams_have_no_matched_length() -> None:
    (sentence,) = surprisals(WORDS, ["the cat"])
    assert all("matched" not in row for row in rows(sentence))
    assert [row["position"] for row in rows(sentence, per="word")] == [1, 2, 3]
