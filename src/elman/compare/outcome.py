"""What is known of one finished model of a comparison, kept on disk so that nothing is done twice.

A folder `name-fingerprint/` holds `model/`, `nats.safetensors` (the nats of every event, float64) and
`outcome.json`, written last: a folder without it is unfinished. Not here: training (contest.py).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from elman.checkpoint import INSIDE, load_model, save_model
from elman.compare.bootstrap import Floats
from elman.compare.comparison import CurvePoint
from elman.compare.lineup import Spec
from elman.disk import clean, replace_file
from elman.errors import ElmanError, FormatError
from elman.generate import GenerationSettings, samples
from elman.language_model import LanguageModel
from elman.run_folder import BEST, LATEST, step_folders
from elman.storage import (
    Digest,
    check_shapes,
    checked,
    digest_of,
    encode_tensors,
    read_json,
    read_tensors,
    require_whole,
)

FORMAT = 1
SAMPLES, SAMPLE_LENGTH = 2, 30
RUN = "run"
"""Where its training is saved until it is finished."""
OUTCOME, NATS = "outcome.json", "nats.safetensors"


@dataclass(frozen=True)
class Facts:
    """The small numbers of a model: see Entry in comparison.py."""

    parameters: int | None
    bytes: int
    seconds: float | None
    curve: tuple[CurvePoint, ...] = ()
    samples: tuple[str, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A finished model: its nats [N] of the valid and test text with carried state, and of the test
    text with the state reset at each sentence where that differs; `model` is loaded when asked for."""

    spec: Spec
    facts: Facts
    valid: Floats
    test: Floats
    reset: Floats | None = None
    held: LanguageModel | None = None
    folder: Path | None = None

    @property
    def model(self) -> LanguageModel:
        if self.held is not None:
            return self.held
        assert self.folder is not None
        return load_model(self.folder / INSIDE)


def bytes_of(model: object) -> int:
    """The bytes of all arrays; a mixture's parts together."""
    parts = getattr(model, "models", None)
    if parts is not None:
        return sum(map(bytes_of, parts))
    arrays: dict[str, Tensor] = model.arrays()  # type: ignore[attr-defined]
    return sum(array.numel() * array.element_size() for array in arrays.values())


class _OutcomeFile(BaseModel):
    """outcome.json; older ones have no `nats` (SHA-256 of that file) and no `digest` (of all the rest)."""

    model_config = ConfigDict(extra="forbid")

    format: int
    name: str
    facts: Facts
    nats: Digest | None = None
    digest: Digest | None = None


def save_outcome(outcome: Outcome, folder: Path) -> None:
    """Write the folder; the model first, `outcome.json` last. Raises ElmanError when the disk refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clean(folder)
        (folder / OUTCOME).unlink(missing_ok=True)
        save_model(outcome.model, folder / INSIDE, overwrite=True)
        nats = {"valid": outcome.valid, "test": outcome.test}
        if outcome.reset is not None:
            nats["reset"] = outcome.reset
        tensors = {name: torch.tensor(array) for name, array in nats.items()}
        encoded = encode_tensors(tensors)
        replace_file(folder / NATS, encoded)
        document = {"format": FORMAT, "name": outcome.spec.name, "facts": asdict(outcome.facts)}
        document["nats"] = hashlib.sha256(encoded).hexdigest()
        document = json.loads(json.dumps(document))  # as it will be read
        replace_file(folder / OUTCOME, json.dumps(document | {"digest": digest_of(document)}, indent=1))
    except OSError as error:
        raise ElmanError(
            f"cannot write {folder}: {error.strerror or error}.",
            remedy="make room, or give another --save folder.",
        ) from error


def drop_checkpoints(folder: Path) -> None:
    """Of a finished model: its checkpoints, each with the optimizer, are several times as large as itself.

    The log of its training stays. A folder that cannot be removed is left.
    """
    for name in (BEST, LATEST):
        (folder / RUN / name).unlink(missing_ok=True)
    for step in step_folders(folder / RUN) if (folder / RUN).is_dir() else ():
        shutil.rmtree(step, ignore_errors=True)


def load_outcome(spec: Spec, folder: Path, valid: int, test: int) -> Outcome | None:
    """The finished model in `folder`, or None where it was not finished; `valid` and `test` are the
    events of the two texts. Raises FormatError where it is damaged."""
    if not (folder / OUTCOME).is_file():
        return None
    remedy = f"delete {folder}: the model is then trained again."
    try:
        document = read_json(folder / OUTCOME)
        if document.get("format") != FORMAT:
            raise FormatError(f"{folder} is of another version.")
        told = checked(_OutcomeFile, document, folder / OUTCOME)
        if told.digest is not None:
            require_whole(folder / OUTCOME, document)
        shapes = {"valid": ((valid,), torch.float64), "test": ((test,), torch.float64)}
        with_reset = shapes | {"reset": ((test,), torch.float64)}
        nats = read_tensors(
            folder / NATS,
            lambda found: check_shapes(folder / NATS, with_reset if "reset" in found else shapes, found),
            digest=told.nats,
        )
    except FormatError as error:
        raise FormatError(error.cause, reason=error.reason, remedy=remedy) from error
    arrays: dict[str, Floats] = {name: tensor.numpy() for name, tensor in nats.items()}
    return Outcome(spec, told.facts, arrays["valid"], arrays["test"], arrays.get("reset"), folder=folder)


def sample_texts(model: LanguageModel, seed: int) -> tuple[str, ...]:
    """A few sentences of the model's own."""
    how = GenerationSettings(length=SAMPLE_LENGTH, lines=1, seed=seed)
    return tuple(sample.text.strip() for sample in samples(model, "", how, SAMPLES))


def bf16_here() -> bool:
    """Whether the processor multiplies bfloat16 in hardware."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("arm_bf16"))
