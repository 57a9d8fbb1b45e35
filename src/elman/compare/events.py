"""What a comparison is told, and what it tells while it runs. The command line prints; nobody else does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from elman.compare.lineup import Spec
from elman.compare.outcome import Outcome
from elman.text.building import TextSettings


@dataclass(frozen=True)
class Settings:
    """How the line-up is run; `save` keeps finished models and lets an interrupted run go on.

    jobs    neural models trained at a time, each in a process of its own; more than one needs `source`,
            the text as `load_corpus` takes it
    text    how it becomes tokens
    """

    seed: int = 1
    save: Path | None = None
    device: str = "auto"
    jobs: int = 1
    source: str | None = None
    text: TextSettings = TextSettings()  # noqa: RUF009  frozen


@dataclass(frozen=True)
class Begun:
    """A model is next: the `position`-th of `of`."""

    spec: Spec
    position: int
    of: int


@dataclass(frozen=True)
class Working:
    """How far it is: `done` of `total` of what `doing` says; `rate` in tokens per second."""

    spec: Spec
    doing: str
    done: int
    total: int
    rate: float | None = None


@dataclass(frozen=True)
class Finished:
    """A model is done, now or (`reused`) in an earlier run."""

    outcome: Outcome
    reused: bool = False


@dataclass(frozen=True)
class Interrupted:
    """Ctrl-C during training: this model and those after it are left out."""

    spec: Spec


Event = Begun | Working | Finished | Interrupted
