"""Learning rate: a pure function of (step, epoch, plateau), so that resuming needs no schedule object.

constant   lr
plateau    lr / decay^k, k = epochs so far without a better validation (pytorch/examples: decay 4;
           Mikolov's rnnlm: halving)
zaremba    lr for `decay_after` epochs, then divided by `decay` each epoch (Zaremba et al. 2014: 4, 2 for
           the small model as printed; the authors' program has 5)
cosine     min_lr + (lr - min_lr) (1 + cos πt) / 2, t from 0 to 1 after the warm-up (Loshchilov & Hutter 2017)
one-cycle  from lr/25 up to lr over 30 % of the steps and down to lr/250000, both by cosine (Smith & Topin
           2018, with the numbers of torch.optim.lr_scheduler.OneCycleLR)
"""

from __future__ import annotations

import math

from elman.training.config import TrainConfig

RISE = 0.3
START_DIVISOR = 25.0
END_DIVISOR = 1e4


def learning_rate(config: TrainConfig, *, step: float, steps: float, epoch: int, setbacks: int) -> float:
    """The rate of update `step` (from 0) of `steps`, in `epoch` (from 0), after `setbacks` epochs without
    a better validation."""
    rate = config.lr
    if config.schedule == "zaremba":
        rate = config.lr / config.decay ** max(0, epoch + 1 - config.decay_after)
    elif config.schedule == "plateau":
        rate = max(config.min_lr, config.lr / config.decay**setbacks)
    elif config.schedule == "cosine":
        rate = _cosine(config.lr, config.min_lr, (step - config.warmup) / max(1.0, steps - config.warmup))
    elif config.schedule == "one-cycle":
        done, low = step / max(1.0, steps), config.lr / START_DIVISOR
        if done < RISE:
            rate = _cosine(low, config.lr, done / RISE)
        else:
            rate = _cosine(config.lr, low / END_DIVISOR, (done - RISE) / (1 - RISE))
    if step < config.warmup:
        rate *= (step + 1) / (config.warmup + 1)
    return rate


def cut_short(config: TrainConfig, steps: int) -> list[str]:
    """A note where max_steps ends a schedule that is planned for all of the epochs' `steps`.

    It stays planned for them, so that a run which is continued without the limit is the run without it.
    """
    most = config.max_steps
    if most is None or most >= steps or config.schedule not in ("cosine", "one-cycle"):
        return []
    return [
        f"--max-steps {most} cuts the {config.schedule} schedule short: it is planned for the {steps:,} "
        f"updates of --epochs {config.epochs}. Give fewer --epochs for one that comes to its end."
    ]


def _cosine(first: float, last: float, done: float) -> float:
    """From `first` at 0 to `last` at 1, flat at both ends."""
    done = min(max(done, 0.0), 1.0)
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2
