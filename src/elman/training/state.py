"""The exact state of a run: with it a training goes on as if it had never stopped.

Weights, optimizer, random state, carried hidden state, progress. Between two updates it is all there
is; within one (`exact` is False) it is half written and is not saved.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from elman.checkpoint import TrainingState
from elman.errors import DivergenceError, FormatError
from elman.language_model import State
from elman.storage import DAMAGED, checked
from elman.text.corpus import Corpus
from elman.training import resume as resuming
from elman.training.config import TrainConfig
from elman.training.device import PrivateRandom, resolve_device
from elman.training.optimizer import build_optimizer, load_optimizer, optimizer_tensors, untouched
from elman.training.progress import Progress


class RunState:
    """What changes while a model trains, and its way to a checkpoint and back."""

    def __init__(self, model: Any, corpus: Corpus, config: TrainConfig) -> None:
        self.device = resolve_device(config.device)
        self.model, self.corpus, self.config = model.to(self.device), corpus, config
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = build_optimizer(model, config)
        self.random = PrivateRandom(self.device, config.seed)
        self.progress = Progress()
        self.carried: State = ()
        self.best: dict[str, Tensor] | None = None
        self.exact = True

    def snapshot(self) -> TrainingState:
        """What a checkpoint holds. Raises DivergenceError when the weights are not finite."""
        progress = self.progress
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters):
            raise DivergenceError(
                f"training diverged: the weights are not finite after update {progress.step}. "
                "The last good checkpoint is kept.",
                remedy=f"a smaller --lr (now {self.config.lr:g}), in a new --save folder.",
            )
        record = {
            "step": progress.step,
            "progress": progress.as_json(),
            "run": resuming.describe_run(self.model, self.corpus, self.config),
            "circumstances": resuming.circumstances(self.model, self.device),
            "untouched": untouched(self.model, self.optimizer),
        }
        tensors = optimizer_tensors(self.model, self.optimizer)
        carried = self.carried if progress.position else ()
        return TrainingState(self.model, tensors, self.random.state(), carried, record)

    def restore(self, saved: TrainingState) -> list[str]:
        """Become the saved run; notes for the user. OptionError when it is another run's."""
        record = checked(resuming.Record, saved.record, "the checkpoint's record")
        resuming.require_same_run(record.run, resuming.describe_run(self.model, self.corpus, self.config))
        self.progress = Progress.from_json(record.progress)
        if self.progress.step != record.step:
            raise FormatError("the checkpoint's record: its counts of updates differ.", reason=DAMAGED)
        resuming.restore_model(self.model, saved)
        updates = self.progress.step - self.progress.skipped
        load_optimizer(self.model, self.optimizer, saved.optimizer, record.untouched, updates)
        self.random.load(saved.random)
        self.carried = resuming.require_carried(saved.carried, self.model.start(1), self.progress)
        now = resuming.circumstances(self.model, self.device)
        return saved.notes + resuming.changed_circumstances(record.circumstances, now)

    def remember_best(self) -> None:
        """Keep a copy of the weights as they are."""
        self.best = {name: tensor.clone() for name, tensor in resuming.weights_of(self.model).items()}

    def load_best(self, folder: os.PathLike[str] | None) -> None:
        """Leave the model with the weights of the best epoch, from `folder` if an earlier process saw it."""
        if self.best is None and self.progress.best_epoch is not None and folder is not None:
            self.best = resuming.weights_of(resuming.load_model(os.fspath(folder)))
        if self.best is not None:
            resuming.copy_weights(self.model, self.best)
