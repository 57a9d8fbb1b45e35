r"""ARPA files as they are found: read with a note, to KenLM's numbers; `strict` is KenLM."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from elman.errors import FormatError, OptionError, ProtocolError
from elman.evaluate import evaluate, protocol_of
from elman.ngram.arpa import PREAMBLE, read_arpa
from elman.ngram.arpa_lines import arpa_stem
from elman.ngram.arpa_writing import write_arpa
from elman.ngram.backoff import NgramModel
from elman.text.corpus import encode_string
from test_arpa import SMALL, put, require_same, written
from test_arpa_lines import edit

SENTENCE = "a b a z b a b"
TRIGRAM = b"-0.0625\t<s> a b\n"
EMPTY = SMALL.replace(b"ngram 3=1", b"ngram 3=0").replace(TRIGRAM, b"")


def swap(*pairs: tuple[bytes, bytes]) -> bytes:
    data = SMALL
    for old, new in pairs:
        assert data.count(old) == 1, (old, data.count(old))
        data = data.replace(old, new)
    return data


SAME: dict[str, tuple[bytes, str]] = {
    "free text before": (b"Copyright (c) 1999 CMU\n\nThis is a model.\n" + SMALL, "line 1: text before"),
    "comment before": (b"# a comment\n\n" + SMALL, ""),
    "blank before the tab": (edit(b"-0.75\ta", b"-0.75 \ta"), "line 9: other blanks and tabs"),
    "blank for the tab": (edit(b"-0.75\ta", b"-0.75 a"), "other blanks"),
    "two tabs": (edit(b"-0.75\ta", b"-0.75\t\ta"), "other blanks"),
    "leading blank": (edit(b"-0.75\ta", b" -0.75\ta"), "other blanks"),
    "blank for the tab, order 2": (edit(b"-0.25\ta b", b"-0.25 a b"), "line 14: other"),
    "two blanks": (edit(b"-0.25\ta b", b"-0.25\ta  b"), "other"),
    "tab between words": (edit(b"-0.25\ta b", b"-0.25\ta\tb"), "other"),
    "blank before the backoff": (edit(b"a b\t0.0625", b"a b 0.0625"), "other"),
    "two tabs before the backoff": (edit(b"a b\t0.0625", b"a b\t\t0.0625"), "other"),
    "blank at the end": (edit(b"b </s>\t0\n", b"b </s>\t0 \n"), "line 15: other"),
    "blank at the end, highest": (edit(b"<s> a b\n", b"<s> a b \n"), "other"),
    "all blanks": (SMALL.replace(b"\t", b"   "), "line 7: other .*9 times"),
    "blank line inside": (edit(b"-0.5\tb </s>", b"\n  \n-0.5\tb </s>"), ""),
    "no end": (edit(b"\n\\end\\\n", b""), r"\\end\\ is missing"),
    "blank end": (edit(b"\n\\end\\\n", b"\n\n  \n"), r"\\end\\ is missing"),
    "blanks beside the end": (edit(b"\\end\\", b" \\end\\ "), r"blanks beside \\end\\"),
    "no last line end": (SMALL[:-1], ""),
    "text after the end": (SMALL + b"\nhello\n", r"line 23: text after \\end\\: 'hello'"),
    "blank lines after the end": (SMALL + b"\n  \n\n", ""),
    "UNK": (edit(b"<unk>", b"<UNK>"), ""),
    "CRLF": (SMALL.replace(b"\n", b"\r\n"), ""),
    "byte-order mark": (b"\xef\xbb\xbf" + SMALL, "line 1: a byte-order mark"),
    "empty lines in the header": (edit(b"ngram 2=3", b"\n\nngram 2=3"), "line 5: an empty line among"),
    "empty line after data": (edit(b"\\data\\\n", b"\\data\\\n\n"), "an empty line among the counts"),
    "counts in another order": (
        edit(b"ngram 1=5\nngram 2=3", b"ngram 2=3\nngram 1=5"),
        "line 2: the counts stand in another order",
    ),
    "no empty line after the counts": (edit(b"3=1\n\n", b"3=1\n"), "no empty line after the counts"),
    "blanks in a count": (edit(b"ngram 2=3", b" ngram  2 = 3"), "a count is written otherwise"),
    "blanks KenLM reads in a count": (edit(b"ngram 2=3", b"ngram  2= 3 "), ""),
    "blanks beside a title": (edit(b"\\2-grams:", b" \\2-grams: "), r"blanks beside \\2-grams:"),
    "blanks beside data": (edit(b"\\data\\", b"\\data\\ "), r"blanks beside \\data\\"),
    "more empty lines": (SMALL.replace(b"\n\n", b"\n\n\n \n"), ""),
    "-99 for the start": (edit(b"0\t<s>", b"-99\t<s>"), ""),
    "-inf for the start": (edit(b"0\t<s>", b"-inf\t<s>"), ""),
}
"""Read as SMALL is: the data, and what `report` says (nothing where it is empty)."""

OTHER: dict[str, tuple[bytes, str]] = {
    "-inf": (edit(b"-1.0\tb", b"-inf\tb"), "line 10: order 1: a log10 probability of -inf"),
    "too small for a float": (edit(b"-1.0\tb", b"-1e39\tb"), "order 1: a log10 probability of -inf"),
    "-99": (edit(b"-1.0\tb", b"-99\tb"), "order 1: 1 log10 probabilities are -99 or less"),
    "no unknown": (swap((b"-1.5\t<unk>\t0\n", b""), (b"1=5", b"1=4")), "does not list <unk>; it got .* -100"),
    "unk, then UNK": (
        swap((b"-1.5\t<unk>\t0\n", b"-1.5\t<unk>\t0\n-2\t<UNK>\t0\n"), (b"1=5", b"1=6")),
        "line 8: <unk> is listed again; the last line counts",
    ),
    "UNK, then unk": (
        swap((b"-1.5\t<unk>\t0\n", b"-2\t<UNK>\t0\n-1.5\t<unk>\t0\n"), (b"1=5", b"1=6")),
        "line 8: <unk> is listed again; the last line counts",
    ),
    "UNK in bigrams": (
        swap((b"<unk>", b"<UNK>"), (b"a b\t0.0625", b"a <UNK>\t0.0625"), (b"3=1", b"3=0"), (TRIGRAM, b"")),
        "",
    ),
    "no trigrams": (EMPTY, ""),
    "nothing but single words": (
        swap(
            (b"2=3", b"2=0"),
            (b"3=1", b"3=0"),
            (TRIGRAM, b""),
            (b"-0.25\ta b\t0.0625\n-0.5\tb </s>\t0\n-0.125\t<s> a\t-0.375\n", b""),
        ),
        "",
    ),
    "a backoff weight far above 0": (edit(b"\ta\t-0.25", b"\ta\t5"), "do not sum to 1"),
}
"""Read as KenLM reads it."""


def scores(model: NgramModel) -> list[tuple[float, int]]:
    ids = torch.tensor([1, *model.vocabulary.ids(SENTENCE.split()).tolist(), 1])[:, None]
    nats, _ = model.token_nats(ids, model.start(1))
    lengths = model.matched_lengths(ids, model.start(1))
    return list(zip((nats[:, 0] / -np.log(10)).tolist(), lengths[:, 0].tolist(), strict=True))


def kenlms(path: Path) -> list[tuple[float, int]] | None:
    """KenLM's own scores; None where it refuses the file."""
    kenlm = pytest.importorskip("kenlm", reason="PyPI's ufal-kenlm is not installed")
    config = kenlm.Config()
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    try:
        return [row[:2] for row in kenlm.Model(str(path), config).full_scores(SENTENCE)]
    except OSError:
        return None


