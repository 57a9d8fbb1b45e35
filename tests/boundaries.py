"""Every size at which the code takes another path, and the sizes to test: at it, one below and one above.

The kernels tell their own constants, for each instruction set (native/table.cpp), so this table cannot go
stale: `AXES` says of each what it bounds, and a test that none is missing there or in native/table.cpp. From
axes with their sizes `cases` makes one case for every size of every axis, the others drawn among theirs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from elman.kernels import native

AXES: dict[str, tuple[str, ...]] = {
    "LANES": ("width",),
    "COLUMNS": (),  # of vectors: PANEL
    "PANEL": ("width", "rows"),
    "ROWS": ("rows",),
    "ALIASED": ("depth",),
    "FEW_LEFT": ("rows",),
    "DEALT": ("width",),
    "STEP_ROWS": ("rows",),
    "STEP_WORDS": (),  # `test_weights_too_large_to_read_at_every_step`
    "CHUNK_FLOATS": (),  # `test_chunks_of_a_long_sequence`
    "CHUNK_ROWS": ("places",),
    "RUN": ("places",),
    "TILES": (),  # of ROWS: `units`
    "ROW_BLOCK": ("places",),
    "SUMMED": ("vectors",),
    "THREAD_WORK": (),  # `test_a_second_thread_joins`
    "PLACES_AHEAD": ("repeats",),
    "GRAIN": ("words",),
    "CHUNK<Fp32>": ("words",),
    "CHUNK<Bf16>": ("words",),
    "BLOCK_ROWS": ("output rows",),
    "FEW_CHUNKS": (),  # of CHUNK: `words`
    "STREAM_ROWS": ("rows",),
    "MANY": ("rows",),
    "DEEP": ("depth",),
    "WINDOW_ROWS": ("stream rows",),
    "FEW_INPUTS": ("rows",),
    "DRAW_BLOCK": ("words",),
    "CANDIDATES": ("words",),
    "NORM_BLOCK": ("floats",),
    "NORM_SUMS": ("floats",),
    "IDS_A_BLOCK": ("ids",),
}
"""Constant → the axes that it bounds."""


def around(*sizes: int) -> list[int]:
    """1, and each size with its neighbours, rising."""
    return sorted({1, *(size + d for size in sizes for d in (-1, 0, 1) if size + d >= 1)})


def axis(name: str, instruction_set: str) -> list[int]:
    """The sizes to test along an axis."""
    b: Mapping[str, int] = native.require().boundaries(instruction_set)
    bounds = [b[constant] for constant, axes in AXES.items() if name in axes]
    several = {  # what is made of more than one constant
        "width": [2 * b["PANEL"], 4 * b["LANES"], b["LANES"] * b["SUMMED"] // 4],
        "depth": [b["LANES"], 2 * b["DEEP"]],
        "units": [b["TILES"] * b["ROWS"]],
        "words": [4 * b["LANES"], b["FEW_CHUNKS"] * b["CHUNK<Fp32>"], b["FEW_CHUNKS"] * b["CHUNK<Bf16>"]],
        "output rows": [b["PANEL"], 2 * b["BLOCK_ROWS"]],
        "floats": [2 * b["NORM_BLOCK"]],
        "ids": [2 * b["IDS_A_BLOCK"]],
    }
    return around(*bounds, *several.get(name, []))


def cases(axes: Mapping[str, Sequence[int]], seed: int = 0) -> Iterator[dict[str, int]]:
    """For each size of each axis one case, the others drawn among the smaller half of theirs."""
    draw = random.Random(seed)
    for name, sizes in axes.items():
        for size in sizes:
            yield {other: draw.choice(s[: len(s) // 2 + 1]) for other, s in axes.items()} | {name: size}
