"""Rows → one document of plain values: what was proven, what was measured, on what machine.

Seconds are of one run of a row. A ratio is a peer's seconds over Elman's within a round; of the rounds the
median. Not here: the table (cli/bench.py).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from elman.bench.contenders import LineUp, line_up
from elman.bench.peers import PEERS, Peer, installed, versions
from elman.bench.rounds import Rounds, interleave, spread
from elman.bench.rows import Goal, Row
from elman.errors import OptionError
from elman.kernels import native

FORMAT = 1
MOST_ROUNDS, MOST_THREADS = 10_000, 1024


@dataclass(frozen=True)
class Settings:
    """rounds that count; threads of every contender, None for as many as torch takes; who else takes part;
    whether training is also timed in bf16."""

    rounds: int = 9
    threads: int | None = None
    peers: tuple[Peer, ...] = PEERS
    bf16: bool = True

    def __post_init__(self) -> None:
        for flag, value, most in (
            ("--rounds", self.rounds, MOST_ROUNDS),
            ("--threads", self.threads, MOST_THREADS),
        ):
            if value is not None and not 1 <= value <= most:
                raise OptionError(f"{flag} {value:,} is out of range.", remedy=f"give 1 to {most:,}.")


Told = Callable[[str, int, int], None]
"""(what is going on, done, of) as a row proceeds."""


def nobody(what: str, done: int, total: int) -> None:
    """A `Told` that is silent."""


def measure(rows: Sequence[Row], settings: Settings, told: Told = nobody) -> Iterator[dict[str, Any]]:
    """One document a row, as it is finished. UnequalError before any timing of a row that is not equal."""
    with thread_count(settings.threads) as threads:
        for row in rows:
            told(f"{row.name}: proving equality", 0, settings.rounds)
            line = line_up(row, settings.peers, threads, settings.bf16)

            def heard(done: int, name: str = row.name) -> None:
                told(f"{name}: timing", done, settings.rounds)

            heard(0)
            rounds = interleave(line.contenders, rounds=settings.rounds, threads=threads, told=heard)
            yield row_document(row, line, rounds, threads)


def document(rows: list[dict[str, Any]], settings: Settings, scaling: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole record: what `--json` prints and `--save` writes."""
    with thread_count(settings.threads) as threads:
        pass
    missing = [peer for peer in settings.peers if not installed(peer)]
    return {
        "format": FORMAT,
        "machine": machine(),
        "versions": versions(settings.peers),
        "instruction_set": native.require().instruction_set() if native.available() else None,
        "threads": threads,
        "rounds": settings.rounds,
        "absent": [{"peer": peer.title, "install": peer.install} for peer in missing],
        "rows": rows,
        "scaling": scaling,
    }


def row_document(row: Row, line: LineUp, rounds: Rounds, threads: int) -> dict[str, Any]:
    """What one row proved and measured."""
    tokens = row.tokens if line.tokens is None else line.tokens
    contenders = []
    for name, seconds in rounds.seconds.items():
        taken = spread(seconds)
        fraction = rounds.fraction_of_peak(name, row.operations, threads) if row.operations else None
        contenders.append(
            {
                "name": name,
                "seconds": taken.as_json() | {"rounds": seconds},
                "tokens_per_second": tokens / taken.median,
                "gflops": row.operations / taken.median / 1e9 if row.operations else None,
                "fraction_of_peak": None if fraction is None else fraction.as_json(),
            }
        )
    sizes = ("cell", "layers", "hidden", "vocabulary", "batch", "steps")
    return {
        "name": row.name,
        "title": row.title,
        "work": row.work,
        "sizes": {size: getattr(row, size) for size in sizes},
        "threads": threads,
        "tokens": tokens,
        "operations": row.operations,
        "equality": line.proofs,
        "peak_gflops": {str(count): spread(values).as_json() for count, values in rounds.peaks.items()},
        "contenders": contenders,
        "ratios": _ratios(row, rounds),
        "notes": line.notes,
    }


def _ratios(row: Row, rounds: Rounds) -> list[dict[str, Any]]:
    """Those with a goal first, then each peer in the same precision."""
    names = list(rounds.seconds)
    ours = [name for name in names if name.startswith("elman")]
    peers = [name for name in names if not name.startswith("elman")]
    goals = {(goal.ours, goal.peer): goal for goal in row.goals if goal.ours in ours and goal.peer in peers}
    pairs = [*goals]
    pairs += [
        (own, peer) for own in ours for peer in peers if _alike(row, own, peer) and (own, peer) not in goals
    ]
    found = []
    for own, peer in pairs:
        ratio, goal = rounds.ratio(own, peer), goals.get((own, peer))
        entry = {"ours": own, "peer": peer} | ratio.as_json() | {"floor": None, "aim": None, "reached": None}
        if goal is not None:
            entry |= {"floor": goal.floor, "aim": goal.aim, "reached": reached(ratio.median, goal)}
        found.append(entry)
    return found


def _alike(row: Row, ours: str, peer: str) -> bool:
    """A training step is held against steps of its own precision; a reader against every reader."""
    return row.work != "train" or ("bf16" in ours) == ("bf16" in peer)


def reached(ratio: float, goal: Goal) -> str:
    """aim, floor or below."""
    if goal.aim is not None and ratio >= goal.aim:
        return "aim"
    return "floor" if ratio >= goal.floor else "below"


@contextmanager
def thread_count(threads: int | None) -> Iterator[int]:
    """torch's threads, which Elman's kernels take over, set for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield threads or before
    finally:
        torch.set_num_threads(before)


def machine() -> dict[str, object]:
    """What the figures depend on, as far as a reader can use it."""
    place = Path("/proc/cpuinfo")
    lines = place.read_text("utf-8").splitlines() if place.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "system": platform.system(),
        "python": platform.python_version(),
    }
