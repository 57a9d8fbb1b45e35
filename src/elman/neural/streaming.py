"""A recurrent model made small and fast for use: weights in float32, bfloat16 or int8, packed.

A `StreamingModel` is a copy of a trained `RecurrentModel`: later changes of that one do not reach it, and it
has no gradient. It keeps the `LanguageModel` contract, so every verb takes it. The state, the cell's
equations and the softmax are float32; int8 rounds the activations of every product too, row by row. Without
the compiled kernels it computes on torch with the weights it stands for (then activations stay float32,
which moves int8's numbers within the error of the quantization).

Not here: adaptive softmax; a `RecurrentModel` with it cannot be made streaming.

T steps, B batch, L layers, H hidden size, V vocabulary size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from pydantic import model_validator
from torch import Tensor

from elman.errors import FormatError, OptionError
from elman.kernels import native
from elman.kernels.streaming import DTYPES, Drawing, Matrix, Stream, StreamLayer, StreamSource, Weights
from elman.language_model import State
from elman.neural.model import Shapes, check_arrays, parse_config
from elman.neural.quantization import LARGEST, dequantize, quantize
from elman.neural.recurrent import STREAM_CELLS, RecurrentConfig, RecurrentModel
from elman.text.tokenizers import Tokenizer
from elman.text.vocabulary import Vocabulary


class StreamingConfig(RecurrentConfig):
    """The model's own configuration, and `weights`: float32, bfloat16 or int8."""

    weights: Weights = "int8"

    @model_validator(mode="after")
    def _softmax_is_full(self) -> Self:
        if self.softmax != "full":
            raise OptionError(
                f"a model with {self.softmax} softmax has no streaming form.",
                reason="the streaming kernels compute the full softmax.",
                remedy="use the model as it is, or train one with --softmax full.",
            )
        return self


