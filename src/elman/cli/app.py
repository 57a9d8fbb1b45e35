"""The command line's shared frame: the app, where output goes, how an error reads.

Results go to stdout (text, or one JSON document under --json), progress and messages to stderr.
A verb module adds its command with `@app.command` and imports torch only inside the function, so
that `elman --help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, NoReturn

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from elman import __version__
from elman.errors import ElmanError

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON document on stdout.")]

messages = Console(stderr=True, highlight=False, soft_wrap=True)
results = Console(highlight=False, soft_wrap=True)

app = App(
    name="elman",
    version=__version__,
    help="Recurrent language models: train, compare honestly with n-grams, score, generate.",
    help_epilogue="First steps:  elman data  ·  elman compare --preset quick  ·  elman train --help",
    version_flags=["--version"],
    result_action="return_value",
)


def emit(document: object) -> None:
    """Print one JSON document on stdout. Infinities and NaN become null: they are not JSON."""
    sys.stdout.write(json.dumps(_finite(document), ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress display on stderr; columns: what, bar, done of total, `rate` field, time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as display:
        yield display


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 success, 1 failure, 2 a mistake in input or options, 130 Ctrl-C."""
    code = 0
    try:
        app(arguments, exit_on_error=False, print_error=True, error_console=messages)
    except CycloptsError:
        code = 2  # already printed, with the nearest option
    except ElmanError as error:
        messages.print(f"[red]elman:[/red] {_escape(str(error))}")
        code = 2
    except BrokenPipeError:
        # the reader (head, less) has left: normal in a pipe; keep the interpreter quiet at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a full disk, a folder that may not be written
        messages.print(f"[red]elman:[/red] {_escape(str(error))}")
        code = 1
    except KeyboardInterrupt:
        messages.print("elman: stopped")
        code = 130
    except MemoryError:
        messages.print("[red]elman:[/red] out of memory.")
        messages.print("Remedy: a smaller --batch-size, --nhid or --vocabulary-size.")
        code = 1
    sys.exit(code)


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
