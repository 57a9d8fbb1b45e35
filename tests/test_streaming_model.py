"""Streaming models as models: saved, loaded, without kernels, generated from; and no weight is ever stale."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from elman import checkpoint, storage
from elman.cli import app
from elman.cli import export as export
from elman.errors import FormatError, OptionError
from elman.generate import GenerationSettings, samples
from elman.kernels import native
from elman.neural import recurrent
from elman.neural.recurrent import GATES, RecurrentConfig, RecurrentModel
from elman.neural.streaming import StreamingModel
from neural_oracle import WORDS, assert_contract, busy_state, drawn, ids_for, vocabulary
from tolerance import tolerance

V, E, H = 61, 9, 11
KINDS = ("float32", "bfloat16", "int8")
needs_kernels = pytest.mark.skipif(not native.available(), reason="the kernels are not in this installation")


def make(**options) -> RecurrentModel:
    sizes = {"embedding_size": H if options.get("tied") else E, "hidden_size": H}
    return drawn(RecurrentModel(vocabulary(V), WORDS, RecurrentConfig(**(sizes | options)))).float()


def nats_of(model) -> torch.Tensor:
    with torch.no_grad():
        nats: torch.Tensor = model.token_nats(ids_for(model, 7, 3), busy_state(model, 3))[0]
    return nats


@pytest.mark.parametrize("weights", KINDS)
@pytest.mark.parametrize("options", [{}, {"tied": True}, {"cell": "gru", "num_layers": 1}], ids=str)
def test_save_and_load(weights, options, tmp_path) -> None:
    model = StreamingModel(make(**options), weights)
    checkpoint.save_model(model, tmp_path / "model")
    again = checkpoint.load_model(tmp_path / "model")
    assert isinstance(again, StreamingModel)
    assert again.config == model.config
    assert again.describe() == model.describe()
    assert torch.equal(nats_of(again), nats_of(model))
    assert_contract(again, dtype=torch.float32)


@pytest.mark.parametrize("weights", KINDS)
def test_loads_without_the_kernels(weights, tmp_path, monkeypatch) -> None:
    """There it computes on torch with the dequantized weights, which differ from the first by half a step."""
    plain = make()
    checkpoint.save_model(StreamingModel(plain, weights), tmp_path / "model")
    monkeypatch.setattr(native, "_module", None)
    model = checkpoint.load_model(tmp_path / "model")
    assert isinstance(model, StreamingModel)
    assert_contract(model, dtype=torch.float32)
    torch.testing.assert_close(nats_of(model), nats_of(model.dequantized()), rtol=0, atol=0)
    step = {"float32": 0.0, "bfloat16": 2.0**-8, "int8": 0.5 / 127}[weights]
    for name, array in plain.arrays().items():
        found = model.dequantized().arrays()[name]
        allowed = step * float(array.abs().max()) * (1 + 1e-5) if array.dim() > 1 else 0.0
        assert float((found - array).abs().max()) <= allowed, name


def test_the_size_on_disk(tmp_path) -> None:
    sizes = {}
    for weights in KINDS:
        checkpoint.save_model(StreamingModel(make(), weights), tmp_path / weights)
        sizes[weights] = sum(t.nbytes for t in load_file(tmp_path / weights / "model.safetensors").values())
    matrices = sum(array.numel() for array in make().arrays().values() if array.dim() > 1)
    assert sizes["float32"] - sizes["bfloat16"] == 2 * matrices
    rows = sum(len(array) for array in make().arrays().values() if array.dim() > 1)
    assert sizes["float32"] - sizes["int8"] == 3 * matrices - 4 * rows


def damaged(folder: Path, change) -> None:
    """The weights changed and every digest made right again."""
    arrays = load_file(folder / "model.safetensors")
    change(arrays)
    (folder / "model.safetensors").unlink()
    save_file(arrays, folder / "model.safetensors")
    document = json.loads((folder / "config.json").read_text("utf-8"))
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    document["files"]["model.safetensors"] = storage.write_bytes(folder / "model.safetensors", data)
    (folder / "config.json").write_text(json.dumps(document), "utf-8")


DAMAGES = {
    "a scale missing": lambda a: a.pop("output.weight.scale"),
    "a scale negative": lambda a: a["output.weight.scale"].neg_(),
    "a scale NaN": lambda a: a["output.weight.scale"].fill_(float("nan")),
    "-128": lambda a: a["output.weight"].fill_(-128),
    "another dtype": lambda a: a.update({"output.weight": a["output.weight"].float()}),
    "another shape": lambda a: a.update({"output.weight": a["output.weight"][:-1].clone()}),
    "one too many": lambda a: a.update({"more": torch.zeros(3)}),
    "a bias infinite": lambda a: a["output.bias"].fill_(float("inf")),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_refused(name, tmp_path) -> None:
    checkpoint.save_model(StreamingModel(make(), "int8"), tmp_path / "model")
    damaged(tmp_path / "model", lambda arrays: None)
    checkpoint.load_model(tmp_path / "model")
    damaged(tmp_path / "model", DAMAGES[name])
    with pytest.raises(FormatError):
        checkpoint.load_model(tmp_path / "model")


@pytest.mark.parametrize("weights", ["int4", "", 8, None])
def test_a_wrong_configuration_is_refused(weights, tmp_path) -> None:
    config = StreamingModel(make(), "int8").config_json() | {"weights": weights}
    with pytest.raises(FormatError):
        StreamingModel.expected_shapes(config, V)


def test_adaptive_softmax_has_no_streaming_form() -> None:
    model = make(softmax="adaptive")
    with pytest.raises(OptionError, match="streaming"):
        StreamingModel(model)
    with torch.no_grad():  # and the plain model keeps to torch
        assert model._stream(model.start(1), torch.tensor([1])) is None


CHANGES = {
    "in place": lambda m: m.output.weight.mul_(1.5),
    "an optimizer": lambda m: step_of_sgd(m),
    "through .data": lambda m: m.recurrence.weight_hh_l1.data.add_(0.1),
    "through numpy": lambda m: m.embedding.weight.detach().numpy().__imul__(0.5),
    "a bias": lambda m: m.recurrence.bias_hh_l0.sub_(0.3),
    "the output bias": lambda m: m.output.bias[3].add_(2.0),
    "loaded": lambda m: m.load_state_dict({k: v * 0.7 for k, v in m.state_dict().items()}),
    "assigned": lambda m: m.load_state_dict({k: v * 0.7 for k, v in m.state_dict().items()}, assign=True),
    "replaced": lambda m: setattr(m.output, "weight", torch.nn.Parameter(m.output.weight * 0.6)),
    "there and back": lambda m: m.double().float(),
}


def step_of_sgd(model: RecurrentModel) -> None:
    with torch.enable_grad():
        model.token_nats(ids_for(model, 3, 2), model.start(2))[0].sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("tied", [False, True])
def test_no_weight_is_stale(name, tied) -> None:
    """After any change `advance` equals the model as it now is, and did change."""
    model = make(tied=tied)
    start, token = busy_state(model, 2), torch.tensor([5, 8])
    with torch.no_grad():
        before = model.advance(start, token)[1]
        CHANGES[name](model)
        after = model.advance(start, token)[1]
    hidden, _ = model._hidden(token[None], start)
    wanted = model.output.log_probs(hidden[0]).detach()
    allowed = tolerance(torch.float32, H, V)
    torch.testing.assert_close(after, wanted, rtol=allowed, atol=allowed)
    assert name == "there and back" or not torch.allclose(before, after, atol=1e-3)


@needs_kernels
def test_long_texts_are_not_stale_either() -> None:
    model = make()
    ids = ids_for(model, recurrent.LONG, 1)
    with torch.no_grad():
        before = model.token_nats(ids, model.start(1))[0]
        model.output.weight.mul_(1.5)
        after = model.token_nats(ids, model.start(1))[0]
    wanted = model.token_nats(ids, model.start(1))[0].detach()
    allowed = tolerance(torch.float32, H, V)
    torch.testing.assert_close(after, wanted, rtol=allowed, atol=allowed)
    assert not torch.allclose(before, after, atol=1e-3)


def test_a_copy_has_its_own_weights() -> None:
    model = make()
    with torch.no_grad():
        model.advance(model.start(1), torch.tensor([3]))
        twin = copy.deepcopy(model)
        twin.output.weight.mul_(2.0)
        one, other = (m.advance(m.start(1), torch.tensor([3]))[1] for m in (model, twin))
    assert not torch.allclose(one, other, atol=1e-3)


@needs_kernels
@pytest.mark.parametrize("cell", list(GATES))
def test_the_plain_model_streams_where_it_may(cell) -> None:
    model = make(cell=cell, dropout=0.5)
    start, token = model.start(1), torch.tensor([4])
    assert model._stream(start, token) is None  # gradients are on
    with torch.no_grad():
        assert model._stream(start, token) is not None
        assert model.train()._stream(start, token) is None
        assert make(cell=cell, backend="torch")._stream(start, token) is None
        assert model.eval().double()._stream(model.start(1), token) is None


@pytest.mark.parametrize("weights", [None, "int8"])
@pytest.mark.parametrize("top_k", [None, 5])
def test_generates_the_same_text_with_and_without_kernels(weights, top_k, monkeypatch) -> None:
    model = make()
    made = model if weights is None else StreamingModel(model, "int8")
    settings = GenerationSettings(length=12, seed=4, top_k=top_k, top_p=0.9, temperature=0.8)
    texts = [[sample.text for sample in samples(made, "w003", settings, count)] for count in (1, 3)]
    assert texts[0][0] == texts[1][0]
    if weights is None:
        monkeypatch.setattr(native, "_module", None)
        assert [sample.text for sample in samples(model, "w003", settings, 3)] == texts[1]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        app.main(["export", *map(str, arguments)])
    shown = capsys.readouterr()
    return int(caught.value.code or 0), shown.out, shown.err


@pytest.mark.parametrize("weights", ["int8", "bfloat16"])
def test_export(weights, tmp_path, capsys) -> None:
    plain, target = tmp_path / "plain", tmp_path / "small"
    checkpoint.save_model(make(), plain)
    code, out, _ = run(capsys, plain, target, "--to", weights, "--json")
    assert code == 0
    assert json.loads(out)["bytes"] == sum(file.stat().st_size for file in target.iterdir())
    found = checkpoint.load_model(target)
    assert isinstance(found, StreamingModel)
    assert found.config.weights == weights
    assert run(capsys, plain, target, "--to", weights)[0] != 0
    assert run(capsys, plain, target, "--to", weights, "--overwrite")[0] == 0
    code, _, err = run(capsys, target, tmp_path / "twice", "--to", weights)
    assert code != 0
    assert "quantized model is not written as" in err
