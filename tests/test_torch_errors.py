"""What torch.nn refuses, Elman's modules refuse with the same type and text, on every backend."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

import elman
from elman.kernels import native

NAMES = ("RNN", "LSTM", "GRU")
BACKENDS = ("auto", "reference", *(["fused"] if native.available() else []))
CONSTRUCTORS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((3, 5), {"proj_size": 2}),
    ((3, 5), {"proj_size": 5}),
    ((3, 5), {"proj_size": -1}),
    ((3, 5), {"proj_sise": 2}),
    ((3.0, 5), {}),
    ((3, "5"), {}),
    ((0, 5), {}),
    ((3, -1), {}),
    ((3, 5, 0), {}),
    ((3, 5), {"dropout": 1.5}),
    ((3, 5), {"dropout": True}),
    ((3, 5), {"dropout": "0.5"}),
    ((3, 5), {"bias": 1}),
    ((3, 5), {"batch_first": 0}),
    ((3, 5), {"dtype": "float32"}),
    ((3, 5), {"device": "vax"}),
]


def refusal(call: Callable[[], Any]) -> tuple[type, str] | None:
    try:
        call()
    except Exception as error:  # noqa: BLE001
        return type(error), str(error)
    return None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("arguments", "options"), CONSTRUCTORS, ids=str)
def test_a_constructor_refuses_as_torchs(
    name: str, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    theirs = refusal(lambda: getattr(nn, name)(*arguments, **options))
    assert theirs == refusal(lambda: getattr(elman, name)(*arguments, **options))
    assert theirs or (name, options) == ("LSTM", {"proj_size": 2})


def test_a_projection_is_the_lstms_alone() -> None:
    for name in ("RNN", "GRU"):
        with pytest.raises(ValueError, match="proj_size argument is only supported for LSTM, not RNN or GRU"):
            getattr(elman, name)(3, 5, proj_size=2)


@pytest.mark.parametrize("name", NAMES)
def test_a_dropout_that_drops_nothing_is_warned_of(name: str) -> None:
    texts = []
    for home in (nn, elman):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            getattr(home, name)(3, 5, dropout=0.5)
        texts.append([(w.category, str(w.message)) for w in caught])
    assert texts[0] == texts[1] != []


def inputs(name: str) -> dict[str, tuple[Any, Any]]:
    """What to call a module of input size 3, hidden size 5 and two layers with."""
    h = torch.zeros(2, 7, 5)

    def hx(state: Tensor) -> Any:
        return (state, state) if name == "LSTM" else state

    x = torch.randn(4, 7, 3)
    return {
        "input size": (torch.randn(4, 7, 2), None),
        "one dimension": (torch.randn(4), None),
        "four dimensions": (torch.randn(1, 4, 7, 3), None),
        "dtype": (x.double(), None),
        "integers": (x.long(), None),
        "no steps": (torch.randn(0, 7, 3), None),
        "layers": (x, hx(h[:1])),
        "batch": (torch.randn(4, 6, 3), hx(h)),
        "hidden size": (x, hx(h[..., :4])),
        "a batch of states for one sequence": (torch.randn(9, 3), hx(h)),
        "one state for a batch": (x, hx(h[:, 0])),
        "a state of another dtype": (x, hx(h.double())),
        "another device": (x.to("meta"), None),
        "packed input size": (pack_sequence([torch.randn(9, 2)]), None),
        "one tensor for two": (x, h if name == "LSTM" else (h, h)),
        "three tensors": (x, (h, h, h)),
        "numbers": (x, 3),
        "not a tensor": ([[1.0]], None),
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wrong", inputs("GRU"))
def test_a_call_is_refused_as_torchs(wrong: str, backend: str, name: str) -> None:
    torch.manual_seed(1)
    x, hx = inputs(name)[wrong]
    theirs = refusal(lambda: getattr(nn, name)(3, 5, 2)(x, hx))
    ours = refusal(lambda: getattr(elman, name)(3, 5, 2, backend=backend)(x, hx))
    if (
        theirs is None
    ):  # what torch takes in spite of all, so does Elman, but for a backend that was asked for
        assert ours is None or backend != "auto"
    elif backend == "auto" or wrong not in ("integers", "another device"):
        assert ours == theirs
    else:
        assert ours is not None
