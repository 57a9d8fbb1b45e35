"""What a checkpoint of a training holds, and whether a run may go on from it.

A resumed run is the run that was interrupted: same options, corpus, vocabulary and model, or an error
that names the difference.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from elman.checkpoint import TrainingState
from elman.checkpoint import load_model as load_model
from elman.errors import FormatError, OptionError
from elman.language_model import State
from elman.text.corpus import Corpus
from elman.training.config import TrainConfig, differences
from elman.training.progress import Progress


def describe_run(model: Any, corpus: Corpus, config: TrainConfig) -> dict[str, Any]:
    """What must stay the same for a run to go on, as JSON."""
    return {
        "config": config.model_dump(mode="json"),
        "model": {"kind": model.kind} | model.config_json(),
        "vocabulary": corpus.vocabulary.digest,
        "corpus": corpus.digest,
    }


def require_same_run(before: dict[str, Any], now: dict[str, Any]) -> None:
    """OptionError naming every difference that would make another run of it."""
    found = differences(before.get("config", {}), now["config"])
    found += differences(before.get("model", {}), now["model"])
    for name in ("vocabulary", "corpus"):
        if before.get(name) != now[name]:
            found.append(f"{name}: {before.get(name)} in the run, {now[name]} now")
    if found:
        raise OptionError(
            f"this would not be the same run: {'; '.join(found)}.",
            reason="a resumed run continues exactly; only its length and how it saves may change.",
            remedy="give the options of the run (or none), or begin anew in another --save folder.",
        )


def circumstances(device: torch.device) -> dict[str, Any]:
    """What changes the last bits of a sum, and so makes a continued run equal in quality only."""
    return {"device": device.type, "torch": torch.__version__, "threads": torch.get_num_threads()}


def changed_circumstances(before: object, now: dict[str, Any]) -> list[str]:
    """A note for each."""
    old = before if isinstance(before, dict) else {}
    return [
        f"{name} was {old.get(name)} and is {value}: the run goes on, but not bit for bit."
        for name, value in now.items()
        if old.get(name) != value
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
