"""The process that computes for the page's server: python -m elman.explore.worker.

The server (work.py) writes one line of JSON with what to load, then one line for every question. We answer
each with one line of JSON, and where it has `bytes` that many bytes follow. When the input ends the server
has gone, and so have we, whatever is being computed; when a computation lasts too long the server kills us
and starts another. Not here: what is computed (answers.py).
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from elman.errors import ElmanError

Document = dict[str, Any]
Tell = Callable[[str, int, int], None]
"""Progress of the loading: what, done, of how many (0: unknown)."""
Load = Callable[[Document, Tell], tuple[Document, Callable[[Document], object]]]
"""The order → what the server should know (its facts), and the function from a question to its answer."""


def run(load: Load) -> None:
    """Load what the first line of standard input says, then answer line after line until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server hears Ctrl-C and ends us
    channel = _Channel()
    lines = channel.lines()
    try:
        facts, answer = load(json.loads(next(lines)), channel.working)
    except ElmanError as error:
        channel.send({"event": "error", "kind": type(error).__name__} | _told(error))
        return
    channel.send({"event": "ready", "facts": facts})
    for line in lines:
        try:
            body = json.dumps(answer(json.loads(line)), allow_nan=False, separators=(",", ":")).encode()
            status = 200
        except ElmanError as error:
            status, body = 400, json.dumps({"error": _told(error)}).encode()
        except Exception:
            logging.exception("elman explore: a question could not be answered")  # on stderr, to be reported
            status, body = 500, json.dumps({"error": _told(DEFECT)}).encode()
        channel.send({"event": "answer", "status": status, "bytes": len(body)}, body)


DEFECT = ElmanError(
    "the answer could not be computed.",
    reason="a defect of Elman's; the terminal shows where.",
    remedy="try another text or range, and report what the terminal shows.",
)


def _told(error: ElmanError) -> Document:
    return {"cause": error.cause, "reason": error.reason, "remedy": error.remedy}


class _Channel:
    """The two pipes. What libraries print goes to stderr, not between the answers."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def lines(self) -> Iterator[str]:
        while True:
            yield self._lines.get()

    def _listen(self) -> None:
        for line in sys.stdin:
            self._lines.put(line)
        os._exit(0)  # nobody is left to answer; a computation under way must not keep us

    def working(self, doing: str, done: int, total: int) -> None:
        self.send({"event": "working", "doing": doing, "done": done, "total": total})

    def send(self, head: Document, body: bytes = b"") -> None:
        try:
            self._out.write(json.dumps(head).encode() + b"\n" + body)
            self._out.flush()
        except BrokenPipeError:
            os._exit(0)


def main() -> None:
    import torch

    from elman.explore.answers import load

    # a step of one text is too little to share: beside a busy browser two threads wait for each other
    torch.set_num_threads(1)
    run(load)


if __name__ == "__main__":
    main()
