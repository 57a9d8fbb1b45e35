"""The fused recurrence equals the cells in float64: output, state, every gradient; every instruction set."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from agreement import CELLS, LAYOUTS, Case, disagreement, fused_layer, product, torchs
from elman import kernels
from elman.cells import Parameters
from elman.kernels import Pass, native
from tolerance import error, tolerance

pytestmark = pytest.mark.skipif(not native.available(), reason="the compiled kernels are not installed")
SETS = native.instruction_sets()
GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}
EDGES = (1, 3, 7, 8, 9, 15, 16, 17, 25, 31, 32, 33, 48, 65)
"""Sizes around the 4, 8 and 16 lanes of a vector and the two vectors of a panel."""
Results = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """One direction of one layer."""

    cell: str
    sizes: tuple[int, ...]
    reverse: bool
    bias: bool
    D: int
    H: int
    bf16: bool = False

    @property
    def states(self) -> int:
        return 2 if self.cell == "lstm" else 1

    def tolerance(self) -> float:
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        return tolerance(
            dtype, 2 * len(self.sizes), max(self.D + self.H, GATES[self.cell] * self.H, sum(self.sizes))
        )


def drawn(seed: int) -> Shape:
    draw = random.Random(seed)
    T, B = draw.choice((1, 2, 3, 5, 8)), draw.choice((1, 2, 3, 4, 5, 13, 14, 20, 27))
    sizes = (
        sorted((draw.randint(1, B) for _ in range(T - 1)), reverse=True)
        if draw.random() < 0.5
        else [B] * (T - 1)
    )
    return Shape(
        draw.choice(CELLS), (B, *sizes), draw.random() < 0.4, draw.random() < 0.7, draw.choice(EDGES),
        draw.choice(EDGES), draw.random() < 0.3,
    )  # fmt: skip


def inputs(shape: Shape, seed: int) -> tuple[Tensor, list[Tensor], list[Tensor | None], list[Tensor]]:
    """x, state, parameters, gradients of output and last state; float32, sums of order one."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.randn(*size, generator=generator)  # noqa: E731
    rows, N, B, H = GATES[shape.cell] * shape.H, sum(shape.sizes), shape.sizes[0], shape.H
    p: list[Tensor | None] = [draw(rows, shape.D) / shape.D**0.5, draw(rows, H) / H**0.5]
    p += [draw(rows), draw(rows)] if shape.bias else [None, None]
    return draw(N, shape.D), [draw(B, H) for _ in range(shape.states)], p, [draw(N, H)] + [
        draw(B, H) for _ in range(shape.states)
    ]  # fmt: skip


def names(shape: Shape) -> list[str]:
    parts = "hc"[: shape.states]
    weights = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if shape.bias else [])]
    return [
        "output",
        *(f"last {s}" for s in parts),
        "dx",
        *(f"d{s}" for s in parts),
        *(f"d{w}" for w in weights),
    ]


def expected(shape: Shape, seed: int) -> Results:
    """The cells of elman.cells in float64."""
    double = lambda t: None if t is None else t.double()  # noqa: E731
    x, state, p, (doutput, *dlast) = inputs(shape, seed)
    one, weights = Pass(shape.cell, list(shape.sizes), shape.reverse), Parameters(*map(double, p))  # type: ignore[arg-type]
    output, last, caches = kernels.sequence_forward(one, weights, x.double(), tuple(map(double, state)))
    back = kernels.sequence_backward(one, weights, caches, doutput.double(), tuple(map(double, dlast)))
    dp = [d for d in back[2] if d is not None]
    return dict(zip(names(shape), [output, *last, back[0], *back[1], *dp], strict=True))


Layer = Callable[..., tuple[Tensor, tuple[Tensor, ...]]]


def found(shape: Shape, seed: int, layer: Layer | None = None) -> Results:
    x, state, p, upstream = inputs(shape, seed)
    leaves = [t.requires_grad_() for t in (x, *state, *p) if t is not None]
    one = Pass(shape.cell, list(shape.sizes), shape.reverse)  # type: ignore[arg-type]
    output, last = (layer or fused_layer)(one, Parameters(*p), x, tuple(state))
    gradients = torch.autograd.grad([output, *last], leaves, upstream)
    return dict(zip(names(shape), [output, *last, *gradients], strict=True))


def worst(shape: Shape, seed: int, layer: Layer | None = None) -> tuple[float, str]:
    """The largest error in units of the tolerance, and where."""
    right, ours = expected(shape, seed), found(shape, seed, layer)
    return max((error(ours[name], right[name]) / shape.tolerance(), name) for name in right)


