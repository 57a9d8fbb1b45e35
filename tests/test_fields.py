"""Rows of a table: read back by pandas' defaults, by R's rules, by Python's csv and by `compare --scores`."""

from __future__ import annotations

import csv
import io
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pandas._libs.parsers import STR_NA_VALUES

from elman.cli.score import _Writer
from elman.compare.outside import read_score_file
from elman.compare.table import Encoding, Scored, compare
from elman.errors import ElmanError, FormatError
from elman.language_model import Protocol
from elman.surprisal import SentenceSurprisal, rows, surprisals
from elman.text.corpus import encode_string
from elman.text.fields import fields_of, line_of
from table_model import TableModel

ODD = ['"', '""', '"a', 'a"', '"\t"', "\t", "\\", "\\t", "\\n", "NA", "1.0", "'", "#", "a,b", "\u2028", "\r"]
ANY = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
FIELDS = st.text(ANY, max_size=8) | st.sampled_from(ODD)


@given(row=st.lists(FIELDS, min_size=1, max_size=6))
@example(row=['"', 'a"b', '"\t"', "\\", "\\t", ""])
def test_a_row_comes_back(row: list[str]) -> None:
    line = line_of(row)
    assert fields_of(line) == row
    assert r_fields(line + "\n", len(row)) == [[value.replace("\r", "\n") for value in row]]
    if row != [""]:  # which csv writes as "", to tell it from no field
        reader = csv.reader(io.StringIO(line + "\n", newline=""), delimiter="\t", strict=True)
        assert next(reader) == row


def test_what_is_not_quoted_is_read_as_it_stands() -> None:
    assert fields_of('7\t"\t1.5') == ["7", '"', "1.5"]
    assert fields_of('a "word"\t2') == ['a "word"', "2"]
    assert fields_of('""\t""""\t"a""b"') == ["", '"', 'a"b']
    assert line_of([None, 1.5, 7, True, "x"]) == "\t1.500000\t7\tTrue\tx"


def r_fields(text: str, columns: int) -> list[list[str]]:
    """What R's read.delim makes of a table without a header: scan() with sep="\\t", quote="\\"".

    From R's scan.c: a quote begins a quoted stretch wherever in a field it stands, a doubled one in
    it is one quote, separators and line ends in it are text; CR and CRLF are LF, as R's connections have it.
    """
    letters = iter(text.replace("\r\n", "\n").replace("\r", "\n"))
    found: list[list[str]] = []
    fields, field = [], ""
    for letter in letters:
        while letter == '"':
            for letter in letters:
                if letter == '"':
                    break
                field += letter
            letter = next(letters, "\n")
            if letter == '"':
                field += '"'
                letters = _with_first('"', letters)
                letter = next(letters)
                continue
        if letter in "\t\n":
            fields.append(field)
            field = ""
            if letter == "\n":
                found.append(fields)
                fields = []
        else:
            field += letter
    assert not fields
    assert not field
    assert all(len(fields) == columns for fields in found)
    return found


def _with_first(letter: str, rest: Iterator[str]) -> Iterator[str]:
    yield letter
    yield from rest


STRANGE = ['"', "\\", "\\t", '""', "'", "#", "NA", "nan", "null", "1.0", "007", "é", "\u00a0", "the", "cat"]
WORDS = TableModel(STRANGE)
LETTERS = TableModel(list("␣␉\"\\'#NAnul10é\u00a0"), tokenizer="characters")
BYTES = TableModel([*"␣\"\\'#NAnul10", "<C3>", "<09>"], tokenizer="bytes")
PROSE = TableModel(['"', ".", "\\", "N", "nan", "the"], tokenizer="prose")
MODELS = [WORDS, LETTERS, BYTES, PROSE]
NAMES = ["words", "characters", "bytes", "prose"]
WORD = st.sampled_from([*STRANGE, "zebra"]) | st.text(ANY, max_size=3)
LINES = st.lists(st.tuples(WORD, st.sampled_from([" ", "\t", "  "])), max_size=8).map(
    lambda words: "".join(word + blank for word, blank in words)
)
PANDAS_MISSING = set(STR_NA_VALUES)


