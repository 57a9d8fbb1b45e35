"""Gate statistics and time constants: against the oracle's gates in float64, and gates that are known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

import elman.memory.gates as gates_module
from elman.errors import OptionError, TextError
from elman.language_model import StatePolicy
from elman.memory.gates import QUANTILES, GateReport, gate_statistics
from elman.neural.recurrent import RecurrentModel
from elman.text.corpus import Text
from memory_oracle import LAYERS, TEXT, expected, recurrent
from table_model import TableModel

ORDER = {"lstm": "ifgoch", "gru": "rznh", "rnn": "h", "rnn-relu": "h"}
EXACT = 1e-9


def wild(cell: str) -> RecurrentModel:
    """With weights so large that every end saturates now and then."""
    model = recurrent(cell)
    with torch.no_grad():
        for name, parameter in model.recurrence.named_parameters():
            if name.startswith("weight") or cell != "rnn-relu":
                parameter.mul_(2.5 if cell != "rnn-relu" else 0.9)
            if cell == "lstm" and name.startswith("bias_ih"):
                parameter.view(4, 7)[[1, 3]] += 2  # f and o, for only an open gate shows a full cell
    return model


def saturated(cell: str, name: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if cell == "rnn-relu":
        return values == 0, values == np.inf
    if name in "gnch":
        squashed = np.tanh(values) if name == "c" else values
        return squashed < -0.9, squashed > 0.9
    return values < 0.1, values > 0.9


def disagreement(report: GateReport, model: RecurrentModel, state: StatePolicy) -> float:
    """The largest deviation from the oracle's numbers, relative for quantiles and time constants."""
    cell, wanted, worst = model.config.cell, expected(model, state), 0.0
    names = [(layer, name) for layer in range(1, LAYERS + 1) for name in ORDER[cell]]
    assert [(gate.layer, gate.name) for gate in report.gates] == names
    for gate in report.gates:
        values = wanted[gate.layer - 1, gate.name]
        low, high = saturated(cell, gate.name, values)
        pairs = [
            (gate.mean, values.mean()),
            (gate.deviation, values.std()),
            (gate.low, low.mean()),
            (gate.high, high.mean()),
            (gate.unit_means, values.mean(axis=0)),
            (gate.unit_low, low.mean(axis=0)),
            (gate.unit_high, high.mean(axis=0)),
        ]
        worst = max(worst, *(float(np.abs(np.subtract(a, b)).max()) for a, b in pairs))
        exact = np.quantile(values, QUANTILES, method="inverted_cdf")
        off = np.abs(exact - gate.quantiles) / np.maximum(np.abs(exact), 2**-10)
        worst = max(worst, 0.0 if off.max() <= 2**-11 else float(off.max()))
    for each in report.time_constants:
        kept = wanted[each.layer - 1, each.gate]
        left = kept.prod(axis=0) ** (1 / len(kept))  # of the whole text's forgetting, one token's share
        worst = max(worst, float(np.abs(np.exp(-1 / each.tokens) - left).max()))
    return worst


@pytest.mark.parametrize("state", ["carry", "reset"])
@pytest.mark.parametrize("cell", list(ORDER))
def test_every_figure_is_the_oracles(cell: str, state: StatePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates_module.activations, "__kwdefaults__", {"state": "carry", "window": 19})
    model = wild(cell)
    report = gate_statistics(model, TEXT, state=state)
    assert disagreement(report, model, state) < EXACT
    assert (report.events, report.state) == (len(TEXT.ids), state)
    for name in ORDER[cell]:  # else a degenerate case: nothing saturates
        assert any(gate.low for gate in report.gates if gate.name == name)
        assert any(gate.high for gate in report.gates if gate.name == name) or cell == "rnn-relu"
    assert [each.gate for each in report.time_constants] == {"lstm": ["f"] * 2, "gru": ["z"] * 2}.get(
        cell, []
    )


def test_known_wrong_versions_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = wild("lstm")

    def wrong(name: str, value: object) -> float:
        with monkeypatch.context() as patch:
            patch.setattr(gates_module, name, value)
            return disagreement(gate_statistics(model, TEXT), model, "carry")

    assert wrong("QUANTILES", QUANTILES) < EXACT
    assert wrong("_limits", lambda cell, name: (0.1, 0.9)) > 1e-3  # candidates judged as gates
    assert wrong("time_constants", lambda logs: 1 / (1 - np.exp(logs))) > 1e-3  # a first-order guess
    assert disagreement(gate_statistics(model, TEXT), model, "reset") > 1e-3
    log = torch.Tensor.log
    with monkeypatch.context() as patch:  # the logarithm of the mean is not the mean of the logarithm
        patch.setattr(torch.Tensor, "log", lambda values: log(values.mean(dim=0, keepdim=True)) * len(values))
        assert disagreement(gate_statistics(model, TEXT), model, "carry") > 1e-3


def constant(f: float, cell: str = "lstm") -> RecurrentModel:
    """A model whose keeping gate is f at every token."""
    model = recurrent(cell)
    with torch.no_grad():
        for layer in range(LAYERS):
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                gate = getattr(model.recurrence, f"{kind}_l{layer}").chunk(4 if cell == "lstm" else 3)[1]
                gate.fill_(math.log(f / (1 - f)) if kind == "bias_ih" else 0.0)
    return model


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("f", [0.5, 0.9, 0.99])
def test_a_constant_gate_has_the_time_constant_of_its_decay(cell: str, f: float) -> None:
    for each in gate_statistics(constant(f, cell), TEXT).time_constants:
        assert each.tokens == pytest.approx(-1 / math.log(f))
        assert f**each.half_lives == pytest.approx(0.5)
        assert each.quantiles() == pytest.approx([-1 / math.log(f)] * 5)


def test_gates_at_their_very_ends() -> None:
    model = constant(0.5).float()
    bias = model.recurrence.bias_ih_l1.data.chunk(4)[1]
    bias[0], bias[1] = 200.0, -200.0  # exactly 1 and exactly 0 in float32
    found = gate_statistics(model, TEXT).time_constants[1].tokens
    assert (found[0], found[1]) == (math.inf, 0.0)
    assert found[2:] == pytest.approx(-1 / math.log(0.5), rel=1e-6)


def test_json_has_everything_and_progress_counts_tokens() -> None:
    seen: list[tuple[int, int]] = []
    report = gate_statistics(wild("gru"), TEXT, progress=lambda done, work: seen.append((done, work)))
    told = json.loads(json.dumps(report.as_json()))
    assert told["cell"] == "gru"
    assert [gate["name"] for gate in told["gates"]] == list("rznh" * 2)
    z = told["gates"][1]
    assert z["quantiles"] == {str(q): v for q, v in zip(QUANTILES, report.gates[1].quantiles, strict=True)}
    assert z["unit_means"] == pytest.approx(list(report.gates[1].unit_means), rel=1e-3)
    assert told["time_constants"][1]["tokens"] == pytest.approx(
        list(report.time_constants[1].tokens), rel=1e-3
    )
    assert seen[-1] == (len(TEXT.ids), len(TEXT.ids))


def test_refusals() -> None:
    with pytest.raises(OptionError, match="no gates"):
        gate_statistics(TableModel(["a"]), TEXT)
    nothing = np.zeros(0, dtype=np.int32)
    with pytest.raises(TextError, match="empty"):
        gate_statistics(recurrent("gru"), Text(nothing, nothing, nothing))
