"""The recurrent language model: embedding → dropout → recurrence → dropout → output.

Dropout stands on the non-recurrent connections only (Zaremba, Sutskever & Vinyals 2014): embedding to
first layer, layer to layer, last layer to output; never from one time step to the next. The loss of
training is `token_nats` itself, called in train() mode.

Not here: the cells' equations (cells/), the training loop (train.py).

T steps, B batch, L layers, E embedding size, H hidden size, V vocabulary size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self
from weakref import WeakKeyDictionary

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from elman.errors import OptionError
from elman.kernels import native
from elman.kernels.streaming import Drawing, Matrix, Stream, StreamLayer, StreamSource
from elman.language_model import State
from elman.neural.dropout import Dropout
from elman.neural.model import NeuralConfig, NeuralModel, Shapes, build_output, initialize_uniform
from elman.neural.output import SoftmaxOutput, output_shapes
from elman.recurrence import GRU, LSTM, RNN, Lookup
from elman.text.tokenizers import Tokenizer
from elman.text.vocabulary import Vocabulary

Cell = Literal["lstm", "gru", "rnn", "rnn-relu"]

GATES: dict[str, int] = {"lstm": 4, "gru": 3, "rnn": 1, "rnn-relu": 1}
"""Rows of the recurrent weight in units of H; in torch.nn's order (LSTM i, f, g, o; GRU r, z, n)."""


STREAM_CELLS: dict[str, str] = {"lstm": "lstm", "gru": "gru", "rnn": "rnn_tanh", "rnn-relu": "rnn_relu"}

_streams: WeakKeyDictionary[RecurrentModel, tuple[tuple[int, ...], Stream]] = WeakKeyDictionary()
"""Of each model, where its weights were and the streaming step that reads them there."""

LONG, FEW_STREAMS = 1024, 2
"""A text of so many steps in so few rows is worth packing the weights for: what limits it is reading them."""

FEW_PLACES = 64
"""From so many places on the recurrence itself looks its input up, each token once."""

MOST_STREAMS = 16
"""Rows up to which `advance` takes the streaming step; with more, torch's matrix products are the faster."""


class RecurrentConfig(NeuralConfig):
    """Shape and options of a recurrent model.

    tied         output weight = embedding (Press & Wolf 2017); needs embedding_size == hidden_size
    init         uniform (see NeuralConfig); orthogonal: each gate's recurrent matrix orthogonal, its input
                 matrix Glorot-uniform, recurrence biases 0, the rest from U(-init_scale, init_scale)
    forget_bias  added once to the LSTM's forget-gate bias after the initialization (Gers et al. 2000)
    backend      of the recurrence: auto, fused, torch, reference
    """

    cell: Cell = "lstm"
    num_layers: int = Field(default=2, ge=1, le=64)
    tied: bool = False
    forget_bias: float = Field(default=0.0, ge=-100.0, le=100.0, allow_inf_nan=False)
    backend: Literal["auto", "fused", "torch", "reference"] = "auto"

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        if self.tied and self.embedding_size != self.hidden_size:
            embedding, hidden = self.embedding_size, self.hidden_size
            raise OptionError(
                f"tied weights need equal sizes, not embedding {embedding} and hidden {hidden}.",
                remedy=f"use --emsize {hidden} with --nhid {hidden}, or drop --tied.",
            )
        if self.tied and self.softmax == "adaptive":
            raise OptionError(
                "tied weights and adaptive softmax cannot be combined.",
                remedy="use --softmax full, or drop --tied.",
            )
        if self.forget_bias and self.cell != "lstm":
            raise OptionError(
                f"a {self.cell} has no forget gate to give a bias of {self.forget_bias:g}.",
                remedy="drop --forget-bias, or use --model lstm.",
            )
        return self