@pytest.fixture
def rounding(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    return lambda bf16: monkeypatch.setattr(native, "rounds_to_bf16", lambda: bf16)


@pytest.fixture
def use_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_random_shapes_and_options_equal_the_cells(
    instruction_set: str, threads: int, rounding: Any, use_threads: Any
) -> None:
    use_threads(threads)
    with native.instruction_set(instruction_set):
        for seed in range(100 * threads, 100 * threads + 100):
            shape = drawn(seed)
            rounding(shape.bf16)
            far, where = worst(shape, seed)
            assert far <= 1, f"{where} of {shape}: {far:.2g} times the tolerance"


@pytest.mark.parametrize("shape", [
    Shape("lstm", (20,) * 35, False, True, 65, 200), Shape("gru", (20,) * 12, True, True, 33, 130),
    Shape("rnn_tanh", (70,) * 9, False, False, 512, 100), Shape("lstm", (1,) * 60, False, True, 40, 72),
    Shape("gru", (64, 64, 50, 33, 2, 1) * 1, True, True, 20, 96),
], ids=str)  # fmt: skip
def test_shapes_of_real_size_equal_the_cells(shape: Shape) -> None:
    """More rows than one chunk, more than one run of k, rows at a multiple of 2 KiB."""
    far, where = worst(shape, 5)
    assert far <= 1, where


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cell", CELLS)
def test_stacks_equal_torchs_in_every_option(cell: str, layout: str) -> None:
    for case in product(cell, layout):
        far = disagreement(case, "fused", torch.float32, torchs(case))
        assert max(far.values()) <= 1, f"{case}: {far}"


@pytest.mark.parametrize("cell", CELLS)
def test_dropout_between_layers_draws_as_torch_does(cell: str) -> None:
    for layout in ("time first", "packed unsorted"):
        case = Case(cell, layout, layers=3, bidirectional=True, dropout=0.4)
        assert max(disagreement(case, "fused", torch.float32, torchs(case)).values()) <= 1


@pytest.mark.parametrize("instruction_set", SETS)
def test_a_repetition_is_equal_bit_for_bit(instruction_set: str, use_threads: Any) -> None:
    with native.instruction_set(instruction_set):
        for threads, cell in ((1, "lstm"), (2, "gru"), (3, "lstm"), (2, "rnn_tanh")):
            use_threads(threads)
            shape = Shape(cell, (20,) * 15, False, True, 33, 72)
            first, second = found(shape, 1), found(shape, 1)
            assert all(torch.equal(first[name], second[name]) for name in first)


def test_units_without_a_lane_partner_stay_inert() -> None:
    """Memory left by other calls, NaN in it, reaches no result: 33 units are a panel of 32 and one more."""
    for seed in range(3):
        found(Shape("lstm", (9,) * 4, False, True, 40, 64), seed)  # larger: fills the workspaces
        poisoned, _, p, _ = inputs(Shape("gru", (9,) * 4, False, True, 40, 64), seed)
        fused_layer(("gru", [9] * 4, False), Parameters(*p), poisoned * float("nan"), (torch.zeros(9, 64),))
        assert worst(Shape("lstm", (7,) * 3, False, True, 17, 33), seed)[0] <= 1


def test_nan_and_infinity_come_through() -> None:
    for cell in CELLS:
        shape = Shape(cell, (5,) * 3, False, True, 11, 18)
        x, state, p, _ = inputs(shape, 1)
        x[7] = float("nan")  # row 2 of step 1
        output, last = fused_layer((cell, [5] * 3, False), Parameters(*p), x, tuple(state))
        bad = output.isnan().all(1)
        assert bad.nonzero()[:, 0].tolist() == [7, 12]
        assert last[0].isnan().any(1).tolist() == [False, False, True, False, False]
        x[7] = 1e30  # gates shut or open for good
        output, _ = fused_layer((cell, [5] * 3, False), Parameters(*p), x, tuple(state))
        assert cell == "rnn_relu" or bool(output.isfinite().all())
        assert not output.isnan().any()


# Known wrong layers: the check above catches each.


def swapped_gates(one: Pass, p: Parameters, x: Tensor, state: Any) -> Any:
    return fused_layer(one, p._replace(weight_hh=p.weight_hh.roll(len(state[0][0]), 0)), x, state)


def other_direction(one: Pass, p: Parameters, x: Tensor, state: Any) -> Any:
    return fused_layer(one._replace(reverse=not one.reverse), p, x, state)


def first_state_forgotten(one: Pass, p: Parameters, x: Tensor, state: Any) -> Any:
    return fused_layer(one, p, x, tuple(torch.zeros_like(s) + 0 * s for s in state))


def last_state_cut(one: Pass, p: Parameters, x: Tensor, state: Any) -> Any:
    output, last = fused_layer(one, p, x, state)
    return output, tuple(s.detach() + 0 * s for s in last)


def recurrent_bias_for_both(one: Pass, p: Parameters, x: Tensor, state: Any) -> Any:
    return fused_layer(one, p._replace(bias_ih=p.bias_ih + p.bias_hh, bias_hh=0 * p.bias_hh), x, state)


def window_truncated(one: Pass, p: Parameters, x: Tensor, state: Any) -> Any:
    """Cut in the middle, where the values go on and the gradient does not."""
    half = sum(one.batch_sizes[:2])
    parts = [(x[:half], one.batch_sizes[:2]), (x[half:], one.batch_sizes[2:])]
    outputs = []
    for part, sizes in reversed(parts) if one.reverse else parts:
        output, state = fused_layer(one._replace(batch_sizes=sizes), p, part, state)
        state = tuple(s.detach() + 0 * s for s in state) if not outputs else state
        outputs.append(output)
    return torch.cat(outputs[::-1] if one.reverse else outputs), state


def rounded_to_bf16(one: Pass, p: Parameters, x: Tensor, state: Any) -> Any:
    return fused_layer(one, p, x.bfloat16().float(), state)


def last_unit_forgotten(one: Pass, p: Parameters, x: Tensor, state: Any) -> Any:
    output, last = fused_layer(one, p, x, state)
    return torch.cat([output[:, :-1], 0 * output[:, -1:]], 1), last


@pytest.mark.parametrize(("mutant", "cells"), [
    (swapped_gates, ("lstm", "gru")), (other_direction, CELLS), (first_state_forgotten, CELLS),
    (last_state_cut, CELLS), (recurrent_bias_for_both, ("gru",)), (window_truncated, CELLS),
    (rounded_to_bf16, CELLS), (last_unit_forgotten, CELLS),
])  # fmt: skip
def test_known_wrong_layers_fail(mutant: Layer, cells: tuple[str, ...]) -> None:
    for cell in cells:
        shape = Shape(cell, (5,) * 4, cell == "gru", True, 11, 18)
        assert worst(shape, 3)[0] <= 1
        assert worst(shape, 3, mutant)[0] > 4
