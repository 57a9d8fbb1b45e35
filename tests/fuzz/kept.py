"""What Elman keeps for itself and reads again: encoded corpora, finished models of a comparison."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np

from elman.compare.comparison import CurvePoint
from elman.compare.lineup import Spec
from elman.compare.outcome import NATS, OUTCOME, Facts, Outcome, load_outcome, save_outcome
from elman.text.corpus import Corpus, Text, load_corpus
from fuzz.folders import _mend, recurrent
from fuzz.target import Target, scratch

SPEC = Spec("lstm", "LSTM", "lstm")
TEXT = "the cat sat\n\n" + "the é dog\nsat the the\n" * 5


@cache
def built() -> tuple[Path, Path, Corpus]:
    """A text, the folder of its cached corpus, and the corpus."""
    text, cached = scratch() / "kept.txt", scratch() / "kept"
    text.write_text(TEXT, "utf-8")
    corpus = load_corpus(text, cache=cached)
    return text, next((cached / "corpora").iterdir()), corpus


def run(data: bytes) -> None:
    """First line: a file of a cached corpus; then the file. Whatever it holds, the corpus is that of the
    text."""
    head, _, content = data.partition(b"\n")
    text, folder, corpus = built()
    name = head.decode("latin-1")
    if name not in ("corpus.json", "whole.i32", "words.i32", "bytes.i32"):
        return
    shutil.rmtree(scratch() / "changed", ignore_errors=True)
    shutil.copytree(folder.parents[1], scratch() / "changed")
    (scratch() / "changed" / folder.parent.name / folder.name / name).write_bytes(content)
    found = load_corpus(text, cache=scratch() / "changed")
    assert found.digest == corpus.digest
    assert (found.vocabulary, found.tokenizer) == (corpus.vocabulary, corpus.tokenizer)
    assert found.vocabulary.as_json() == corpus.vocabulary.as_json()
    for one, other in zip(_parts(found), _parts(corpus), strict=True):
        for what in ("ids", "words", "bytes"):
            assert np.array_equal(getattr(one, what), getattr(other, what))


def _parts(corpus: Corpus) -> tuple[Text, Text, Text]:
    return corpus.train, corpus.valid, corpus.test


@cache
def finished() -> Path:
    """The folder of a finished model."""
    folder = scratch() / "finished"
    curve = (CurvePoint(1.0, 2.5, 30, None, 7.5), CurvePoint(2.0, 5.0, 60, 6.5, 7.25))
    facts = Facts(77, 308, 5.5, curve, ("the cat",), {"cell": "lstm"})
    save_outcome(Outcome(SPEC, facts, np.arange(3.0), np.arange(5.0), held=recurrent()), folder)
    return folder


def outcome(data: bytes) -> None:
    """First line: a file; then the file. What is read is kept and read again the same."""
    head, _, content = data.partition(b"\n")
    name = head.decode("latin-1")
    if name not in (OUTCOME, NATS):
        return
    folder, copy = scratch() / "changed", scratch() / "copy"
    for made in (folder, copy):
        shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(finished(), folder)
    (folder / name).write_bytes(content)
    _mend(folder / OUTCOME, {})
    found = load_outcome(SPEC, folder, 3, 5)
    assert found is not None
    save_outcome(found, copy)
    again = load_outcome(SPEC, copy, 3, 5)
    assert again is not None
    assert json.dumps(asdict(again.facts)) == json.dumps(asdict(found.facts))
    assert np.array_equal(again.valid, found.valid, equal_nan=True)
    assert np.array_equal(again.test, found.test, equal_nan=True)


def cached() -> list[bytes]:
    folder = built()[1]
    return [f"{path.name}\n".encode() + path.read_bytes() for path in sorted(folder.iterdir())]


def outcomes() -> list[bytes]:
    return [f"{name}\n".encode() + (finished() / name).read_bytes() for name in (OUTCOME, NATS)]


CACHED = Target(
    run, cached, (b'"files"', b'"crc32"', b'"digest"', b"[[[[", b'"tokens"'), largest=2048, json=True
)
COMPARED = Target(
    outcome, outcomes, (b'"curve"', b'"details"', b"NaN", b"1e999", b"null"), largest=2048, json=True
)
