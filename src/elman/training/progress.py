"""Where a training stands: the numbers that, with weights and random state, decide how it goes on."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from elman.errors import FormatError
from elman.language_model import perplexity


@dataclass
class Progress:
    """Counters of a run; JSON in a checkpoint.

    epoch       epochs done;  position  windows done in the one that runs;  step  updates done
    nats, events  of this epoch's windows so far: their running mean is the train perplexity
    best_nats   per event, of the best validation;  best_epoch  counts from 1
    setbacks    epochs without a better validation, in all;  waiting  since the best one
    skipped     updates in a row without a finite gradient
    hopeless    windows in a row far above a blind guess
    seconds     spent in updates;  log_bytes  length of the log when the state was saved
    history     one row for each epoch: train and valid perplexity, learning rate, seconds
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    nats: float = 0.0
    events: int = 0
    best_nats: float | None = None
    best_epoch: int | None = None
    setbacks: int = 0
    waiting: int = 0
    skipped: int = 0
    hopeless: int = 0
    seconds: float = 0.0
    log_bytes: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def key(self) -> tuple[int, int, int]:
        """Two states with one key are the same state."""
        return self.step, self.epoch, self.position

    @property
    def is_best(self) -> bool:
        """The epoch that has just been closed is the best one."""
        return self.position == 0 and self.best_epoch == self.epoch and self.epoch > 0

    @property
    def train_perplexity(self) -> float:
        """exp of the running mean over this epoch."""
        return perplexity(self.nats / max(1, self.events))

    def close_epoch(self, valid_nats: float, lr: float) -> bool:
        """Note the validation (nats per event) and turn to the next epoch; whether it is the best so far."""
        best = math.isfinite(valid_nats) and (self.best_nats is None or valid_nats < self.best_nats)
        self.epoch += 1
        self.history.append(
            {
                "epoch": self.epoch,
                "step": self.step,
                "lr": lr,
                "train_perplexity": _json(self.train_perplexity),
                "valid_perplexity": _json(perplexity(valid_nats)),
                "seconds": self.seconds,
            }
        )
        if best:
            self.best_nats, self.best_epoch, self.waiting = valid_nats, self.epoch, 0
        else:
            self.setbacks += 1
            self.waiting += 1
        self.position, self.nats, self.events = 0, 0.0, 0
        return best

    def as_json(self) -> dict[str, Any]:
        """All fields, ready for `json.dumps`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Progress:
        """The inverse. Raises FormatError for anything else."""
        numbers = {field.name for field in dataclasses.fields(cls)} - {"history", "best_nats", "best_epoch"}
        if not isinstance(value, dict) or value.keys() != {field.name for field in dataclasses.fields(cls)}:
            raise FormatError("the checkpoint's progress lacks fields or has unknown ones.")
        for name in numbers:
            number = value[name]
            if type(number) not in (int, float) or not math.isfinite(number) or number < 0:
                raise FormatError(f"the checkpoint's progress: {name} is {number!r:.40}.")
        if not isinstance(value["history"], list):
            raise FormatError("the checkpoint's progress: history is not a list.")
        return cls(**value)


def _json(number: float) -> float | None:
    return number if math.isfinite(number) else None