def written(found: list[SentenceSurprisal], format_: str = "tsv", **how: str) -> str:
    out = io.StringIO(newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        write = _Writer(format_)
        for sentence in found:
            write.rows(rows(sentence, **how))  # type: ignore[arg-type]
    return out.getvalue()


def scored(model: TableModel, lines: list[str]) -> tuple[str, list[SentenceSurprisal]]:
    text = re.sub("\r+\n", "\n", "".join(re.sub("[\0\n]", "", line) + "\n" for line in lines))
    return text, list(surprisals(model, text.split("\n")[:-1]))


@pytest.mark.parametrize("per", ["token", "word", "sentence"])
@pytest.mark.parametrize("model", MODELS, ids=NAMES)
@given(lines=st.lists(LINES, min_size=1, max_size=4))
@example(lines=['the " cat " \\ \\t', "NA nan 1.0", '"', '" "the cat"'])
def test_pandas_and_r_read_every_row(model: TableModel, per: str, lines: list[str]) -> None:
    if {"<s>", "</s>"} & set(" ".join(lines).split()):
        return
    found = scored(model, lines)[1]
    if not found:
        return
    text = written(found, per=per)
    plain = [row for sentence in found for row in rows(sentence, per=per)]  # type: ignore[arg-type]
    bits = math.fsum(sentence.nats for sentence in found) / math.log(2)
    named = "word" if per == "word" else "token"

    table = pd.read_csv(io.StringIO(text, newline=""), sep="\t")
    assert len(table) == len(plain)
    assert table["bits"].dtype == np.float64
    assert table["bits"].sum() == pytest.approx(bits, abs=1e-6 * len(table))
    for row, own in zip(table.to_dict("records"), plain, strict=True):
        if per != "sentence":  # a column that holds `</s>`, so none of numbers
            value, wanted = row[named], own[named]
            assert value == wanted or (pd.isna(value) and wanted in PANDAS_MISSING)

    told = pd.read_csv(
        io.StringIO(text, newline=""),
        sep="\t",
        dtype={"token": str, "word": str, "text": str},
        keep_default_na=False,
        na_values={"bits": [""]},
    )
    for column in {named, "text"} if per != "sentence" else {"text"}:
        assert told[column].tolist() == [row[column] for row in plain]
    assert told["bits"].isna().tolist() == [row["bits"] is None for row in plain]

    header, *lines_ = r_fields(text, len(plain[0]))
    assert header == list(plain[0])
    at = header.index("bits")
    assert math.fsum(float(row[at] or 0) for row in lines_) == pytest.approx(bits, abs=1e-6 * len(table))
    for row, own in zip(lines_, plain, strict=True):
        assert row[header.index("text")] == str(own["text"]).replace("\r", "\n")


@pytest.mark.parametrize("format_", ["tsv", "jsonl"])
@pytest.mark.parametrize("model", MODELS, ids=NAMES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINES, min_size=1, max_size=4))
@example(lines=["\\ the", '" \\t ""', "NA nan zebra"])
def test_compare_reads_every_table_of_tokens(
    tmp_path: Path, model: TableModel, format_: str, lines: list[str]
) -> None:
    if {"<s>", "</s>"} & set(" ".join(lines).split()):
        return
    text, found = scored(model, lines)
    if not found:
        return
    encoded = encode_string(text, model.tokenizer, model.vocabulary)
    nats = np.array([token.nats for sentence in found for token in sentence.tokens])
    path = tmp_path / "scores"
    path.write_bytes(written(found, format_).encode())
    np.testing.assert_allclose(read_score_file(path, encoded, model.vocabulary), nats, atol=1e-6)
    path.write_bytes(written(found, format_, unknown="skip").encode())
    skipped = np.where(encoded.ids == 0, np.nan, nats)
    np.testing.assert_allclose(read_score_file(path, encoded, model.vocabulary), skipped, atol=1e-6)


def entry(name: str, nats: np.ndarray, unknown: str) -> Scored:
    text = encode_string("the zebra\ncat\n", WORDS.tokenizer, WORDS.vocabulary)
    encoding = Encoding.of(WORDS.vocabulary, WORDS.tokenizer)
    return Scored(name, nats, text, encoding, Protocol(unit="word", unknown=unknown))  # type: ignore[arg-type]


def test_an_unknown_word_without_a_number_can_only_be_skipped(tmp_path: Path) -> None:
    nats, absent = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([1.5, np.nan, 3.5, 4.5, 5.5])
    both = [entry("a", nats, "skip"), entry("b", absent, "skip")]
    assert [row.score.nats for row in compare(both, per="token").rows] == [13.0, 15.0]
    with pytest.raises(ElmanError, match="b has no number for an event"):
        compare([entry("a", nats, "word"), entry("b", absent, "word")])
    path = tmp_path / "t.tsv"
    path.write_text("token\tbits\nthe\t\n")
    with pytest.raises(FormatError, match=r"line 2: token 'the' has no number"):
        read_score_file(path, both[0].text, WORDS.vocabulary)


@pytest.mark.parametrize("format_", ["tsv", "jsonl"])
@pytest.mark.parametrize("per", ["word", "sentence"])
def test_tables_that_are_not_by_token_are_told(tmp_path: Path, per: str, format_: str) -> None:
    text, found = scored(WORDS, ["the cat"])
    path = tmp_path / "scores"
    path.write_text(written(found, format_, per=per))
    with pytest.raises(FormatError, match="a row for each word or sentence") as caught:
        read_score_file(path, encode_string(text, WORDS.tokenizer, WORDS.vocabulary), WORDS.vocabulary)
    assert "--per token" in caught.value.remedy


@pytest.mark.parametrize("broken", ['{"bits": 1', "[1]", '{"token": "the"}', '{"bits":' + "[" * 100_000])
def test_broken_json_lines_are_told(tmp_path: Path, broken: str) -> None:
    text, found = scored(WORDS, ["the cat"])
    path = tmp_path / "scores"
    path.write_text(written(found, "jsonl") + broken + "\n")
    with pytest.raises(FormatError, match="line 4: no JSON object with `bits`"):
        read_score_file(path, encode_string(text, WORDS.tokenizer, WORDS.vocabulary), WORDS.vocabulary)


def test_the_options_in_the_help_are_those_tried_here(capsys: pytest.CaptureFixture[str]) -> None:
    from table_model import run_cli

    assert run_cli("score", "--help") == 0
    told = "".join(capsys.readouterr().out.split())
    assert 'na_values={"bits":[""]}' in told
    assert "keep_default_na=False" in told
