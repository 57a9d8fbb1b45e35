"""The recurrent model on its way to disk and back: sizes, bits, and parts that do not belong together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from elman.errors import FormatError, OptionError
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from neural_oracle import WORDS, ids_for
from test_recurrent import PRODUCT, H, V, make


def test_parameter_count_of_zarembas_small_model() -> None:
    shapes = RecurrentModel.expected_shapes({}, 10_000)
    assert sum(int(np.prod(shape)) for shape, _ in shapes.values()) == 4_653_200
    assert make(tied=True).parameter_count == make(embedding_size=H).parameter_count - V * H


@pytest.mark.parametrize("options", PRODUCT[::2], ids=lambda options: "-".join(map(str, options.values())))
def test_storage_keeps_every_bit(options) -> None:
    model = make(init_scale=0.3, **options).eval()
    arrays = model.arrays()
    shapes = {name: (tuple(array.shape), array.dtype) for name, array in arrays.items()}
    assert shapes == RecurrentModel.expected_shapes(model.config_json(), V)
    random_state = torch.get_rng_state()
    again = RecurrentModel.from_parts(model.config_json(), arrays, model.vocabulary, WORDS)
    assert torch.equal(random_state, torch.get_rng_state())  # loading draws nothing
    assert not again.training
    assert all(parameter.requires_grad for parameter in again.parameters())
    ids = ids_for(model, 5, 2)
    assert torch.equal(model.token_nats(ids, model.start(2))[0], again.token_nats(ids, again.start(2))[0])
    assert again.config == model.config
    with torch.no_grad():
        again.embedding.weight.zero_()
    assert float(arrays["embedding.weight"].abs().max()) > 0  # a copy, not the same memory


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda arrays: arrays.pop("output.bias"), "lack output.bias"),
        (lambda arrays: arrays.update(more=torch.zeros(1)), "unknown arrays: more"),
        (
            lambda arrays: arrays.update({"output.bias": torch.zeros(V - 1)}),
            r"\[28\], not torch.float32 \[29\]",
        ),
        (lambda arrays: arrays.update({"output.bias": torch.zeros(V).double()}), "float64"),
        (lambda arrays: arrays.update({"output.bias": torch.full((V,), torch.nan)}), "NaN"),
    ],
)
def test_damaged_arrays_are_refused(damage, message) -> None:
    model = make()
    arrays = model.arrays()
    damage(arrays)
    with pytest.raises(FormatError, match=message):
        RecurrentModel.from_parts(model.config_json(), arrays, model.vocabulary, WORDS)


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_size": 0},
        {"hidden_size": 10**9},
        {"num_layers": 65},
        {"cell": "transformer"},
        {"sized": 3},
        {"dropout": float("nan")},
        {"dropout": 1.0},
        {"tied": True, "hidden_size": 100},
        {"softmax": "adaptive", "cutoffs": [5, 4]},
    ],
)
def test_damaged_configurations_are_refused_before_anything_is_allocated(config) -> None:
    with pytest.raises((FormatError, OptionError)):
        RecurrentModel.expected_shapes(config, 50)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"tied": True, "embedding_size": 4, "hidden_size": 9}, "--emsize 9"),
        ({"tied": True, "softmax": "adaptive"}, "--softmax full"),
        ({"cell": "gru", "forget_bias": 1.0}, "drop --forget-bias"),
    ],
)
def test_options_that_contradict_one_another(options, remedy) -> None:
    with pytest.raises(OptionError) as caught:
        RecurrentConfig(**options)
    assert remedy in caught.value.remedy


def test_configuration_is_frozen_and_strict() -> None:
    with pytest.raises(ValidationError):
        RecurrentConfig().hidden_size = 3
    with pytest.raises(ValidationError):
        RecurrentConfig(nhid=3)
    assert make(softmax="adaptive").config.cutoffs == (2, 11)
