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


def conclusions(comparison: Comparison) -> None:
    """Verdicts, notes and how all was counted."""
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
    """One progress line on stderr while something runs; hidden while a row is printed, as it would
    otherwise draw stdout into itself."""

    def __init__(self) -> None:
        self.title = ""
        self._stack = ExitStack()
        self._display: Progress | None = None
        self._task: TaskID | None = None
        self._total = 0

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.hide()

    def begin(self, title: str) -> None:
        """What comes next; where stderr is no terminal, a line is all there is."""
        self.title = title
        if not messages.is_terminal:
            messages.print(f"… {title}")

    def show(self, what: str, done: int, total: int, rate: str = "") -> None:
        if not messages.is_terminal:
            return
        if self._display is None:
            self._display = self._stack.enter_context(progress())
            self._task = None
        if self._task is None:
            self._task = self._display.add_task(what, total=total, rate=rate)
        elif total != self._total:  # something else is measured: its time left starts anew
            self._display.reset(self._task, total=total)
        self._total = total
        self._display.update(self._task, description=what, completed=done, total=total, rate=rate)

    def hide(self) -> None:
        self._stack.close()
        self._display = None
