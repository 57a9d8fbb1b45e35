"""Learning rates against the published formulas and, where torch has the schedule, against torch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from elman.errors import OptionError
from elman.training.config import TrainConfig, parse_train_config
from elman.training.schedule import cut_short, learning_rate


def rate(config: TrainConfig, step: int = 0, steps: int = 100, epoch: int = 0, setbacks: int = 0) -> float:
    return learning_rate(config, step=step, steps=steps, epoch=epoch, setbacks=setbacks)


def make(schedule: Any, **options: Any) -> TrainConfig:
    return TrainConfig(**({"schedule": schedule, "lr": 1.0} | options))


def test_zaremba_small_as_recorded() -> None:
    """numbers of two public logs: four epochs at 1, then halved to 0.0020 in epoch 13; or five, to 0.0039."""
    four = [rate(make("zaremba", decay=2, decay_after=4), epoch=epoch) for epoch in range(13)]
    assert four[:6] == [1, 1, 1, 1, 0.5, 0.25]
    assert round(four[12], 4) == 0.0020
    five = [rate(make("zaremba", decay=2, decay_after=5), epoch=epoch) for epoch in range(13)]
    assert five[:6] == [1, 1, 1, 1, 1, 0.5]
    assert round(five[12], 4) == 0.0039


def test_zaremba_medium_and_large() -> None:
    medium = [rate(make("zaremba", decay=1.2, decay_after=6), epoch=epoch) for epoch in range(39)]
    assert medium[5] == 1
    assert medium[38] == pytest.approx(1.2**-33, rel=1e-12)
    large = [rate(make("zaremba", decay=1.15, decay_after=14), epoch=epoch) for epoch in range(55)]
    assert large[13] == 1
    assert large[14] == pytest.approx(1 / 1.15, rel=1e-12)


def test_plateau_divides_for_each_setback() -> None:
    """pytorch/examples: lr 20, divided by 4 whenever the validation is not better."""
    config = make("plateau", lr=20, decay=4, min_lr=0.5)
    assert [rate(config, setbacks=setbacks) for setbacks in range(4)] == [20, 5, 1.25, 0.5]


def test_cosine_is_torchs() -> None:
    steps = 37
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.3)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=0.01)
    config = make("cosine", lr=0.3, min_lr=0.01)
    for step in range(steps):
        assert rate(config, step=step, steps=steps) == pytest.approx(
            optimizer.param_groups[0]["lr"], rel=1e-9
        )
        optimizer.step()
        torchs.step()


def test_cosine_after_a_warm_up() -> None:
    config = make("cosine", warmup=9)
    rates = [rate(config, step=step, steps=109) for step in range(109)]
    assert rates[:9] == pytest.approx([(step + 1) / 10 for step in range(9)])
    assert rates[9] == 1.0
    assert rates[59] == pytest.approx(0.5)
    assert rates[108] == pytest.approx((1 + math.cos(math.pi * 0.99)) / 2)


def test_one_cycle_has_torchs_corners_and_shape() -> None:
    """Up by cosine for 30 % from lr/25, down to lr/25/10000: torch's OneCycleLR where its steps are so
    many that its off-by-one of the phases does not show."""
    steps = 100_000
    config = make("one-cycle", lr=0.2)
    assert rate(config, 0, steps) == pytest.approx(0.2 / 25)
    assert rate(config, 30_000, steps) == pytest.approx(0.2)
    assert rate(config, steps, steps) == pytest.approx(0.2 / 250_000)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.2)
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=2000)
    for step in range(1999):
        ours = rate(config, step, 2000)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=0.2 * math.pi / 2 * 1.5 / 600)
        optimizer.step()
        torchs.step()


def test_constant_with_a_warm_up() -> None:
    assert [rate(make("constant", warmup=3), step=step) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]


def test_defaults_follow_the_optimizer_and_the_loss() -> None:
    def chosen(**options: Any) -> tuple[str, float, float, float]:
        config = TrainConfig(**options)
        return config.loss, config.lr, config.clip, config.weight_decay

    assert chosen() == ("mean", 0.002, 1.0, 0.0)
    assert chosen(optimizer="sgd") == ("sum", 1.0, 5.0, 0.0)
    assert chosen(optimizer="sgd", loss="mean") == ("mean", 20.0, 1.0, 0.0)
    assert chosen(optimizer="adamw", lr=0.1)[3] == 0.01
    config = TrainConfig(optimizer="sgd", lr=3)
    assert TrainConfig(**config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bptt": 5, "update_interval": 6}, "update_interval=6 is longer than bptt=5"),
        ({"random_length": True, "update_interval": 3}, "contradict"),
        ({"independent": True, "random_length": True}, "end where they end"),
        ({"momentum": 0.9}, "momentum is of sgd"),
        ({"min_lr": 1.0}, "min_lr=1 is above lr=0.002"),
        ({"schedule": "one-cycle", "warmup": 5}, "has its own warm-up"),
        ({"lr": -1}, "option lr = -1"),
        ({"lr": float("nan")}, "option lr = nan"),
        ({"epochs": "many"}, "option epochs = 'many'"),
        ({"optimiser": "sgd"}, "option optimiser = 'sgd'"),
        ({"schedule": "linear"}, "option schedule = 'linear'"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_train_config(options)


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError):
        TrainConfig().lr = 3.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"schedule": "cosine", "max_steps": 99}, True),
        ({"schedule": "one-cycle", "max_steps": 99}, True),
        ({"schedule": "cosine", "max_steps": 100}, False),
        ({"schedule": "cosine"}, False),
        ({"schedule": "constant", "max_steps": 5}, False),
    ],
)
def test_a_schedule_that_is_cut_short_is_told(options: dict[str, Any], told: bool) -> None:
    notes = cut_short(TrainConfig(epochs=4, **options), 100)
    assert len(notes) == told
    if told:
        assert "--max-steps 99 cuts" in notes[0]
        assert "the 100 updates of --epochs 4" in notes[0]
