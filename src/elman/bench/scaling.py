"""How the ratio changes with H, B, T, V and threads: one of them at a time around the small LSTM.

The training step in float32, Elman against plain torch, proven equal at every point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from elman.bench.measure import Settings, Told, measure, nobody
from elman.bench.rows import ROWS, TORCH, Row

AXES: dict[str, tuple[int, ...]] = {
    "hidden": (64, 128, 200, 400, 650, 1024),
    "batch": (1, 5, 20, 64, 128),
    "steps": (5, 20, 35, 100, 200),
    "vocabulary": (100, 1_000, 10_000, 50_000),
}


def points(
    base: Row, axes: dict[str, tuple[int, ...]], threads: Sequence[int]
) -> Iterator[tuple[str, int, Row]]:
    """(axis, value, row), the threads last."""
    for axis, values in axes.items():
        for value in values:
            sizes: dict[str, Any] = {axis: value}
            yield axis, value, replace(base, name=f"{axis} {value:,}", goals=(), **sizes)
    for count in threads:
        yield "threads", count, replace(base, name=f"{count} threads", goals=())


def measure_scaling(
    settings: Settings,
    threads: Sequence[int],
    told: Told = nobody,
    base: Row = ROWS[0],
    axes: dict[str, tuple[int, ...]] | None = None,
) -> Iterator[dict[str, Any]]:
    """One point after the other: axis, value, seconds of both, GFLOP/s, the ratio."""
    for axis, value, row in points(base, AXES if axes is None else axes, threads):
        own = replace(
            settings, peers=(), bf16=False, threads=value if axis == "threads" else settings.threads
        )
        (found,) = measure([row], own, told)
        by_name = {one["name"]: one for one in found["contenders"]}
        (ratio,) = (one for one in found["ratios"] if one["peer"] == TORCH)
        ours = by_name["elman fp32"]
        yield {
            "axis": axis,
            "value": value,
            "sizes": found["sizes"],
            "threads": found["threads"],
            "elman_seconds": ours["seconds"]["median"],
            "torch_seconds": by_name[TORCH]["seconds"]["median"],
            "gflops": ours["gflops"],
            "fraction_of_peak": ours["fraction_of_peak"],
            "ratio": {key: ratio[key] for key in ("median", "low", "high", "rounds_disagree")},
        }
