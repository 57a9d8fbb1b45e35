"""Every way in which an ARPA file can be wrong, KenLM's throw sites among them: order and line are named."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from elman.errors import FormatError
from elman.ngram.arpa import read_arpa
from test_arpa import SMALL, put


def edit(old: bytes, new: bytes) -> bytes:
    assert SMALL.count(old) == 1, (old, SMALL.count(old))
    return SMALL.replace(old, new)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"line 0: expected \\data\\ and found the end"),
    "no data": (edit(b"\\data\\\n", b""), r"line 1: expected \\data\\"),
    "iARPA": (b"iARPA\n" + SMALL, "compile-lm"),
    "IRSTLM binary": (b"blmt 3 5 6\n", "binary file of IRSTLM"),
    "KenLM binary": (
        b"mmap lm http://kheafield.com/code\n\0\0\0",
        "binary model of KenLM",
    ),
    "binary": (b"\\data\\\nngram 1=2\n\0\1\2\3", "NUL|binary"),
    "UTF-16": (SMALL.decode().encode("utf-16"), "UTF-16"),
    "Latin-1": (edit(b"-1.0\tb", b"-1.0\t\xe9"), "not UTF-8"),
    "bzip2": (b"BZh91AY&SY" + bytes(40), "bzip2"),
    "cut gzip": (gzip.compress(SMALL)[:-20], "too early|damaged"),
    "damaged gzip": (gzip.compress(SMALL)[:20] + b"\xff" * 30, "damaged|too early"),
    "no counts": (edit(b"ngram 1=5\nngram 2=3\nngram 3=1\n", b""), "lists no counts"),
    "count line": (edit(b"ngram 2=3", b"2-grams 3"), r"line 3: expected ngram 2=… and found '2-grams 3'"),
    "count without =": (edit(b"ngram 2=3", b"ngram 2 3"), "line 3: expected ngram 2="),
    "count not a number": (edit(b"ngram 2=3", b"ngram 2=three"), "line 3: expected ngram 2="),
    "count negative": (edit(b"ngram 2=3", b"ngram 2=-3"), "line 3: expected ngram 2="),
    "count of 5000 digits": (edit(b"ngram 2=3", b"ngram 2=" + b"9" * 5000), "line 3: expected ngram 2="),
    "counts skip an order": (edit(b"ngram 2=3\n", b""), "expected ngram 2="),
    "eleven orders": (
        b"\\data\\\n" + b"".join(b"ngram %d=1\n" % n for n in range(1, 12)) + b"\n",
        "more than 10 orders",
    ),
    "huge counts": (edit(b"ngram 2=3", b"ngram 2=999999999999999999"), "order 2: fewer n-grams"),
    "huge unigram count": (edit(b"ngram 1=5", b"ngram 1=4000000000"), "unigrams; at most"),
    "count too high": (edit(b"ngram 2=3", b"ngram 2=4"), "line 18: order 2: fewer n-grams"),
    "count too low": (edit(b"ngram 2=3", b"ngram 2=2"), "line 16: order 2: more n-grams than the 2"),
    "count zero": (edit(b"ngram 3=1", b"ngram 3=0"), "order 3: more n-grams than the 0"),
    "cut in a section": (SMALL[: SMALL.index(b"-0.5\tb </s>")], "order 2: the file ends 2 n-grams before"),
    "wrong header": (edit(b"\\2-grams:", b"\\3-grams:"), r"line 13: expected \\2-grams:"),
    "header without colon": (edit(b"\\2-grams:", b"\\2-grams"), r"expected \\2-grams:"),
    "no probability": (edit(b"-0.25\ta b", b"a b"), "line 14: order 2"),
    "word missing": (
        edit(b"-0.25\ta b", b"-0.25\ta"),
        "line 14: order 2: '0.0625' is not among the unigrams",
    ),
    "word too many": (edit(b"-0.25\ta b", b"-0.25\ta b b"), "line 14: order 2: expected a number, 2 words"),
    "vertical tab": (edit(b"-0.25\ta b", b"-0.25\ta\x0bb b"), "line 14: order 2: expected a number, 2 words"),
    "lone carriage return": (
        edit(b"-0.25\ta b", b"-0.25\ta \rb"),
        "line 14: order 2: expected a number, 2 words",
    ),
    "field too many": (edit(b"-0.5\tb </s>\t0", b"-0.5\tb </s>\t0\t0"), "line 15: order 2"),
    "NaN": (edit(b"-0.25\ta b", b"nan\ta b"), "line 14: order 2: the probability 'nan' is not a number"),
    "underscore": (edit(b"-0.25\ta b", b"-1_0\ta b"), "line 14: order 2: the probability '-1_0'"),
    "hexadecimal": (edit(b"-0.25\ta b", b"-0x1p3\ta b"), "line 14: order 2: the probability"),
    "endless number": (
        edit(b"-0.25\ta b", b"-0." + b"2" * 99 + b"\ta b"),
        "line 14: order 2: the probability",
    ),
    "positive": (edit(b"-0.25\ta b", b"0.25\ta b"), "line 14: order 2: positive log probability '0.25'"),
    "backoff NaN": (edit(b"a b\t0.0625", b"a b\tNaN"), "line 14: order 2: the backoff weight 'NaN'"),
    "backoff infinite": (edit(b"a b\t0.0625", b"a b\tinf"), "line 14: order 2: the backoff weight 'inf'"),
    "backoff no number": (edit(b"a b\t0.0625", b"a b\tx"), "line 14: order 2: the backoff weight 'x'"),
    "backoff at the top": (edit(b"<s> a b\n", b"<s> a b\t-1\n"), "line 19: order 3: a backoff weight '-1'"),
    "unknown word": (edit(b"-0.25\ta b", b"-0.25\ta c"), "line 14: order 2: 'c' is not among the unigrams"),
    "context missing": (
        edit(b"-0.0625\t<s> a b", b"-0.0625\t<s> b b"),
        "line 19: order 3: its context",
    ),
    "start inside": (edit(b"-0.25\ta b", b"-0.25\ta <s>"), "line 14: order 2: <s> after a word"),
    "another section": (edit(b"\\end\\", b"\\4-grams:"), r"line 21: expected \\end\\ and found"),
    "tokenizer no JSON": (b"# elman tokenizer {\n" + SMALL, "line 1: the comment on the tokenizer"),
    "tokenizer unknown": (b'# elman tokenizer {"name": "x"}\n' + SMALL, "tokenizer"),
    "tokenizer too deep": (b"# elman tokenizer " + b"[" * 100_000 + b"\n" + SMALL, "line 1: the comment"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name: str, tmp_path: Path) -> None:
    data, message = HOSTILE[name]
    with pytest.raises(FormatError, match=message) as caught:
        read_arpa(put(tmp_path, data))
    assert type(caught.value) is FormatError