def agree(found: list[tuple[float, int]], expected: list[tuple[float, int]]) -> None:
    np.testing.assert_allclose([row[0] for row in found], [row[0] for row in expected], atol=1e-5)
    assert [row[1] for row in found] == [row[1] for row in expected]


def told(model: NgramModel, message: str) -> None:
    """SMALL's own probabilities do not sum to 1, which is always told and last."""
    *notes, last = model.report
    assert "do not sum to 1" in last
    if message and "sum to 1" not in message:
        (note,) = notes
        assert re.search(message, note), note
    else:
        assert notes == []


@pytest.mark.parametrize("name", SAME)
def test_read_as_the_plain_file(name: str, tmp_path: Path) -> None:
    data, message = SAME[name]
    expected = read_arpa(put(tmp_path, SMALL))
    model = read_arpa(put(tmp_path, data))
    require_same(model, expected)
    told(model, message)


@pytest.mark.parametrize("name", OTHER)
def test_read_as_kenlm_reads(name: str, tmp_path: Path) -> None:
    data, message = OTHER[name]
    path = put(tmp_path, data)
    model = read_arpa(path)
    told(model, message)
    theirs = kenlms(path)
    assert theirs is not None
    agree(scores(model), theirs)
    require_same(written(model, tmp_path / "again.arpa"), model)
    again = kenlms(tmp_path / "again.arpa")
    assert again is not None
    agree(scores(model), again)


