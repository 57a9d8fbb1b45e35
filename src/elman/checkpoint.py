"""Models and training states on disk: folders of safetensors and JSON, no pickle, whole or not there.

A model folder:  config.json  vocabulary.json  model.safetensors     (a mixture: its parts in 0/, 1/ …)
A step folder:   the same and  optimizer.safetensors  random.safetensors  carried.safetensors  state.json
state.json holds the SHA-256 of every file and, as `record`, whatever the loop wants to find again.
Not here: how bytes reach the disk (storage.py), which steps are kept (run_folder.py).
"""

from __future__ import annotations

import hashlib
import importlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from elman import run_folder, storage
from elman.errors import ElmanError, FormatError, OptionError
from elman.language_model import LanguageModel
from elman.ngram.arpa_lines import arpa_stem
from elman.text.tokenizers import tokenizer_from_json
from elman.text.vocabulary import Vocabulary

KINDS = {
    "ngram": "elman.ngram.backoff:NgramModel",
    "recurrent": "elman.neural.recurrent:RecurrentModel",
    "streaming": "elman.neural.streaming:StreamingModel",
    "feedforward": "elman.neural.feedforward:FeedforwardModel",
    "mixture": "elman.mixture:Mixture",
}
"""Where each kind of model lives; imported when one is loaded."""

CONFIG, VOCABULARY, MODEL, STATE = "config.json", "vocabulary.json", "model.safetensors", "state.json"
INSIDE = "model"
"""Where a comparison keeps each of its models."""
TENSORS = ("optimizer", "random", "carried")
LARGEST_VOCABULARY = 128 << 20
MOST_PARTS = 64
VERSION = 1
DAMAGED = "the file is damaged or was not written by this version of Elman."


