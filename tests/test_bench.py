"""`elman bench`: equality is proven or refused, the record is whole, ratios are of rounds."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from elman.bench import contenders, ngram, reading, rounds, rows, training
from elman.bench.contenders import line_up
from elman.bench.equality import (
    UnequalError,
    bfloat16_tolerance,
    error,
    errors,
    float32_tolerance,
    require_equal,
)
from elman.bench.measure import Settings, measure, reached
from elman.bench.peers import PEERS, choose_peers, installed
from elman.bench.rounds import Rounds, interleave, spread
from elman.bench.rows import BF16, ROWS, TORCH, Goal, Row, choose_rows, train_row
from elman.bench.scaling import measure_scaling
from elman.cli import app
from elman.cli import bench as bench
from elman.errors import OptionError
from elman.gradients import clipping
from elman.kernels import native
from elman.neural.recurrent import RecurrentModel
from elman.text.corpus import load_corpus

GOALS = (1.5, 2.0, 1.5, 2.0)
CELLS = ("lstm", "gru", "rnn")


def tiny(cell: str = "lstm", work: str = "train") -> Row:
    row = train_row(cell, 2, 7, (23, 3, 5), GOALS)  # type: ignore[arg-type]
    return row if work == "train" else replace(row, work=work, batch=1, steps=6)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """One run a measurement, no pauses: the tests are not about time."""
    for name in ("SHORTEST", "PAUSE", "PEAK_SECONDS"):
        monkeypatch.setattr(rounds, name, 0.0)


def peers(*names: str) -> tuple:
    return choose_peers(("torch", *names))


@pytest.mark.parametrize("cell", CELLS)
def test_elman_and_torch_are_equal_to_float64_in_both_precisions(cell: str) -> None:
    line = line_up(tiny(cell), (), 1)
    assert [one.name for one in line.contenders] == ["elman fp32", TORCH, "elman bf16", BF16]
    for name, proof in line.proofs.items():
        assert 0 < proof["error"] <= proof["allowed"], name
        # two windows: loss, state and every gradient of each; the change of every weight
        states = 2 if cell == "lstm" else 1
        assert proof["quantities"] == 2 * (1 + states) + 3 * 11
    assert line.proofs["elman fp32"]["allowed"] < 1e-4


@pytest.mark.parametrize("work", ["score", "stream"])
def test_readers_are_equal(work: str) -> None:
    line = line_up(tiny(work=work), (), 1)
    assert [one.name for one in line.contenders] == ["elman fp32", "elman bfloat16", "elman int8", TORCH]
    assert line.proofs["elman fp32"]["error"] < 2e-5


def _without_a_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = RecurrentModel._hidden

    def wrong(self, ids, state):
        self.recurrence.bias_hh_l1.data[0] = 0.0
        return whole(self, ids, state)

    monkeypatch.setattr(RecurrentModel, "_hidden", wrong)


def _forgetting_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = training.window_loss

    def wrong(model, window, carried, config):
        return whole(model, window, (), config)

    monkeypatch.setattr(training, "window_loss", wrong)


def _clipping_to_another_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        training, "clip_gradients", lambda ps, config: (clipping.clip_by_norm(ps, 0.051), 1.0)
    )


def _a_gradient_a_little_off(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = training.ElmanStep.gradients

    def wrong(self, ids):
        loss = whole(self, ids)
        self.model.recurrence.weight_hh_l0.grad[3, 2] *= 1.02
        return loss

    monkeypatch.setattr(training.ElmanStep, "gradients", wrong)


@pytest.mark.parametrize(
    "mutant", [_without_a_bias, _forgetting_the_state, _clipping_to_another_norm, _a_gradient_a_little_off]
)
def test_a_wrong_step_is_refused_and_nothing_timed(mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    monkeypatch.setattr("elman.bench.measure.interleave", lambda *_, **__: pytest.fail("it was timed"))
    with pytest.raises(UnequalError, match=r"elman fp32 is not equal to the reference: .* Nothing was timed"):
        list(measure([tiny()], Settings(1, 1, ())))


def test_a_wrong_bf16_step_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = training.ElmanStep.gradients

    def wrong(self, ids):
        loss = whole(self, ids)
        if self.config.precision == "bf16":
            self.model.output.weight.grad.mul_(1.25)
        return loss

    monkeypatch.setattr(training.ElmanStep, "gradients", wrong)
    with pytest.raises(UnequalError, match="elman bf16 is not equal"):
        line_up(tiny(), (), 1)


@pytest.mark.parametrize("work", ["score", "stream"])
@pytest.mark.parametrize("weights", [None, "bfloat16", "int8"])
def test_a_wrong_reader_is_refused(work: str, weights, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reading.elman_reader

    def wrong(task, kind=None):
        right = whole(task, kind)
        if kind != weights:
            return right
        other = {
            name: w.roll(1, 0) if name == "recurrence.weight_hh_l0" else w for name, w in task.weights.items()
        }
        return reading.Reader(whole(replace(task, weights=other), kind).read, right.reference)

    monkeypatch.setattr(reading, "elman_reader", wrong)
    with pytest.raises(UnequalError, match=f"elman {weights or 'fp32'} is not equal"):
        line_up(tiny(work=work), (), 1)


def test_a_peer_that_is_wrong_or_fails_is_left_out_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, *_: object) -> None:
            raise RuntimeError("no such device\nand more")

    monkeypatch.setattr(contenders, "JaxStep", Broken)
    monkeypatch.setattr(contenders, "installed", lambda peer: True)
    line = line_up(tiny(), peers("jax"), 1)
    assert "JAX fp32 is left out: RuntimeError: no such device" in line.notes
    assert "JAX fp32" not in line.proofs
    other = training.make_task(tiny(), seed=2)
    monkeypatch.setattr(contenders, "JaxStep", lambda task, threads: training.TorchStep(other))
    line = line_up(tiny(), peers("jax"), 1)
    assert any(note.startswith("JAX fp32 is left out: JAX fp32 is not equal") for note in line.notes)


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="needs jax")
@pytest.mark.parametrize("cell", CELLS)
def test_jax_is_equal(cell: str) -> None:
    line = line_up(tiny(cell), peers("jax"), 1)
    assert not [note for note in line.notes if "left out" in note]
    assert line.contenders[-1].name == "JAX fp32"
    line.contenders[-1].run()


@pytest.mark.skipif(not importlib.util.find_spec("onnxruntime"), reason="needs onnx and onnxruntime")
@pytest.mark.parametrize("work", ["score", "stream"])
def test_onnx_runtime_is_equal(work: str) -> None:
    line = line_up(tiny(work=work), peers("onnx"), 1)
    assert not line.notes
    assert line.contenders[-1].name == rows.ONNX


@pytest.mark.skipif(not importlib.util.find_spec("kenlm"), reason="needs kenlm")
def test_kenlm_says_the_same_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram, "CORPORA", ("pydoc",))
    row = next(row for row in ROWS if row.work == "ngram")
    line = line_up(row, peers("kenlm"), 1)
    assert [one.name for one in line.contenders] == ["elman", rows.KENLM]
    assert line.tokens == load_corpus("pydoc").test.events
    whole = ngram.elman_scores
    monkeypatch.setattr(ngram, "elman_scores", lambda task: lambda: whole(task)() * (1 + 1e-4))
    with pytest.raises(UnequalError, match="KenLM module is not equal"):
        line_up(row, peers("kenlm"), 1)


def test_errors_are_in_units_of_the_array_and_never_excused() -> None:
    small = torch.tensor([1e-6, -2e-6])
    assert error(small * 1.5, small) == pytest.approx(0.5, rel=1e-5)
    assert error(small + 1e-6, small, slack=1e-6) < 1e-6
    assert error(small, small[:1]) == float("inf")
    assert error(torch.tensor([1.0, float("nan")]), torch.ones(2)) == float("inf")
    assert error(torch.ones(2), torch.zeros(2)) == float("inf")
    assert errors({}, {"loss": small}) == {"loss": float("inf")}
    with pytest.raises(UnequalError):
        require_equal("x", {"loss": float("nan")}, 1.0)
    assert max(float32_tolerance(row) for row in ROWS) < 0.01
    assert bfloat16_tolerance({"loss": 0.001, "dw": 0.03}) == 0.06
    assert bfloat16_tolerance({"loss": float("inf")}) == 0.25


def test_ratios_are_taken_within_a_round() -> None:
    # the machine was three times slower in rounds 0 (for torch alone) and 2; the medians' ratio would be 6
    found = Rounds({"elman": [1.0, 1.0, 3.0], "torch": [6.0, 2.0, 6.0]}, {2: [10.0, 10.0, 5.0]})
    assert found.ratio("elman", "torch") == spread([6.0, 2.0, 2.0])
    fraction = found.fraction_of_peak("elman", 5e9, 2)
    assert fraction is not None
    assert (fraction.low, fraction.median, fraction.high) == pytest.approx((1 / 3, 0.5, 0.5))
    assert fraction.disagree
    assert not spread([1.0, 1.01, 1.02]).disagree
    assert spread([1.0]) == rounds.Spread(1.0, 1.0, 1.0, False)


def test_every_contender_runs_once_a_round_in_turning_order(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(rounds.native, "available", lambda: False)
    all_ = [rounds.Contender(name, lambda name=name: ran.append(name)) for name in "abc"]
    ends: list[int] = []
    found = interleave(all_, rounds=4, threads=1, told=ends.append)
    assert "".join(ran[6:]) == "abcbcacababc"
    assert ends == [1, 2, 3, 4]
    assert {name: len(values) for name, values in found.seconds.items()} == dict.fromkeys("abc", 4)
    assert found.peaks == {}
    assert found.fraction_of_peak("a", 1.0, 1) is None


@pytest.mark.skipif(not native.available(), reason="needs the kernels")
@pytest.mark.parametrize("name", native.instruction_sets())
def test_the_peak_is_a_rate(name: str) -> None:
    with native.instruction_set(name):
        module = native.require()
        assert 0.01 < module.peak(1, 1000) < 1e4
        assert module.peak(2, 1000) > 0
        assert rounds.measure_peak(1) > 0


def test_goals() -> None:
    goal = Goal("elman fp32", TORCH, 1.8, 2.2)
    assert [reached(ratio, goal) for ratio in (1.79, 1.8, 2.2)] == ["below", "floor", "aim"]
    assert reached(9.0, Goal("elman int8", TORCH, 8.0)) == "floor"


def test_operations_of_a_row() -> None:
    row = train_row("gru", 1, 5, (11, 2, 3), GOALS)
    # T·B tokens, three gates of H (H + H) and H·V products, backward twice, two operations each
    assert row.operations == 3 * 2 * 6 * (3 * 5 * 10 + 5 * 11)
    assert replace(row, work="score").operations == row.operations / 3


def test_what_is_measured_outlives_ctrl_c(tmp_path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    from elman.bench import measure as measuring

    whole = measuring.measure

    def until_the_second_row(*call: Any) -> Any:
        yield next(iter(whole(*call)))
        raise KeyboardInterrupt

    monkeypatch.setattr(rows, "ROWS", (tiny(), replace(tiny(), name="second")))
    monkeypatch.setattr(measuring, "measure", until_the_second_row)
    saved = tmp_path / "speed.json"
    code, _, _ = run(capsys, "--rounds", "2", "--threads", "1", "--peers", "torch", "--save", str(saved))
    assert code == 130
    assert [row["name"] for row in json.loads(saved.read_text("utf-8"))["rows"]] == [tiny().name]


def test_the_document(tmp_path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    small = (tiny(), replace(tiny(work="stream"), name="stream", goals=(Goal("elman int8", TORCH, 8.0),)))
    monkeypatch.setattr(rows, "ROWS", small)
    monkeypatch.setattr("elman.cli.bench._scale", lambda *_: scaling())
    monkeypatch.setattr("elman.bench.measure.installed", lambda peer: False)
    saved = tmp_path / "speed.json"
    options = ("--rounds", "2", "--threads", "1", "--peers", "onnx", "--scaling", "--save", str(saved))
    code, out, err = run(capsys, *options, "--json")
    assert code == 0
    document = json.loads(out)
    assert document == json.loads(saved.read_text("utf-8"))
    assert f"saved to {saved}" in err
    assert document["format"] == 1
    assert (document["threads"], document["rounds"]) == (1, 2)
    assert document["versions"]["torch"] == torch.__version__
    assert document["absent"] == [{"peer": "ONNX Runtime", "install": "pip install onnx onnxruntime"}]
    for row, one in zip(document["rows"], small, strict=True):
        assert row["name"] == one.name
        assert row["equality"].keys() == {each["name"] for each in row["contenders"]}
        for each in row["contenders"]:
            seconds = each["seconds"]
            assert len(seconds["rounds"]) == 2
            assert each["tokens_per_second"] == pytest.approx(one.tokens / seconds["median"])
            assert each["gflops"] == pytest.approx(one.operations / seconds["median"] / 1e9)
        if native.available():
            assert row["peak_gflops"]["1"]["low"] > 0
        by_name = {each["name"]: each["seconds"]["rounds"] for each in row["contenders"]}
        for ratio in row["ratios"]:
            pairs = zip(by_name[ratio["peer"]], by_name[ratio["ours"]], strict=True)
            assert ratio["median"] == pytest.approx(sum(a / b for a, b in pairs) / 2)
            assert (ratio["floor"] is None) == (ratio["reached"] is None)
        assert {(goal.ours, goal.peer) for goal in one.goals} <= {
            (r["ours"], r["peer"]) for r in row["ratios"]
        }
    assert {point["axis"] for point in document["scaling"]} == {"hidden", "steps", "threads"}


def scaling() -> list:
    axes = {"hidden": (3, 4), "steps": (2,)}
    return list(measure_scaling(Settings(1, 1, PEERS), (1, 2), base=tiny(), axes=axes))


def test_scaling_varies_one_thing_at_a_time() -> None:
    before = torch.get_num_threads()
    points = scaling()
    assert [(point["axis"], point["value"]) for point in points] == [
        ("hidden", 3),
        ("hidden", 4),
        ("steps", 2),
        ("threads", 1),
        ("threads", 2),
    ]
    assert [point["sizes"]["hidden"] for point in points] == [3, 4, 7, 7, 7]
    assert [point["sizes"]["steps"] for point in points] == [5, 5, 2, 5, 5]
    assert [point["threads"] for point in points] == [1, 1, 1, 1, 2]
    assert torch.get_num_threads() == before


def test_scaling_is_in_float32_alone() -> None:
    line = line_up(tiny(), (), 1, bf16=False)
    assert [one.name for one in line.contenders] == ["elman fp32", TORCH]


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        app.main(["bench", *arguments])
    shown = capsys.readouterr()
    return int(caught.value.code or 0), shown.out, shown.err


def test_the_tables(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "ROWS", (tiny(),))
    monkeypatch.setattr("elman.cli.bench._scale", lambda *_: scaling())
    monkeypatch.setenv("COLUMNS", "40")
    code, out, _ = run(capsys, "--rounds", "1", "--threads", "1", "--peers", "torch", "--scaling")
    assert code == 0
    for part in ("tokens/s", "of peak", "floor", BF16, "Scaling of the training step", "Medians of 1 rounds"):
        assert part in out


def test_a_wrong_kernel_ends_the_command(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "ROWS", (tiny(),))
    _a_gradient_a_little_off(monkeypatch)
    code, out, err = run(capsys, "--rounds", "1", "--peers", "torch")
    assert code == 2
    assert not out
    assert "is not equal to the reference" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rows", "lstm-3x7"), "there is no row 'lstm-3x7'"),
        (("--peers", "caffe"), "there is no peer 'caffe'"),
        (("--rounds", "0"), "--rounds 0 is out of range"),
        (("--threads", "0"), "--threads 0 is out of range"),
        (("--threads", "5000"), "--threads 5000 is out of range"),
        (("--save", "absent/speed.json"), "cannot be written"),
        (("--rounds", "many"), "many"),
    ],
)
def test_mistakes_are_told(capsys, arguments, message) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert not out
    assert message in err
    assert "Traceback" not in err


def test_help_has_examples(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "elman bench --quick" in out.partition("Examples:")[2]
    assert max(map(len, out.splitlines())) <= 80


def test_rows_and_peers_by_name() -> None:
    assert choose_rows() == ROWS
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert [row.name for row in choose_rows(("gru-2x200", "lstm-2x200"))] == ["lstm-2x200", "gru-2x200"]
    assert {row.name for row in choose_rows(quick=True)} == set(rows.QUICK)
    assert choose_peers() == PEERS
    assert choose_peers(("torch",)) == ()
    with pytest.raises(OptionError):
        choose_peers(("torch", "numpy"))
    assert all(installed(peer) in (True, False) for peer in PEERS)
