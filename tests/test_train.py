"""What a training tells, keeps and refuses (the updates themselves: test_update.py, test_resume.py)."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import elman.train as loop
from elman import run_folder
from elman.checkpoint import load_checkpoint, load_model
from elman.errors import DivergenceError, OptionError
from elman.evaluate import evaluate
from elman.neural.feedforward import FeedforwardConfig, FeedforwardModel
from elman.text.vocabulary import Vocabulary
from elman.train import train
from elman.training import update
from elman.training.events import Sampled, Saved, Started, Step, Stopped, Validated
from elman.training.progress import Progress
from elman.training.update import guard, window_loss
from training_example import final_state, make_config, make_corpus, make_model, run, same

CORPUS = make_corpus()


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
            lambda *a, calls=calls, bad=bad: (math.inf, 1.0) if next(calls) in bad else clip(*a),
        )
        model = make_model(CORPUS)
        if ends:
            with pytest.raises(DivergenceError, match="not finite for 5 updates in a row"):
                run(model, CORPUS, make_config())
        else:
            events = [event for event in run(model, CORPUS, make_config()) if isinstance(event, Step)]
            assert {event.step - 1 for event in events if event.skipped} == bad


def test_a_loss_worse_than_guessing_for_long_ends_the_run() -> None:
    wild = make_config(optimizer="sgd", lr=9000.0, clip=0.0, schedule="constant", epochs=100)
    with pytest.raises(DivergenceError, match="far above a blind guess for many updates in a row") as caught:
        run(make_model(CORPUS), CORPUS, wild)
    assert "a smaller --lr (now 9000)" in str(caught.value)


@pytest.mark.parametrize(("times_a_blind_guess", "updates"), [(2.0, 100), (11.0, 10)])
def test_the_guard_waits_longer_for_a_rough_start_than_for_a_wild_one(
    times_a_blind_guess: float, updates: int
) -> None:
    progress, config, size = Progress(), make_config(), 5000
    nats = times_a_blind_guess * math.log(size)
    for _ in range(updates - 1):
        guard(progress, config, nats, 1.0, size)
    with pytest.raises(DivergenceError):
        guard(progress, config, nats, 1.0, size)
    progress = Progress()
    for turn in range(300):  # a good window between makes it begin anew
        guard(progress, config, 1.0 if turn % 9 == 8 else nats, 1.0, size)


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
