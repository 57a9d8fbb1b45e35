"""One update: a window's loss, its gradient, clipping, the guard against divergence.

T steps, B batch. Not here: which window comes next, what is saved (train.py).
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from elman.errors import DivergenceError
from elman.gradients.clipping import clip_by_norm, clip_by_value
from elman.kernels.embedding import sparse_gradients
from elman.kernels.output import expect_gradient
from elman.language_model import LanguageModel, State, detach
from elman.text.windows import Window
from elman.training.config import TrainConfig
from elman.training.optimizer import is_linear
from elman.training.progress import Progress

MOST_SKIPPED = 5
"""Updates in a row without a finite gradient that end a run."""
HOPELESS_STEPS, HOPELESS_NATS = 100, 2.0
"""Windows in a row, each by so many nats a token worse than a blind guess, that end a run."""


class Trainable(LanguageModel, Protocol):
    """A language model whose weights learn: an nn.Module that keeps the contract."""

    def parameters(self) -> list[nn.Parameter]: ...


def window_loss(
    model: LanguageModel, window: Window, carried: State, config: TrainConfig
) -> tuple[Tensor, float, State]:
    """(loss to differentiate, what makes the window's total nats of it, state for the next window).

    `carried` is the state before ids[0]; () starts anew. The loss covers the last `scored` positions:
    summed over time and averaged over the batch, or averaged over both. The state handed on is the one
    after ids[advance-1], cut from the graph.
    """
    batch = window.ids.shape[1]
    state = model.start(batch) if window.fresh or not carried else carried
    device = state[0].device
    ids = window.ids.to(device, non_blocking=True)
    bf16 = config.precision == "bf16"
    scale = float(batch if config.loss == "sum" else window.events)
    begin = window.length - window.scored
    share = None  # of each position in the loss, times scale; None: all of one
    if window.weights is not None or begin:
        share = torch.ones(window.length, batch, device=device)
        if window.weights is not None:
            share = share * window.weights.to(device)
        share[:begin] = 0.0

    def token_nats(first: int, last: int, state: State) -> tuple[Tensor, State]:
        expected = 1 / scale if share is None else (share[first:last] / scale).flatten()
        with expect_gradient(expected), sparse_gradients(is_linear(config)):
            return model.token_nats(ids[first : last + 1], state)

    with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
        if window.advance == window.length:
            nats, after = token_nats(0, window.length, state)
        else:
            # the state to carry is taken on the way; the gradient flows through it all the same
            first, after = token_nats(0, window.advance, state)
            rest, _ = token_nats(window.advance, window.length, after)
            nats = torch.cat([first, rest])
    counted = nats if share is None else nats[begin:] * share[begin:]
    return counted.sum() / scale, scale, detach(after)


def clip_gradients(parameters: list[nn.Parameter], config: TrainConfig) -> tuple[float, float]:
    """Clip by value, then by norm: (norm of the gradient before either, factor for the learning rate).

    Where the update is linear in the gradient, clipping by norm goes into the rate and saves a pass over
    the gradients: lr · (c · g) = (lr · c) · g. Else they are clipped in place and the factor is 1.
    """
    if config.clip_value:
        norm = clip_by_norm(parameters, math.inf)
        clip_by_value(parameters, config.clip_value)
        if config.clip:
            clip_by_norm(parameters, config.clip)
        return norm, 1.0
    if config.clip and is_linear(config):
        norm = clip_by_norm(parameters, math.inf)
        return norm, config.clip / norm if math.isfinite(norm) and norm > config.clip else 1.0
    return clip_by_norm(parameters, config.clip or math.inf), 1.0


def guard(
    progress: Progress, config: TrainConfig, nats_per_event: float, norm: float, vocabulary_size: int
) -> None:
    """Count bad signs in `progress`; raise DivergenceError when training has left the useful numbers."""
    blind = math.log(vocabulary_size)
    # ten times a blind guess is no rough start any more: ten such windows are enough
    weight = 10 if nats_per_event > 10 * blind else 1
    progress.hopeless = progress.hopeless + weight if nats_per_event > blind + HOPELESS_NATS else 0
    progress.skipped = 0 if math.isfinite(norm) else progress.skipped + 1
    if not math.isfinite(nats_per_event):
        what = "the loss is not a finite number"
    elif progress.skipped >= MOST_SKIPPED:
        what = f"the gradient was not finite for {MOST_SKIPPED} updates in a row"
    elif progress.hopeless >= HOPELESS_STEPS:
        what = "the loss was far above a blind guess for many updates in a row"
    else:
        return
    raise DivergenceError(
        f"training diverged in epoch {progress.epoch + 1} at update {progress.step + 1}: {what}. "
        "The last good checkpoint is kept.",
        reason="the learning rate is too high, or the gradient explodes.",
        remedy=f"a smaller --lr (now {config.lr:g}) or --clip (now {config.clip:g}), in a new --save folder.",
    )
