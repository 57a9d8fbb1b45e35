"""Vocabularies, tokenizers and subwords from JSON: refused, or what they say they are."""

from __future__ import annotations

import json
from functools import cache

import numpy as np

from elman import disk, storage
from elman.text.bpe import load_bpe
from elman.text.tokenizers import BPE as Subwords
from elman.text.tokenizers import tokenizer_from_json
from elman.text.vocabulary import Vocabulary
from fuzz.target import Target, scratch


def run(data: bytes) -> None:
    path = scratch() / "vocabulary.json"
    path.write_bytes(data)
    document = storage.read_json(path)
    json.loads(data, object_pairs_hook=_once)
    if "name" in document:
        tokenizer = tokenizer_from_json(document)
        assert tokenizer_from_json(json.loads(json.dumps(tokenizer.as_json()))) == tokenizer
        return
    found = Vocabulary.from_json(document)
    path.unlink()
    disk.write_bytes(path, json.dumps(found.as_json(), ensure_ascii=False).encode())
    again = Vocabulary.from_json(storage.read_json(path))
    assert again == found
    assert found.tokens[:2] == ("<unk>", "</s>")
    assert "<s>" not in found
    assert not any(set(token) & set(" \t\n\r\v\f") for token in found.tokens)
    assert again.digest == found.digest
    assert (found.counts is None) == (again.counts is None)
    assert found.counts is None or np.array_equal(found.counts, again.counts)
    assert found.ids(found.tokens).tolist() == list(range(len(found)))
    assert [found.token(id) for id in range(len(found))] == document["tokens"]


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    assert len(dict(pairs)) == len(pairs), "a key stands there twice"
    return dict(pairs)


@cache
def letters() -> tuple[str, ...]:
    """The 256 bytes of a byte-level model."""
    import tokenizers.pre_tokenizers

    return tuple(sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))


def subwords(data: bytes) -> None:
    """A JSON object of a model whose 256 bytes are left out, and a `text`."""
    path = scratch() / "bpe.json"
    path.write_bytes(data)
    document = storage.read_json(path)
    text = document.pop("text", "")
    if isinstance(document.get("vocab"), dict):
        document["vocab"] = {letter: id for id, letter in enumerate(letters())} | document["vocab"]
    load_bpe(document)
    found = tokenizer_from_json({"name": "bpe", "model": document})
    assert isinstance(found, Subwords)
    if not isinstance(text, str):
        return
    line = text.encode("utf-8", "replace").decode()
    tokens = found.tokens(line)
    ids = found.encode([line])[0]
    assert [found.subwords[id] for id in ids] == [token.text for token in tokens]
    assert found.join([token.text for token in tokens]) == line


def seeds() -> list[bytes]:
    documents = (
        {"tokens": ["<unk>", "</s>", "a", "é", "b\u00a0c"], "counts": [3, 2, 2, 1, 0]},
        {"tokens": ["<unk>", "</s>"], "counts": None},
        {"name": "words"},
        {"tokens": ["<unk>", "</s>", "z", "s"], "counts": None},
        {"name": "prose", "numbers": False},
    )
    return [json.dumps(document, ensure_ascii=False).encode() for document in documents]


def merged() -> list[bytes]:
    model = {"vocab": {"th": 256, "the": 257, "Ġthe": 258}, "merges": [["t", "h"], ["th", "e"], ["Ġ", "the"]]}
    return [json.dumps(model | {"text": "the the é 12\n"}).encode()]


MARKS = (b'"tokens"', b'"counts"', b'"<unk>"', b'"</s>"', b'"<s>"', b"null", b"true", b"NaN", b"1e999",
b'"name"', b'"words"',
         b'"prose"', b'"characters"', b'"bytes"', b'"bpe"', b'"numbers"', b'"model"', b"\\ud800",
         b"\\u0000", b"9223372036854775808")  # fmt: skip

VOCABULARY = Target(run, seeds, MARKS, largest=1024, json=True)
BPE = Target(
    subwords,
    merged,
    (b'"vocab"', b'"merges"', b'"text"', "Ġ".encode(), "Ċ".encode()),
    largest=1024,
    json=True,
)
