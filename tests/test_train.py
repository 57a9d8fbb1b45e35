"""The loop: each update against an explicit computation in float64, and what the events promise."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import elman.train as loop
from elman import run_folder
from elman.checkpoint import load_checkpoint, load_model
from elman.errors import DivergenceError, OptionError
from elman.evaluate import evaluate
from elman.neural.feedforward import FeedforwardConfig, FeedforwardModel
from elman.neural.recurrent import RecurrentModel
from elman.text.vocabulary import Vocabulary
from elman.text.windows import carried_windows
from elman.train import train
from elman.training import update
from elman.training.config import TrainConfig
from elman.training.events import Sampled, Saved, Started, Step, Stopped, Validated
from elman.training.update import window_loss
from tolerance import tolerance
from training_example import final_state, make_config, make_corpus, make_model, run, same

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


def clip_after(parameters: Any, config: TrainConfig) -> float:
    """Wrong: measures before the step and would clip once the step is made."""
    return update.clip_by_norm(parameters, math.inf)


def norm_before_value(parameters: Any, config: TrainConfig) -> float:
    norm = update.clip_by_norm(parameters, config.clip)
    update.clip_by_value(parameters, config.clip_value)
    return norm


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


# -- events


def test_the_events_of_a_run(tmp_path: Path) -> None:
    config = make_config(samples=2, sample_length=5, save_every=3)
    model = make_model(CORPUS)
    events = run(model, CORPUS, config, save=tmp_path / "run")
    kinds = [type(event).__name__ for event in events if not isinstance(event, Saved)]
    assert kinds == ["Started", *(["Step"] * 7 + ["Validated", "Sampled"]) * 3, "Stopped"]
    started, stopped = events[0], events[-1]
    assert isinstance(started, Started)
    assert isinstance(stopped, Stopped)
    assert (started.steps, started.parameters) == (21, sum(p.numel() for p in model.parameters()))
    saved = [event.step for event in events if isinstance(event, Saved)]
    assert saved == [0, 3, 6, 7, 9, 12, 14, 15, 18, 21]
    steps = [event for event in events if isinstance(event, Step)]
    assert [step.step for step in steps] == list(range(1, 22))
    for epoch in (1, 2, 3):
        mine = [step for step in steps if step.epoch == epoch]
        assert [step.position for step in mine] == list(range(1, 8))
        total = sum(step.nats for step in mine), sum(step.events for step in mine)
        assert mine[-1].train_perplexity == pytest.approx(math.exp(total[0] / total[1]), rel=1e-12)
    rows = [event for event in events if isinstance(event, Validated)]
    assert [row.lr for row in rows] == [steps[6].lr, steps[13].lr, steps[20].lr]
    assert [row.best for row in rows] == [True, False, False]
    assert stopped.best_epoch == 1
    assert stopped.valid_perplexity == pytest.approx(rows[0].valid.perplexity, rel=1e-12)
    assert evaluate(model, CORPUS.valid) == rows[0].valid  # the model afterwards is the best one
    assert evaluate(load_model(tmp_path / "run"), CORPUS.valid) == rows[0].valid
    assert not model.training
    texts = [event.texts for event in events if isinstance(event, Sampled)]
    assert all(len(two) == 2 for two in texts)
    lines = [json.loads(line) for line in (tmp_path / "run" / run_folder.LOG).read_text().splitlines()]
    assert [line["event"] for line in lines if line["event"] != "step"] == [
        "started", *["validated", "sampled"] * 3, "stopped",
    ]  # fmt: skip
    assert lines[1]["valid"]["perplexity"] == rows[0].valid.perplexity


def test_without_a_folder_nothing_is_written_and_the_run_is_the_same(tmp_path: Path) -> None:
    one, other = make_model(CORPUS), make_model(CORPUS)
    events = run(one, CORPUS, make_config())
    run(other, CORPUS, make_config(), save=tmp_path / "run")
    assert not any(isinstance(event, Saved) for event in events)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_who_consumes_the_events_may_draw_random_numbers(tmp_path: Path) -> None:
    """Neither the run nor the caller's random state notices the other."""
    run(make_model(CORPUS), CORPUS, make_config(), save=tmp_path / "quiet")
    torch.manual_seed(42)
    wanted = torch.rand(30)
    torch.manual_seed(42)
    found = []
    for _ in train(make_model(CORPUS), CORPUS, make_config(), save=tmp_path / "noisy"):
        found.append(torch.rand(1))  # noqa: PERF401
    assert torch.equal(torch.cat(found)[:30], wanted)
    assert same(final_state(tmp_path / "noisy"), final_state(tmp_path / "quiet"))


def test_another_seed_is_another_run() -> None:
    one, other, again = (run(make_model(CORPUS), CORPUS, make_config(seed=seed)) for seed in (1, 2, 1))
    nats = [[event.nats for event in events if isinstance(event, Step)] for events in (one, other, again)]
    assert nats[0] == nats[2] != nats[1]


