"""Score files of other programs: both formats, agreement token by token, and a message for each mistake."""

from __future__ import annotations

import gzip
import math
import os
from pathlib import Path

import numpy as np
import pytest

from elman.compare.outside import read_score_file, score_rows
from elman.errors import ElmanError, FormatError, OptionError, ProtocolError
from elman.text.corpus import Text, encode_string
from elman.text.tokenizers import get_tokenizer
from elman.text.vocabulary import Vocabulary

WORDS = Vocabulary.build({"the": 5, "senate": 3, "=": 2, "of": 2, "token": 1}, sentences=3)
LINES = "the senate = of\nthe zebra of the\n"


def text(lines: str = LINES) -> Text:
    return encode_string(lines, get_tokenizer("words"), WORDS)


GOOD = [
    ("the", -0.5),
    ("senate", -1.25),
    ("=", -2.0),
    ("of", -0.75),
    ("</s>", -0.125),
    ("the", -0.25),
    ("zebra", -6.5),
    ("of", -1.5),
    ("the", -1.75),
    ("</s>", -0.375),
]
NATS = np.array([-value for _, value in GOOD])


def write(folder: Path, rows: list[tuple[str, float]], head: str = "", name: str = "scores.tsv") -> Path:
    path = folder / name
    path.write_text(head + "".join(f"{token}\t{value}\n" for token, value in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("base", "factor"), [(None, 1.0), ("e", 1.0), ("2", math.log(2)), ("10", math.log(10))]
)
def test_plain_rows(tmp_path: Path, base: str | None, factor: float) -> None:
    found = read_score_file(write(tmp_path, GOOD), text(), WORDS, base=base)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, NATS * factor, rtol=1e-15)


@pytest.mark.parametrize(
    ("column", "factor"),
    [
        ("nats", -1.0),
        ("bits", -math.log(2)),
        ("log_probability", 1.0),
        ("log2_probability", math.log(2)),
        ("log10_probability", math.log(10)),
    ],
)
def test_named_columns(tmp_path: Path, column: str, factor: float) -> None:
    path = tmp_path / "s.tsv"
    rows = "".join(f"7\t{value * math.copysign(1, factor)}\t{token}\n" for token, value in GOOD)
    path.write_text(f"line\t{column}\ttoken\n{rows}")
    np.testing.assert_allclose(read_score_file(path, text(), WORDS), NATS * abs(factor), rtol=1e-15)


def test_a_first_token_called_token_is_no_header(tmp_path: Path) -> None:
    path = tmp_path / "s.tsv"
    path.write_text("token\t-1.5\n</s>\t-0.5\n")
    np.testing.assert_array_equal(read_score_file(path, text("token\n"), WORDS), [1.5, 0.5])


def kenlm(rows: list[tuple[str, float]], between: str = "\t") -> str:
    fields = []
    for token, value in rows:
        id = 0 if token == "zebra" else 2 if token == "</s>" else 9
        fields.append(f"{token}={id} 1 {value / math.log(10):.9g}")
    return between.join(fields) + "\t"


@pytest.mark.parametrize("tail", ["", "Total: -6.5 OOV: 1\n", "\nPerplexity including OOVs:\t33.1\n"])
def test_kenlm_words(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "k.gz"
    path.write_bytes(gzip.compress((kenlm(GOOD) + tail).encode()))
    np.testing.assert_allclose(read_score_file(path, text(), WORDS), NATS, rtol=1e-7)


def test_a_word_called_as_a_total_is_a_word(tmp_path: Path) -> None:
    path = tmp_path / "k.txt"
    path.write_text("Total:=0 1 -2.5\tOOVs:=7 2 -0.5\t</s>=2 1 -1\tTotal: -4 OOV: 1\nOOVs:\t1\nTokens:\t3\n")
    assert [row.token for row in score_rows(path)] == ["Total:", "OOVs:", "</s>"]


def test_kenlm_of_the_reference_folder() -> None:
    folder = os.environ.get("ELMAN_KENLM")
    if not folder:
        pytest.skip("the environment variable ELMAN_KENLM names no folder of reference data")
    rows = list(score_rows(Path(folder) / "heldout-order5.scores.gz"))
    assert len(rows) == 8261
    assert sum(bool(row.unknown) for row in rows) == 146
    assert math.exp(sum(row.nats for row in rows) / len(rows)) == pytest.approx(101.928, abs=2e-3)
    counts: dict[str, int] = {}
    known = {row.token for row in rows if not row.unknown} - {"</s>"}
    for token in sorted(known):
        counts[token] = 1
    words = Vocabulary.build(counts, sentences=1)
    lines = (Path(folder) / "heldout.txt").read_text("utf-8")
    source = encode_string(lines, get_tokenizer("words"), words)
    nats = read_score_file(Path(folder) / "heldout-order5.scores.gz", source, words)
    assert math.exp(nats.mean()) == pytest.approx(101.928, abs=2e-3)


def changed(position: int, token: str, value: float | str = -1.0) -> list[tuple[str, float]]:
    return [*GOOD[:position], (token, value), *GOOD[position + 1 :]]  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("rows", "head", "kind", "message"),
    [
        (changed(1, "house"), "", FormatError, r"line 2: token 'house' where the text has 'senate'"),
        (changed(6, "of"), "", FormatError, r"line 7: token 'of' where the text has '<unk>'"),
        ([*GOOD[:4], *GOOD[5:]], "", ProtocolError, r"line 5: token 'the' where the text ends a sentence"),
        (GOOD[:-1], "", FormatError, r"ends after 9 tokens; the text has 10 events, next '</s>'"),
        ([*GOOD, ("of", -1.0)], "", FormatError, r"line 11: token 'of' after the end"),
        (changed(2, "=", "x"), "", FormatError, r"line 3: 'x' is not a number"),
        (changed(2, "=", "nan"), "", FormatError, r"line 3: token '=' has the score nan"),
        (changed(2, "=", "-inf"), "", FormatError, r"line 3: token '=' has a probability of zero"),
        (
            changed(0, "the", 0.5),
            "",
            FormatError,
            r"line 1: token 'the' has the score 0.5, a probability above",
        ),
        (changed(3, "of\t-1"), "", FormatError, r"line 4: 3 fields"),
        (GOOD, "token\tscore\n", FormatError, r"no column of scores among token, score"),
        ([], "", FormatError, r"is empty"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, rows: list[tuple[str, float]], head: str, kind: type[ElmanError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        read_score_file(write(tmp_path, rows, head), text(), WORDS)


def test_kenlm_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "k.txt"
    path.write_text(kenlm(GOOD).replace("of=9 1", "of=9", 1))
    with pytest.raises(FormatError, match=r"line 1, entry 4: 'of=9 -0.32.*' is not `word=id length log10`"):
        read_score_file(path, text(), WORDS)
    path.write_text(kenlm(GOOD).replace("senate=9", "senate=0"))
    with pytest.raises(ProtocolError, match="does not know 'senate'"):
        read_score_file(path, text(), WORDS)
    path.write_text(kenlm(GOOD).replace("zebra=0", "zebra=9"))
    with pytest.raises(ProtocolError, match="knows 'zebra'"):
        read_score_file(path, text(), WORDS)


def test_bases_are_checked(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="log base '3'"):
        read_score_file(write(tmp_path, GOOD), text(), WORDS, base="3")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="--log-base 2 contradicts the header"):
        read_score_file(write(tmp_path, GOOD, "token\tlog10_probability\n"), text(), WORDS, base="2")
    with pytest.raises(ElmanError, match="does not exist"):
        read_score_file(tmp_path / "none", text(), WORDS)
