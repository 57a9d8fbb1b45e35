"""What a training tells while it runs. The loop yields these and prints nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from elman.language_model import Score

Reason = Literal["finished", "patience", "max_steps", "interrupted"]


@dataclass(frozen=True)
class Started:
    """The run begins, or goes on from `step`. `parameters`: trainable numbers."""

    epoch: int
    step: int
    steps: int
    parameters: int
    device: str
    resumed: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One update is done.

    position, of         windows of this epoch done, and in all
    nats, events         of this window; nats / events is its loss per token
    train_perplexity     running mean of the epoch: exp(total nats / total events)
    gradient_norm        before clipping
    skipped              the gradient was not finite, so nothing was updated
    """

    epoch: int
    step: int
    position: int
    of: int
    nats: float
    events: int
    train_perplexity: float
    lr: float
    gradient_norm: float
    tokens_per_second: float
    skipped: bool = False


@dataclass(frozen=True)
class Validated:
    """An epoch is over and the validation text scored; `best`: no epoch before was better."""

    epoch: int
    step: int
    lr: float
    train_perplexity: float
    valid: Score
    best: bool
    seconds: float
    tokens_per_second: float


@dataclass(frozen=True)
class Saved:
    """A checkpoint is on disk."""

    step: int
    folder: Path


@dataclass(frozen=True)
class Sampled:
    """Text drawn from the model after an epoch."""

    epoch: int
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Stopped:
    """The last event. The model holds the weights of `best_epoch`, or the latest if none was validated.

    valid_perplexity is that epoch's; `folder` is the run, when it was saved; `signal` is what interrupted it.
    """

    reason: Reason
    epoch: int
    step: int
    best_epoch: int | None
    valid_perplexity: float | None
    seconds: float
    folder: Path | None = None
    signal: int | None = None


Event = Started | Step | Validated | Saved | Sampled | Stopped
