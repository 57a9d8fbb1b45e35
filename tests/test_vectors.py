"""Word vectors in and out, hostile files, starting models from them, and neighbours."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elman.errors import ElmanError, FormatError, OptionError, TextError
from elman.neural.feedforward import FeedforwardConfig, FeedforwardModel
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.neural.vectors import load_vectors, neighbours, read_vectors, write_vectors
from elman.text.vocabulary import Vocabulary
from neural_oracle import WORDS

VOCABULARY = Vocabulary(
    ["<unk>", "</s>", "the", "of", "war", "peace", "a.m", "co\u00a0op"], [9, 8, 7, 6, 5, 4, 3, 2]
)

GLOVE = "peace 0.5 -1.25 3e-2\nabsent 1 2 3\nthe 1 0 -0\nat name@domain.com 7 8 9\nwar 4 5 6\nthe 9 9 9\n"


def write(folder, content: str | bytes, name: str = "vectors.txt"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "form", ["glove", "word2vec", "gzip", "spaces at line ends", "tabs", "no last line end"]
)
def test_reads_every_form(tmp_path, form) -> None:
    content: str | bytes = {
        "word2vec": "6 3\n" + GLOVE,
        "gzip": gzip.compress(GLOVE.encode()),
        "spaces at line ends": "6 3\n" + GLOVE.replace("\n", " \r\n"),
        "tabs": GLOVE.replace(" ", "\t"),
        "no last line end": GLOVE[:-1],
    }.get(form, GLOVE)
    vectors = read_vectors(write(tmp_path, content), VOCABULARY)
    assert vectors.words == 6
    assert [VOCABULARY.token(int(each)) for each in vectors.ids] == ["peace", "the", "war"]
    assert vectors.matrix.dtype == np.float32
    np.testing.assert_array_equal(vectors.matrix, np.float32([[0.5, -1.25, 0.03], [1, 0, 0], [4, 5, 6]]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no vectors"),
        ("3 4\n", "holds no vectors"),
        ("the\n", "line 1: is not a word"),
        ("the 1 2\nof 1\n", "line 2: has 1 numbers, not 2"),
        ("the 1 2\n\nof 1 2\n", "line 2: has 0 numbers, not 2"),
        ("2 3\nthe 1 2 3\nof 1 2\n", "line 3: has 2 numbers, not 3"),
        ("3 2\nthe 1 2\nof 1 2\n", "announces 3 words, the file has 2"),
        ("1 2\nthe 1 2\nof 1 2\n", "announces 1 words, the file has 2"),
        ("the 1 two\n", "line 1: holds something that is no number"),
        ("of 1 2\nthe 1 nan\n", "line 2: holds a number that is not finite"),
        ("the 1 inf\n", "not finite"),
        ("the 1 1e39\n", "not finite"),
        ("the 1 " + "1" * 100 + "\n", "too long"),
        ("5 0\nthe 1 2\n", "announces vectors of 0"),
        ("5 99999999\nthe 1 2\n", "announces vectors of 99999999"),
        ("9" * 5000 + " 3\nthe 1 2 3\n", "announces"),
        ("the " + "1 " * 20000 + "\n", "line 1: is not a word"),
        ("the 1 2\n 1 2\n", "line 2: has 1 numbers"),
    ],
)
def test_malformed_files_name_file_and_line(tmp_path, content, message) -> None:
    path = write(tmp_path, content)
    with pytest.raises((FormatError, TextError), match=message) as caught:
        read_vectors(path, VOCABULARY)
    assert str(path) in caught.value.cause
    assert caught.value.remedy


def test_binary_files_are_refused(tmp_path) -> None:
    binary = b"2 3\nthe " + np.float32([1, 2, 3]).tobytes() + b"\nof " + np.float32([4, 0, 6]).tobytes()
    with pytest.raises(ElmanError):
        read_vectors(write(tmp_path, binary), VOCABULARY)
    with pytest.raises(ElmanError):
        read_vectors(tmp_path / "absent.txt", VOCABULARY)


@given(st.binary(max_size=60))
@settings(max_examples=80, deadline=None)
def test_any_bytes_give_vectors_or_an_error_of_ours(tmp_path_factory, content) -> None:
    path = write(tmp_path_factory.getbasetemp(), b"the 1 2\n" + content, "fuzz.txt")
    try:
        vectors = read_vectors(path, VOCABULARY)
    except ElmanError:
        return
    assert vectors.size == 2
    assert np.isfinite(vectors.matrix).all()


@pytest.mark.parametrize("name", ["out.txt", "out.txt.gz"])
def test_what_is_written_comes_back_bit_for_bit(tmp_path, name) -> None:
    random = np.random.default_rng(3)
    matrix = (random.standard_normal((len(VOCABULARY), 5)) * 10.0 ** random.integers(-30, 30, 5)).astype(
        np.float32
    )
    path = tmp_path / name
    write_vectors(matrix, VOCABULARY, path)
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")
    assert list(tmp_path.iterdir()) == [path]  # nothing half-written is left
    vectors = read_vectors(path, VOCABULARY)
    assert vectors.ids.tolist() == list(range(len(VOCABULARY)))
    assert np.array_equal(vectors.matrix, matrix)


def test_golden_bytes(tmp_path) -> None:
    path = tmp_path / "out.txt"
    write_vectors(np.float32([[1, 0.1], [-2.5, 1e-8], [0, 3]]), Vocabulary(["<unk>", "</s>", "é"]), path)
    assert path.read_bytes() == "3 2\n<unk> 1 0.100000001\n</s> -2.5 9.99999994e-09\né 0 3\n".encode()


def test_what_cannot_be_written(tmp_path) -> None:
    with pytest.raises(ElmanError, match="cannot be written"):
        write_vectors(np.zeros((8, 2), np.float32), VOCABULARY, tmp_path / "absent" / "x.txt")


@pytest.mark.parametrize("kind", ["recurrent", "tied", "feedforward"])
def test_models_start_from_vectors(tmp_path, kind) -> None:
    path = write(tmp_path, GLOVE)
    sizes = {"embedding_size": 3, "hidden_size": 3 if kind == "tied" else 4}
    if kind == "feedforward":
        model = FeedforwardModel(VOCABULARY, WORDS, FeedforwardConfig(**sizes))
    else:
        model = RecurrentModel(VOCABULARY, WORDS, RecurrentConfig(tied=kind == "tied", **sizes))
    before = model.embedding.weight.detach().clone()
    coverage = load_vectors(model, path)
    after = model.embedding.weight.detach()
    assert (coverage.found, coverage.total) == (3, 8)
    assert coverage.events == pytest.approx((4 + 7 + 5) / 44)
    assert str(coverage) == "3 of 8 words have vectors, 36.4% of the training tokens"
    filled = [VOCABULARY.id(word) for word in ("the", "war", "peace")]
    assert after[filled].tolist() == [[1, 0, 0], [4, 5, 6], [0.5, -1.25, np.float32(0.03)]]
    left = [row for row in range(8) if row not in filled]
    assert torch.equal(after[left], before[left])
    if kind == "tied":
        assert model.output.weight is model.embedding.weight


def test_vectors_that_do_not_fit_a_model(tmp_path) -> None:
    model = FeedforwardModel(VOCABULARY, WORDS, FeedforwardConfig(embedding_size=4))
    with pytest.raises(OptionError, match="3 numbers, the model's have 4") as caught:
        load_vectors(model, write(tmp_path, GLOVE))
    assert caught.value.remedy == "use --emsize 3."
    with pytest.raises(OptionError, match="none of the 1 words"):
        load_vectors(model, write(tmp_path, "Krieg 1 2 3 4\n"))


def test_neighbours_are_the_nearest_by_cosine() -> None:
    matrix = np.float32(
        [[5, 5], [5, 5], [2, 0], [30, 1], [0, 3], [-1, 0], [1, 1], [0, 0]]
    )  # <unk> </s> the of war peace a.m co·op
    found = neighbours(matrix, VOCABULARY, "the", 20)
    assert [word for word, _ in found] == ["of", "a.m", "war", "co\u00a0op", "peace"]
    np.testing.assert_allclose(
        [cosine for _, cosine in found], [30 / 901**0.5, 0.5**0.5, 0, 0, -1], atol=1e-12
    )
    assert neighbours(matrix, VOCABULARY, "the", 2) == found[:2]


def test_neighbours_of_what_is_not_there() -> None:
    matrix = np.zeros((8, 2), np.float32)
    with pytest.raises(OptionError, match="'War' is not in the vocabulary") as caught:
        neighbours(matrix, VOCABULARY, "War")
    assert "'war'" in caught.value.remedy
    with pytest.raises(OptionError, match="-k 1"):
        neighbours(matrix, VOCABULARY, "war", 0)
