"""Where a training stands: the numbers that, with weights and random state, decide how it goes on."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from elman.errors import FormatError
from elman.language_model import perplexity
from elman.storage import DAMAGED, checked

Count = Annotated[int, Field(ge=0, lt=2**53)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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

    step: Count = 0
    epoch: Count = 0
    position: Count = 0
    nats: Amount = 0.0
    events: Count = 0
    best_nats: Amount | None = None
    best_epoch: Count | None = None
    setbacks: Count = 0
    waiting: Count = 0
    skipped: Count = 0
    hopeless: Count = 0
    seconds: Amount = 0.0
    log_bytes: Count = 0
    history: list[dict[str, float | None]] = field(default_factory=list)

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
        if not isinstance(value, dict) or value.keys() != {field.name for field in dataclasses.fields(cls)}:
            raise FormatError("the checkpoint's progress lacks fields or has unknown ones.", reason=DAMAGED)
        found = checked(cls, value, "the checkpoint's progress")
        best = found.best_epoch
        agree = (
            len(found.history) == found.epoch
            and (best is None) == (found.best_nats is None)
            and (best is None or 1 <= best <= found.epoch)
            and found.waiting == found.epoch - (best or 0)
            and found.waiting <= found.setbacks <= found.epoch
            and found.position <= found.step >= found.skipped
        )
        if not agree:
            raise FormatError("the checkpoint's progress: its counts contradict one another.", reason=DAMAGED)
        return found


def _json(number: float) -> float | None:
    return number if math.isfinite(number) else None