class RecurrentModel(NeuralModel):
    """A recurrent language model; keeps the `LanguageModel` contract.

    The state is (h,) or, for an LSTM, (h, c), each [L, B, H]; zeros at the start.
    """

    kind: ClassVar[str] = "recurrent"
    config_class = RecurrentConfig
    config: RecurrentConfig

    def __init__(
        self, vocabulary: Vocabulary, tokenizer: Tokenizer, config: RecurrentConfig | None = None
    ) -> None:
        super().__init__(vocabulary, tokenizer, config or RecurrentConfig())
        options = self.config
        self.dropout = Dropout(options.dropout)
        self.recurrence = _recurrence(options)
        self.output = build_output(options, options.hidden_size, len(vocabulary), backend=options.backend)
        self.share_weights()
        if not self.embedding.weight.is_meta:
            self.initialize()

    def share_weights(self) -> None:
        """Make the output weight the embedding itself when tied: one parameter, one gradient."""
        if self.config.tied and isinstance(self.output, SoftmaxOutput):
            shared: nn.Parameter = self.embedding.weight  # type: ignore[assignment]
            self.output.weight = shared

    @torch.no_grad()
    def initialize(self) -> None:
        """Draw every parameter anew from torch's random state, as the configuration says."""
        options = self.config
        initialize_uniform(self, options.init_scale)
        for name, parameter in self.recurrence.named_parameters():
            if options.init == "orthogonal":
                for gate in parameter.chunk(GATES[options.cell]):
                    if name.startswith("weight_hh"):
                        nn.init.orthogonal_(gate)
                    elif name.startswith("weight_ih"):
                        nn.init.xavier_uniform_(gate)
                    else:
                        nn.init.zeros_(gate)
            if options.forget_bias and name.startswith("bias_ih"):
                # torch adds two biases; the forget bias goes into one of them. Gate order i, f, g, o.
                parameter.chunk(4)[1].add_(options.forget_bias)

    def start(self, batch: int) -> State:
        """Zeros: (h [L, B, H],) or (h, c)."""
        options = self.config
        shape = (options.num_layers, batch, options.hidden_size)
        tensors = 2 if options.cell == "lstm" else 1
        return tuple(self.embedding.weight.new_zeros(shape) for _ in range(tensors))

    def advance(self, state: State, token: Tensor) -> tuple[State, Tensor]:
        """token [B] int64 → state after it, next-token log-probabilities [B, V].

        Without gradients, in float32 on a CPU, it is one call of the streaming kernels.
        """
        stream = self._stream(state, token)
        if stream is not None:
            return stream.advance(state, token.contiguous())
        hidden, state = self._hidden(token[None], state)
        return state, self.output.log_probs(hidden[0])

    def token_nats(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """ids [T+1, B] int64 → nats [T, B], state after ids[T-1]. Differentiable; with dropout in train()."""
        targets = ids[1:]
        if not len(targets):
            return self.embedding.weight.new_zeros(targets.shape), state
        if len(targets) >= LONG and ids.shape[1] <= FEW_STREAMS and self._stream(state, ids[0]) is not None:
            source = self._stream_source()
            assert source is not None
            return Stream(source).token_nats(ids, state)
        hidden, state = self._hidden(ids[:-1], state)
        return self.output.token_nats(hidden, targets), state

    def read(self, ids: Tensor, state: State) -> State:
        """ids [T, B] int64 → state after ids[T-1]; without the output layer, so nothing is predicted."""
        return self._hidden(ids, state)[1]

    def draw_next(
        self, state: State, token: Tensor, how: Drawing, uniform: Tensor
    ) -> tuple[State, Tensor, Tensor] | None:
        """token [B], uniform [B] → state after it, next tokens [B], their nats [B]; None without kernels."""
        stream = self._stream(state, token)
        return None if stream is None else stream.draw(state, token.contiguous(), how, uniform)

    def _stream(self, state: State, token: Tensor) -> Stream | None:
        """The streaming step on this model's own weights, where it computes what `_hidden` would."""
        if torch.is_grad_enabled() or not native.available() or len(token) > MOST_STREAMS:
            return None
        options, layers, output = self.config, self.recurrence._parameters, self.output._parameters
        plain = options.backend in ("auto", "fused") and options.softmax == "full"
        if not plain or torch.is_autocast_enabled("cpu") or (self.training and options.dropout):
            return None
        tensors = (self.embedding.weight, *layers.values(), output.get("weight"), output.get("bias"))
        if token.device.type != "cpu" or not native.takes(*state, *tensors):
            return None
        places = tuple(0 if t is None else t.data_ptr() for t in tensors)
        kept = _streams.get(self)
        if kept is None or kept[0] != places:
            source = self._stream_source()
            if source is None:
                return None
            kept = _streams[self] = places, Stream(source, in_place=True)
        return kept[1]

    def _stream_source(self) -> StreamSource | None:
        """The weights as they lie; None where they are not as torch.nn holds them (parametrized, strided)."""
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        names = [f"{kind}_l{level}" for level in range(self.config.num_layers) for kind in kinds]
        inside, output = self.recurrence._parameters, self.output._parameters
        found = [inside.get(name) for name in names] + [output.get("weight"), output.get("bias")]
        weights = [t.detach() for t in (self.embedding.weight, *found) if t is not None and t.is_contiguous()]
        if len(weights) != len(found) + 1:
            return None
        embedding, *recurrent, weight, bias = weights
        layers = tuple(
            StreamLayer(Matrix(w_input), Matrix(w_recurrent), bias_input, bias_recurrent)
            for w_input, w_recurrent, bias_input, bias_recurrent in zip(*[iter(recurrent)] * 4, strict=True)
        )
        return StreamSource(STREAM_CELLS[self.config.cell], Matrix(embedding), layers, Matrix(weight), bias)

    def _hidden(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """ids [T, B] → what the output layer sees [T, B, H], state after ids[T-1]."""
        hidden, after = self.recurrence(self._embedded(ids), state if len(state) == 2 else state[0])
        new_state = after if isinstance(after, tuple) else (after,)
        # autocast may hand back bfloat16; what is carried to the next window keeps full precision
        return self.dropout(hidden), tuple(
            tensor.to(old.dtype) for tensor, old in zip(new_state, state, strict=True)
        )

    def _embedded(self, ids: Tensor) -> Tensor | Lookup:
        """ids [T, B] → what the recurrence reads: [T, B, E], or the embedding and where to look."""
        options = self.config
        differ = self.training and options.dropout > 0  # then each place of a token has another mask
        fused = options.backend in ("auto", "fused") and native.takes(self.embedding.weight)
        if fused and not differ and ids.numel() >= FEW_PLACES:
            return Lookup(self.embedding.weight, ids.long())
        return self.dropout(self.embedding(ids))  # type: ignore[no-any-return]

    @classmethod
    def expected_shapes(cls, config: Mapping[str, Any], vocabulary_size: int) -> Shapes:
        """Name → (shape, dtype) of every array of a stored model, without allocating. FormatError."""
        options: RecurrentConfig = cls.parse_config(config)
        size, rows = options.hidden_size, GATES[options.cell] * options.hidden_size
        shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocabulary_size, options.embedding_size)}
        for layer in range(options.num_layers):
            shapes |= {
                f"recurrence.weight_ih_l{layer}": (rows, size if layer else options.embedding_size),
                f"recurrence.weight_hh_l{layer}": (rows, size),
                f"recurrence.bias_ih_l{layer}": (rows,),
                f"recurrence.bias_hh_l{layer}": (rows,),
            }
        for name, shape in output_shapes(options.softmax, size, vocabulary_size, options.cutoffs).items():
            if not (options.tied and name == "weight"):
                shapes[f"output.{name}"] = shape
        return {name: (shape, torch.float32) for name, shape in shapes.items()}


def _recurrence(options: RecurrentConfig) -> RNN | LSTM | GRU:
    made = _cells(options)
    made.keeps_float32 = True  # the output layer rounds for itself
    return made


def _cells(options: RecurrentConfig) -> RNN | LSTM | GRU:
    sizes = (options.embedding_size, options.hidden_size, options.num_layers)
    between = options.dropout if options.num_layers > 1 else 0.0  # torch warns where there is no "between"
    if options.cell == "lstm":
        return LSTM(*sizes, dropout=between, backend=options.backend)
    if options.cell == "gru":
        return GRU(*sizes, dropout=between, backend=options.backend)
    nonlinearity = "relu" if options.cell == "rnn-relu" else "tanh"
    return RNN(*sizes, nonlinearity=nonlinearity, dropout=between, backend=options.backend)
