"""Word vectors in and out: word2vec's text format and GloVe's, and who is near whom.

word2vec text: a header line "count size", then one line "word x1 ... xE" per word. GloVe: the same
without the header. Files are read line by line (.gz too) and only words of the vocabulary are kept, so
a file of millions of words costs no more memory than the model.

Not here: training of such vectors on their own; they are the embedding of a model.

V vocabulary size, E embedding size.
"""

from __future__ import annotations

import gzip
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray

from elman.disk import new_file
from elman.errors import FormatError, OptionError
from elman.neural.model import LARGEST_SIZE, NeuralModel
from elman.text.reading import open_lines
from elman.text.vocabulary import EOS, UNK, Vocabulary

LONGEST_NUMBER = 64  # characters; a longer field is not a number of a vector file


@dataclass(frozen=True)
class WordVectors:
    """Vectors of the words that a file and a vocabulary share.

    ids     [K] int64, ids in the vocabulary, in the file's order
    matrix  [K, E] float32
    words   how many words the file holds
    """

    ids: NDArray[np.int64]
    matrix: NDArray[np.float32]
    words: int

    @property
    def size(self) -> int:
        """E, the length of a vector."""
        return int(self.matrix.shape[1])


@dataclass(frozen=True)
class Coverage:
    """How much of a vocabulary got vectors.

    found   words filled; total: words of the vocabulary, `<unk>` and `</s>` included
    events  share of the training events whose token was filled; None without training counts
    """

    found: int
    total: int
    events: float | None

    def __str__(self) -> str:
        of_events = "" if self.events is None else f", {self.events:.1%} of the training tokens"
        return f"{self.found:,} of {self.total:,} words have vectors{of_events}"


def read_vectors(path: Path | str, vocabulary: Vocabulary) -> WordVectors:
    """The vectors of vocabulary words in a word2vec or GloVe text file; of a repeated word the first.

    `<unk>` and `</s>` are matched when the file has them. FormatError names file and line.
    """
    path = Path(path)
    ids: dict[int, None] = {}
    rows: list[NDArray[np.float32]] = []
    size = announced = None
    words = 0
    for number, raw in enumerate(open_lines(path), start=1):
        line = raw.decode("utf-8").replace("\t", " ").strip(" ")
        fields = line.count(" ")
        if number == 1 and fields == 1 and line.isascii() and line.replace(" ", "").isdigit():
            announced, size = (int(field[:12]) for field in line.split(" "))
            if not 1 <= size <= LARGEST_SIZE:
                raise _malformed(path, number, f"announces vectors of {size} numbers")
            continue
        size = fields if size is None else size
        if not 1 <= size <= LARGEST_SIZE:
            raise _malformed(path, number, "is not a word and its vector")
        if fields < size:
            raise _malformed(path, number, f"has {fields} numbers, not {size}")
        words += 1
        # GloVe's largest file has words with spaces inside: the last E fields are the vector.
        # A word outside the vocabulary costs no more than this search; its numbers are not looked at.
        word, *numbers = line.split(" ", 1) if fields == size else line.rsplit(" ", size)
        if word in vocabulary and vocabulary.id(word) not in ids:
            rows.append(_vector(numbers[0].split(" ") if fields == size else numbers, path, number))
            ids[vocabulary.id(word)] = None
    if size is None or not words:
        raise FormatError(f"{path} holds no vectors.", remedy="give a word2vec or GloVe text file.")
    if announced is not None and announced != words:
        raise FormatError(
            f"{path}: the header announces {announced:,} words, the file has {words:,}.",
            reason="the file is cut off.",
            remedy="fetch it again, or delete the first line to read it as GloVe format.",
        )
    matrix = np.stack(rows) if rows else np.empty((0, size), dtype=np.float32)
    return WordVectors(np.fromiter(ids, dtype=np.int64, count=len(ids)), matrix, words)


def _vector(fields: list[str], path: Path, number: int) -> NDArray[np.float32]:
    try:
        if max(map(len, fields)) > LONGEST_NUMBER:
            raise ValueError("a field is too long")
        vector = np.array([float(field) for field in fields], dtype=np.float64)
    except ValueError as error:
        raise _malformed(path, number, f"holds something that is no number ({error})") from error
    if not np.all(np.abs(vector) <= np.finfo(np.float32).max):
        raise _malformed(path, number, "holds a number that is not finite in float32")
    return vector.astype(np.float32)


