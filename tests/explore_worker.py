"""A stand-in for what the explore server's process computes: the real loop, and texts that are commands.

Run as a program by the tests: it loads no model, so it is ready at once.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from elman.errors import ElmanError, OptionError
from elman.explore.worker import Document, Tell, run


def load(order: Document, tell: Tell) -> tuple[Document, Any]:
    tell("starting", 1, 2)
    if order.get("fails"):
        raise OptionError("no such model.", reason="it was never trained.", remedy="train it.")
    if order.get("dies"):
        os._exit(3)
    cards = [{"id": f"m{k}", "name": name} for k, name in enumerate(order["models"])]
    return {"models": cards, "reference": order.get("reference")}, answer


def answer(question: Document) -> object:
    command, _, rest = question["text"].partition(" ")
    if command == "spin":
        while True:
            pass
    elif command == "until":  # a file is there
        while not Path(rest).exists():
            time.sleep(0.01)
    elif command == "die":
        os._exit(3)
    elif command == "defect":
        raise ZeroDivisionError("a secret path: /etc/shadow")
    elif command == "nan":
        return float("nan")
    elif command == "mistake":
        raise ElmanError("not so.", remedy="so.")
    elif command == "print":
        print("what a library says")
        os.write(1, b"and what C code says\n")
    elif command == "large":
        return "x" * int(rest)
    return question


if __name__ == "__main__":
    run(load)
