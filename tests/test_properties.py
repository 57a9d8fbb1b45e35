"""What holds of any text: joining as tokens come, offsets, how many events there are, what a split keeps."""

from __future__ import annotations

import itertools
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import elman.event_nats as event_nats
from elman.errors import TextError
from elman.evaluate import evaluate
from elman.joining import JOINED, Joiner
from elman.surprisal import surprisals
from elman.text.building import TextSettings
from elman.text.corpus import encode_string, load_corpus
from elman.text.tokenizers import BPE, BYTE_TEXTS, Tokenizer, get_tokenizer
from elman.text.vocabulary import ASCII_SPACE, Vocabulary
from table_model import TableModel, random_text

FEW, SOME = settings(max_examples=40, deadline=None), settings(max_examples=150, deadline=None)
NAMES = ("words", "prose", "characters", "bytes", "bpe")
LETTERS = st.sampled_from(
    "ab \t.,!?'\"()[]-—–“”‘’$#<>1290␣\u00a0\u0085\u2028\u3000\x1c\x1féß\u0301\u212a\U0001f600\ufffd"
)
LINES = st.text(LETTERS, max_size=60)
PROSE = st.lists(
    st.sampled_from(["the", "senate", ".", ",", '"', "(", ")", "—", "N", "'s", "$", "so", "</x>"]),
    max_size=3 * JOINED,
)


@cache
def tokenizer(name: str) -> Tokenizer:
    if name == "bpe":
        return BPE.train(["the cat said “so”, the catalogue 1,200 é", "(the) cat-like \U0001f600"], 280)
    return get_tokenizer(name)


def tokens_of(name: str) -> st.SearchStrategy[list[str]]:
    """Tokens in an order that a model may make up, half characters among them."""
    if name == "prose":
        return PROSE
    if name == "bytes":
        some = [BYTE_TEXTS[byte] for byte in b'a "\xc3\xa9\xf0\x9f\x98\x80\xff']
        return st.lists(st.sampled_from(some), max_size=160)
    if name == "bpe":
        known = tokenizer(name).subwords  # type: ignore[attr-defined]
        return st.lists(st.sampled_from([*known[:40], *known[180:]]), max_size=160)
    letters = st.text(LETTERS.filter(lambda letter: not letter.isspace()), min_size=1, max_size=3)
    return st.lists(letters, max_size=160)


@pytest.mark.parametrize("name", NAMES)
@FEW
@given(data=st.data())
def test_pieces_make_up_the_joined_text_at_every_prefix(name: str, data: st.DataObject) -> None:
    """All that is shown is a start of what the tokenizer joins, but for a character that is not complete."""
    found, before, after = tokenizer(name), data.draw(tokens_of(name)), data.draw(tokens_of(name))
    assume(not found.join(before).endswith("\ufffd"))  # a prompt is a text: its characters are whole
    joiner, shown = Joiner(found, before), found.join(before)
    for count, token in enumerate(after, start=1):
        shown += joiner.push(token)
        whole = found.join([*before, *after[:count]])
        assert whole.startswith(shown.rstrip("\ufffd"))
        assert shown == whole or whole.endswith("\ufffd")
    assert shown + joiner.end() == found.join([*before, *after]) + "\n"


def test_a_quotation_stays_open_over_any_length() -> None:
    long = ["so", '"', *["the"] * (3 * JOINED), '"', ".", '"', "a", '"']
    joiner = Joiner(tokenizer("prose"))
    text = "".join(map(joiner.push, long)) + joiner.end()
    assert text == 'so "' + " ".join(["the"] * (3 * JOINED)) + '". "a"\n'
    half = Joiner(tokenizer("prose"), long[: 2 * JOINED])
    assert "".join(map(half.push, ["the", '"', "so"])) == ' the" so'


@pytest.mark.parametrize("name", NAMES)
@SOME
@given(line=LINES)
def test_tokens_stand_in_order_and_only_blanks_between_them(name: str, line: str) -> None:
    found = tokenizer(name)
    at, gaps = 0, ""
    try:
        sentences = found.sentences(line)
    except TextError:
        assert name == "words"  # a mark of Elman's own
        return
    for token in itertools.chain(*sentences):
        if found.unit in ("byte", "subword") and token.start < at:
            assert token.end == at  # a part of the character that the one before is a part of
            continue
        assert at <= token.start < token.end <= len(line)
        gaps += line[at : token.start]
        at = token.end
    gaps += line[at:]
    if name == "words":
        assert set(gaps) <= ASCII_SPACE
    elif name == "prose":
        assert not [letter for letter in gaps if not letter.isspace()] or "[" in line  # a note, left out
    else:
        assert gaps == ""


