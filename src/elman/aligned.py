"""Models over unlike vocabularies as models over one: aligned by word, `<unk>` divided.

The vocabulary is the first model's words, then what the others add. A model that lacks m of these words calls
each of them `<unk>`; so the probability that it gives to `<unk>` is that of m + 1 tokens together, and each
has the (m + 1)th part of it. What it gives to all words still sums to 1.

T steps, B batch, V size of the common vocabulary, U of the model's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from elman.language_model import LanguageModel, State, parameter_count
from elman.text.vocabulary import Vocabulary


class Aligned:
    """A model over another vocabulary that holds all its words; keeps the `LanguageModel` contract."""

    def __init__(self, model: LanguageModel, vocabulary: Vocabulary) -> None:
        self.models = (model,)
        self.vocabulary, self.tokenizer = vocabulary, model.tokenizer
        own = torch.from_numpy(model.vocabulary.ids(vocabulary.tokens)).long()  # [V]
        unknown = own == model.vocabulary.unk_id
        self.lacking = int(unknown.sum()) - 1
        self._own = own
        self._nats = unknown.double() * math.log(self.lacking + 1)  # [V]

    @property
    def parameter_count(self) -> int | None:
        """Of the model."""
        return parameter_count(self.models[0])

    def start(self, batch: int) -> State:
        """The model's own state."""
        return self.models[0].start(batch)

    def advance(self, state: State, token: Tensor) -> tuple[State, Tensor]:
        """token [B] int64 → state after it, next-token log-probabilities [B, V] float64."""
        own = self._own.to(token.device)
        state, logs = self.models[0].advance(state, own[token])
        return state, logs.double()[:, own] - self._nats.to(logs.device)

    def token_nats(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """ids [T+1, B] int64 → nats [T, B] float64, state after ids[T-1]."""
        nats, state = self.models[0].token_nats(self._own.to(ids.device)[ids], state)
        return nats.double() + self._nats.to(nats.device)[ids[1:]], state


def align(models: Sequence[LanguageModel]) -> list[LanguageModel]:
    """The models over one vocabulary: themselves where they have it, else `Aligned`."""
    first = models[0].vocabulary
    words = dict.fromkeys(word for model in models for word in model.vocabulary.tokens)
    vocabulary = first if len(words) == len(first) else Vocabulary(list(words))
    return [model if model.vocabulary == vocabulary else Aligned(model, vocabulary) for model in models]


def alignment(models: Sequence[LanguageModel], names: Sequence[str]) -> list[str]:
    """What `align` does to each model, in sentences."""
    told = []
    for name, model in zip(names, align(models), strict=True):
        if not isinstance(model, Aligned):
            continue
        if not model.lacking:
            told.append(f"{name} has its words in another order: aligned by word.")
            continue
        lacking, size = model.lacking, len(model.vocabulary)
        told.append(
            f"{name} lacks {lacking:,} of the {size:,} words: each of them and <unk> has 1/{lacking + 1:,} "
            "of the probability that it gives to <unk>."
        )
    return told
