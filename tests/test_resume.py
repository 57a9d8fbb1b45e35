"""A resumed run is the uninterrupted run, bit for bit; and the check would notice if it were not."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from elman import run_folder
from elman.checkpoint import load_checkpoint, load_model
from elman.errors import OptionError
from elman.train import train
from elman.training import resume as resuming
from elman.training.device import PrivateRandom
from elman.training.events import Started, Step, Stopped, Validated
from elman.training.progress import Progress
from training_example import final_state, make_config, make_corpus, make_model, run, same

CORPUS = make_corpus()
BOUNDARIES = range(1, 22)  # windows: 7 an epoch, validations after 7, 14 and 21


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The end of the uninterrupted run of each cell."""
    ends = {}
    for cell in ("rnn", "lstm", "gru"):
        folder = tmp_path_factory.mktemp(cell) / "run"
        run(make_model(CORPUS, cell), CORPUS, make_config(), save=folder)
        ends[cell] = final_state(folder)
    return ends


def interrupted(folder: Path, cell: str, step: int, **options: Any) -> None:
    """A run that ends after `step` updates: by a limit, by closing, or by Ctrl-C, in turn."""
    model = make_model(CORPUS, cell)
    if step % 3 == 0:
        run(model, CORPUS, make_config(max_steps=step, **options), save=folder)
        return
    events = train(model, CORPUS, make_config(**options), save=folder)
    for event in events:
        if isinstance(event, Step) and event.step == step:
            if step % 3 == 1:
                events.close()  # type: ignore[attr-defined]
            else:
                os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("step", BOUNDARIES)
def test_resumed_at_every_boundary_equals_uninterrupted(
    tmp_path: Path, whole: dict[str, dict[str, Any]], cell: str, step: int
) -> None:
    interrupted(tmp_path / "run", cell, step)
    assert load_checkpoint(tmp_path / "run").record["step"] == step
    fresh = make_model(CORPUS, cell, seed=99)
    events = run(fresh, CORPUS, make_config(), save=tmp_path / "run", resume=True)
    assert isinstance(events[0], Started)
    assert events[0].resumed
    assert events[0].step == step
    assert same(final_state(tmp_path / "run"), whole[cell])


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "momentum": 0.9, "lr": 0.5, "schedule": "zaremba", "decay_after": 1},
        {"optimizer": "adamw", "precision": "bf16", "schedule": "cosine", "warmup": 5},
        {"bptt": 11, "update_interval": 4, "schedule": "one-cycle"},
        {"random_length": True, "bptt": 9, "clip_value": 0.01},
        {"independent": True, "bptt": 8},
        {"optimizer": "sgd", "lr": 0.3, "patience": 1, "epochs": 6},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_resumed_equals_uninterrupted_whatever_the_options(tmp_path: Path, options: dict[str, Any]) -> None:
    run(make_model(CORPUS), CORPUS, make_config(**options), save=tmp_path / "whole")
    for step in (2, 5, 9):
        folder = tmp_path / str(step)
        interrupted(folder, "lstm", step, **options)
        again = make_model(CORPUS, seed=99)
        run(again, CORPUS, make_config(**options), save=folder, resume=True)
        assert same(final_state(folder), final_state(tmp_path / "whole"))


def test_resuming_five_times_is_still_the_same_run(tmp_path: Path, whole: dict[str, dict[str, Any]]) -> None:
    for step in (3, 7, 8, 15, 20):
        run(make_model(CORPUS), CORPUS, make_config(max_steps=step), save=tmp_path / "run", resume=True)
    events = run(make_model(CORPUS), CORPUS, make_config(), save=tmp_path / "run", resume=True)
    assert same(final_state(tmp_path / "run"), whole["lstm"])
    stopped = events[-1]
    assert isinstance(stopped, Stopped)
    assert stopped.best_epoch == whole["lstm"]["progress"]["best_epoch"]


