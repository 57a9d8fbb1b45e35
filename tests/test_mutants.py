"""Test the tests: every known wrong recurrence fails the check that the right ones pass."""

from __future__ import annotations

import ast
import inspect

import pytest

import oracle
from agreement import CELLS, Case, disagreement
from elman import kernels
from mutants import BACKWARDS, STACKS, STEPS

FAR = 1e6
"""How many times the float64 tolerance a mutant must miss: caught because wrong, not by rounding."""


def checks(cell: str) -> list[Case]:
    """A few points of the product, so chosen that every option is on in one of them."""
    return [
        Case(cell),
        Case(cell, initial=False),
        Case(cell, "packed unsorted", bidirectional=True),
        Case(cell, "batch first", dropout=0.5, bias=False),
        Case(cell, dropout=0.5, training=False),
    ]


def worst(cell: str) -> float:
    """The largest disagreement of the reference backend with torch.nn, in units of the tolerance."""
    return max(max(disagreement(case, "reference").values()) for case in checks(cell))


@pytest.mark.parametrize("cell", CELLS)
def test_the_right_ones_pass(cell: str) -> None:
    assert worst(cell) <= 1


@pytest.mark.parametrize("name", STEPS)
def test_a_wrong_step_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, step = STEPS[name]
    monkeypatch.setitem(kernels.CELLS, cell, kernels.CELLS[cell]._replace(step=step))
    assert worst(cell) > FAR


@pytest.mark.parametrize("name", BACKWARDS)
def test_a_wrong_backward_step_is_caught_by_its_gradients_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, backward = BACKWARDS[name]
    monkeypatch.setitem(kernels.CELLS, cell, kernels.CELLS[cell]._replace(step_backward=backward))
    found = disagreement(Case(cell), "reference")
    assert max(value for name, value in found.items() if name.startswith(("output", "last"))) <= 1
    assert max(value for name, value in found.items() if name.startswith("d")) > FAR


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", STACKS)
def test_a_wrong_stack_is_caught_with_every_cell(
    name: str, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kernels.BACKENDS, "reference", STACKS[name])
    assert worst(cell) > FAR


def test_there_are_mutants_of_every_cell() -> None:
    assert {cell for cell, _ in STEPS.values()} == set(CELLS)
    assert {cell for cell, _ in BACKWARDS.values()} == set(CELLS)
    assert len(STEPS) + len(BACKWARDS) + len(STACKS) >= 10


def test_the_oracle_shares_nothing_with_what_it_judges() -> None:
    nodes = list(ast.walk(ast.parse(inspect.getsource(oracle))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    assert names == {"__future__", "collections.abc", "numpy", "numpy.typing"}