MODEL = TableModel([f"w{k}" for k in range(9)])
LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=25)


@FEW
@given(
    lengths=LENGTHS,
    batch=st.integers(1, 40),
    block=st.integers(1, 200),
    chunk=st.integers(1, 200),
    state=st.sampled_from(["carry", "reset"]),
    unknown=st.sampled_from(["word", "skip"]),
)
def test_events_are_tokens_and_sentence_ends(
    lengths: list[int], batch: int, block: int, chunk: int, state: str, unknown: str
) -> None:
    """Whatever the batch size and the windows: counted once, none left out, the sum the same."""
    text = random_text(len(MODEL.vocabulary), lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_nats, "BLOCK", block)
        patch.setattr(event_nats, "CHUNK", chunk)
        patch.setattr(event_nats, "WINDOW", chunk)
        found = evaluate(MODEL, text, state=state, unknown=unknown, batch_size=batch)  # type: ignore[arg-type]
    skipped = int((text.ids == 0).sum()) if unknown == "skip" else 0
    assert found.events == sum(lengths) + len(lengths) - skipped
    assert found.words == sum(lengths)
    alone = evaluate(MODEL, text, state=state, unknown=unknown, batch_size=1)  # type: ignore[arg-type]
    assert abs(found.nats - alone.nats) <= 1e-12 * (1 + alone.nats)


@pytest.mark.parametrize("name", ["words", "characters", "bytes", "prose"])
@FEW
@given(lines=st.lists(LINES, min_size=1, max_size=6))
def test_rows_of_score_are_the_events_of_the_text(name: str, lines: list[str]) -> None:
    found = tokenizer(name)
    model = TableModel(["a", "b", "ab", "␣", "."], tokenizer=name)
    try:
        text = encode_string("\n".join(lines) + "\n", found, model.vocabulary)
    except TextError:
        return
    rows = list(surprisals(model, lines))
    split = [sentence for line in lines for sentence in found.split(line)]
    assert sum(len(row.tokens) for row in rows) == text.events == sum(len(each) + 1 for each in split)
    assert len(rows) == text.sentences == len(split)
    ids = [id for row in rows for id in (*(model.vocabulary.id(token.token) for token in row.tokens[:-1]), 1)]
    assert ids == text.ids.tolist()


@pytest.mark.parametrize("name", ["words", "characters", "bytes", "prose"])
@FEW
@given(lines=st.lists(LINES, min_size=3, max_size=40), marks=st.lists(st.integers(0, 45), max_size=4))
def test_parts_of_a_text_put_together_are_the_text(name: str, lines: list[str], marks: list[int]) -> None:
    """The three parts of one file, and any other parts, hold every line's words and bytes once."""
    whole = "\n".join(lines) + "\n"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_bytes(whole.encode())
        try:
            corpus = load_corpus(path, TextSettings(tokenizer=name), cache=Path(folder))  # type: ignore[arg-type]
        except TextError:  # too few sentences, or a part without a word
            return
        parts = (corpus.train, corpus.valid, corpus.test)
        text = encode_string(whole, corpus.tokenizer, corpus.vocabulary)
        for what in ("ids", "words", "bytes"):
            together = np.concatenate([getattr(part, what) for part in parts])
            np.testing.assert_array_equal(together, getattr(text, what))
    assert text.bytes.sum() == len(whole.encode())
    assert text.words.sum() == len(whole.encode().split())
    places = [0, *sorted(min(mark, text.sentences) for mark in marks), text.sentences]
    cut = [text.part(first, last) for first, last in itertools.pairwise(places)]
    for what in ("ids", "words", "bytes"):
        together = np.concatenate([getattr(part, what) for part in cut])
        np.testing.assert_array_equal(together, getattr(text, what))
    for part in cut:
        assert part.stream().tolist() == [Vocabulary.eos_id, *part.ids.tolist()]
