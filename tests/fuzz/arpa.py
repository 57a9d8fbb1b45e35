"""ARPA files: what is read is written and read again the same, by both writers, and scores the same both
ways."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from elman.errors import ElmanError
from elman.kernels import native
from elman.ngram import arpa_writing
from elman.ngram import native as compiled
from elman.ngram.arpa import read_arpa
from elman.ngram.backoff import LN10, NgramModel
from elman.text.tokenizers import Words
from fuzz.target import Target, scratch

try:
    import kenlm
except ImportError:  # the extra `dev` has it
    kenlm = None
GOLDEN = Path(__file__).parent.parent / "golden" / "ngram"
SMALL = rb"""# elman tokenizer {"name": "characters"}
\data\
ngram 1=5
ngram 2=4
ngram 3=2

\1-grams:
-1.5	<unk>	0
0	<s>	-0.25
-0.5	</s>	0
-0.75	a	-0.125
-2	b	-1e-3

\2-grams:
-0.25	<s> a	-0.5
-0.125	a b	-0.0625
-1	b </s>
-0.3	a a	0

\3-grams:
-0.5	<s> a b
-0.25	a b </s>

\end\
"""


def run(data: bytes) -> None:
    path, copy = scratch() / "given.arpa", scratch() / "copy.arpa"
    path.write_bytes(data)
    model = read_arpa(path)
    arpa_writing.write_arpa(model, copy)
    _require_same(model, read_arpa(copy))
    try:
        strict = read_arpa(path, strict=True)
    except ElmanError:
        strict = None
    if strict is not None:
        _require_same(model, strict)
        _as_kenlm(model, path, data)
    if native.available():
        slow = io.BytesIO()
        with _without_kernels():
            arpa_writing._write(model, slow)
        assert _numbers_apart(slow.getvalue()) == _numbers_apart(copy.read_bytes())
    _score(model, data)


def _require_same(one: NgramModel, other: NgramModel) -> None:
    assert (one.vocabulary, one.tokenizer) == (other.vocabulary, other.tokenizer)
    for left, right in zip(one.tables, other.tables, strict=True):
        assert np.array_equal(left.keys, right.keys)
        assert np.array_equal(left.log10_prob, right.log10_prob)
        assert np.array_equal(left.log10_backoff, right.log10_backoff)


def _as_kenlm(model: NgramModel, path: Path, data: bytes) -> None:
    """What strict reading lets pass, KenLM reads too, and scores the same."""
    if kenlm is None or not isinstance(model.tokenizer, Words) or data.startswith(b"\x1f\x8b"):
        return
    config = kenlm.Config()
    config.show_progress, config.arpa_complain = False, kenlm.ARPALoadComplain.NONE
    theirs = kenlm.Model(str(path), config)
    ids = [id if id != 1 else 0 for id in np.frombuffer(data[-6:], np.uint8) % len(model.vocabulary)]
    words = " ".join(model.vocabulary.token(int(id)) for id in ids)
    scores = np.array([score for score, *_ in theirs.full_scores(words)])
    ours = model.stream_nats(np.array([*ids, 1], dtype=np.int32), 0) / -LN10
    assert np.abs(scores - ours).max() <= 1e-5 * (1 + np.abs(ours).max())


def _numbers_apart(lines: bytes) -> list[list[object]]:
    """The fields of each line, numbers as float32: NumPy's versions differ in how they print large ones."""
    rows = [line.split(b"\t") for line in lines.split(b"\n")]
    return [row if len(row) < 2 else [np.float32(row[0]), row[1], *map(np.float32, row[2:])] for row in rows]


def _score(model: NgramModel, data: bytes) -> None:
    """Event after event, all at once, with the index and without the kernels: the same nats."""
    ids = (np.frombuffer(data[-6:], np.uint8) % len(model.vocabulary)).astype(np.int32)
    fast = model.stream_nats(ids, 0)
    assert not np.isnan(fast).any()
    if native.available():
        model._lookup().index()
        assert np.array_equal(model.stream_nats(ids, 0), fast)
    with _without_kernels():
        slow = model.stream_nats(ids, 0)
    assert _close(slow, fast)
    state, before = model.start(1), 1
    for id, nats in zip(ids.tolist(), fast.tolist(), strict=True):
        state, log_probs = model.advance(state, torch.tensor([before]))
        assert _close(-log_probs[0, id].numpy(), np.float64(nats))
        before = id


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal but for rounding; an impossible event in both."""
    with np.errstate(invalid="ignore"):
        return bool(((one == other) | (np.abs(one - other) <= 1e-12 * (1 + np.abs(other)))).all())


@contextmanager
def _without_kernels() -> Iterator[None]:
    usable = compiled.usable
    compiled.usable = lambda events: False
    try:
        yield
    finally:
        compiled.usable = usable


def seeds() -> list[bytes]:
    order2 = (GOLDEN / "order2.arpa").read_bytes()
    return [SMALL, SMALL.split(b"\n", 1)[1], order2, gzip.compress(SMALL, mtime=0)]


ARPA = Target(
    run,
    seeds,
    (
        rb"\data\ "[:-1], rb"\end\ "[:-1], b"\\1-grams:", b"\\2-grams:", b"\\10-grams:", b"ngram 1=",
        b"ngram 2=",
        b"ngram 3=0", b"\t", b" ", b"\n", b"<s>", b"</s>", b"<unk>", b"<UNK>", b"-99", b"-inf", b"nan",
        b"-1e-5",
        b"1e999", b"-0", b"0x1p-3", b"1_0", b"\xc2\xa0", b"\r\n", b"\x1f\x8b",
        b'# elman tokenizer {"name": "prose"}',
    ),
    largest=8192,
)  # fmt: skip
