"""Properties of every kernel at shapes that Hypothesis chooses: what float64 gives, whatever the sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agreement import CELLS, LAYOUTS, Case, disagreement
from elman.kernels import native
from streaming_oracle import KINDS, STREAM_CELLS, Streaming
from test_fused_output import actual, case, worst
from tolerance import error, tolerance

pytestmark = pytest.mark.skipif(not native.available(), reason="the compiled kernels are not installed")
SETS = native.instruction_sets() or ("none",)
INSTRUCTIONS, THREADS, SEEDS = st.sampled_from(SETS), st.integers(1, 3), st.integers(0, 1 << 30)
often = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def sizes(most: int) -> Any:
    return st.integers(1, most)


def run(instructions: str, threads: int, check: Any) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with native.instruction_set(instructions):
            check()
    finally:
        torch.set_num_threads(before)


@given(INSTRUCTIONS, THREADS, st.sampled_from(list(STREAM_CELLS)), st.sampled_from(KINDS), sizes(300),
       sizes(70), sizes(70), st.integers(1, 3), st.integers(1, 9), st.integers(1, 30))  # fmt: skip
@often
def test_streaming(
    instructions: str, threads: int, cell: str, kind: str, V: int, E: int, H: int, L: int, T: int, B: int
) -> None:
    def check() -> None:
        assert Streaming(cell, kind, V, E, H, L).far(T, B) <= 1

    run(instructions, threads, check)


@given(INSTRUCTIONS, THREADS, st.sampled_from(CELLS), st.sampled_from(LAYOUTS), st.integers(1, 3),
       st.booleans(), st.booleans(), st.booleans(), st.integers(1, 9), st.integers(1, 30), sizes(70),
       sizes(70))  # fmt: skip
@often
def test_recurrence(
    instructions: str, threads: int, cell: str, layout: str, layers: int, bias: bool, both: bool,
    initial: bool, T: int, B: int, D: int, H: int,
) -> None:  # fmt: skip
    def check() -> None:
        one = Case(cell, layout, layers, bias, both, initial, T=T, B=B, D=D, H=H)
        assert max(disagreement(one, "fused", torch.float32).values()) <= 1

    run(instructions, threads, check)


@given(INSTRUCTIONS, THREADS, sizes(500), sizes(70), sizes(500), st.booleans(), SEEDS)
@often
def test_output_layer(instructions: str, threads: int, N: int, H: int, V: int, bias: bool, seed: int) -> None:
    one = case(N, H, V, bias=bias, seed=seed)

    def check() -> None:
        assert worst(one, actual(one)) < 1

    run(instructions, threads, check)


@given(THREADS, sizes(200), sizes(40), sizes(200), SEEDS)
@often
def test_embedding_and_norm(threads: int, V: int, E: int, N: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens, doutput = torch.randint(V, (N,), generator=generator), torch.randn(N, E, generator=generator)

    def check() -> None:
        right = torch.zeros(V, E, dtype=torch.float64).index_add_(0, tokens, doutput.double())
        allowed = tolerance(torch.float32, N)
        assert error(native.embedding_gradient(doutput, tokens, V), right) <= allowed
        distinct, rows = native.distinct(tokens, V)
        assert torch.equal(distinct, tokens.unique())
        assert torch.equal(distinct[rows], tokens)
        squares = float(doutput.double().square().sum())
        assert abs(native.sum_of_squares([doutput]) - squares) <= allowed * squares

    run(SETS[0], threads, check)
