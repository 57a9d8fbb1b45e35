"""Folders of tensors and JSON: one file of a small valid folder is what the input says, its digests made
to fit.

With the digests as they are, everything would be refused before it is looked at; whoever writes a hostile
folder writes its digests too.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from elman import storage
from elman.checkpoint import CONFIG, STATE, VOCABULARY, load_checkpoint, load_model, save_model
from elman.checkpoint import MODEL as WEIGHTS
from elman.errors import ElmanError
from elman.mixture import Mixture
from elman.neural.feedforward import FeedforwardConfig, FeedforwardModel
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.neural.streaming import StreamingModel
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.text.corpus import Corpus, encode_string
from elman.text.tokenizers import Words
from elman.text.vocabulary import Vocabulary
from elman.train import train
from elman.training.config import TrainConfig
from elman.training.state import RunState
from fuzz.target import Target, scratch

WORDS = Vocabulary(["<unk>", "</s>", "the", "cat", "sat"], [1, 3, 5, 2, 1])
LINES = "the cat sat\nthe cat\na the\n"
TRAINING = TrainConfig(epochs=1, batch_size=1, bptt=4, save_every=1, keep=1)


def tensors(data: bytes) -> None:
    """What is read is written and read again the same, to the bit."""
    path, copy = scratch() / "given.safetensors", scratch() / "copy.safetensors"
    path.write_bytes(data)
    found = storage.read_tensors(path)
    copy.unlink(missing_ok=True)
    storage.write_tensors(copy, found)
    _require_same(found, storage.read_tensors(copy))


def _require_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert (tensor.dtype, tensor.shape) == (other[name].dtype, other[name].shape), name
        assert storage.encode_tensors({"": tensor}) == storage.encode_tensors({"": other[name]}), name


@cache
def corpus() -> Corpus:
    parts = (encode_string(LINES * times, Words(), WORDS) for times in (3, 1, 1))
    return Corpus("tiny", *parts, WORDS, Words(), "made for fuzzing", digest="tiny")


def recurrent(cell: str = "lstm", **options: Any) -> RecurrentModel:
    torch.manual_seed(5)
    return RecurrentModel(WORDS, Words(), RecurrentConfig(cell=cell, embedding_size=2, hidden_size=3,
    num_layers=1, **options))  # type: ignore[arg-type]  # fmt: skip


def _mixture() -> Any:
    ngram = estimate(corpus().train, WORDS, Words(), KneserNeySettings(order=2))
    return Mixture([ngram, recurrent("rnn")], torch.tensor([0.25, 0.75], dtype=torch.float64).numpy())


KINDS: dict[str, Callable[[], Any]] = {
    "ngram": lambda: estimate(corpus().train, WORDS, Words(), KneserNeySettings(order=3)),
    "recurrent": recurrent,
    "gru": lambda: recurrent("gru", dropout=0.5),
    "streaming": lambda: StreamingModel(recurrent(), "int8"),
    "feedforward": lambda: FeedforwardModel(WORDS, Words(), FeedforwardConfig(embedding_size=2,
    hidden_size=3, window=2)), "mixture": _mixture,
}  # fmt: skip


@cache
def valid(kind: str) -> Path:
    """A saved model, or the run of a training that was stopped in its first epoch."""
    folder = scratch() / f"valid-{kind}"
    if kind == "run":
        stopped = TRAINING.model_copy(update={"max_steps": 3})
        for _ in train(recurrent(dropout=0.5), corpus(), stopped, save=folder):
            pass
    else:
        save_model(KINDS[kind](), folder)
    return folder


def run(data: bytes) -> None:
    """First line: kind/file; then the file. A model that loads is saved and loaded the same, and predicts."""
    head, _, content = data.partition(b"\n")
    kind, _, name = head.decode("latin-1").partition("/")
    if kind not in KINDS or name not in _files(valid(kind)):
        return
    folder, copy = _changed(valid(kind), name, content), scratch() / "copy"
    model: Any = load_model(folder)
    shutil.rmtree(copy, ignore_errors=True)
    save_model(model, copy)
    again: Any = load_model(copy)
    _require_same(model.arrays(), again.arrays())
    assert (model.vocabulary, model.tokenizer) == (again.vocabulary, again.tokenizer)
    assert model.config_json() == again.config_json()
    ids = torch.tensor([[1, 0], [0, 1], [1, min(2, len(model.vocabulary) - 1)]])
    with torch.no_grad():
        nats, _ = model.token_nats(ids, model.start(2))
        _, log_probs = model.advance(model.start(2), ids[0])
    assert nats.shape == (2, 2)
    assert log_probs.shape == (2, len(model.vocabulary))


def resume(data: bytes) -> None:
    """First line: a file of a run, or of its latest step. What goes on is what was saved."""
    head, _, content = data.partition(b"\n")
    name = head.decode("latin-1")
    run = valid("run")
    if name not in _files(run):
        return
    changed = _changed(run, name, content)
    saved = load_checkpoint(changed)
    state = RunState(recurrent(dropout=0.5), corpus(), TRAINING)
    state.restore(saved)
    again = state.snapshot()
    _require_same(again.optimizer, saved.optimizer)
    _require_same(again.random, saved.random)
    _require_same(again.model.arrays(), saved.model.arrays())  # type: ignore[attr-defined]
    assert all(torch.equal(a, b) for a, b in zip(again.carried, saved.carried, strict=True))
    assert again.record["progress"] == saved.record["progress"]
    if hashlib.sha1(data).digest()[0] < 2:  # a whole training takes as long as a hundred refusals
        for _ in train(recurrent(dropout=0.5), corpus(), TRAINING, save=changed, resume=True):
            pass


@cache
def _files(folder: Path) -> frozenset[str]:
    return frozenset(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _changed(source: Path, name: str, content: bytes) -> Path:
    """A copy with one file changed, and the digests that are written down of it."""
    folder = scratch() / "changed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    path = folder / name
    path.write_bytes(content)
    if not (path.parent / CONFIG).is_file():
        return folder
    config, state = path.parent / CONFIG, path.parent / STATE
    _mend(config, {file: (path.parent / file).read_bytes() for file in (WEIGHTS, VOCABULARY)})
    if (above := path.parents[1] / CONFIG).is_file():  # a part of a mixture
        _mend(above, {f"{path.parent.name}/{CONFIG}": config.read_bytes()})
    if state.is_file():
        _mend(state, {file.name: file.read_bytes() for file in state.parent.iterdir() if file != state})
    return folder


def _mend(path: Path, files: dict[str, bytes]) -> None:
    """Write the SHA-256 of these files into a document that is well-formed enough for them, and its own."""
    try:
        document = storage.read_json(path)
    except ElmanError:
        return
    if isinstance(document.get("files"), dict):
        document["files"] |= {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    try:
        if document.pop("digest", None):
            document["digest"] = storage.digest_of(document)
        path.write_bytes(json.dumps(document, ensure_ascii=False).encode())
    except (ValueError, RecursionError):
        return


def safetensors() -> list[bytes]:
    given = {
        "a": torch.arange(6.0).reshape(2, 3),
        "b": torch.tensor(True),
        "c": torch.zeros(0, 2, dtype=torch.int64),
    }
    return [
        storage.encode_tensors(given),
        storage.encode_tensors({"x": torch.ones(2, dtype=torch.bfloat16)}, {"k": "v"}),
    ]


def models() -> list[bytes]:
    return [
        f"{kind}/{name}\n".encode() + (valid(kind) / name).read_bytes()
        for kind in KINDS
        for name in sorted(_files(valid(kind)))
    ]


def checkpoints() -> list[bytes]:
    run = valid("run")
    return [
        f"{name}\n".encode() + (run / name).read_bytes()
        for name in sorted(_files(run))
        if not name.startswith(".")
    ]


DTYPES = tuple(
    f'"{name}"'.encode()
    for name in ("F64", "F32", "BF16", "F16", "I64", "I8", "U8", "BOOL", "F8_E4M3", "C64")
)

TENSORS = Target(
    tensors,
    safetensors,
    (b'"dtype"', b'"shape"', b'"data_offsets"', b'"__metadata__"', *DTYPES),
    largest=1024,
    json=True,
)
MODEL = Target(run, models, DTYPES, largest=8192, json=True)
CHECKPOINT = Target(resume, checkpoints, DTYPES, largest=8192, json=True)
