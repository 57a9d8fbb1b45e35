"""Gradient flow of a trained model on a text: the same numbers as plain passes give, the state carried."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from elman.errors import OptionError, TextError
from elman.gradients import flow as home
from elman.gradients.bptt import bptt, truncated_bptt
from elman.gradients.flow import FlowOptions, gradient_flow, passages
from elman.gradients.jacobians import jacobian, spectral_radius, step_jacobian
from elman.gradients.reading import read_back
from elman.gradients.vanishing import triangle
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.text.corpus import Text
from neural_oracle import WORDS, vocabulary

V, LAGS, LOSSES, PASSAGES = 13, 12, 3, 4
OPTIONS = FlowOptions(lags=LAGS, losses=LOSSES, passages=PASSAGES, spectra=2)


def made(cell: str, layers: int = 1) -> RecurrentModel:
    torch.manual_seed(1)
    config = RecurrentConfig(
        cell=cell, embedding_size=3, hidden_size=5, num_layers=layers, init_scale=0.9, dropout=0.5
    )
    return RecurrentModel(vocabulary(V), WORDS, config).train()


def text(events: int = 60) -> Text:
    ids = np.random.default_rng(2).integers(1, V, events).astype(np.int32)
    one = np.ones(1, dtype=np.int32)
    return Text(ids, one, one)


def by_hand(model: RecurrentModel) -> list[tuple[int, object]]:
    """(begin, the reading of the whole text up to that passage's end) of every passage, one pass each."""
    exact = made(model.config.cell, model.config.num_layers).double().eval()
    stream = torch.from_numpy(np.concatenate(([1], text().ids)).astype(np.int64))[:, None]
    begins = np.linspace(0, len(stream) - 1 - LAGS - LOSSES, PASSAGES).astype(int).tolist()
    return [(begin, read_back(exact, stream[: begin + LAGS + LOSSES + 1])) for begin in begins]


def disagreement(cell: str, layers: int) -> float:
    """The largest difference of norms from the triangle of a pass that begins with the text."""
    model = made(cell, layers)
    found = gradient_flow(model, text(), OPTIONS)
    worst = 0.0
    for place, (begin, reading) in enumerate(by_hand(model)):
        whole = triangle(reading.unrolled, reading.dhidden[:, 0])
        for layer, part in found.parts:
            norms = whole.states[part][layer]
            for loss in range(LOSSES):
                t = begin + LAGS + loss
                expected = torch.stack([norms[t, t - k] for k in range(LAGS + 1)])
                mine = found.norms.of(layer, part)[place, loss]
                worst = max(worst, float((mine - expected).abs().max()))
    return worst


@pytest.mark.parametrize(("cell", "layers"), [("rnn", 1), ("rnn-relu", 1), ("gru", 2), ("lstm", 2)])
def test_norms_are_those_of_one_pass_over_the_text(cell: str, layers: int) -> None:
    assert disagreement(cell, layers) < 1e-9


def test_what_else_is_measured() -> None:
    model = made("lstm")
    found = gradient_flow(model, text(), OPTIONS)
    assert model.training
    assert model.embedding.weight.dtype == torch.float32  # the user's model is as it was
    readings = by_hand(model)
    nats = [reading.nats[-LAGS - LOSSES :].mean() for _, reading in readings]
    assert found.nats == pytest.approx(float(torch.stack(nats).mean()))
    logs = []
    for _, reading in (readings[0], readings[-1]):
        last = reading.unrolled.steps - 1
        product = jacobian(reading.unrolled, last, last - 10)
        logs.append(float(torch.linalg.matrix_norm(product, 2).log()))
    row = next(each for each in found.spectra if each.lag == 10)
    assert row.norm.value == pytest.approx(math.exp(np.mean(logs)))
    radii = [
        spectral_radius(step_jacobian(r.unrolled, r.unrolled.steps - 1))
        for _, r in (readings[0], readings[-1])
    ]
    assert found.radius.value == pytest.approx(math.sqrt(radii[0] * radii[1]))
    for each in found.spectra:
        assert each.norm.value <= each.bound.value**each.lag * (1 + 1e-9)
        assert 1 <= each.directions.value <= 10 + 1e-9
    assert [each.lag for each in found.spectra] == [1, 2, 5, 10, LAGS]


def test_truncation_is_of_the_passages() -> None:
    found = gradient_flow(made("gru"), text(), OPTIONS)
    exact = made("gru").double().eval()
    full: list[Tensor] = []
    cut: list[Tensor] = []
    for ids, state in passages(exact, text(), LAGS + LOSSES, PASSAGES):
        reading = read_back(exact, ids[: LAGS + 1], state)
        for sums, result in (
            (full, bptt(reading.unrolled, reading.dhidden)),
            (cut, truncated_bptt(reading.unrolled, reading.dhidden, 5)),
        ):
            sums.append(torch.cat([each.flatten() for each in result.named().values()]))
    a, b = torch.stack(cut).sum(0), torch.stack(full).sum(0)
    bias = next(each for each in found.biases if (each.steps, each.parameter) == (5, "all"))
    assert bias.cosine.value == pytest.approx(float(a @ b / a.norm() / b.norm()))
    assert bias.ratio.value == pytest.approx(float(a.norm() / b.norm()))
    assert found.biases[-1].steps == LAGS
    assert found.biases[-1].cosine.value == pytest.approx(1)


def forgets_the_state(model: object, text: Text, steps: int, count: int):
    for ids, state in right(model, text, steps, count):
        yield ids, tuple(torch.zeros_like(part) for part in state)


def starts_without_the_end_of_sentence(model: object, text: Text, steps: int, count: int):
    stream = torch.from_numpy(text.ids.astype(np.int64))[:, None]
    for begin in np.linspace(0, len(text.ids) - 1 - steps, count).astype(int).tolist():
        yield (
            stream[begin : begin + steps + 1],
            home.read(model, stream[:begin], model.start(1)) if begin else model.start(1),
        )


right = home.passages


@pytest.mark.parametrize("mutant", [forgets_the_state, starts_without_the_end_of_sentence])
def test_wrong_passages_are_caught(mutant: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "passages", mutant)
    assert disagreement("lstm", 1) > 1e-6


def test_json_is_whole_and_progress_ends() -> None:
    seen: list[tuple[int, int]] = []
    found = gradient_flow(made("lstm", 2), text(), OPTIONS, lambda *done: seen.append(done))
    assert seen[-1] == (seen[0][1],) * 2 == (PASSAGES + 5 + 2,) * 2
    document = json.loads(json.dumps(found.as_json()))
    assert [(s["layer"], s["state"]) for s in document["states"]] == [(0, "h"), (0, "c"), (1, "h"), (1, "c")]
    assert document["states"][2]["log_norm"][0] == 0
    assert len(document["states"][1]["log_norm"]) == LAGS + 1
    assert [d["lags"] for d in document["states"][0]["decays"]] == [[1, LAGS], [1, 10], [10, LAGS]]
    assert document["spectra"][0]["lag"] == 1
    assert math.isnan(document["spectra"][0]["bound"][0])  # two layers
    without = gradient_flow(made("gru"), text(), FlowOptions(lags=LAGS, losses=1, passages=2, spectra=0))
    assert without.spectra == ()
    assert math.isnan(without.radius.value)


def test_mistakes() -> None:
    with pytest.raises(TextError, match="too few for a passage"):
        gradient_flow(made("gru"), text(10), OPTIONS)
    with pytest.raises(OptionError, match="no gates"):
        gradient_flow(object(), text(), OPTIONS)  # type: ignore[arg-type]
    for wrong in ({"lags": 9}, {"losses": 0}, {"passages": 0}, {"spectra": -1}):
        with pytest.raises(OptionError, match="spectra"):
            FlowOptions(**wrong)