class StreamingModel:
    """`model` with its weights in `weights`; keeps the `LanguageModel` contract, without gradients."""

    kind: ClassVar[str] = "streaming"

    def __init__(self, model: RecurrentModel, weights: Weights = "int8") -> None:
        options = model.config.model_dump() | {"weights": weights}
        arrays: dict[str, Tensor] = {}
        for name, array in model.arrays().items():
            if array.dim() < 2:
                arrays[name] = array.cpu().float().clone()
                continue
            matrix = quantize(array, weights)
            arrays[name] = matrix.data.clone() if weights == "float32" else matrix.data
            if matrix.scale is not None:
                arrays[_scale(name)] = matrix.scale
        self._build(StreamingConfig(**options), arrays, model.vocabulary, model.tokenizer)

    def _build(
        self, config: StreamingConfig, arrays: dict[str, Tensor], vocabulary: Vocabulary, tokenizer: Tokenizer
    ) -> None:
        self.config, self.vocabulary, self.tokenizer = config, vocabulary, tokenizer
        self._arrays = arrays
        self._stream: Stream | None = None
        self._model: RecurrentModel | None = None
        if native.available():
            self._stream = Stream(self._source())
        else:
            self._model = self.dequantized()

    @classmethod
    def from_parts(
        cls,
        config: Mapping[str, Any],
        arrays: Mapping[str, Tensor],
        vocabulary: Vocabulary,
        tokenizer: Tokenizer,
    ) -> Self:
        """The stored model. FormatError when the parts do not belong together."""
        expected = cls.expected_shapes(config, len(vocabulary))
        check_arrays(expected, arrays)
        for name in expected:
            bad_scale = name.endswith(".scale") and bool((arrays[name] < 0).any())
            if bad_scale or (arrays[name].dtype == torch.int8 and bool((arrays[name] < -LARGEST).any())):
                raise FormatError(
                    f"array {name} holds numbers that quantization never gives.",
                    reason="the file is damaged.",
                    remedy="export the model again.",
                )
        model = cls.__new__(cls)
        own = {name: arrays[name].clone() for name in expected}
        model._build(parse_config(StreamingConfig, cls.kind, config), own, vocabulary, tokenizer)
        return model

    @classmethod
    def expected_shapes(cls, config: Mapping[str, Any], vocabulary_size: int) -> Shapes:
        """Name → (shape, dtype) of every array of a stored model, without allocating. FormatError."""
        options = parse_config(StreamingConfig, cls.kind, config)
        plain = options.model_dump(exclude={"weights"})
        shapes: Shapes = {}
        for name, (shape, dtype) in RecurrentModel.expected_shapes(plain, vocabulary_size).items():
            shapes[name] = (shape, DTYPES[options.weights] if len(shape) > 1 else dtype)
            if len(shape) > 1 and options.weights == "int8":
                shapes[_scale(name)] = (shape[:1], torch.float32)
        return shapes

    def _matrix(self, name: str) -> Matrix:
        return Matrix(self._arrays[name], self._arrays.get(_scale(name)))

    def _source(self) -> StreamSource:
        layers = []
        for level in range(self.config.num_layers):
            inside, own = self._arrays, f"_l{level}"
            layers.append(
                StreamLayer(
                    self._matrix(f"recurrence.weight_ih{own}"),
                    self._matrix(f"recurrence.weight_hh{own}"),
                    inside[f"recurrence.bias_ih{own}"],
                    inside[f"recurrence.bias_hh{own}"],
                )
            )
        output = self._matrix("embedding.weight" if self.config.tied else "output.weight")
        cell = STREAM_CELLS[self.config.cell]
        embedding = self._matrix("embedding.weight")
        return StreamSource(cell, embedding, tuple(layers), output, self._arrays["output.bias"])

    def dequantized(self) -> RecurrentModel:
        """A `RecurrentModel` in float32 with the weights that this model stands for."""
        arrays = {
            name: dequantize(self._matrix(name)) if array.dim() > 1 else array
            for name, array in self._arrays.items()
            if not name.endswith(".scale")
        }
        options = self.config.model_dump(mode="json", exclude={"weights"})
        return RecurrentModel.from_parts(options, arrays, self.vocabulary, self.tokenizer)

    @property
    def parameter_count(self) -> int:
        """Numbers of the model; scales do not count."""
        return sum(array.numel() for name, array in self._arrays.items() if not name.endswith(".scale"))

    def config_json(self) -> dict[str, Any]:
        """The configuration as JSON: everything but vocabulary, tokenizer and weights."""
        return self.config.model_dump(mode="json")

    def describe(self) -> dict[str, Any]:
        """What the model is, for people: the configuration and the number of parameters."""
        return {"kind": self.kind, "parameters": self.parameter_count} | self.config_json()

    def arrays(self) -> dict[str, Tensor]:
        """Every array by its name; not copies."""
        return dict(self._arrays)

    def start(self, batch: int) -> State:
        """Zeros: (h [L, B, H],) or (h, c)."""
        shape = (self.config.num_layers, batch, self.config.hidden_size)
        zeros = torch.zeros(shape, dtype=torch.float32, device="cpu")
        return (zeros, zeros.clone()) if self.config.cell == "lstm" else (zeros,)

    @torch.no_grad()
    def advance(self, state: State, token: Tensor) -> tuple[State, Tensor]:
        """token [B] int64 → state after it, next-token log-probabilities [B, V]."""
        if self._stream is None:
            assert self._model is not None
            return self._model.advance(state, token)
        return self._stream.advance(state, token.contiguous())

    @torch.no_grad()
    def token_nats(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """ids [T+1, B] int64 → nats [T, B], state after ids[T-1]."""
        if self._stream is None:
            assert self._model is not None
            return self._model.token_nats(ids, state)
        return self._stream.token_nats(ids, state)

    def draw_next(
        self, state: State, token: Tensor, how: Drawing, uniform: Tensor
    ) -> tuple[State, Tensor, Tensor] | None:
        """token [B], uniform [B] → state after it, next tokens [B], their nats [B]; None without kernels."""
        return None if self._stream is None else self._stream.draw(state, token.contiguous(), how, uniform)

    def best_next(self, state: State, token: Tensor, k: int) -> tuple[State, Tensor, Tensor]:
        """token [B] → state after it, the k best next tokens [B, k], their log-probabilities [B, k]."""
        if self._stream is not None:
            return self._stream.best(state, token.contiguous(), k)
        state, log_probs = self.advance(state, token)
        order = torch.sort(log_probs, dim=1, descending=True, stable=True)
        return state, order.indices[:, :k].contiguous(), order.values[:, :k].contiguous()


def _scale(name: str) -> str:
    return f"{name}.scale"
