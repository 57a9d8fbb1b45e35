"""Several models of a line-up at once, each in a process of its own with its share of the threads.

A small model uses one core well and two badly: its steps are too short to divide. Two models on a core
each finish in little more than the time of one. What a child process does is `worker.py`'s business; here
the processes are started, listened to and, whatever happens, ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from elman.channel import (
    FINISHED,
    LINE_BYTES,
    SILENCE,
    Done,
    Failed,
    Hello,
    Message,
    Misunderstood,
    Progress,
    Reading,
)
from elman.compare.events import Begun, Event, Finished, Interrupted, Settings, Working
from elman.compare.lineup import Spec
from elman.compare.outcome import Outcome, load_outcome
from elman.errors import ElmanError
from elman.text.corpus import Corpus
from elman.training.interrupt import Terminated

SECONDS_TO_SAVE = 60
"""How long a child may take after Ctrl-C before it is killed."""
COMMAND = (sys.executable, "-P", "-m", "elman.compare.worker")
PAUSE = 0.05
"""Seconds between two looks at what the children tell."""
CHUNK, CHUNKS = 1 << 16, 64
MOST_JOBS = 4
"""Each job holds a model, its optimizer and torch: about half a gigabyte."""


def default_jobs(device: str) -> int:
    """How many models at once: one per thread that torch would use, at most 4; one on a GPU."""
    on_cpu = device == "cpu" or (
        device == "auto" and not (torch.cuda.is_available() or torch.backends.mps.is_available())
    )
    return min(MOST_JOBS, torch.get_num_threads()) if on_cpu and os.name == "posix" else 1


def train_together(
    corpus: Corpus,
    specs: Sequence[tuple[int, Spec]],
    settings: Settings,
    of: int,
    prints: Mapping[str, str],
) -> Iterator[Event]:
    """Train and score (position, spec) side by side; `prints` names their folders.

    Ends with Interrupted after Ctrl-C; then every model in training has saved its state in settings.save.
    Raises the ElmanError that one of them met.
    """
    with ExitStack() as stack:
        save = settings.save or Path(stack.enter_context(TemporaryDirectory(prefix="elman-compare-")))
        team = stack.enter_context(_Team(min(settings.jobs, len(specs))))

        def outcome(spec: Spec) -> Outcome | None:
            folder = save / f"{spec.name}-{prints[spec.name]}"
            found = load_outcome(spec, folder, corpus.valid.events, corpus.test.events)
            return found and replace(found, held=found.model)  # the folder may go before the model does

        places: dict[str, tuple[int, Spec]] = {}
        for place, spec in specs:
            old = outcome(spec)
            if old is not None:
                yield Finished(old, reused=True)
                continue
            places[spec.name] = place, spec
            order: dict[str, Any] = {"spec": asdict(spec), "source": settings.source, "digest": corpus.digest}
            order |= {
                "text": asdict(settings.text),
                "seed": settings.seed,
                "device": settings.device,
                "save": str(save),
            }
            team.waiting[spec.name] = order | {"threads": max(1, torch.get_num_threads() // team.jobs)}
        try:
            for name, told in team.events():
                place, spec = places[name]
                if isinstance(told, Hello):
                    yield Begun(spec, place, of)
                elif isinstance(told, Progress):
                    yield Working(spec, told.doing, told.done, told.total, told.rate)
                elif told == FINISHED:
                    new = outcome(spec)
                    assert new is not None
                    yield Finished(new)
                else:
                    yield Interrupted(spec)
                    return
        except KeyboardInterrupt as stop:
            if isinstance(stop, Terminated):
                raise  # the team is stopped on the way: each saves its state
            _, spec = places[next(iter(team.running), next(iter(places)))]
            team.stop()
            yield Interrupted(spec)


class _Child:
    """One process: what it has told and not yet been heard, and its end."""

    def __init__(self, name: str, order: dict[str, Any]) -> None:
        # a session of its own: Ctrl-C in the terminal reaches us alone, and we pass it on once
        self.name, self.process = (
            name,
            subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": str(order["threads"])},
            ),
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out = self.process.stdin, self.process.stdout
        os.set_blocking(self._out.fileno(), False)
        self._reading, self._rest, self._heard = Reading(), b"", time.monotonic()
        with suppress(BrokenPipeError):  # it has ended already, which is noticed
            self._in.write(json.dumps(order).encode() + b"\n")

    def told(self) -> list[Message]:
        """What has come since the last call; raises the ElmanError that nothing more will come."""
        gone = self.process.poll() is not None  # first: what it told before it ended is still there
        gone = not self._drain() or gone
        *lines, self._rest = self._rest.split(b"\n")
        try:
            if max(map(len, (*lines, self._rest))) > LINE_BYTES:
                raise Misunderstood
            found = [message for line in lines if (message := self._reading.message(line + b"\n"))]
        except Misunderstood:
            raise self._given_up("told what is no message", "a defect of Elman's.") from None
        if found:
            self._heard = time.monotonic()
        elif gone:
            raise self._given_up("ended without a word", self._why())
        elif time.monotonic() - self._heard > SILENCE:
            silent = f"has given no sign of life for {SILENCE:.0f} seconds"
            raise self._given_up(silent, "it was stopped, or hangs.")
        return found

    def end(self, seconds: float) -> None:
        """Wait for its end, and kill it when that does not come; it and all that it has started."""
        limit = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < limit:
            self._drain()  # or it waits for us to listen
            self._rest = b""
            time.sleep(0.02)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._in.close()
        self._out.close()

    def _drain(self) -> bool:
        """Take what the pipe holds, some of it where it is very much; False when the pipe has ended."""
        try:
            for _ in range(CHUNKS):
                data = os.read(self._out.fileno(), CHUNK)
                if not data:
                    return False
                self._rest += data
        except BlockingIOError:
            return True
        return True

    def _given_up(self, what: str, reason: str) -> ElmanError:
        self.end(0)
        remedy = "run the same command again, with --jobs 1 if memory is short."
        return ElmanError(f"the process that trained {self.name} {what}.", reason=reason, remedy=remedy)

    def _why(self) -> str:
        code = self.process.poll()
        if code is not None and code < 0:
            return f"it was killed ({signal.strsignal(-code)}), perhaps for want of memory."
        return "see its message above."


class _Team:
    """At most `jobs` processes at once, in the order of `waiting`; leaving it leaves nothing running."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.waiting: dict[str, dict[str, Any]] = {}  # name of the model → what its process is told
        self.running: dict[str, _Child] = {}

    def __enter__(self) -> _Team:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def events(self) -> Iterator[tuple[str, Message]]:
        """(name, what its process tells) until all have ended: Hello once, Progress, Done.

        Raises the ElmanError that one met, or that one is given up.
        """
        while self.waiting or self.running:
            while self.waiting and len(self.running) < self.jobs:
                name = next(iter(self.waiting))
                self.running[name] = _Child(name, self.waiting.pop(name))
                yield name, Hello()
            time.sleep(PAUSE)
            for name, child in list(self.running.items()):
                for message in child.told():
                    if isinstance(message, Done | Failed):
                        self.running.pop(name).end(SECONDS_TO_SAVE)
                    if isinstance(message, Failed):
                        raise message.again()
                    if not isinstance(message, Hello):
                        yield name, message
                    if isinstance(message, Done):
                        break

    def stop(self) -> None:
        """Ctrl-C for every child, once; each saves its state and ends."""
        self.waiting = {}
        for child in self.running.values():
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGINT)
        limit = time.monotonic() + SECONDS_TO_SAVE
        while self.running:
            _, child = self.running.popitem()
            child.end(limit - time.monotonic())
