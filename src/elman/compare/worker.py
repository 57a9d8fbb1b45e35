"""One model of a line-up, trained, chosen and scored in a process of its own: python -m elman.compare.worker.

The parent (side_by_side.py) gives one order; we tell what happens (channel.py), and leave the finished model
in the folder that was named. When the parent has gone we stop as at Ctrl-C: with the state saved.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from elman.channel import FINISHED, INTERRUPTED, Channel, Failed, Progress
from elman.errors import ElmanError, TextError, no_memory, of_memory
from elman.training.interrupt import SIGNALS

SECONDS_BETWEEN_REPORTS = 0.2
SECONDS_TO_SAVE = 60


def main() -> None:
    """Do what the first line says."""
    for number in SIGNALS:  # a shell's background jobs ignore SIGINT; a scheduler sends SIGTERM to all
        signal.signal(number, signal.default_int_handler)
    channel = Channel(lost=_stop_alone)
    order = channel.order()
    threading.Thread(target=lambda: list(channel.lines()), daemon=True).start()
    channel.beat()
    try:
        _work(channel, order)
    except ElmanError as error:
        channel.send(Failed.of(error))
    except (MemoryError, OSError, RuntimeError) as error:
        if not of_memory(error):
            raise
        channel.send(Failed.of(no_memory()))
    except KeyboardInterrupt:
        channel.send(INTERRUPTED)
    finally:
        for number in SIGNALS:  # all is saved and told: a second signal has nothing to stop
            signal.signal(number, signal.SIG_IGN)


def _work(channel: Channel, order: dict[str, Any]) -> None:
    import torch

    from elman.compare import contest
    from elman.compare.events import Finished, Interrupted, Settings, Working
    from elman.compare.lineup import Spec
    from elman.text.corpus import TextSettings, load_corpus

    torch.set_num_threads(order["threads"])
    spec = Spec(**order["spec"] | {"parts": ()})
    last = 0.0
    corpus = load_corpus(order["source"], TextSettings(**order["text"]))
    if corpus.digest != order["digest"]:
        raise TextError(f"{order['source']} has changed meanwhile.", remedy="run the comparison again.")
    settings = Settings(seed=order["seed"], save=Path(order["save"]), device=order["device"])
    for event in contest.run(corpus, [spec], settings):
        if isinstance(event, Working):
            now = time.monotonic()
            if now - last > SECONDS_BETWEEN_REPORTS:
                last = now
                channel.send(Progress(doing=event.doing, done=event.done, total=event.total, rate=event.rate))
        elif isinstance(event, Finished):
            channel.send(FINISHED)
        elif isinstance(event, Interrupted):
            channel.send(INTERRUPTED)


def _stop_alone() -> None:
    """The parent has gone: stop as at Ctrl-C, and should that not come to an end, at once."""
    last = threading.Timer(SECONDS_TO_SAVE, os._exit, (1,))
    last.daemon = True
    last.start()
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
