"""No call of torch.ops.elman.* does anything but answer or raise, and torch can reason about each."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import elman
import operator_calls
from elman.kernels import native

pytestmark = pytest.mark.skipif(not native.available(), reason="the compiled kernels are not installed")
CALLS = 3000


@pytest.mark.parametrize("first", [0, 10**6])
def test_every_call_is_answered_or_refused(first: int) -> None:
    program = Path(operator_calls.__file__)
    command = [sys.executable, str(program), str(CALLS), str(first)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=program.parent)
    assert done.returncode == 0, f"call {done.stderr[-2000:]}: exit status {done.returncode}"
    assert CALLS / 10 < int(done.stdout) < CALLS * 9 / 10, "calls should be of both kinds"


def test_valid_calls_are_answered() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        for make in (operator_calls.recurrence, operator_calls.recurrence_backward,
                     operator_calls.output_nats, operator_calls.gradient):  # fmt: skip
            make(draw).answer()


@pytest.mark.parametrize("make", [
    operator_calls.recurrence, operator_calls.recurrence_backward, operator_calls.output_nats,
    operator_calls.gradient,
])  # fmt: skip
def test_torch_knows_each_operator(make: object) -> None:
    """Schema, shapes without data, no input changed: torch's own check."""
    assert callable(make)
    for seed in range(12):
        call = make(random.Random(seed))
        operator = getattr(torch.ops.elman, call.operator).default
        torch.library.opcheck(operator, tuple(call.arguments), test_utils=["test_schema", "test_faketensor"])


@pytest.mark.parametrize(("name", "wrong"), [
    ("cell", {1: "LSTM"}), ("instruction set", {0: "vax"}), ("no steps", {2: []}),
    ("growing", {2: [3, 4]}), ("an end that is no row", {2: [4, 3, 0]}), ("too many", {2: [2**62, 2**62]}),
    ("weights of half a layer", {6: slice(0, 3)}), ("no weights", {6: slice(0, 0)}),
    ("half a state", {8: slice(0, 1)}),
])  # fmt: skip
def test_what_does_not_fit_is_a_value_error(name: str, wrong: dict[int, object]) -> None:
    arguments = lstm_call().arguments
    for place, value in wrong.items():
        arguments[place] = arguments[place][value] if isinstance(value, slice) else value
    with pytest.raises(ValueError):
        torch.ops.elman.recurrence(*arguments)


def lstm_call() -> operator_calls.Call:
    torch.manual_seed(3)
    weights = [torch.randn(20, 3), torch.randn(20, 5), torch.randn(20), torch.randn(20)]
    state, what = [torch.randn(1, 4, 5) for _ in range(2)], [native.require().instruction_set(), "lstm"]
    given = [*what, [4, 3], False, False, None, weights, torch.randn(7, 3), state, True]
    return operator_calls.Call("recurrence", given)


def test_a_hidden_size_of_nothing_is_refused() -> None:
    none = [torch.zeros(0, 3), torch.zeros(0, 0), torch.zeros(0), torch.zeros(0)]
    arguments = lstm_call().arguments
    arguments[6], arguments[8] = none, [torch.zeros(1, 4, 0)] * 2
    with pytest.raises(ValueError, match="size of 0"):
        torch.ops.elman.recurrence(*arguments)


def test_what_another_call_saved_is_refused() -> None:
    call = lstm_call()
    saved = call.answer()[2]
    gradients, wanted = [torch.randn(7, 5), None, None], [True] * 7
    what, weights, x = call.arguments[:6], call.arguments[6], call.arguments[7]
    torch.ops.elman.recurrence_backward(*what, weights, x, saved, gradients, wanted, False)
    with pytest.raises(ValueError, match="what is saved is"):
        torch.ops.elman.recurrence_backward(*what, weights, x, [saved[0][:-1]], gradients, wanted, False)
    what[2] = [4, 4, 4]
    with pytest.raises(ValueError, match="x has 7 rows"):
        torch.ops.elman.recurrence_backward(*what, weights, x, saved, gradients, wanted, False)


def test_what_was_saved_may_come_back_at_any_address() -> None:
    call = lstm_call()
    saved = call.answer()[2]
    moved = [torch.empty(t.numel() + 1)[1:].copy_(t) for t in saved]
    assert moved[0].data_ptr() % 64
    rest = [[torch.randn(7, 5), None, None], [True] * 7, False]
    results = [
        torch.ops.elman.recurrence_backward(*call.arguments[:8], kept, *rest) for kept in (saved, moved)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_and_device_are_for_others(dtype: torch.dtype) -> None:
    """What the kernels write has their dtype and device, whatever a new tensor has elsewhere."""
    module, x = elman.LSTM(3, 5, 2), torch.randn(7, 4, 3)
    expected = module(x)[0]
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            found = module(x, tuple(torch.zeros(2, 4, 5, dtype=torch.float32, device="cpu") for _ in "hc"))[0]
            found.sum().backward()
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(found, expected)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in module.parameters())


def test_a_batch_of_gradients_is_each_of_them() -> None:
    call = lstm_call()
    saved = call.answer()[2]
    several = torch.randn(6, 7, 5)

    def one(doutput: Tensor) -> list[Tensor]:
        rest = [saved, [doutput, None, None], [True] * 7, False]
        return torch.ops.elman.recurrence_backward(*call.arguments[:8], *rest)  # type: ignore[no-any-return]

    for together, apart in zip(torch.vmap(one)(several), zip(*map(one, several), strict=True), strict=True):
        assert torch.equal(together, torch.stack(apart))
