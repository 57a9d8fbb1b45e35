"""The fuzzing targets on their seeds and their kept corpus: valid inputs, and all that once failed."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("litestar")
from elman.errors import ElmanError
from fuzz.mutation import mutate
from fuzz.target import ROOM, STATM, TARGETS, Target, check, find

FUZZ = Path(__file__).parent / "fuzz"
CORPUS = FUZZ / "corpus"


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """An input that hangs is a failure, not a test that never ends."""

    def late(*_: object) -> None:
        raise AssertionError("no end after a minute")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_valid(name: str) -> None:
    target = find(name)
    for seed in target.seeds():
        target.run(seed)
        assert len(seed) <= target.largest


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_corpus(name: str) -> None:
    target = find(name)
    target.run(target.seeds()[0])  # what loads late is no memory of the first input's
    for path in sorted((CORPUS / name).iterdir()):
        try:
            check(target, path.read_bytes())
        except Exception as error:
            raise AssertionError(f"PYTHONPATH=tests python -m fuzz --replay {name} {path}") from error


def test_the_corpus_is_small() -> None:
    paths = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in paths} == set(TARGETS)
    assert sum(path.stat().st_size for path in paths) < 1 << 20


def require_crash(run: Callable[[bytes], None], kind: type[Exception], message: str | None = None) -> None:
    with pytest.raises(kind, match=message):
        check(Target(run, list), b"")


def test_what_is_an_answer_and_what_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that is wrong in each of these ways is caught."""

    def refuses(_: bytes) -> None:
        raise ElmanError("no.")

    def escapes(_: bytes) -> None:
        raise ValueError("escaped")

    def reserves(_: bytes) -> None:
        np.zeros(2 * ROOM, dtype=np.uint8)  # never touched

    def ponders(_: bytes) -> None:
        sum(range(3_000_000))

    check(Target(refuses, list), b"")
    require_crash(escapes, ValueError, "escaped")
    if STATM.exists():
        require_crash(reserves, MemoryError)
    np.zeros(2 * ROOM, dtype=np.uint8)  # the limit is lifted afterwards
    monkeypatch.setattr("fuzz.target.SECONDS", 0.01)
    require_crash(ponders, AssertionError, "processor time")


def test_mutation_keeps_the_form() -> None:
    """Half of the mutants of each form are JSON still, and differ."""
    document = {"a": [1, "b", {"c": None}], "d": 0.5}
    body = json.dumps(document).encode()
    sized = len(body).to_bytes(8, "little") + body + b"\x01\x02"

    def reverse(data: bytes, _: int) -> bytes:
        return data[::-1]

    for whole, begin, end in ((body, 0, None), (b"kind/name\n" + body, 10, None), (sized, 8, -2)):
        mutants = [mutate(whole, 4096, seed, reverse) for seed in range(200)]
        well_formed = 0
        for mutant in mutants:
            try:
                well_formed += json.loads(mutant[begin:end]) != document
            except ValueError:
                continue
        assert well_formed > 80
        assert len(set(mutants)) > 60
        assert all(
            mutant.startswith(whole[:8]) or mutant == whole[::-1] or begin in (0, 8) for mutant in mutants
        )
    assert all(len(mutate(body, len(body), random.randrange(9**9), reverse)) <= len(body) for _ in range(50))