def _malformed(path: Path, number: int, what: str) -> FormatError:
    return FormatError(
        f"{path}, line {number}: {what}.",
        reason="the file is not in word2vec or GloVe text format, or is damaged.",
        remedy="convert it to lines of 'word x1 x2 ...'; word2vec's binary format is not read.",
    )


def load_vectors(model: NeuralModel, path: Path | str) -> Coverage:
    """Fill the model's embedding rows from a file; words without a vector keep their initial row.

    OptionError when the file's vectors are not as long as the model's, or none fits.
    """
    vectors = read_vectors(path, model.vocabulary)
    if vectors.size != model.config.embedding_size:
        wanted = model.config.embedding_size
        raise OptionError(
            f"{path} has vectors of {vectors.size} numbers, the model's have {wanted}.",
            remedy=f"use --emsize {vectors.size}.",
        )
    if not len(vectors.ids):
        raise OptionError(
            f"none of the {vectors.words:,} words of {path} is in the vocabulary.",
            reason="another language, another case, or another tokenizer.",
            remedy="use vectors of words as the tokenizer writes them.",
        )
    with torch.no_grad():
        weight = model.embedding.weight
        rows = torch.from_numpy(vectors.ids).to(weight.device)
        weight[rows] = torch.from_numpy(vectors.matrix).to(weight)
    counts = model.vocabulary.counts
    total = 0 if counts is None else int(counts.sum())
    events = None if counts is None or not total else float(counts[vectors.ids].sum()) / total
    return Coverage(len(vectors.ids), len(model.vocabulary), events)


def write_vectors(
    source: NeuralModel | NDArray[np.float32], vocabulary: Vocabulary, path: Path | str
) -> None:
    """Write an embedding [V, E], or a model's, in word2vec's text format (gzip when the name ends in .gz).

    Numbers have nine significant digits: float32 comes back bit for bit. ElmanError when the path cannot
    be written; what was there before stays until the new file is complete.
    """
    matrix = _matrix(source)
    path = Path(path)
    with new_file(path) as raw, ExitStack() as stack:
        out: BinaryIO = raw
        if path.suffix == ".gz":
            packed = gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0)
            out = cast(BinaryIO, stack.enter_context(packed))
        out.write(f"{len(vocabulary)} {matrix.shape[1]}\n".encode())
        for token, row in zip(vocabulary.tokens, matrix, strict=True):
            out.write(f"{token} {' '.join(f'{value:.9g}' for value in row.tolist())}\n".encode())


def neighbours(
    source: NeuralModel | NDArray[np.float32], vocabulary: Vocabulary, word: str, k: int = 10
) -> list[tuple[str, float]]:
    """The k tokens whose vectors point most nearly as the word's: (token, cosine), nearest first.

    The word itself, `<unk>` and `</s>` are left out. OptionError for a word outside the vocabulary.
    """
    if k < 1:
        raise OptionError(f"{k} neighbours cannot be listed.", remedy="give -k 1 or more.")
    if word not in vocabulary:
        lower = word.lower()
        raise OptionError(
            f"{word!r} is not in the vocabulary.",
            reason="it was rare in the training text, or the tokenizer writes it otherwise.",
            remedy=f"try {lower!r}."
            if lower in vocabulary
            else "try a frequent word; `elman inspect` shows some.",
        )
    vectors = _matrix(source).astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    unit = vectors / np.where(lengths > 0, lengths, 1.0)[:, None]
    own = vocabulary.id(word)
    cosines = unit @ unit[own]
    cosines[[own, vocabulary.id(UNK), vocabulary.id(EOS)]] = -np.inf
    order = np.argsort(-cosines, kind="stable")[:k]
    return [(vocabulary.token(int(i)), float(cosines[i])) for i in order if cosines[i] > -np.inf]


def _matrix(source: NeuralModel | NDArray[np.float32]) -> NDArray[np.float32]:
    if isinstance(source, NeuralModel):
        matrix: NDArray[np.float32] = source.embedding.weight.detach().cpu().float().numpy()
        return matrix
    return np.asarray(source, dtype=np.float32)