def save_model(model: LanguageModel, folder: str | Path, *, overwrite: bool = False) -> None:
    """Write a model folder: all of it or nothing.

    Raises OptionError when `folder` is there and not empty; with `overwrite` a model folder there is
    replaced. Raises ElmanError when the disk refuses.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not overwrite:
            raise OptionError(f"{folder} is not empty.", remedy="choose another folder, or --overwrite.")
        run_folder.clear(folder)
    with storage.new_folder(folder) as temporary:
        _write_model(model, temporary)


def load_model(path: str | Path, *, strict: bool = False, encoding: str = "utf-8") -> LanguageModel:
    """A model, in evaluation mode, from a model folder, a training run (its best, else its latest step), a
    model of a comparison (its folder `model`) or an ARPA file (`.arpa`, `.lm`, also packed: `.gz`, `.bz2`,
    `.xz`), to which alone `strict` and `encoding` belong (see `read_arpa`). Nothing is written.
    Raises FormatError."""
    path = Path(path)
    if path.is_file():
        from elman.ngram.arpa import read_arpa

        if arpa_stem(path.name) is None:
            raise FormatError(
                f"{path} is a file that is not called .arpa or .arpa.gz.",
                reason="models are folders; only n-gram models are read from files.",
                remedy="give the folder of the model, or an ARPA file.",
            )
        return read_arpa(path, strict=strict, encoding=encoding)
    if not path.exists():
        raise FormatError(
            f"{path} does not exist.", remedy="give a model folder that `elman train --save` wrote."
        )
    if (path / CONFIG).is_file():
        return _read_model(path)
    if (path / INSIDE / CONFIG).is_file():
        return _read_model(path / INSIDE)
    if not run_folder.is_run(path):
        raise FormatError(
            f"{path} holds no model: neither config.json nor a finished checkpoint.",
            remedy="give a model folder, a training run or an .arpa file.",
        )
    return _read_run(path)


def _read_run(run: Path) -> LanguageModel:
    best = run_folder.pointer(run, run_folder.BEST)
    problems = []
    for folder in dict.fromkeys([*([best] if best else []), *run_folder.candidates(run)]):
        try:
            model = _read_model(folder)
        except FormatError as error:
            problems.append(str(error.cause))
            continue
        if problems:
            warnings.warn(f"{problems[0]} Using {folder} instead.", RuntimeWarning, stacklevel=3)
        return model
    raise FormatError(f"{run}: no checkpoint can be read: {problems[0]}", remedy="train again.")


@dataclass
class TrainingState:
    """Everything that decides how a training goes on.

    model      with its weights as they are
    optimizer  "parameter/slot" → tensor
    random     generator → its state, uint8
    carried    the hidden state between two windows; empty at the start of an epoch
    record     JSON: position, sums, schedule, configuration, … (train.py)
    notes      what loading had to pass over
    """

    model: LanguageModel
    optimizer: dict[str, Tensor]
    random: dict[str, Tensor]
    carried: tuple[Tensor, ...]
    record: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def save_checkpoint(run: Path, state: TrainingState, *, best: bool = False, keep: int = 2) -> Path:
    """Write the state after `record["step"]` updates; the step folder.

    The order is the promise: the folder is complete on disk before `best` and then `latest` name it,
    and only then older ones are removed. Whatever moment the process dies at, `latest` loads.
    """
    folder = run_folder.step_folder(run, int(state.record["step"]))
    with storage.new_folder(folder) as temporary:
        files = _write_model(state.model, temporary)
        carried = {str(index): tensor for index, tensor in enumerate(state.carried)}
        for name, tensors in zip(TENSORS, (state.optimizer, state.random, carried), strict=True):
            files[f"{name}.safetensors"] = storage.write_tensors(temporary / f"{name}.safetensors", tensors)
        document = {
            "format": "elman-training-state",
            "version": VERSION,
            "files": files,
            "record": state.record,
        }
        storage.write_json(temporary / STATE, document | {"digest": _digest(document)})
    if best:
        run_folder.point(run, run_folder.BEST, folder)
    run_folder.point(run, run_folder.LATEST, folder)
    run_folder.prune(run, keep)
    return folder


def load_checkpoint(run: Path) -> TrainingState:
    """The latest state that is whole. A damaged one is passed over and named in `notes`.

    Raises FormatError when none is left.
    """
    notes: list[str] = []
    for folder in run_folder.candidates(run):
        try:
            state = _read_state(folder)
        except FormatError as error:
            notes.append(f"{error.cause} Going back to the checkpoint before it.")
            continue
        state.notes = notes
        return state
    raise FormatError(
        f"{run}: no checkpoint can be read{': ' + notes[0] if notes else '.'}",
        remedy="check the disk; train anew with --overwrite.",
    )


def _read_state(folder: Path) -> TrainingState:
    document = storage.read_json(folder / STATE)
    digest = document.pop("digest", None)
    if digest != _digest(document):
        raise FormatError(f"{folder / STATE}: its content is not what was written.", reason=DAMAGED)
    _require_format(folder / STATE, document, "elman-training-state")
    files, record = document.get("files"), document.get("record")
    if not isinstance(files, dict) or not isinstance(record, dict) or type(record.get("step")) is not int:
        raise FormatError(f"{folder / STATE}: lacks its files or its record.", reason=DAMAGED)
    config = storage.read_json(folder / CONFIG, digest=_expected(files, CONFIG, folder))
    if config.get("files") != {name: files.get(name) for name in (MODEL, VOCABULARY)}:
        raise FormatError(f"{folder / CONFIG}: belongs to another checkpoint.", reason=DAMAGED)
    parts = [
        storage.read_tensors(
            folder / f"{name}.safetensors", digest=_expected(files, f"{name}.safetensors", folder)
        )
        for name in TENSORS
    ]
    carried = tuple(parts[2][name] for name in sorted(parts[2], key=int))
    return TrainingState(_read_model(folder), parts[0], parts[1], carried, record)


def _write_model(model: LanguageModel, folder: Path, depth: int = 0) -> dict[str, str]:
    """Write a model's files into a folder that is there; the SHA-256 of each, config.json too."""
    kind = getattr(model, "kind", None)
    if kind not in KINDS:
        raise ElmanError(f"a {type(model).__name__} cannot be saved: its kind is {kind!r}.")
    files = {
        VOCABULARY: storage.write_json(folder / VOCABULARY, model.vocabulary.as_json()),
        MODEL: storage.write_tensors(folder / MODEL, model.arrays()),  # type: ignore[attr-defined]
    }
    document = {
        "format": "elman-model",
        "version": VERSION,
        "kind": kind,
        "config": model.config_json(),  # type: ignore[attr-defined]
        "tokenizer": model.tokenizer.as_json(),
        "files": files,
    }
    if kind == "mixture":
        parts = model.models  # type: ignore[attr-defined]
        if depth >= 3:
            raise OptionError(
                "mixtures of mixtures of mixtures are not saved.", remedy="mix the models at once."
            )
        document["parts"] = len(parts)
        for index, part in enumerate(parts):
            (folder / str(index)).mkdir()
            _write_model(part, folder / str(index), depth + 1)
            storage.sync_folder(folder / str(index))
    return files | {CONFIG: storage.write_json(folder / CONFIG, document)}