def test_the_model_afterwards_is_the_best_one_resumed_or_not(tmp_path: Path) -> None:
    one, other = make_model(CORPUS), make_model(CORPUS, seed=99)
    run(one, CORPUS, make_config(), save=tmp_path / "a")
    run(make_model(CORPUS), CORPUS, make_config(max_steps=20), save=tmp_path / "b")
    last = run(other, CORPUS, make_config(), save=tmp_path / "b", resume=True)[-1]
    assert isinstance(last, Stopped)
    assert last.best_epoch == 1  # so the best is not the latest, and was read from the disk
    for saved in (other, load_model(tmp_path / "a"), load_model(tmp_path / "b")):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, saved.state_dict()[name])  # type: ignore[union-attr]


def test_interrupted_within_a_validation(tmp_path: Path, whole: dict[str, dict[str, Any]]) -> None:
    """Ctrl-C while the validation text is scored: the epoch's windows are done, the validation is not."""
    import elman.train as loop

    scored = loop.evaluate

    def pressed(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return scored(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "evaluate", pressed)
        events = run(make_model(CORPUS), CORPUS, make_config(), save=tmp_path / "run")
    assert isinstance(events[-1], Stopped)
    assert events[-1].reason == "interrupted"
    assert events[-1].best_epoch is None
    assert not any(isinstance(event, Validated) for event in events)
    assert load_checkpoint(tmp_path / "run").record["progress"]["position"] == 7
    run(make_model(CORPUS, seed=99), CORPUS, make_config(), save=tmp_path / "run", resume=True)
    assert same(final_state(tmp_path / "run"), whole["lstm"])


@pytest.mark.parametrize("where", ["window_loss", "clip_gradients"])
def test_keyboard_interrupt_within_an_update(
    tmp_path: Path, whole: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Raised in the middle of a window: what is saved is the state before that window."""
    import elman.train as loop

    work, calls = getattr(loop, where), iter(range(100))

    def breaking(*arguments: Any) -> Any:
        result = work(*arguments)
        if next(calls) == 10:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(loop, where, breaking)
    events = run(make_model(CORPUS), CORPUS, make_config(), save=tmp_path / "run")
    assert isinstance(events[-1], Stopped)
    assert (events[-1].reason, events[-1].step) == ("interrupted", 10)
    monkeypatch.setattr(loop, where, work)
    run(make_model(CORPUS, seed=99), CORPUS, make_config(), save=tmp_path / "run", resume=True)
    assert same(final_state(tmp_path / "run"), whole["lstm"])


def test_second_ctrl_c_quits_at_once(tmp_path: Path) -> None:
    events = train(make_model(CORPUS), CORPUS, make_config(), save=tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        for event in events:
            if isinstance(event, Step) and event.step == 4:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
    del events
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert load_checkpoint(tmp_path / "run").record["step"] in (0, 4)


# -- what may change, and what may not


def test_more_epochs_go_on(tmp_path: Path, whole: dict[str, dict[str, Any]]) -> None:
    run(make_model(CORPUS), CORPUS, make_config(epochs=2), save=tmp_path / "run")
    again = run(make_model(CORPUS), CORPUS, make_config(epochs=2), save=tmp_path / "run", resume=True)
    assert isinstance(again[0], Started)
    assert "has finished after 2 epochs" in " ".join(again[0].notes)
    assert not any(isinstance(event, Step) for event in again)
    run(make_model(CORPUS), CORPUS, make_config(epochs=3), save=tmp_path / "run", resume=True)
    assert same(final_state(tmp_path / "run"), whole["lstm"])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"lr": 0.1}, "lr: 0.2 in the run, 0.1 now"),
        ({"bptt": 7}, "bptt: 6 in the run, 7 now"),
        ({"seed": 2}, "seed: 1 in the run, 2 now"),
        ({"schedule": "cosine"}, "schedule: plateau in the run, cosine now"),
    ],
)
def test_another_option_is_another_run(tmp_path: Path, options: dict[str, Any], named: str) -> None:
    run(make_model(CORPUS), CORPUS, make_config(max_steps=2), save=tmp_path / "run")
    with pytest.raises(OptionError, match=named):
        run(make_model(CORPUS), CORPUS, make_config(**options), save=tmp_path / "run", resume=True)


def test_another_model_corpus_or_number_of_epochs_is_another_run(tmp_path: Path) -> None:
    run(make_model(CORPUS), CORPUS, make_config(max_steps=2, schedule="cosine"), save=tmp_path / "run")
    with pytest.raises(OptionError, match="cell: lstm in the run, gru now"):
        run(make_model(CORPUS, "gru"), CORPUS, make_config(), save=tmp_path / "run", resume=True)
    other = make_corpus(222)
    with pytest.raises(OptionError, match="corpus: tiny211 in the run, tiny222 now"):
        run(make_model(other), other, make_config(), save=tmp_path / "run", resume=True)
    options = make_config(epochs=4, schedule="cosine")
    with pytest.raises(OptionError, match=r"epochs: 3 in the run, 4 now \(the cosine schedule spans them\)"):
        run(make_model(CORPUS), CORPUS, options, save=tmp_path / "run", resume=True)


def test_resume_where_nothing_is_saved_begins(tmp_path: Path, whole: dict[str, dict[str, Any]]) -> None:
    events = run(make_model(CORPUS), CORPUS, make_config(), save=tmp_path / "run", resume=True)
    assert isinstance(events[0], Started)
    assert not events[0].resumed
    assert same(final_state(tmp_path / "run"), whole["lstm"])


def test_a_folder_that_holds_something_else_is_not_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(OptionError, match="is a model, not a training run"):
        run(make_model(CORPUS, "rnn"), CORPUS, make_config(), save=folder, resume=True)
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_the_log_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    """Lines of updates that were lost are not there twice."""
    folder = tmp_path / "run"
    run(make_model(CORPUS), CORPUS, make_config(log_every=1, max_steps=9), save=folder)
    with (folder / run_folder.LOG).open("ab") as file:
        file.write(b'{"event": "step", "step": 10}\n{"event": "st')
    run(make_model(CORPUS), CORPUS, make_config(log_every=1), save=folder, resume=True)
    lines = (folder / run_folder.LOG).read_text().splitlines()
    steps = [line.split('"step": ')[1].split(",")[0] for line in lines if '"event": "step"' in line]
    assert steps == [str(number) for number in range(1, 22)]


# -- known wrong ways to resume: the comparison above must notice each


def _off_by_one(value: object) -> Progress:
    progress = Progress(**value)  # type: ignore[arg-type]
    progress.position += 1
    return progress


def _without_setbacks(value: object) -> Progress:
    progress = Progress(**value)  # type: ignore[arg-type]
    progress.setbacks = 0
    return progress


def _without_sums(value: object) -> Progress:
    progress = Progress(**value)  # type: ignore[arg-type]
    progress.nats, progress.events = 0.0, 0
    return progress


@pytest.mark.parametrize(
    ("owner", "name", "wrong"),
    [
        ("elman.training.state", "load_optimizer", lambda *parts: None),
        (PrivateRandom, "load", lambda *parts: None),
        (resuming, "require_carried", lambda carried, *rest: tuple(map(torch.zeros_like, carried))),
        (resuming, "restore_model", lambda *parts: None),
        (Progress, "from_json", staticmethod(_off_by_one)),
        (Progress, "from_json", staticmethod(_without_setbacks)),
        (Progress, "from_json", staticmethod(_without_sums)),
    ],
    ids=["optimizer", "random", "hidden", "weights", "position", "schedule", "sums"],
)
def test_known_wrong_resumes_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, wrong: Any
) -> None:
    options = make_config()  # the second epoch is worse, so by update 17 the rate has been halved
    run(make_model(CORPUS), CORPUS, options, save=tmp_path / "whole")
    run(make_model(CORPUS), CORPUS, options.model_copy(update={"max_steps": 17}), save=tmp_path / "run")
    if isinstance(owner, str):
        monkeypatch.setattr(f"{owner}.{name}", wrong)
    else:
        monkeypatch.setattr(owner, name, wrong)
    run(make_model(CORPUS, seed=99), CORPUS, options, save=tmp_path / "run", resume=True)
    monkeypatch.undo()
    assert not same(final_state(tmp_path / "run"), final_state(tmp_path / "whole"))
