"""ARPA files: golden bytes, round trips, KenLM as a reader of ours, what cannot be read or written."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elman.errors import ElmanError, FormatError
from elman.ngram import arpa, arpa_lines, arpa_writing
from elman.ngram.arpa import read_arpa
from elman.ngram.arpa_writing import write_arpa
from elman.ngram.backoff import NgramModel
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.ngram.smoothing import add_k
from elman.text.tokenizers import Characters, Prose, Words
from elman.text.vocabulary import Vocabulary
from ngram_oracle import EOS, GOLDEN, listed, read_golden, read_plain_arpa, text_of, vocabulary_of

SMALL = rb"""
\data\
ngram 1=5
ngram 2=3
ngram 3=1

\1-grams:
-1.5	<unk>	0
-0.5	</s>	0
-0.75	a	-0.25
-1.0	b	-0.125
0	<s>	-0.5

\2-grams:
-0.25	a b	0.0625
-0.5	b </s>	0
-0.125	<s> a	-0.375

\3-grams:
-0.0625	<s> a b

\end\
""".lstrip()


def require_same(found: NgramModel, expected: NgramModel) -> None:
    assert found.vocabulary == expected.vocabulary
    assert found.tokenizer == expected.tokenizer
    for one, other in zip(found.tables, expected.tables, strict=True):
        for name in ("keys", "log10_prob", "log10_backoff"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def written(model: NgramModel, path: Path) -> NgramModel:
    write_arpa(model, path)
    return read_arpa(path)


def test_golden_bytes(tmp_path: Path) -> None:
    model = read_arpa(put(tmp_path, SMALL))
    write_arpa(model, tmp_path / "again.arpa")
    assert (tmp_path / "again.arpa").read_bytes() == SMALL
    write_arpa(model, tmp_path / "again.arpa.gz")
    packed = (tmp_path / "again.arpa.gz").read_bytes()
    assert gzip.decompress(packed) == SMALL
    assert packed[4:8] == b"\0\0\0\0"  # no time stamp: equal models, equal files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.arpa", "again.arpa.gz", "model.arpa"]


def test_values_of_the_small_file(tmp_path: Path) -> None:
    model = read_arpa(put(tmp_path, SMALL))
    ids = torch.tensor([EOS, *model.vocabulary.ids(["a", "b", "a", "z"]).tolist(), EOS])[:, None]
    nats, _ = model.token_nats(ids, model.start(1))
    # <s> a | <s> a b | a after (a b) | <unk> after a | </s> after <unk>
    log10 = [-0.125, -0.0625, 0.0625 - 0.125 - 0.75, -0.25 - 1.5, -0.5]
    np.testing.assert_allclose(nats[:, 0], -np.log(10) * np.array(log10), rtol=1e-12)
    assert model.matched_lengths(ids, model.start(1))[:, 0].tolist() == [2, 3, 1, 1, 1]


@pytest.mark.parametrize("name", ["order2", "order5", "order4-prune-0-0-1", "characters-order4"])
def test_kenlms_files_are_read(name: str, tmp_path: Path) -> None:
    model = read_arpa(GOLDEN / f"{name}.arpa")
    expected = read_plain_arpa(GOLDEN / f"{name}.arpa")
    for found, table in zip(listed(model), expected, strict=True):
        assert found.keys() == table.keys()
        assert all(np.allclose(found[gram], table[gram], rtol=1e-7, atol=1e-7) for gram in found)
    require_same(written(model, tmp_path / "model.arpa.gz"), model)


WORD = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\t\n\v\f\r "), min_size=1, max_size=5
).filter(lambda word: word not in ("<unk>", "<s>", "</s>", "<UNK>"))


@given(
    st.lists(WORD, min_size=1, max_size=6, unique=True),
    st.integers(1, 5),
    st.integers(0, 2**32),
    st.booleans(),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(tmp_path: Path, words: list[str], order: int, seed: int, packed: bool) -> None:
    random = np.random.default_rng(seed)
    vocabulary = Vocabulary(["<unk>", "</s>", *words])
    ids = [0, *range(2, len(vocabulary))]
    sentences = [random.choice(ids, random.integers(0, 7)).tolist() for _ in range(6)]
    model = estimate(text_of(sentences), vocabulary, Words(), KneserNeySettings(order=order))
    require_same(written(model, tmp_path / f"model.arpa{'.gz' * packed}"), model)


@pytest.mark.parametrize("tokenizer", [Characters(), Prose(numbers=False)])
def test_the_tokenizer_is_kept(tokenizer: Characters | Prose, tmp_path: Path) -> None:
    model = add_k(text_of([[2, 3]]), Vocabulary(["<unk>", "</s>", "␣", "é"]), tokenizer, order=2)
    require_same(written(model, tmp_path / "model.arpa"), model)
    assert read_arpa(tmp_path / "model.arpa", Words()).tokenizer == Words()


def test_blocks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, vocabulary = read_golden("rhyme.txt")
    model = estimate(text, vocabulary, Words(), KneserNeySettings(order=4))
    write_arpa(model, tmp_path / "whole.arpa")
    monkeypatch.setattr(arpa_writing, "BLOCK", 7)
    write_arpa(model, tmp_path / "pieces.arpa")
    assert (tmp_path / "whole.arpa").read_bytes() == (tmp_path / "pieces.arpa").read_bytes()
    taken = arpa_lines.Lines._take
    monkeypatch.setattr(arpa_lines.Lines, "_take", lambda self, most: taken(self, min(most, 5)))
    require_same(read_arpa(tmp_path / "pieces.arpa"), model)


@pytest.mark.parametrize("order", [2, 3, 5])
@pytest.mark.parametrize("source", ["rhyme.txt", "characters.txt"])
def test_kenlm_reads_ours(order: int, source: str, tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm", reason="PyPI's ufal-kenlm is not installed")
    text, vocabulary = read_golden(source)
    model = estimate(text, vocabulary, Words(), KneserNeySettings(order=order))
    write_arpa(model, tmp_path / "model.arpa")
    theirs = kenlm.Model(str(tmp_path / "model.arpa"))
    random = np.random.default_rng(order)
    for length in (0, 1, 4, 12, 12, 12):
        ids = random.integers(2, len(vocabulary), length)
        begin = int(random.integers(0, text.events - length))
        stretch = text.ids[begin : begin + length]
        for row in (ids, stretch[stretch != EOS]):
            words = [vocabulary.token(int(id)) for id in row]
            words[length // 2 : length // 2] = ["never-seen"] * (length > 4)
            expected = list(theirs.full_scores(" ".join(words)))
            stream = torch.tensor([EOS, *vocabulary.ids(words).tolist(), EOS])[:, None]
            nats, _ = model.token_nats(stream, model.start(1))
            np.testing.assert_allclose(-nats[:, 0] / np.log(10), [row[0] for row in expected], atol=1e-5)
            lengths = model.matched_lengths(stream, model.start(1))[:, 0].tolist()
            assert lengths == [row[1] for row in expected]


def put(folder: Path, data: bytes) -> Path:
    path = folder / "model.arpa"
    path.write_bytes(data)
    return path


def test_harmless_variations(tmp_path: Path) -> None:
    expected = read_arpa(put(tmp_path, SMALL))
    for data in (
        SMALL.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + SMALL,
        b"# a comment\n\n" + SMALL + b"\n \n",
        SMALL[:-1],
        SMALL.replace(b"</s>\t0\n", b"</s>\n"),
        SMALL.replace(b"ngram 1=5", b"ngram 1= 5 "),
        SMALL.replace(b"<s> a b\n", b"<s> a b\t0\n"),
        SMALL.replace(b"-1.0\tb", b"-1\tb").replace(b"-0.75", b"-.75"),
        SMALL.replace(b"\t<unk>", b"\t<UNK>"),
        gzip.compress(SMALL),
    ):
        require_same(read_arpa(put(tmp_path, data)), expected)


def test_a_file_without_unknown(tmp_path: Path) -> None:
    data = SMALL.replace(b"-1.5\t<unk>\t0\n", b"").replace(b"ngram 1=5", b"ngram 1=4")
    model = read_arpa(put(tmp_path, data))
    assert model.tables[0].log10_prob[0] == arpa.MISSING_UNKNOWN
    assert "does not list <unk>" in model.report[0]


def test_paths_that_hold_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.arpa"):
        with pytest.raises(FormatError, match="cannot be read"):
            read_arpa(path)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    model = add_k(text_of([[2]]), Vocabulary(["<unk>", "</s>", "a\0"]), Words(), order=1)
    with pytest.raises(FormatError, match="NUL"):
        write_arpa(model, tmp_path / "model.arpa")
    good = add_k(text_of([[2]]), vocabulary_of(3), Words(), order=1)
    with pytest.raises(ElmanError, match="cannot be written"):
        write_arpa(good, tmp_path / "absent" / "model.arpa")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, SMALL)

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(arpa_writing, "_write", full)
    with pytest.raises(ElmanError, match="no space left"):
        write_arpa(add_k(text_of([[2]]), vocabulary_of(3), Words(), order=1), path)
    assert path.read_bytes() == SMALL
    assert [found.name for found in tmp_path.iterdir()] == ["model.arpa"]
