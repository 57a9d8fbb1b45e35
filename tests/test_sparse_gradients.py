"""Plain SGD with sparse gradients of the embedding: the same update as with all their zeros written out."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from elman.gradients.clipping import clip_by_norm, clip_by_value
from elman.kernels import embedding as kernel
from elman.kernels import native
from elman.recurrence import LSTM, Lookup
from elman.text.windows import Window
from elman.training.config import TrainConfig
from elman.training.optimizer import build_optimizer
from elman.training.update import clip_gradients, window_loss
from training_example import make_corpus, make_model

pytestmark = pytest.mark.skipif(not native.available(), reason="this installation has no compiled kernels")
V, E, H = 37, 11, 5


def through_layer(tokens: Tensor, sparse: bool) -> Tensor:
    """The gradient of an embedding that an LSTM looks up."""
    torch.manual_seed(3)
    weight, layer = torch.randn(V, E).requires_grad_(), LSTM(E, H, num_layers=2, backend="fused")
    with kernel.sparse_gradients() if sparse else nullcontext():
        output, _ = layer(Lookup(weight, tokens))
    (output * torch.randn(output.shape)).sum().backward()
    assert weight.grad is not None
    return weight.grad


def through_embedding(tokens: Tensor, sparse: bool) -> Tensor:
    torch.manual_seed(3)
    weight = torch.randn(V, E).requires_grad_()
    with kernel.sparse_gradients() if sparse else nullcontext():
        rows = kernel.lookup(tokens, weight)
    (rows * torch.randn(rows.shape)).sum().backward()
    assert weight.grad is not None
    return weight.grad


TEXTS = {
    "often the same": torch.tensor([[3, 36, 3], [0, 3, 0], [36, 3, 3], [9, 9, 0]]),
    "nearly distinct": torch.arange(30).flip(0).view(10, 3),
    "one token": torch.tensor([[5]]),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("way", [through_layer, through_embedding])
def test_only_zeros_are_left_out(name: str, way: object) -> None:
    assert callable(way)
    found, whole = way(TEXTS[name], True), way(TEXTS[name], False)
    assert found.is_sparse
    assert not whole.is_sparse
    assert torch.equal(found.to_dense(), whole)
    read = torch.unique(TEXTS[name])
    assert torch.equal(found.coalesce().indices()[0], read)


def test_a_row_that_stands_there_twice_counts_once() -> None:
    """The norm is of the sum, as are the values that are clipped."""
    weight = torch.zeros(V, E, requires_grad=True)
    rows = torch.tensor([[3.0], [1.0], [-1.0]]).expand(3, E)
    weight.grad = torch.sparse_coo_tensor([[4, 7, 4]], rows, (V, E), check_invariants=True)
    whole = weight.grad.to_dense()
    assert clip_by_norm([weight], math.inf) == pytest.approx(float(whole.norm()))
    clip_by_norm([weight], 2.5)
    assert float(weight.grad.to_dense().norm()) == pytest.approx(2.5)
    assert clip_by_value([weight], 0.4) == pytest.approx(1 / V)  # row 4
    assert float(weight.grad.to_dense().max()) == pytest.approx(0.4)


def test_one_weight_of_two_embeddings_is_moved_once() -> None:
    one, other = torch.nn.Embedding(V, E), torch.nn.Embedding(V, E)
    other.weight = one.weight
    before = one.weight.detach().clone()
    config = TrainConfig.model_validate({"optimizer": "sgd", "lr": 0.5})
    optimizer = build_optimizer(torch.nn.ModuleList([one, other]), config)
    one.weight.grad = torch.ones(V, E)
    optimizer.step()
    torch.testing.assert_close(one.weight.detach(), before - 0.5)


def updates(sparse: bool, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]) -> dict[str, Tensor]:
    """The weights after three updates; the state is carried from within the window."""
    if not sparse:
        monkeypatch.setattr("elman.training.update.sparse_gradients", lambda wanted: nullcontext())
    config = TrainConfig.model_validate({"optimizer": "sgd", "lr": 0.5, "clip": 0.05, **options})
    torch.manual_seed(2)
    model = make_model(make_corpus(), "lstm")
    optimizer, parameters = build_optimizer(model, config), list(model.parameters())
    random, state = torch.Generator().manual_seed(4), ()
    for _ in range(3):
        ids = torch.randint(len(model.vocabulary), (34, 4), generator=random)
        optimizer.zero_grad()
        loss, _, state = window_loss(model, Window(ids, scored=33, advance=20), state, config)
        loss.backward()  # type: ignore[no-untyped-call]
        norm, factor = clip_gradients(parameters, config)
        assert norm > 0.05
        assert bool(model.embedding.weight.grad.is_sparse) == (sparse and "momentum" not in options)
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * factor
        optimizer.step()
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("options", [{}, {"clip_value": 0.01}, {"momentum": 0.9}], ids=str)
def test_updates_are_the_same(options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    found = updates(True, monkeypatch, options)
    for name, whole in updates(False, monkeypatch, options).items():
        torch.testing.assert_close(found[name], whole, rtol=1e-6, atol=1e-7, msg=name)


def test_lost_places_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def last_place_alone(drows: Tensor, places: Tensor, count: int) -> Tensor:
        wrong = torch.zeros(count, drows.shape[-1])
        wrong[places] = drows
        return wrong

    whole = through_embedding(TEXTS["often the same"], False)
    monkeypatch.setattr(torch.ops.elman, "embedding_gradient", last_place_alone)
    assert not torch.equal(through_embedding(TEXTS["often the same"], True).to_dense(), whole)
