"""What a checkpoint of a training holds, and whether a run may go on from it.

A resumed run is the run that was interrupted: same options, corpus, vocabulary and model, or an error
that names the difference.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from torch import Tensor, nn

from elman.checkpoint import TrainingState
from elman.checkpoint import load_model as load_model
from elman.errors import FormatError, OptionError
from elman.kernels import native
from elman.language_model import State
from elman.storage import DAMAGED
from elman.text.corpus import Corpus
from elman.text.windows import Windows
from elman.training.config import TrainConfig, differences
from elman.training.progress import Progress


class Description(BaseModel):
    """What must stay the same for a run to go on."""

    model_config = ConfigDict(extra="forbid")

    config: dict[str, JsonValue]
    model: dict[str, JsonValue]
    vocabulary: str
    corpus: str


class Record(BaseModel):
    """What state.json keeps besides tensors; older ones have no `untouched`."""

    model_config = ConfigDict(extra="forbid")

    step: int = Field(ge=0)
    progress: dict[str, JsonValue]
    run: Description
    circumstances: dict[str, str | int]
    untouched: list[str] = []


def describe_run(model: Any, corpus: Corpus, config: TrainConfig) -> dict[str, Any]:
    """What must stay the same for a run to go on, as JSON."""
    return {
        "config": config.model_dump(mode="json"),
        "model": {"kind": model.kind} | model.config_json(),
        "vocabulary": corpus.vocabulary.digest,
        "corpus": corpus.digest,
    }


def require_same_run(before: Description, now: dict[str, Any]) -> None:
    """OptionError naming every difference that would make another run of it."""
    found = differences(before.config, now["config"]) + differences(before.model, now["model"])
    for name in ("vocabulary", "corpus"):
        if (old := getattr(before, name)) != now[name]:
            found.append(f"{name}: {old} in the run, {now[name]} now")
    if found:
        raise OptionError(
            f"this would not be the same run: {'; '.join(found)}.",
            reason="a resumed run continues exactly; only its length and how it saves may change.",
            remedy="give the options of the run (or none), or begin anew in another --save folder.",
        )


def circumstances(model: Any, device: torch.device) -> dict[str, str | int]:
    """What changes the last bits of a sum, and so makes a continued run equal in quality only."""
    found: dict[str, str | int] = {
        "device": device.type,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    if device.type == "cpu":
        fuses = getattr(model.config, "backend", "auto") in ("auto", "fused") and native.available()
        found["kernels"] = native.require().instruction_set() if fuses else "torch"
        found["processor"] = _processor()
        found["torch's instructions"] = torch.backends.cpu.get_cpu_capability()
    return found


def _processor() -> str:
    """Its name, as far as the system tells: torch's matrix library chooses its code by it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = (line.partition(":") for line in file)
            return next(value.strip() for key, _, value in lines if key.strip() == "model name")
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def changed_circumstances(before: Mapping[str, str | int], now: Mapping[str, str | int]) -> list[str]:
    """A note for each; older checkpoints know fewer."""
    return [
        f"{name} was {before[name]} and is {value}: the run goes on, but not bit for bit."
        for name, value in now.items()
        if name in before and before[name] != value
    ]


def restore_model(model: nn.Module, state: TrainingState) -> None:
    """Copy the saved weights into the model that trains."""
    copy_weights(model, weights_of(state.model))


def weights_of(model: object) -> dict[str, Tensor]:
    """Parameter name → its tensor, not a copy."""
    if not isinstance(model, nn.Module):
        raise FormatError("the checkpoint holds a model that is not trained by gradient.")
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@torch.no_grad()
def copy_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Overwrite every parameter; names and shapes are those of the same configuration."""
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])


def require_carried(carried: State, start: State, progress: Progress) -> State:
    """The saved hidden state, if it is one of this model; () at the start of an epoch."""
    if not carried:
        return ()
    found = [(tuple(tensor.shape), tensor.dtype) for tensor in carried]
    wanted = [(tuple(tensor.shape), tensor.dtype) for tensor in start]
    if [dtype for _, dtype in found] != [dtype for _, dtype in wanted] or len(found) != len(wanted):
        raise FormatError(f"the carried state of update {progress.step} is not one of this model.")
    for (have, _), (want, _) in zip(found, wanted, strict=True):
        if have[:-2] + have[-1:] != want[:-2] + want[-1:]:
            raise FormatError(f"the carried state of update {progress.step} is {have}, not like {want}.")
    return tuple(tensor.to(like.device) for tensor, like in zip(carried, start, strict=True))


def require_place(progress: Progress, carried: State, windows: Windows) -> None:
    """FormatError unless the run can go on at its position in this epoch's windows, with its hidden state."""
    position = progress.position
    if position > len(windows):
        raise FormatError(
            f"the checkpoint stands at window {position:,} of {len(windows):,}.", reason=DAMAGED
        )
    if not position or position == len(windows) or windows[position].fresh:
        return
    batch = windows[position].ids.shape[1]
    found = [tensor.shape[-2] for tensor in carried]
    if not found or set(found) != {batch}:
        raise FormatError(
            f"the carried state of update {progress.step} has {found} rows, not {batch}.", reason=DAMAGED
        )
