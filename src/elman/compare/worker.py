"""One model of a line-up, trained, chosen and scored in a process of its own: python -m elman.compare.worker.

The parent (side_by_side.py) writes one line of JSON to our standard input and keeps it open; we answer with
one line of JSON for everything that happens, and leave the finished model in the folder that was named.
When the input ends the parent has gone, and we stop as at Ctrl-C: with the state saved.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

from elman.compare import contest
from elman.compare.events import Finished, Interrupted, Settings, Working
from elman.compare.lineup import Spec
from elman.errors import ElmanError, TextError
from elman.text.corpus import TextSettings, load_corpus

SECONDS_BETWEEN_REPORTS = 0.2


def main() -> None:
    """Do what the first line of standard input says."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_stop_when_alone, daemon=True).start()
    torch.set_num_threads(order["threads"])
    spec = Spec(**order["spec"] | {"parts": ()})
    last = 0.0
    try:
        corpus = load_corpus(order["source"], TextSettings(**order["text"]))
        if corpus.digest != order["digest"]:
            raise TextError(f"{order['source']} has changed meanwhile.", remedy="run the comparison again.")
        settings = Settings(seed=order["seed"], save=Path(order["save"]), device=order["device"])
        for event in contest.run(corpus, [spec], settings):
            if isinstance(event, Working):
                now = time.monotonic()
                if now - last > SECONDS_BETWEEN_REPORTS:
                    last = now
                    what = {"doing": event.doing, "done": event.done, "total": event.total}
                    _tell("working", **what, rate=event.rate)
            elif isinstance(event, Finished):
                _tell("finished")
            elif isinstance(event, Interrupted):
                _tell("interrupted")
    except ElmanError as error:
        known = {"cause": error.cause, "reason": error.reason, "remedy": error.remedy}
        _tell("error", kind=type(error).__name__, **known)
    except KeyboardInterrupt:
        _tell("interrupted")


def _tell(event: str, **facts: Any) -> None:
    try:
        print(json.dumps({"event": event} | facts), flush=True)
    except BrokenPipeError:  # nobody listens any more; the end of standard input says so too
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # or the interpreter's own flush fails again


def _stop_when_alone() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
