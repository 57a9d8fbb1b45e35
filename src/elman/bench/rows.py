"""What is timed, and what Elman is to reach there: one row a workload.

Not here: how it is timed (rounds.py), what is compared (training.py, reading.py). Imports no torch.

H hidden size, L layers, V vocabulary size, B streams side by side, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from elman.errors import OptionError

Cell = Literal["lstm", "gru", "rnn", "kneser-ney"]
Work = Literal["train", "score", "stream", "ngram"]
GATES = {"lstm": 4, "gru": 3, "rnn": 1, "kneser-ney": 0}

TORCH, BF16, ONNX, KENLM = "torch fp32", "torch bf16 autocast", "ONNX Runtime fp32", "KenLM module"


@dataclass(frozen=True)
class Goal:
    """How many times as fast as `peer` is `ours` to be: no less than `floor`, better `aim`."""

    ours: str
    peer: str
    floor: float
    aim: float | None = None


@dataclass(frozen=True)
class Row:
    """One workload.

    train   the full update: zero_grad, forward, loss, backward, clipping by norm, SGD; T steps of B streams
    score   -log P of T tokens of one stream (B = 1), state carried
    stream  T times: one token in, the log-probabilities of the next out
    ngram   -log P of a real text under a Kneser-Ney model; the text decides about V and T
    """

    name: str
    title: str
    work: Work
    cell: Cell
    layers: int
    hidden: int
    vocabulary: int
    batch: int
    steps: int
    goals: tuple[Goal, ...] = ()

    @property
    def tokens(self) -> int:
        """Predictions of one run."""
        return self.batch * self.steps

    @property
    def operations(self) -> float:
        """Floating-point operations of one run's matrix products, a multiply-add counted as two; backward as
        much as twice forward. Everything else (gates, softmax, clipping, SGD) counts as none."""
        recurrence = self.layers * GATES[self.cell] * self.hidden * 2 * self.hidden
        forward = 2.0 * self.tokens * (recurrence + self.hidden * self.vocabulary)
        return 3 * forward if self.work == "train" else forward


def train_row(
    cell: Cell, layers: int, hidden: int, sizes: tuple[int, int, int], bounds: Sequence[float]
) -> Row:
    """sizes V, B, T; bounds: floor and aim over torch in fp32, then in bf16."""
    vocabulary, batch, steps = sizes
    goals = (Goal("elman fp32", TORCH, bounds[0], bounds[1]), Goal("elman bf16", BF16, bounds[2], bounds[3]))
    what = "characters" if vocabulary < 1000 else "words"
    title = f"train {what}: {cell.upper()} {layers}x{hidden}, V={vocabulary:,} B={batch} T={steps}"
    prefix = "characters-" if what == "characters" else ""
    name = f"{prefix}{cell}-{layers}x{hidden}"
    return Row(name, title, "train", cell, layers, hidden, vocabulary, batch, steps, goals)


WORDS = (10_000, 20, 35)


def _reading(work: Work, hidden: int, steps: int, floors: dict[str, tuple[str, float]]) -> Row:
    ours = (
        ("elman bfloat16", "elman int8")
        if work == "stream"
        else ("elman fp32", "elman bfloat16", "elman int8")
    )
    goals = tuple(Goal(one, *bound) for one in ours for bound in floors.values())
    what = "score a long text" if work == "score" else "a token at a time"
    title = f"{what}: LSTM 2x{hidden}, V=10,000, one stream"
    return Row(f"{work}-lstm-2x{hidden}", title, work, "lstm", 2, hidden, 10_000, 1, steps, goals)


ROWS: tuple[Row, ...] = (
    train_row("lstm", 2, 200, WORDS, (1.8, 2.2, 1.7, 2.2)),
    train_row("gru", 2, 200, WORDS, (2.4, 2.9, 2.2, 2.8)),
    train_row("rnn", 2, 200, WORDS, (2.2, 2.6, 1.7, 2.2)),
    train_row("lstm", 2, 650, WORDS, (1.7, 2.0, 1.6, 2.0)),
    train_row("gru", 2, 650, WORDS, (2.2, 2.6, 2.0, 2.5)),
    train_row("lstm", 2, 256, (256, 64, 64), (1.2, 1.4, 1.3, 1.7)),
    train_row("lstm", 3, 512, (100, 50, 50), (1.1, 1.3, 1.3, 1.7)),
    _reading("score", 650, 512, {"torch": (TORCH, 3.0), "onnx": (ONNX, 1.5)}),
    _reading("stream", 200, 256, {"torch": (TORCH, 8.0), "onnx": (ONNX, 2.0)}),
    Row(
        "score-ngram",
        "score a text: Kneser-Ney 5, sentence by sentence",
        "ngram",
        "kneser-ney",
        0,
        0,
        0,
        1,
        0,
        (Goal("elman", KENLM, 20.0),),
    ),
)

QUICK = ("lstm-2x200", "gru-2x200", "rnn-2x200", "stream-lstm-2x200")
"""Rows of a quick run."""


def choose_rows(names: Sequence[str] = (), *, quick: bool = False) -> tuple[Row, ...]:
    """The rows of these names, in the order of `ROWS`; all (or the quick ones) where none is named."""
    known = {row.name: row for row in ROWS}
    for name in names:
        if name not in known:
            raise OptionError(f"there is no row {name!r}.", remedy=f"choose among {', '.join(known)}.")
    wanted = names or (QUICK if quick else tuple(known))
    return tuple(row for row in ROWS if row.name in wanted)
