"""The comparison in a terminal or a pipe: progress, rows as models finish, what they say. 80 columns."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import ExitStack

from rich.progress import Progress, TaskID

from elman.cli.app import messages, progress, results
from elman.compare.comparison import FIGURES, Comparison, Entry, number, protocol_in_words, verdicts
from elman.compare.table import Row
from elman.report.sections import count, duration

WIDTH = 24


def head(per: str) -> None:
    """The line above the rows."""
    title = "perplexity" if per == "token" else FIGURES[per].replace("perplexity", "ppl")
    line = f"{'model':<{WIDTH}}{title:>13}  {'95 % interval':<18}{'reset':>8}{'size':>7}{'time':>8}"
    results.print(line, style="bold")


def row(entry: Entry) -> None:
    """One model, at once; with its state reset in a column of its own."""
    reset = "" if entry.reset is None else number(entry.reset.figure, entry.reset.per)
    label = entry.label if len(entry.label) < WIDTH else entry.label[: WIDTH - 2] + "…"
    size = "" if entry.parameters is None else count(entry.parameters).replace(" ", "")
    time = "" if entry.seconds is None else duration(entry.seconds).replace(" ", "")
    figure = number(entry.row.figure, entry.row.per)
    line = f"{label:<{WIDTH}}{figure:>13}  {_bounds(entry.row):<18}{reset:>8}{size:>7}{time:>8}"
    results.print(line)


def _bounds(row: Row) -> str:
    if math.isnan(row.interval.low):
        return ""
    return f"[{number(row.interval.low, row.per)}, {number(row.interval.high, row.per)}]"


def unknown_words(comparison: Comparison) -> None:
    """What unknown words take of each model's nats, and the perplexity without them; nothing without any."""
    scores = [(entry.label, entry.row.score) for entry in comparison.entries]
    if not any(score.unknown for _, score in scores) or comparison.protocol.unknown == "skip":
        return
    results.print(
        f"\n{'unknown words':<{WIDTH}}{'of the events':>15}{'of the nats':>15}{'perplexity without':>22}",
        style="bold",
    )
    for label, score in scores:
        label = label if len(label) < WIDTH else label[: WIDTH - 2] + "…"
        events = f"{score.unknown / max(1, score.events):.1%}"
        without = number(score.known_perplexity)
        results.print(f"{label:<{WIDTH}}{events:>15}{f'{score.unknown_share:.1%}':>15}{without:>22}")


def conclusions(comparison: Comparison) -> None:
    """What unknown words cost, verdicts, notes and how all was counted."""
    unknown_words(comparison)
    _lines(verdicts(comparison))
    results.print("\nHow it was counted", style="bold")
    _lines(protocol_in_words(comparison))
    if comparison.notes:
        results.print("\nNotes", style="bold")
        _lines(comparison.notes)


def _lines(lines: Iterable[str]) -> None:
    results.print()
    for line in lines:
        results.print("- " + line, soft_wrap=True)


class Bar:
    """Progress lines on stderr while something runs, one for each `name`; hidden while a row is printed,
    as they would otherwise draw stdout into themselves."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._display: Progress | None = None
        self._tasks: dict[str, tuple[TaskID, int]] = {}

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.hide()

    def begin(self, title: str) -> None:
        """What comes next; where stderr is no terminal, a line is all there is."""
        if not messages.is_terminal:
            messages.print(f"… {title}")

    def show(self, what: str, done: int, total: int, rate: str = "", *, name: str = "") -> None:
        if not messages.is_terminal:
            return
        if self._display is None:
            self._display = self._stack.enter_context(progress())
        if name not in self._tasks:
            self._tasks[name] = self._display.add_task(what, total=total, rate=rate), total
        task, before = self._tasks[name]
        if total != before:  # something else is measured: its time left starts anew
            self._display.reset(task, total=total)
            self._tasks[name] = task, total
        self._display.update(task, description=what, completed=done, total=total, rate=rate)

    def hide(self) -> None:
        self._stack.close()
        self._display = None
        self._tasks = {}
