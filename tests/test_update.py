"""Each update of the loop against an explicit computation in float64; known wrong updates are caught."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import elman.train as loop
from elman.evaluate import evaluate
from elman.neural.recurrent import RecurrentModel
from elman.text.windows import carried_windows
from elman.train import train
from elman.training import update
from elman.training.config import TrainConfig
from elman.training.events import Step
from elman.training.update import window_loss
from tolerance import tolerance
from training_example import make_config, make_corpus, make_model, run

CORPUS = make_corpus()
CLOSE = {"rtol": tolerance(torch.float64, 10_000), "atol": tolerance(torch.float64, 10_000)}


def plain_sgd(**options: Any) -> TrainConfig:
    chosen = {"optimizer": "sgd", "lr": 0.5, "clip": 0.0, "schedule": "constant", "epochs": 1}
    return make_config(**(chosen | options))


def oracle(config: TrainConfig, cell: str = "lstm") -> list[dict[str, Tensor]]:
    """Weights after each update, by stepping token by token with `advance`: no windows, no token_nats.

    For every update the last `bptt` inputs are unrolled from the state that stood there (a constant) and
    the negative log-probabilities of the last k1 events are summed over time, averaged over the batch.
    """
    model = make_model(CORPUS, cell, dropout=0.0).double()
    column = CORPUS.train.events // config.batch_size
    stream = torch.tensor([1, *CORPUS.train.ids.tolist()])
    inputs = torch.stack([stream[b * column : (b + 1) * column + 1] for b in range(config.batch_size)], dim=1)
    interval, history = config.update_interval or config.bptt, []
    states = {0: model.start(config.batch_size)}  # by place: before input `place`, under the weights of then
    for first in range(0, column, interval):
        last = min(first + interval, column)
        place = max(0, first + interval - config.bptt)
        state = states[place]
        terms = []
        for t in range(place, last):
            state, log_probs = model.advance(state, inputs[t])
            if t >= first:
                terms.append(-log_probs.gather(1, inputs[t + 1][:, None]).sum())
            states[t + 1] = tuple(tensor.detach() for tensor in state)
        total = torch.stack(terms).sum()
        loss = total / config.batch_size if config.loss == "sum" else total / (len(terms) * config.batch_size)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        if config.clip_value:
            gradients = tuple(g.clamp(-config.clip_value, config.clip_value) for g in gradients)
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        factor = config.clip / norm if config.clip and norm > config.clip else 1.0
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= config.lr * factor * gradient
        history.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    return history


def trained(config: TrainConfig, cell: str = "lstm") -> list[dict[str, Tensor]]:
    """Weights after each update, by the loop."""
    model = make_model(CORPUS, cell, dropout=0.0).double()
    return [
        {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for event in train(model, CORPUS, config)
        if isinstance(event, Step)
    ]


def agree(config: TrainConfig, cell: str = "lstm") -> bool:
    pairs = list(zip(trained(config, cell), oracle(config, cell), strict=True))
    assert len(pairs) > 3
    return all(torch.allclose(ours[name], theirs[name], **CLOSE) for ours, theirs in pairs for name in ours)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize(("interval", "bptt"), [(6, 6), (5, 5), (4, 11), (1, 7), (3, 6), (7, 40)])
def test_updates_equal_an_explicit_unrolling(cell: str, interval: int, bptt: int) -> None:
    assert agree(plain_sgd(bptt=bptt, update_interval=interval), cell)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "sum"},
        {"loss": "mean", "lr": 3.0},
        {"clip": 0.5},
        {"clip_value": 0.02},
        {"clip_value": 0.02, "clip": 0.1},
        {"bptt": 9, "update_interval": 4, "clip": 0.3, "loss": "mean"},
    ],
    ids=str,
)
def test_loss_and_clipping_equal_the_explicit_computation(options: dict[str, Any]) -> None:
    assert agree(plain_sgd(**options))


def clip_after(parameters: Any, config: TrainConfig) -> tuple[float, float]:
    """Wrong: measures before the step and would clip once the step is made."""
    return update.clip_by_norm(parameters, math.inf), 1.0


def clip_twice(parameters: Any, config: TrainConfig) -> tuple[float, float]:
    """Wrong: in place and in the rate."""
    norm = update.clip_by_norm(parameters, config.clip)
    return norm, min(1.0, config.clip / norm)


def norm_before_value(parameters: Any, config: TrainConfig) -> tuple[float, float]:
    norm = update.clip_by_norm(parameters, config.clip)
    update.clip_by_value(parameters, config.clip_value)
    return norm, 1.0


def undivided(model: Any, window: Any, carried: Any, config: TrainConfig) -> Any:
    loss, scale, after = window_loss(model, window, carried, config)
    return loss * config.batch_size, scale, after


def not_carried(model: Any, window: Any, carried: Any, config: TrainConfig) -> Any:
    return window_loss(model, window, (), config)


def carried_from_the_end(model: Any, window: Any, carried: Any, config: TrainConfig) -> Any:
    state = carried or model.start(config.batch_size)
    loss, scale, _ = window_loss(model, window, carried, config)
    return loss, scale, tuple(tensor.detach() for tensor in model.token_nats(window.ids, state)[1])


def all_scored(model: Any, window: Any, carried: Any, config: TrainConfig) -> Any:
    nats, _ = model.token_nats(window.ids, carried or model.start(config.batch_size))
    _, scale, after = window_loss(model, window, carried, config)
    return nats.sum() / scale, scale, after


@pytest.mark.parametrize(
    ("name", "wrong", "options"),
    [
        ("clip_gradients", clip_after, {"clip": 0.5}),
        ("clip_gradients", clip_twice, {"clip": 0.5}),
        ("clip_gradients", norm_before_value, {"clip": 0.1, "clip_value": 0.02}),
        ("window_loss", undivided, {}),
        ("window_loss", not_carried, {}),
        ("window_loss", carried_from_the_end, {"bptt": 9, "update_interval": 4}),
        ("window_loss", all_scored, {"bptt": 9, "update_interval": 4}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_known_wrong_updates_are_caught(
    monkeypatch: pytest.MonkeyPatch, name: str, wrong: Any, options: dict[str, Any]
) -> None:
    assert agree(plain_sgd(**options))
    monkeypatch.setattr(loop, name, wrong)
    assert not agree(plain_sgd(**options))


def test_independent_sentences_have_the_loss_of_each_alone() -> None:
    """One update over a batch of padded sentences: the sum of the sentences' own nats over their number."""
    config = make_config(independent=True, bptt=7, batch_size=4, optimizer="sgd", epochs=1)
    model = make_model(CORPUS, dropout=0.0).double().train()
    total = 0.0
    for window, (loss, scale) in _losses(model, config):
        total += float(loss.detach()) * scale
        assert scale == window.ids.shape[1]
    alone = evaluate(model, CORPUS.train, state="reset")
    assert total == pytest.approx(alone.nats, rel=CLOSE["rtol"])


