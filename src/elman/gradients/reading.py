"""A recurrent language model reads a text: its unrolled pass, and every loss's gradient at its last layer.

The link between a model and the instruments of this folder, which know only recurrences. Dropout is off.

T steps, B sequences, E embedding size, H hidden size, L layers. Nats throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elman.errors import OptionError
from elman.gradients.unrolling import Unrolled, unroll
from elman.language_model import LanguageModel, State, require_no_nan

if TYPE_CHECKING:
    from elman.neural.recurrent import RecurrentModel


@dataclass(frozen=True)
class Reading:
    """embedded [T, B, E]  what the first layer read
    unrolled  the pass through the layers, its states the model's own
    nats      [T, B] L_t = -log P(ids[t+1] | ids[0..t])
    dhidden   [T, B, H] ∂L_t/∂h_t of the last layer: a loss meets no output but that of its step
    """

    embedded: Tensor
    unrolled: Unrolled
    nats: Tensor
    dhidden: Tensor


def unrollable(model: LanguageModel) -> bool:
    """Whether `read_back` takes the model: a RecurrentModel, not a quantized one, an n-gram or a mixture."""
    return getattr(model, "kind", None) == "recurrent"


def read_back(model: LanguageModel, ids: Tensor, state: State | None = None) -> Reading:
    """ids [T+1, B] int64, state before ids[0] (None: the start) → what the instruments need.

    Raises OptionError for a model that is no RecurrentModel.
    """
    recurrent = require_unrollable(model)
    if state is None:
        state = recurrent.start(ids.shape[1])
    with torch.no_grad():
        embedded = recurrent.embedding(ids[:-1])
    unrolled = unroll(recurrent.recurrence, embedded, state)
    with torch.enable_grad():
        hidden = unrolled.output.flatten(0, 1).requires_grad_()
        nats = recurrent.output.token_nats(hidden, ids[1:].flatten())
        (dhidden,) = torch.autograd.grad(nats.sum(), hidden)  # rows are independent: one loss each
    require_no_nan(nats)
    shape = ids[1:].shape
    return Reading(embedded, unrolled, nats.detach().view(shape), dhidden.view(*shape, -1))


def require_unrollable(model: LanguageModel) -> RecurrentModel:
    """The model itself; OptionError where it has no recurrence to look into."""
    if not unrollable(model):
        kind = getattr(model, "kind", type(model).__name__)
        raise OptionError(
            f"a model of the kind {kind!r} has no gates and no gradients through time to show.",
            reason="only recurrent models in float32 have: no n-gram, no mixture, no int8 or bfloat16 copy.",
            remedy="give a model that `elman train --model lstm` (gru, rnn, rnn-relu) made.",
        )
    return model  # type: ignore[return-value]  # kind says so
