"""One family of exceptions for what a user can mend: cause, likely reason, what to type next.

Anything else that escapes is a defect of Elman's.
"""

from __future__ import annotations

import errno


class ElmanError(Exception):
    """A mistake in an input or an option, told so that it can be mended.

    cause   what is wrong, with the value and the place (file, line, byte)
    reason  the likely reason, when it is not plain from the cause
    remedy  what to type or change next
    """

    def __init__(self, cause: str, *, reason: str = "", remedy: str = "") -> None:
        self.cause, self.reason, self.remedy = cause, reason, remedy
        super().__init__(cause)

    def __str__(self) -> str:
        lines = [self.cause]
        if self.reason:
            lines.append(f"Likely reason: {self.reason}")
        if self.remedy:
            lines.append(f"Remedy: {self.remedy}")
        return "\n".join(lines)


class TextError(ElmanError):
    """A text cannot be read or is not what a language model can be trained on or scored.

    line  the number of the first line that is wrong, from 1, where it is known
    """

    line: int | None = None

    def at(self, name: str, line: int) -> TextError:
        """The same with its place."""
        placed = TextError(f"{name}, line {line}: {self.cause}", reason=self.reason, remedy=self.remedy)
        placed.line = line
        return placed


class FormatError(ElmanError):
    """A model file (ARPA, checkpoint, vocabulary, word vectors) is damaged or not of its format."""


class OptionError(ElmanError):
    """Options that are out of range or contradict one another."""


class ProtocolError(ElmanError):
    """Two numbers were counted in different ways and cannot be added or compared."""


class DivergenceError(ElmanError):
    """Training left the finite numbers; the last good checkpoint is kept."""


class Note(RuntimeWarning):
    """Something had to be done otherwise than asked, and went well; the command line prints it as a note."""


_NO_MEMORY = (
    *("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory", "bad_alloc"),
    *("failed to map segment", "can't start new thread"),
)


def of_memory(error: BaseException) -> bool:
    """Whether it says that there is no memory: torch, C++ and the system each have their own words for it."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    told = str(error).lower()
    return isinstance(error, RuntimeError | ImportError | OSError) and any(w in told for w in _NO_MEMORY)


def no_memory() -> ElmanError:
    """What is told then."""
    return ElmanError(
        "there is not enough memory.",
        reason="the machine has too little, or a limit is set (ulimit -v); what was saved before is kept.",
        remedy="a smaller --batch-size, --nhid or --vocabulary-size, or one process at a time (--jobs 1).",
    )