def _losses(model: RecurrentModel, config: TrainConfig) -> Any:
    carried: Any = ()
    for window in loop.epoch_windows(CORPUS.train, config, 0):
        loss, scale, carried = window_loss(model, window, carried, config)
        yield window, (loss, scale)


def test_an_epoch_at_rate_zero_is_an_evaluation() -> None:
    """Carried windows side by side, nothing learned: train perplexity = the columns scored on their own."""
    config = plain_sgd(lr=1e-300, batch_size=5)
    model = make_model(CORPUS, dropout=0.0).double()
    events = run(model, CORPUS, config)
    last = [event for event in events if isinstance(event, Step)][-1]
    whole = carried_windows(CORPUS.train, batch_size=5, bptt=10**6)
    nats = model.token_nats(whole[0].ids, model.start(5))[0].sum().detach()
    assert last.train_perplexity == pytest.approx(math.exp(float(nats) / whole.events), rel=CLOSE["rtol"])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_weight_decay_falls_on_matrices_only(optimizer: Any) -> None:
    def end(decay: float) -> dict[str, Tensor]:
        config = make_config(optimizer=optimizer, lr=0.01, weight_decay=decay, max_steps=1)
        model = make_model(CORPUS, dropout=0.0)
        run(model, CORPUS, config)
        return model.state_dict()

    without, decayed, initial = end(0.0), end(0.5), make_model(CORPUS).state_dict()
    for name in without:
        if name.endswith("weight") or "weight_" in name:
            if optimizer != "adam":  # shrunk by lr · decay (under adam it enters the gradient instead)
                change = decayed[name] - without[name]
                assert torch.allclose(change, -0.01 * 0.5 * initial[name], rtol=0, atol=1e-6)
            assert not torch.equal(decayed[name], without[name])
        else:
            assert torch.equal(decayed[name], without[name])


def test_short_random_windows_have_a_smaller_rate() -> None:
    """AWD-LSTM rescales the rate of the mean loss by length / bptt; the summed loss scales by itself."""
    for loss in ("mean", "sum"):
        config = plain_sgd(random_length=True, bptt=12, loss=loss, lr=0.1)
        steps = [event for event in run(make_model(CORPUS), CORPUS, config) if isinstance(event, Step)]
        lengths = [step.events // config.batch_size for step in steps]
        assert len(set(lengths)) > 1
        wanted = [0.1 * length / 12 if loss == "mean" else 0.1 for length in lengths]
        assert [step.lr for step in steps] == pytest.approx(wanted, rel=1e-12)
