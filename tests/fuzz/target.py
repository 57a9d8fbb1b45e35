"""What a fuzzing target is, and what must hold whatever bytes it is given.

A target is a function of bytes. It may refuse them with an ElmanError and may do nothing else wrong: another
exception is a crash, so is a property that does not hold (AssertionError), so are memory and time beyond a
bound that depends on the length of the input alone. Not here: where inputs come from (hunt.py, corpus/).
"""

from __future__ import annotations

import atexit
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from elman.errors import ElmanError

SECONDS = 5.0
"""Processor time that one input may take: a hundred times what the slowest good one takes."""
ROOM, ROOM_PER_BYTE = 64 << 20, 1 << 10
"""Address space that one input may take, touched or not: for buffers of fixed size, and for each byte."""

STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class Target:
    """One format.

    run      raises ElmanError, or one of `answers`, for what it refuses
    seeds    valid inputs to begin with, besides those in corpus/
    marks    what the format's files are made of, so that it need not be guessed letter by letter
    largest  bytes of an input
    json     inputs are JSON after a first line or a length: mutate values, not bytes alone (mutation.py)
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    marks: tuple[bytes, ...] = ()
    largest: int = 4096
    answers: tuple[type[Exception], ...] = ()
    json: bool = False


TARGETS = {
    "arpa": "arpa",
    "text": "text",
    "tokenizers": "text",
    "corpus": "text",
    "vocabulary": "vocabulary",
    "bpe": "vocabulary",
    "tensors": "folders",
    "model": "folders",
    "checkpoint": "folders",
    "scores": "tables",
    "vectors": "tables",
    "head": "http",
    "question": "http",
    "connection": "http",
    "answers": "answers",
    "options": "options",
    "message": "channel",
    "cached": "kept",
    "compared": "kept",
}
"""The module of each target; the target is its attribute of that name in capitals."""


def find(name: str) -> Target:
    """A target by name."""
    target: Target = getattr(import_module(f"fuzz.{TARGETS[name]}"), name.upper())
    return target


@cache
def scratch() -> Path:
    """A folder of this process, in memory where the system has that; removed at its end."""
    shared = Path("/dev/shm")
    inherited = os.environ.get("ELMAN_FUZZ_SCRATCH")
    folder = Path(tempfile.mkdtemp(dir=inherited or (shared if shared.is_dir() else None)))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def check(target: Target, data: bytes) -> None:
    """Run one input; AssertionError or whatever else escapes is a crash."""
    began = time.thread_time()
    with _limited(ROOM + ROOM_PER_BYTE * len(data)):
        try:
            target.run(data)
        except (ElmanError, *target.answers):
            pass
    took = time.thread_time() - began
    assert took < SECONDS, f"{len(data)} bytes took {took:.1f} s of processor time"


@contextmanager
def _limited(room: int) -> Iterator[None]:
    """At most so much more address space: what is not touched counts too. On Linux only."""
    if not STATM.exists():
        yield
        return
    pages = int(STATM.read_bytes().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
