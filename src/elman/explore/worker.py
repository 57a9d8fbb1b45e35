"""The process that computes for the page's server: python -m elman.explore.worker.

The server (work.py) gives an order, what to load, and then a line for every question (channel.py). When it
has gone, so have we, whatever is being computed; when a computation lasts too long the server kills us and
starts another. Not here: what is computed (answers.py).
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import threading
from collections.abc import Callable
from typing import Any

from elman.channel import Answered, Channel, Failed, Progress, Ready
from elman.errors import ElmanError

Document = dict[str, Any]
Tell = Callable[[str, int, int], None]
"""Progress of the loading: what, done, of how many (0: unknown)."""
Load = Callable[[Document, Tell], tuple[Document, Callable[[Document], object]]]
"""The order → what the server should know (its facts), and the function from a question to its answer."""


def run(load: Load) -> None:
    """Load what the first line says, then answer line after line until the server has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server hears Ctrl-C and ends us
    channel = Channel(lost=lambda: os._exit(0))  # a computation under way must not keep us
    enough = channel.beat()

    def working(doing: str, done: int, total: int) -> None:
        channel.send(Progress(doing=doing, done=done, total=total))

    order = channel.order()
    questions: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(channel, questions), daemon=True).start()
    try:
        facts, answer = load(order, working)
    except ElmanError as error:
        channel.send(Failed.of(error))
        return
    enough.set()  # from now on every answer has a time limit
    channel.send(Ready(facts=facts))
    while True:
        try:
            body = json.dumps(answer(json.loads(questions.get())), allow_nan=False, separators=(",", ":"))
            status = 200
        except ElmanError as error:
            status, body = 400, json.dumps({"error": _told(error)})
        except Exception:
            logging.exception("elman explore: a question could not be answered")  # on stderr, to be reported
            status, body = 500, json.dumps({"error": _told(DEFECT)})
        data = body.encode()
        channel.send(Answered(status=status, bytes=len(data)), data)


def _listen(channel: Channel, questions: queue.SimpleQueue[bytes]) -> None:
    for line in channel.lines():
        questions.put(line)


DEFECT = ElmanError(
    "the answer could not be computed.",
    reason="a defect of Elman's; the terminal shows where.",
    remedy="try another text or range, and report what the terminal shows.",
)


def _told(error: ElmanError) -> Document:
    return {"cause": error.cause, "reason": error.reason, "remedy": error.remedy}


def main() -> None:
    import torch

    from elman.explore.answers import load

    # a step of one text is too little to share: beside a busy browser two threads wait for each other
    torch.set_num_threads(1)
    run(load)


if __name__ == "__main__":
    main()