@pytest.mark.parametrize("name", [*SAME, *OTHER])
def test_strict_refuses_what_kenlm_refuses(name: str, tmp_path: Path) -> None:
    path = put(tmp_path, (SAME | OTHER)[name][0])
    theirs = kenlms(path)
    if theirs is None:
        with pytest.raises(FormatError, match=r"line \d+: .") as caught:
            read_arpa(path, strict=True)
        assert "KenLM" in caught.value.reason or name in ("free text before",)
    else:
        agree(scores(read_arpa(path, strict=True)), theirs)


ONE_SIDED: dict[str, tuple[bytes, str]] = {
    "word twice": (
        swap((b"-1.0\tb\t", b"-9\tb\t7\n-1.0\tb\t"), (b"1=5", b"1=6")),
        "line 11: order 1: a word",
    ),
    "bigram twice": (
        swap((b"-0.25\ta b\t0.0625\n", b"-7\ta b\t8\n-0.25\ta b\t0.0625\n"), (b"2=3", b"2=4")),
        "line 15: order 2: an n-gram is listed again",
    ),
    "trigram three times": (
        swap((TRIGRAM, b"-7\t<s> a b\n-3\t<s> a b\n" + TRIGRAM), (b"3=1", b"3=3")),
        r"line 20: order 3: an n-gram is listed again; the last line counts \(2 times in all\)",
    ),
}


@pytest.mark.parametrize("name", ONE_SIDED)
def test_the_last_of_what_is_listed_twice_counts(name: str, tmp_path: Path) -> None:
    data, message = ONE_SIDED[name]
    expected = read_arpa(put(tmp_path, SMALL))
    path = put(tmp_path, data)
    model = read_arpa(path)
    require_same(model, expected)
    told(model, message)
    with pytest.raises(FormatError, match=message.partition(r" \(")[0]):  # KenLM takes the first
        read_arpa(path, strict=True)


