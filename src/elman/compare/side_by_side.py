"""Several models of a line-up at once, each in a process of its own with its share of the threads.

A small model uses one core well and two badly: its steps are too short to divide. Two models on a core
each finish in little more than the time of one. What a child process does is `worker.py`'s business; here
the processes are started, listened to and, whatever happens, ended.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import torch

from elman import errors
from elman.compare.events import Begun, Event, Finished, Interrupted, Settings, Working
from elman.compare.lineup import Spec
from elman.compare.outcome import Outcome, load_outcome
from elman.errors import ElmanError
from elman.text.corpus import Corpus

SECONDS_TO_SAVE = 60
"""How long a child may take after Ctrl-C before it is killed."""
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
                if told["event"] == "begun":
                    yield Begun(spec, place, of)
                elif told["event"] == "working":
                    yield Working(spec, told["doing"], told["done"], told["total"], told["rate"])
                elif told["event"] == "finished":
                    new = outcome(spec)
                    assert new is not None
                    yield Finished(new)
                else:
                    yield Interrupted(spec)
                    return
        except KeyboardInterrupt:
            _, spec = places[next(iter(team.running), next(iter(places)))]
            team.stop()
            yield Interrupted(spec)


@dataclass
class _Child:
    process: subprocess.Popen[str]
    listener: threading.Thread


class _Team:
    """At most `jobs` processes at once, in the order of `waiting`; leaving it leaves nothing running."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.waiting: dict[str, dict[str, Any]] = {}  # name of the model → what its process is told
        self.running: dict[str, _Child] = {}
        self._told: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()

    def __enter__(self) -> _Team:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, what its process tells) until all have ended; raises the ElmanError that one met.

        The `event` is begun, working, finished or interrupted.
        """
        while self.waiting or self.running:
            while self.waiting and len(self.running) < self.jobs:
                name = next(iter(self.waiting))
                self._start(name, self.waiting.pop(name))
                yield name, {"event": "begun"}
            try:
                name, told = self._told.get(timeout=0.2)  # a wait without end would not hear Ctrl-C
            except queue.Empty:
                continue
            if told["event"] != "working":
                self._end(name)
            if told["event"] == "error":
                kind = getattr(errors, told["kind"], ElmanError)
                raise kind(told["cause"], reason=told["reason"], remedy=told["remedy"])
            yield name, told

    def stop(self) -> None:
        """Ctrl-C for every child, once; each saves its state and ends."""
        self.waiting = {}
        for child in self.running.values():
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGINT)
        for name in list(self.running):
            self._end(name)

    def _start(self, name: str, order: dict[str, Any]) -> None:
        # a session of its own: Ctrl-C in the terminal reaches us alone, and we pass it on once
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "elman.compare.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": str(order["threads"])},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        listener = threading.Thread(target=self._listen, args=(name, process.stdout), daemon=True)
        self.running[name] = _Child(process, listener)
        listener.start()
        try:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return  # it has ended already; the listener tells

    def _listen(self, name: str, answers: IO[str]) -> None:
        ended = False
        for line in answers:
            told = json.loads(line)
            ended = told["event"] != "working"
            self._told.put((name, told))
        if not ended:
            cause = f"the process that trained {name} ended without a word."
            reason = "it was killed, perhaps for want of memory; or see its message above."
            remedy = "run the same command again, with --jobs 1 if memory is short."
            told = {"event": "error", "kind": "ElmanError", "cause": cause, "reason": reason}
            self._told.put((name, told | {"remedy": remedy}))

    def _end(self, name: str) -> None:
        child = self.running.pop(name)
        try:
            child.process.wait(SECONDS_TO_SAVE)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
        finally:
            child.listener.join()
            assert child.process.stdin is not None
            assert child.process.stdout is not None
            child.process.stdout.close()
            with suppress(BrokenPipeError):  # what it never read cannot be delivered any more
                child.process.stdin.close()
