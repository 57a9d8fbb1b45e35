"""Tables of other programs: scores (two formats, five columns) and word vectors."""

from __future__ import annotations

import math
from typing import cast

import numpy as np

from elman.compare.outside import LogBase, read_score_file, score_rows
from elman.errors import ElmanError
from elman.neural.vectors import read_vectors, write_vectors
from elman.text.corpus import encode_string
from elman.text.tokenizers import Words
from elman.text.vocabulary import Vocabulary
from fuzz.target import Target, scratch

KNOWN = Vocabulary(["<unk>", "</s>", "the", "cat", "=", "token"])
TEXT = "the cat =\nthe zebra\n"
ROWS = (
    ("the", -0.5),
    ("cat", -1.25),
    ("=", -3),
    ("</s>", -0.0625),
    ("the", -1),
    ("zebra", -7),
    ("</s>", -1e-3),
)


def run(data: bytes) -> None:
    """First byte: the base that is asked for; then the file. What it says, written plainly, says the same."""
    path, copy = scratch() / "scores.tsv", scratch() / "copy.tsv"
    base = cast("LogBase | None", (None, "e", "2", "10")[data[0] % 4 if data else 0])
    path.write_bytes(data[1:])
    try:
        rows = list(score_rows(path, base=base))
    except ElmanError:
        rows = []
    for row in rows:
        assert row.nats >= 0 or math.isnan(row.nats)
    plain = [row for row in rows if row.token and not set('\t\n\r"\\') & set(row.token)]
    if plain:
        lines = [f"{row.token}\t{'' if math.isnan(row.nats) else repr(row.nats)}\n" for row in plain]
        copy.write_text("token\tnats\n" + "".join(lines), "utf-8", newline="")
        again = list(score_rows(copy))
        assert [row.token for row in again] == [row.token for row in plain]
        assert np.array_equal([row.nats for row in again], [row.nats for row in plain], equal_nan=True)
    text = encode_string(TEXT, Words(), KNOWN)
    nats = read_score_file(path, text, KNOWN, base=base)
    assert np.array_equal([row.nats for row in rows], nats, equal_nan=True)
    assert np.isfinite(nats[text.ids != KNOWN.unk_id]).all()


def vectors(data: bytes) -> None:
    path, copy = scratch() / "vectors.txt", scratch() / "again.txt"
    path.write_bytes(data)
    found = read_vectors(path, KNOWN)
    assert len(found.ids) == len(found.matrix) <= min(found.words, len(KNOWN))
    assert len(set(found.ids.tolist())) == len(found.ids)
    assert np.isfinite(found.matrix).all()
    matrix = np.zeros((len(KNOWN), found.size), dtype=np.float32)
    matrix[found.ids] = found.matrix
    write_vectors(matrix, KNOWN, copy)
    again = read_vectors(copy, KNOWN)
    assert again.ids.tolist() == list(range(len(KNOWN)))
    assert np.array_equal(again.matrix, matrix)


def seeds() -> list[bytes]:
    plain = "".join(f"{token}\t{value}\n" for token, value in ROWS)
    bits = "".join(f"{at}\t{token}\t{-value}\n" for at, (token, value) in enumerate(ROWS))
    ids = {"</s>": 2, "zebra": 0}
    kenlm = "\t".join(f"{token}={ids.get(token, 5)} 2 {value}" for token, value in ROWS)
    texts = (
        plain,
        f"line\ttoken\tbits\n{bits}",
        f"{kenlm}\tTotal: -9 OOV: 1\nPerplexity including OOVs:\t33.1\n",
    )
    return [b"\0" + text.encode() for text in texts] + [b"\3" + plain.encode()]


def spaces() -> list[bytes]:
    rows = "the 1 -0.123456789 1e-38\ncat 0 2 3.25\nof 7 8 9\n"
    return [rows.encode(), f"3 3\n{rows}".encode(), rows.replace(" ", "\t").encode(), b"1 2\na b the 1 2\n"]


SCORES = Target(
    run,
    seeds,
    (b"\t", b"\n", b"token", b"nats", b"bits", b"log_probability", b"log10_probability", b"</s>", b"the",
    b"cat", b"zebra", b"=5 2 -",
     b"Total:", b"OOVs:", b"-inf", b"nan", b"1_0", b"-0", b"1e-320", b'"', b"\\", b"\xc2\xa0", b"\xc2\x85",
     b"\r\n", b"<unk>"),
    largest=1024,
)  # fmt: skip
VECTORS = Target(
    vectors,
    spaces,
    (b" ", b"\t", b"\n", b"the", b"cat", b"<unk>", b"</s>", b"nan", b"1e39", b"1e-46", b"1_0", b"\xc2\xb2",
    b"\xd9\xa1", b"\xc2\xa0", b"0x1"),
    largest=512,
)  # fmt: skip
