"""Models and training states on disk: folders of safetensors and JSON, no pickle, whole or not there.

A model folder:  config.json  vocabulary.json  model.safetensors     (a mixture: its parts in 0/, 1/ …)
A step folder:   the same and  optimizer.safetensors  random.safetensors  carried.safetensors  state.json
state.json holds the SHA-256 of every file and, as `record`, whatever the loop wants to find again.
Not here: how bytes reach the disk (disk.py), which steps are kept (run_folder.py).
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from elman import disk, run_folder, storage
from elman.errors import ElmanError, FormatError, Note, OptionError
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
MODEL_FORMAT, STATE_FORMAT = "elman-model", "elman-training-state"
DAMAGED = "the file is damaged or was not written by this version of Elman."


def save_model(model: LanguageModel, folder: str | Path, *, overwrite: bool = False) -> None:
    """Write a model folder: all of it or nothing.

    Raises OptionError when `folder` is there and not empty; with `overwrite` a model or a run there is
    replaced, in one step, when the new one is whole. Raises ElmanError when the disk refuses.
    """
    with run_folder.in_place_of(Path(folder), overwrite=overwrite) as temporary:
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
    for folder in (path, path / INSIDE):
        if (folder / CONFIG).is_file():
            return _read_model(folder)
    if not run_folder.is_run(path):
        cause = f"{path} holds no model: neither config.json nor a finished checkpoint."
        raise FormatError(cause, remedy="give a model folder, a training run or an .arpa file.")
    return _read_run(path)


def _read_run(run: Path) -> LanguageModel:
    problems: list[str] = []
    best = run_folder.pointer(run, run_folder.BEST)
    for folder in dict.fromkeys(filter(None, [best, *run_folder.candidates(run)])):
        if problems and not run_folder.updates_of(folder):
            raise FormatError(f"{problems[0]}; older is only the model as it was before training.")
        try:
            model = _read_model(folder)
        except FormatError as error:
            problems.append(error.cause.rstrip("."))
            continue
        if problems:
            warnings.warn(f"{problems[0]}: {folder} is used instead.", Note, stacklevel=3)
        return model
    raise FormatError(f"{run}: no checkpoint can be read: {problems[0]}.", remedy="train again.")


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
    with disk.new_folder(folder) as temporary:
        files = _write_model(state.model, temporary)
        carried = {str(index): tensor for index, tensor in enumerate(state.carried)}
        for name, tensors in zip(TENSORS, (state.optimizer, state.random, carried), strict=True):
            files[f"{name}.safetensors"] = storage.write_tensors(temporary / f"{name}.safetensors", tensors)
        document = {"format": STATE_FORMAT, "version": VERSION, "files": files, "record": state.record}
        disk.write_json(temporary / STATE, document | {"digest": storage.digest_of(document)})
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


class _StateFile(BaseModel):
    """state.json. Whatever `record` holds is checked by who finds it again (training/)."""

    model_config = ConfigDict(extra="forbid")

    format: str
    version: int
    files: dict[str, storage.Digest]
    record: dict[str, Any]
    digest: storage.Digest


class _ModelFile(BaseModel):
    """config.json. `config` is checked by the model's own class, `tokenizer` by the tokenizer's.

    parts   of a mixture: how many; files then has their config.json too
    digest  of all the rest; models saved by older versions have none
    """

    model_config = ConfigDict(extra="forbid")

    format: str
    version: int
    kind: str
    config: dict[str, Any]
    tokenizer: dict[str, Any]
    files: dict[str, storage.Digest]
    parts: int | None = Field(None, ge=1, le=MOST_PARTS)
    digest: storage.Digest | None = None


def _read_state(folder: Path) -> TrainingState:
    path = folder / STATE
    document = storage.read_json(path)
    storage.require_format(path, document, STATE_FORMAT, VERSION)
    state = storage.checked(_StateFile, document, path)
    storage.require_whole(path, document)
    files, step = state.files, state.record.get("step")
    if type(step) is not int or step < 0:
        raise FormatError(f"{path}: does not say after how many updates it was saved.", reason=DAMAGED)
    config = storage.read_json(folder / CONFIG, digest=_expected(files, CONFIG, folder))
    of_model = storage.checked(_ModelFile, config, folder / CONFIG).files
    if any(files.get(name) != digest for name, digest in of_model.items()):
        raise FormatError(f"{folder / CONFIG}: belongs to another checkpoint.", reason=DAMAGED)
    parts = [
        storage.read_tensors(
            folder / f"{name}.safetensors", digest=_expected(files, f"{name}.safetensors", folder)
        )
        for name in TENSORS
    ]
    names = [str(index) for index in range(len(parts[2]))]
    if parts[2].keys() != set(names):
        found = ", ".join(sorted(parts[2]))
        raise FormatError(f"{folder}: the carried state holds {found[:80]!r}.", reason=DAMAGED)
    carried = tuple(parts[2][name] for name in names)
    return TrainingState(_read_model(folder), parts[0], parts[1], carried, state.record)


def _write_model(model: LanguageModel, folder: Path, depth: int = 0) -> dict[str, str]:
    """Write a model's files into a folder that is there; the SHA-256 of each, config.json too."""
    kind = getattr(model, "kind", None)
    if kind not in KINDS:
        raise ElmanError(f"a {type(model).__name__} cannot be saved: its kind is {kind!r}.")
    files = {
        VOCABULARY: disk.write_json(folder / VOCABULARY, model.vocabulary.as_json()),
        MODEL: storage.write_tensors(folder / MODEL, model.arrays()),  # type: ignore[attr-defined]
    }
    document = {
        "format": MODEL_FORMAT,
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
            files[f"{index}/{CONFIG}"] = _write_model(part, folder / str(index), depth + 1)[CONFIG]
            disk.sync_folder(folder / str(index))
    whole = document | {"digest": storage.digest_of(document)}
    return files | {CONFIG: disk.write_json(folder / CONFIG, whole)}


def _read_model(folder: Path, depth: int = 0, digest: str | None = None) -> LanguageModel:
    path = folder / CONFIG
    document = storage.read_json(path, digest=digest)
    storage.require_format(path, document, MODEL_FORMAT, VERSION)
    if not isinstance(kind := document.get("kind"), str) or kind not in KINDS:
        raise FormatError(f"{path}: unknown kind of model {str(kind)[:40]!r}.", reason=DAMAGED)
    told = storage.checked(_ModelFile, document, path)
    config, files = told.config, told.files
    try:
        tokenizer = tokenizer_from_json(told.tokenizer)
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
        rest = (_read_parts(folder, told, depth),) if kind == "mixture" else ()
        model: LanguageModel = model_class.from_parts(config, arrays, vocabulary, tokenizer, *rest)
    except ElmanError as error:
        if isinstance(error, FormatError) and str(folder) in error.cause:
            raise
        raise FormatError(f"{folder}: {error.cause}", reason=error.reason, remedy=error.remedy) from error
    if told.digest is not None:
        storage.require_whole(path, document)
    return model


def _read_parts(folder: Path, told: _ModelFile, depth: int) -> list[LanguageModel]:
    if told.parts is None or depth >= 3:
        raise FormatError(
            f"{folder / CONFIG}: a mixture of {told.parts} parts at depth {depth}.", reason=DAMAGED
        )
    names = [str(index) for index in range(told.parts)]
    return [_read_model(folder / name, depth + 1, told.files.get(f"{name}/{CONFIG}")) for name in names]


def _expected(files: Mapping[str, str], name: str, folder: Path) -> str:
    if name not in files:
        raise FormatError(f"{folder}: the SHA-256 of {name} is not recorded.", reason=DAMAGED)
    return files[name]