def _read_model(folder: Path, depth: int = 0) -> LanguageModel:
    path = folder / CONFIG
    document = storage.read_json(path)
    _require_format(path, document, "elman-model")
    kind, config, files = document.get("kind"), document.get("config"), document.get("files")
    if not isinstance(kind, str) or kind not in KINDS:
        raise FormatError(f"{path}: unknown kind of model {str(kind)[:40]!r}.", reason=DAMAGED)
    if not isinstance(config, dict) or not isinstance(files, dict):
        raise FormatError(f"{path}: lacks the model's configuration or its files.", reason=DAMAGED)
    try:
        tokenizer = tokenizer_from_json(document.get("tokenizer"))
        vocabulary = Vocabulary.from_json(
            storage.read_json(
                folder / VOCABULARY, largest=LARGEST_VOCABULARY, digest=_expected(files, VOCABULARY, folder)
            )
        )
        module, name = KINDS[kind].split(":")
        model_class = getattr(importlib.import_module(module), name)
        expected = None
        if hasattr(model_class, "expected_shapes"):
            expected = model_class.expected_shapes(config, len(vocabulary))
        arrays = storage.read_tensors(folder / MODEL, expected, digest=_expected(files, MODEL, folder))
        if kind != "mixture":
            return model_class.from_parts(config, arrays, vocabulary, tokenizer)  # type: ignore[no-any-return]
        parts = _read_parts(folder, document.get("parts"), depth)
        return model_class.from_parts(config, arrays, vocabulary, tokenizer, parts)  # type: ignore[no-any-return]
    except FormatError as error:
        if str(folder) in error.cause:
            raise
        raise FormatError(f"{folder}: {error.cause}", reason=error.reason, remedy=error.remedy) from error


def _read_parts(folder: Path, count: object, depth: int) -> list[LanguageModel]:
    if type(count) is not int or not 1 <= count <= MOST_PARTS or depth >= 3:
        raise FormatError(
            f"{folder / CONFIG}: a mixture of {count!r} parts at depth {depth}.", reason=DAMAGED
        )
    return [_read_model(folder / str(index), depth + 1) for index in range(count)]


def _expected(files: Mapping[str, Any], name: str, folder: Path) -> str:
    digest = files.get(name)
    if not isinstance(digest, str) or len(digest) != 64:
        raise FormatError(f"{folder}: the SHA-256 of {name} is not recorded.", reason=DAMAGED)
    return digest


def _require_format(path: Path, document: Mapping[str, Any], name: str) -> None:
    if document.get("format") != name:
        raise FormatError(f"{path}: not an {name} file.", reason=DAMAGED)
    if document.get("version") != VERSION:
        raise FormatError(
            f"{path}: version {document.get('version')!r}; this Elman reads {VERSION}.",
            remedy="use the Elman that wrote it, or save it again.",
        )


def _digest(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
