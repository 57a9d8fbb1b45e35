"""A training state that its step determines, to tell which one a folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from elman.checkpoint import TrainingState, save_checkpoint
from training_example import make_corpus, make_model

CORPUS = make_corpus()


def state(step: int) -> TrainingState:
    model = make_model(CORPUS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(step)
    carried = (torch.full((2, 5, 7), step / 3), torch.full((2, 5, 7), step / 7))
    tensors = {"embedding.weight/exp_avg": torch.full((23, 6), step / 9)}
    return TrainingState(
        model, tensors, {"cpu": torch.get_rng_state()}, carried, {"step": step, "x": [1, 2.5]}
    )


def save(run: Path, step: int, **options: Any) -> Path:
    run.mkdir(exist_ok=True)
    return save_checkpoint(run, state(step), **options)


def check(found: TrainingState, step: int) -> None:
    wanted = state(step)
    assert found.record == wanted.record
    for name, tensor in wanted.model.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(tensor, found.model.state_dict()[name])  # type: ignore[attr-defined]
    assert all(torch.equal(a, b) for a, b in zip(found.carried, wanted.carried, strict=True))
    name = "embedding.weight/exp_avg"
    assert torch.equal(found.optimizer[name], wanted.optimizer[name])
