"""Every gate, candidate and state of a text against float64 NumPy, one token at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import elman.memory.activations as activations_module
from elman.cells.functions import CELLS
from elman.errors import ElmanError, OptionError
from elman.language_model import StatePolicy
from elman.memory.activations import GATES, activations
from elman.neural.recurrent import RecurrentModel
from memory_oracle import LAYERS, NAMES, TEXT, expected, recurrent
from table_model import TableModel
from tolerance import tolerance


def found(model: RecurrentModel, state: StatePolicy, window: int = 13) -> dict[tuple[int, str], np.ndarray]:
    names = [*GATES[NAMES[model.config.cell]], *("hc" if model.config.cell == "lstm" else "h")]
    whole = {(layer, name): np.full((len(TEXT.ids), 7), np.nan) for layer in range(LAYERS) for name in names}
    for part in activations(model, TEXT.ids, state=state, window=window):
        for layer, each in enumerate(part.layers):
            for name in names:
                value = each.state(name) if name in "hc" else each.gate(name)
                whole[layer, name][part.places] = value.numpy()
    return whole


def deviation(model: RecurrentModel, state: StatePolicy, window: int = 13) -> float:
    wanted, got = expected(model, state), found(model, state, window)
    assert set(wanted) == set(got)
    return max(float(np.abs(got[key] - wanted[key]).max()) for key in wanted)


ALLOWED = tolerance(torch.float64, len(TEXT.ids), 7)


@pytest.mark.parametrize("state", ["carry", "reset"])
@pytest.mark.parametrize("cell", list(NAMES))
def test_every_number_is_the_oracles(cell: str, state: StatePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations_module, "LANES", 3)
    model = recurrent(cell).train()  # dropout must not show
    for window in (1, 13, 10_000):
        assert deviation(model, state, window) <= ALLOWED
    assert model.training
    assert not any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("cell", list(NAMES))
def test_the_kernels_agree(cell: str) -> None:
    """float32 on whatever recurrence is the fastest here, beside the same weights in float64."""
    exact = found(recurrent(cell), "carry")
    model = recurrent(cell).float()
    for key, value in found(model, "carry").items():
        assert np.allclose(value, exact[key], rtol=0, atol=tolerance(torch.float32, len(TEXT.ids), 7)), key


def test_known_wrong_versions_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = recurrent("gru")
    assert deviation(model, "carry") <= ALLOWED < deviation_between(model, "carry", "reset")
    step = CELLS["gru"].step

    def swapped(p: object, x: torch.Tensor, state: object) -> object:
        new, cache = step(p, x, state)
        return new, cache._replace(r=cache.z, z=cache.r)

    with monkeypatch.context() as patch:
        patch.setitem(CELLS, "gru", CELLS["gru"]._replace(step=swapped))
        assert deviation(model, "carry") > 100 * ALLOWED
    run = activations_module._run

    def forgets(model: RecurrentModel, read: torch.Tensor, chosen: np.ndarray, state: object) -> object:
        layers, after = run(model, read, chosen, state)
        return layers, tuple(torch.zeros_like(part) for part in after)

    def too_late(model: RecurrentModel, read: torch.Tensor, chosen: np.ndarray, state: object) -> object:
        layers, after = run(model, read, chosen, state)
        return tuple(replace(each, h=each.h.roll(1, 0)) for each in layers), after

    for wrong in (forgets, too_late):
        with monkeypatch.context() as patch:
            patch.setattr(activations_module, "_run", wrong)
            assert deviation(model, "carry") > 100 * ALLOWED


def deviation_between(model: RecurrentModel, one: StatePolicy, other: StatePolicy) -> float:
    wanted, got = expected(model, one), found(model, other)
    return max(float(np.abs(got[key] - wanted[key]).max()) for key in wanted)


def test_a_text_without_its_last_end_and_an_empty_one() -> None:
    model, cut = recurrent("lstm"), TEXT.ids[:-4]
    for state in ("carry", "reset"):
        places = np.concatenate([part.places for part in activations(model, cut, state=state)])
        assert sorted(places) == list(range(len(cut)))
        assert list(activations(model, cut[:0], state=state)) == []


def test_refusals() -> None:
    with pytest.raises(OptionError, match="has no gates and no gradients"):
        next(activations(TableModel(["a"]), TEXT.ids))
    with pytest.raises(ElmanError, match="outside the model's vocabulary of 17"):
        next(activations(recurrent("gru"), np.array([4, 17, 1])))
    with pytest.raises(OptionError, match="state policy 'keep'"):
        next(activations(recurrent("gru"), TEXT.ids, state="keep"))  # type: ignore[arg-type]