def test_without_marks_of_sentences(tmp_path: Path) -> None:
    """As Sphinx's and CMU's models without cues: sentences begin without a context and never end."""
    data = (
        b"\\data\\\nngram 1=3\nngram 2=1\n\n\\1-grams:\n-0.30103 a -0.1\n-0.69897 b 0\n-0.5229 <UNK>\n"
        b"\n\\2-grams:\n-0.125 a b\n\n\\end\\\n"
    )
    model = read_arpa(put(tmp_path, data))
    log10 = [row[0] for row in scores(model)]
    np.testing.assert_allclose(log10[:4], [-0.30103, -0.125, -0.30103, -0.1 - 0.5229], rtol=1e-6)
    assert log10[-1] == -np.inf
    notes = " ".join(model.report)
    for mark in ("<s>; a sentence begins without", "</s>; the end of a sentence is impossible"):
        assert f"does not list {mark}" in notes
    assert kenlms(tmp_path / "model.arpa") is None
    found = evaluate(model, encode_string("a b\na z\n\n", model.tokenizer, model.vocabulary))
    assert (found.events, found.unknown, found.protocol.end_of_sentence) == (4, 1, False)
    words = -np.log(10) * np.sum([-0.30103, -0.125, -0.30103, -0.1 - 0.5229])
    assert math.isclose(found.nats, words, rel_tol=1e-6)
    assert math.isclose(found.word_perplexity, np.exp(words / 4), rel_tol=1e-6)
    assert math.isnan(found.bits_per_byte)
    for own, others in ((found.protocol, False), (protocol_of(read_arpa(put(tmp_path, SMALL))), True)):
        assert own.end_of_sentence is others
    with pytest.raises(ProtocolError, match="</s> is an event in one"):
        own.require_comparable(found.protocol)
    with pytest.raises(FormatError, match="does not list </s>"):
        read_arpa(put(tmp_path, swap((b"-0.5\t</s>\t0\n", b""), (b"1=5", b"1=4"))), strict=True)


@pytest.mark.parametrize("value", [b"-inf", b"-1e39", b"-99"])
def test_backoff_weights_that_are_nothing(value: bytes, tmp_path: Path) -> None:
    path = put(tmp_path, edit(b"\ta\t-0.25", b"\ta\t" + value))
    theirs, model = kenlms(path), read_arpa(path)
    if theirs is None:
        assert scores(model)[3][0] == -np.inf  # z after a, which lists only b
        assert "order 1: a backoff weight of -inf" in model.report[0]
        with pytest.raises(FormatError, match="backoff weight of -inf"):
            read_arpa(path, strict=True)
    else:
        agree(scores(model), theirs)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_files(pack, tmp_path: Path) -> None:
    expected = read_arpa(put(tmp_path, SMALL))
    path = put(tmp_path, pack(SMALL))
    require_same(read_arpa(path, strict=True), expected)
    path.write_bytes(pack(SMALL)[:-20])
    with pytest.raises(FormatError, match=r"archive (ends too early|is damaged)"):
        read_arpa(path)
    path.write_bytes(pack(SMALL)[:24] + b"\xff" * 60)
    with pytest.raises(FormatError, match=r"archive (ends too early|is damaged)"):
        read_arpa(path)


def test_another_encoding(tmp_path: Path) -> None:
    data = SMALL.replace(b"-0.75\ta", b"-0.75\t\xe9").replace(b" a", b" \xe9").replace(b"\ta b", b"\t\xe9 b")
    path = put(tmp_path, data)
    assert "é" in read_arpa(path, encoding="latin-1").vocabulary
    assert (
        "щ" in read_arpa(path, encoding="cp1251").vocabulary
        or "й" in read_arpa(path, encoding="cp1251").vocabulary
    )
    with pytest.raises(FormatError, match=r"line 9.*not UTF-8"):
        read_arpa(path)
    with pytest.raises(FormatError, match="line 9: 0xE9 is not ascii"):
        read_arpa(path, encoding="ascii")
    for wrong in ("utf-16", "rot13", "no-such", "utf-7"):
        with pytest.raises(OptionError, match="unknown, or does not extend ASCII"):
            read_arpa(path, encoding=wrong)
    long = b"\\data\\\nngram 1=200003\n\n\\1-grams:\n-99\t<s>\n-1\t</s>\n-1\t<unk>\n"
    words = [f"w{k}ä" for k in range(200_000)]  # several blocks
    long += "".join(f"-6\t{word}\n" for word in words).encode("latin-1") + b"\n\\end\\\n"
    assert read_arpa(put(tmp_path, long), encoding="latin-1").vocabulary.tokens[2:] == tuple(words)


