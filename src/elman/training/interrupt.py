"""Ctrl-C, SIGTERM and SIGHUP as requests: noticed where the state is exact, so that nothing is lost.

A scheduler ends a program by SIGTERM, a terminal that is closed by SIGHUP. The second signal quits at once.
"""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(Exception):
    """A signal has come, and here the run may stop."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: what a program does at Ctrl-C, with its own exit status (128 + number)."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.strsignal(number))


def terminate(number: int, frame: FrameType | None) -> None:
    """A handler that ends the program where it stands, tidily."""
    _leave_terminal(number)
    raise Terminated(number)


@contextmanager
def tidy_end() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise Terminated, where nobody else handles or ignores them (nohup)."""
    main = threading.current_thread() is threading.main_thread()
    taken = [n for n in SIGNALS[1:] if main and signal.getsignal(n) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, terminate)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


class Interrupts:
    """Which signal has come, if any. Only in the main thread, and only those that nobody else handles."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._told = False

    def heed(self, done: int = 0, of: int = 0) -> None:
        """Raise Interrupted, once, if a signal has come; may serve as a progress callback."""
        if self.number is not None and not self._told:
            self._told = True
            raise Interrupted

    def note(self, number: int) -> None:
        """The run is stopping because of this signal: nobody needs to be told any more."""
        self.number, self._told = self.number or number, True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within: the first signal is noted, the second raises KeyboardInterrupt at once.

        Afterwards a SIGTERM or SIGHUP that nobody handles ends the process, as it would have before.
        """
        main = threading.current_thread() is threading.main_thread()
        before = {number: signal.getsignal(number) for number in SIGNALS} if main else {}
        usual = (signal.default_int_handler, terminate)
        taken = {
            number: handler
            for number, handler in before.items()
            if handler in usual or (handler is signal.SIG_DFL and number != signal.SIGINT)
        }

        def heard(number: int, frame: FrameType | None) -> None:
            if self.number is not None:
                raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)
            _leave_terminal(number)
            self.number = number

        for number in taken:
            signal.signal(number, heard)
        try:
            yield
        finally:
            for number, handler in taken.items():
                signal.signal(number, handler)
            if self.number is not None and taken.get(self.number) is signal.SIG_DFL:
                os.kill(os.getpid(), self.number)


def _leave_terminal(number: int) -> None:
    """A terminal that has hung up refuses every line; what is still said goes nowhere."""
    if number != getattr(signal, "SIGHUP", None):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        if stat.S_ISCHR(os.fstat(descriptor).st_mode):
            os.dup2(nowhere, descriptor)
    os.close(nowhere)
