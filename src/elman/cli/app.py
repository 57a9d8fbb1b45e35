"""The command line's shared frame: the app, where output goes, how an error reads.

Results go to stdout (text, or one JSON document under --json), progress and messages to stderr.
A verb module adds its command with `@app.command` and imports torch only inside the function, so
that `elman --help` answers at once.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn, TextIO

from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment

from elman import __version__
from elman.cli.ranges import check_numbers
from elman.errors import ElmanError, Note, OptionError, no_memory, of_memory
from elman.training.interrupt import Terminated, tidy_end
from elman.visible import json_text, visible

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON document on stdout.")]


class Screen(Console):
    """A console that shows what would move a terminal: escape sequences in names, texts and models."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)


messages = Screen(stderr=True, markup=False, highlight=False, soft_wrap=True)
results = Screen(markup=False, highlight=False, soft_wrap=True)


class _Terminal(io.TextIOBase):
    """Standard output where it is a terminal, for what no console writes. In a pipe data stay data."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream  # consoles write their own colours past us

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(visible(text))
        return len(text)

    def flush(self) -> None:
        self.rich_proxied_file.flush()

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.rich_proxied_file.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.rich_proxied_file.encoding


REASONS = {
    errno.ENOSPC: ("the disk, or its quota, is full.", "make room, or write to another place."),
    errno.EROFS: ("the file system can only be read.", "write to another place."),
    errno.EACCES: ("you may not write or read there.", "choose another place, or ask for the right."),
    errno.EPERM: ("you may not write or read there.", "choose another place, or ask for the right."),
}

app = App(
    name="elman",
    version=__version__,
    help="Recurrent language models: train, compare honestly with n-grams, score, generate.",
    help_epilogue="First steps:  elman data  ·  elman compare --preset quick  ·  elman train --help",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # told by main
    result_action="return_value",
    config=check_numbers,
)


def examples(*commands: str) -> str:
    """The end of a help page: commands to copy, one a line."""
    return "Examples:\n\n" + "\n".join(f"- {command}" for command in commands)


def emit(document: object, *, compact: bool = False) -> None:
    """Print one JSON document on stdout. Infinities and NaN become null: they are not JSON.

    compact  on one line, without blanks: for documents that are mostly numbers
    """
    form: dict[str, Any] = {"separators": (",", ":")} if compact else {"indent": 2}
    sys.stdout.write(json_text(_finite(document), **form) + "\n")


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
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as display:
        yield display


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 success, 1 failure, 2 a mistake in input or options, 130 Ctrl-C,
    143 SIGTERM, 129 SIGHUP."""
    code = 0
    try:
        with _streams(), tidy_end(), _notes():
            app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _complain(_as_option_error(error))
        code = 2
    except ElmanError as error:
        _complain(error)
        code = 2
    except BrokenPipeError:
        # the reader (head, less) has left: normal in a pipe; keep the interpreter quiet at exit
        _forget_output()
    except (MemoryError, OSError, RuntimeError, ImportError) as error:
        if of_memory(error):
            _complain(no_memory())
        elif isinstance(error, OSError):  # a full disk, a folder that may not be written
            _complain(_as_elman_error(error))
            _forget_output()
        else:
            raise
        code = 1
    except KeyboardInterrupt as stop:
        messages.print("elman: stopped")
        code = 128 + (stop.number if isinstance(stop, Terminated) else signal.SIGINT)
    sys.exit(code)


@contextmanager
def _streams() -> Iterator[None]:
    """Texts and results are UTF-8 whatever the locale says; a path that is not keeps its own bytes."""
    if sys.stdout is None:  # closed by the shell: >&-
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    before = sys.stdout
    if before.isatty():
        sys.stdout = _Terminal(before)
    try:
        yield
    finally:
        sys.stdout = before


@contextmanager
def _notes() -> Iterator[None]:
    """What the library warns of as a Note is told as one."""

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, Note):
            messages.print(f"note: {message}")
        else:
            usual(message, category, *where, **more)

    with warnings.catch_warnings():
        usual = warnings.showwarning
        warnings.simplefilter("always", Note)
        warnings.showwarning = show
        yield


def _complain(error: ElmanError) -> None:
    messages.print("[red]elman:[/red] ", end="", markup=True)
    messages.print(str(error))


def _forget_output() -> None:
    """What could not be written is not tried again at exit, where it would be a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def out_of_range(flag: str, error: ValidationError) -> OptionError:
    """The first wrong field of a group of options, told as the option that it is."""
    first = error.errors()[0]
    return OptionError(
        f"{flag} {first['input']}: {first['msg'][0].lower()}{first['msg'][1:]}.",
        remedy="`elman train --help` lists the options and their ranges.",
    )


def _as_option_error(error: CycloptsError) -> OptionError:
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        name = str(cause.errors()[0]["loc"][0])
        children = error.argument.children if error.argument is not None else []
        used = [token.keyword for each in children if each.keys[-1:] == (name,) for token in each.tokens]
        return out_of_range(used[0] if used and used[0] else "--" + name.replace("_", "-"), cause)
    error.verbose = False
    verb = " ".join(error.command_chain or ())
    return OptionError(str(error), remedy=f"`elman {verb + ' ' if verb else ''}--help` lists what there is.")


def _as_elman_error(error: OSError) -> ElmanError:
    place = f"{error.filename}: " if error.filename else ""
    reason, remedy = REASONS.get(error.errno or 0, ("", "check the path, and that the place can be written."))
    return ElmanError(f"{place}{error.strerror or error}.", reason=reason, remedy=remedy)