def test_a_file_without_a_model_is_refused_as_ever(tmp_path: Path) -> None:
    for data in (b"hello\nworld\n", b"hello\n" * (PREAMBLE // 6 + 2) + SMALL):
        with pytest.raises(FormatError, match=r"line 1: expected \\data\\ and found 'hello'"):
            read_arpa(put(tmp_path, data))
    with pytest.raises(FormatError, match="compile-lm"):
        read_arpa(put(tmp_path, b"\niARPA\n\n" + SMALL))


def test_names() -> None:
    for name in ("m.arpa", "m.lm", "m.arpa.gz", "m.lm.bz2", "m.arpa.xz"):
        assert arpa_stem(name) == "m"
    for name in ("m", "arpa", ".arpa", "m.gz", "m.arpa.zip", "m.arpa.gz.txt"):
        assert arpa_stem(name) is None


def test_impossible_words_are_written_and_stored(tmp_path: Path) -> None:
    model = read_arpa(put(tmp_path, OTHER["-inf"][0]))
    write_arpa(model, tmp_path / "again.arpa")
    assert b"\n-inf\tb\t" in (tmp_path / "again.arpa").read_bytes()
    arrays = {name: array.clone() for name, array in model.arrays().items()}
    require_same(NgramModel.from_parts(model.config_json(), arrays, model.vocabulary, model.tokenizer), model)
    _, logs = model.advance(model.start(1), torch.tensor([1]))
    b = model.vocabulary.id("b")
    assert logs[0, b] == -torch.inf
    assert torch.isfinite(logs[0, :b]).all()


@pytest.mark.parametrize("seed", range(25))
def test_models_with_empty_orders_score_as_in_kenlm(seed: int, tmp_path: Path) -> None:
    """Random models whose highest order, and sometimes the one below it, lists nothing: `ngram 3=0`."""
    kenlm = pytest.importorskip("kenlm", reason="PyPI's ufal-kenlm is not installed")
    random = np.random.default_rng(seed)
    order, words = int(random.integers(2, 6)), [f"w{k}" for k in range(random.integers(2, 8))]
    grams = [[(word,) for word in ("<unk>", "<s>", "</s>", *words)]]
    for n in range(2, order + 1):
        below = set(grams[-1])
        empty = n == order or (n == order - 1 and seed % 4 == 0)
        grams.append(
            [
                (*gram, word)
                for gram in grams[-1]
                for word in (*words, "</s>", "<unk>")
                if not empty and gram[-1] != "</s>" and (*gram, word)[1:] in below and random.random() < 0.4
            ]
        )
    lines = ["\\data\\", *(f"ngram {n}={len(rows)}" for n, rows in enumerate(grams, 1))]
    for n, rows in enumerate(grams, 1):
        lines += ["", f"\\{n}-grams:"]
        for gram in rows:
            backoff = f"\t{random.normal():.4f}" if n < order and random.random() < 0.7 else ""
            lines.append(f"{-3 * random.random():.4f}\t{' '.join(gram)}{backoff}")
    path = put(tmp_path, "\n".join([*lines, "", "\\end\\", ""]).encode())
    config = kenlm.Config()
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    theirs, model = kenlm.Model(str(path), config), read_arpa(path, strict=True)
    assert model.order == theirs.order == order
    for length in (0, 1, 7, 300):
        sentence = random.choice([*words, "never"], length).tolist()
        ids = torch.tensor([1, *model.vocabulary.ids(sentence).tolist(), 1])[:, None]
        found = model.token_nats(ids, model.start(1))[0][:, 0].numpy() / -np.log(10)
        matched = model.matched_lengths(ids, model.start(1))[:, 0].tolist()
        expected = list(theirs.full_scores(" ".join(sentence)))
        np.testing.assert_allclose(found, [row[0] for row in expected], atol=1e-4)
        assert matched == [row[1] for row in expected]
        model.prepare()  # the next one goes through the index