def test_in_a_thread_there_is_no_signal_handler_and_it_works() -> None:
    events: list[Any] = []
    thread = threading.Thread(
        target=lambda: events.extend(run(make_model(CORPUS), CORPUS, make_config(epochs=1)))
    )
    thread.start()
    thread.join()
    assert isinstance(events[-1], Stopped)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_it_learns_in_bfloat16_too(cell: str) -> None:
    events = run(
        make_model(CORPUS, cell, dropout=0.0), CORPUS, make_config(precision="bf16", epochs=3, lr=0.03)
    )
    rows = [event for event in events if isinstance(event, Validated)]
    assert rows[-1].train_perplexity < rows[0].train_perplexity < len(CORPUS.vocabulary) * 1.1


def test_a_feedforward_model_learns_by_the_same_loop(tmp_path: Path) -> None:
    config = FeedforwardConfig(window=3, embedding_size=4, hidden_size=5)
    for independent in (False, True):
        model = FeedforwardModel(CORPUS.vocabulary, CORPUS.tokenizer, config)
        options = make_config(independent=independent, lr=0.02)
        events = run(model, CORPUS, options, save=tmp_path / str(independent))
        rows = [event for event in events if isinstance(event, Validated)]
        assert rows[-1].train_perplexity < rows[0].train_perplexity
        assert rows[0].valid.protocol.state == ("reset" if independent else "carry")


def test_patience_ends_a_run_that_gets_no_better() -> None:
    events = run(make_model(CORPUS), CORPUS, make_config(epochs=50, patience=2, schedule="constant"))
    rows = [event for event in events if isinstance(event, Validated)]
    stopped = events[-1]
    assert isinstance(stopped, Stopped)
    assert stopped.reason == "patience"
    assert stopped.epoch == len(rows) == (stopped.best_epoch or 0) + 2 < 50


# -- divergence


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))

    def broken(*arguments: Any) -> Any:
        loss, scale, carried = window_loss(*arguments)
        return (loss * math.nan if next(calls) == 9 else loss), scale, carried

    monkeypatch.setattr(loop, "window_loss", broken)
    with pytest.raises(DivergenceError, match=r"epoch 2 at update 10: the loss is not a finite number"):
        run(make_model(CORPUS), CORPUS, make_config(), save=tmp_path / "run")
    assert load_checkpoint(tmp_path / "run").record["step"] == 7


def test_gradients_that_are_not_finite_are_skipped_and_then_end_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clip = update.clip_gradients
    for bad, ends in (({3, 4, 5, 6}, False), ({3, 4, 5, 6, 7}, True)):
        calls = iter(range(100))
        monkeypatch.setattr(
            loop,
            "clip_gradients",
            lambda *a, calls=calls, bad=bad: math.inf if next(calls) in bad else clip(*a),
        )
        model = make_model(CORPUS)
        if ends:
            with pytest.raises(DivergenceError, match="not finite for 5 updates in a row"):
                run(model, CORPUS, make_config())
        else:
            events = [event for event in run(model, CORPUS, make_config()) if isinstance(event, Step)]
            assert {event.step - 1 for event in events if event.skipped} == bad


def test_a_loss_worse_than_guessing_for_long_ends_the_run() -> None:
    with pytest.raises(DivergenceError, match="far above a blind guess for 100 updates in a row") as caught:
        run(make_model(CORPUS), CORPUS, plain_sgd(lr=9000.0, epochs=100))
    assert "a smaller --lr (now 9000)" in str(caught.value)


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    model = make_model(CORPUS)
    with pytest.raises(DivergenceError, match="not finite after update 2"):  # noqa: PT012
        for event in train(model, CORPUS, make_config(save_every=2), save=tmp_path / "run"):
            if isinstance(event, Step) and event.step == 2:
                with torch.no_grad():
                    model.output.bias[3] = math.nan
    assert load_checkpoint(tmp_path / "run").record["step"] == 0


# -- refused from the start


def test_what_cannot_begin(tmp_path: Path) -> None:
    model = make_model(CORPUS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(OptionError, match="is not empty"):
        run(model, CORPUS, make_config(), save=tmp_path / "full")
    with pytest.raises(OptionError, match="resuming needs the folder"):
        run(model, CORPUS, make_config(), resume=True)
    with pytest.raises(OptionError, match="fewer than batch_size=400"):
        run(model, CORPUS, make_config(batch_size=400))
    model.vocabulary = Vocabulary(["<unk>", "</s>", "other"])
    with pytest.raises(OptionError, match="vocabulary of 3 and the corpus another of 23"):
        run(model, CORPUS, make_config())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(OptionError, match="device cuda is not there"):
        run(make_model(CORPUS), CORPUS, make_config(device="cuda"))
