"""Ctrl-C as a request: noticed where the state is exact, so that nothing is lost. The second one quits."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """Ctrl-C was pressed, and here the run may stop."""


class Interrupts:
    """Whether Ctrl-C was pressed. Only in the main thread, and only where nobody else handles it."""

    def __init__(self) -> None:
        self._asked = self._told = False

    def heed(self, done: int = 0, of: int = 0) -> None:
        """Raise Interrupted, once, if Ctrl-C was pressed; may serve as a progress callback."""
        if self._asked and not self._told:
            self._told = True
            raise Interrupted

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within: the first Ctrl-C is noted, the second raises KeyboardInterrupt at once."""
        main = threading.current_thread() is threading.main_thread()
        if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            if self._asked:
                raise KeyboardInterrupt
            self._asked = True

        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
