"""Bengio's neural probabilistic language model (Bengio, Ducharme, Vincent & Jauvin 2003): a fixed window.

    x = (C(w[t-n+1]), ..., C(w[t-1]))       embeddings of the n-1 previous tokens, oldest first
    h = tanh(d + H x)
    log P = log softmax(b + U h + W x)       W x are the direct connections, an option (W = 0 without)

Here U and W stand side by side in one output weight [V, hidden + (n-1)·E] that sees (h, x).
Dropout, when asked for, falls on x and on h; the paper has none.

Not here: memory beyond the window; that is what the recurrent model adds.

T steps, B batch, W = n-1 tokens of the window, E embedding size, H hidden size, V vocabulary size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from elman.language_model import State
from elman.neural.dropout import Dropout
from elman.neural.model import NeuralConfig, NeuralModel, Shapes, build_output, initialize_uniform
from elman.neural.output import output_shapes
from elman.text.tokenizers import Tokenizer
from elman.text.vocabulary import Vocabulary


class FeedforwardConfig(NeuralConfig):
    """Shape and options of a fixed-window model.

    window  previous tokens seen, n-1 of an order-n model
    direct  connections from the embeddings straight to the output
    init    uniform (see NeuralConfig); orthogonal: H (semi-)orthogonal and its bias 0, the rest from
            U(-init_scale, init_scale)
    """

    window: int = Field(default=5, ge=1, le=256)
    direct: bool = False

    @property
    def features(self) -> int:
        """Size of x: the window's embeddings side by side."""
        return self.window * self.embedding_size

    @property
    def output_size(self) -> int:
        """What the output layer sees: h, and x with direct connections."""
        return self.hidden_size + (self.features if self.direct else 0)


class FeedforwardModel(NeuralModel):
    """A fixed-window model; keeps the `LanguageModel` contract.

    The state is ([B, W] int64,): the last W tokens, oldest first; full of `</s>` at the start.
    """

    kind: ClassVar[str] = "feedforward"
    config_class = FeedforwardConfig
    config: FeedforwardConfig

    def __init__(
        self, vocabulary: Vocabulary, tokenizer: Tokenizer, config: FeedforwardConfig | None = None
    ) -> None:
        super().__init__(vocabulary, tokenizer, config or FeedforwardConfig())
        options = self.config
        self.dropout = Dropout(options.dropout)
        self.hidden = nn.Linear(options.features, options.hidden_size)
        self.output = build_output(options, options.output_size, len(vocabulary))
        if not self.embedding.weight.is_meta:
            self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """Draw every parameter anew from torch's random state, as the configuration says."""
        initialize_uniform(self, self.config.init_scale)
        if self.config.init == "orthogonal":
            nn.init.orthogonal_(self.hidden.weight)
            nn.init.zeros_(self.hidden.bias)

    def start(self, batch: int) -> State:
        """Windows full of `</s>`: ([B, W] int64,)."""
        shape = (batch, self.config.window)
        return (torch.full(shape, self.vocabulary.eos_id, dtype=torch.int64, device=self.device),)

    def advance(self, state: State, token: Tensor) -> tuple[State, Tensor]:
        """token [B] int64 → state after it, next-token log-probabilities [B, V]."""
        window = torch.cat((state[0][:, 1:], token[:, None]), dim=1)
        return (window,), self.output.log_probs(self._features(window.T)[0])

    def token_nats(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """ids [T+1, B] int64 → nats [T, B], state after ids[T-1]. Differentiable; with dropout in train()."""
        targets = ids[1:]
        stream = torch.cat((state[0].T, ids[:-1]))  # [W+T, B]
        after = stream[len(targets) :].T.contiguous()
        if not len(targets):
            return self.embedding.weight.new_zeros(targets.shape), (after,)
        seen = self._features(stream[1:])
        nats = self.output.token_nats(seen.flatten(0, 1), targets.flatten())
        return nats.view(targets.shape), (after,)

    def _features(self, stream: Tensor) -> Tensor:
        """stream [W-1+T, B] int64 → what the output layer sees [T, B, output_size]."""
        width = self.config.window
        steps = len(stream) - width + 1
        embedded = self.embedding(stream)  # each token is looked up once, then seen at W places
        x = self.dropout(torch.cat([embedded[place : place + steps] for place in range(width)], dim=-1))
        h = self.dropout(torch.tanh(self.hidden(x)))
        return torch.cat((h, x.to(h.dtype)), dim=-1) if self.config.direct else h

    @classmethod
    def expected_shapes(cls, config: Mapping[str, Any], vocabulary_size: int) -> Shapes:
        """Name → (shape, dtype) of every array of a stored model, without allocating. FormatError."""
        options: FeedforwardConfig = cls.parse_config(config)
        shapes: dict[str, tuple[int, ...]] = {
            "embedding.weight": (vocabulary_size, options.embedding_size),
            "hidden.weight": (options.hidden_size, options.features),
            "hidden.bias": (options.hidden_size,),
        }
        output = output_shapes(options.softmax, options.output_size, vocabulary_size, options.cutoffs)
        shapes |= {f"output.{name}": shape for name, shape in output.items()}
        return {name: (shape, torch.float32) for name, shape in shapes.items()}
