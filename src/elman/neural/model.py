"""What the neural models share: checked configuration, storage in parts, size. Not a model of its own.

V vocabulary size, E embedding size.
"""

from __future__ import annotations

import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from elman.errors import FormatError, Note, OptionError
from elman.kernels import native
from elman.neural.embedding import Embedding
from elman.neural.output import AdaptiveOutput, Output, Softmax, SoftmaxOutput, check_cutoffs
from elman.text.tokenizers import Tokenizer
from elman.text.vocabulary import Vocabulary

Shapes = dict[str, tuple[tuple[int, ...], torch.dtype]]

LARGEST_SIZE = 16_384
"""Upper bound of embedding and hidden sizes: a larger number in a file is damage, not a model."""


class NeuralConfig(BaseModel):
    """Options of every neural model; frozen, unknown keys refused.

    softmax     full, or adaptive (Grave et al. 2017) with `cutoffs` (None: chosen from the vocabulary)
    init        uniform: every parameter, biases too, from U(-init_scale, init_scale) (Zaremba et al. 2014);
                orthogonal: see the model
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding_size: int = Field(default=200, ge=1, le=LARGEST_SIZE)
    hidden_size: int = Field(default=200, ge=1, le=LARGEST_SIZE)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    softmax: Softmax = "full"
    cutoffs: tuple[int, ...] | None = Field(default=None, max_length=16)
    init: Literal["uniform", "orthogonal"] = "uniform"
    init_scale: float = Field(default=0.1, gt=0.0, le=10.0, allow_inf_nan=False)


class NeuralModel(nn.Module, ABC):
    """A model with an embedding [V, E] and an output layer, stored as config + arrays."""

    kind: ClassVar[str]
    config_class: ClassVar[type[NeuralConfig]]

    vocabulary: Vocabulary
    tokenizer: Tokenizer
    config: NeuralConfig
    embedding: Embedding
    output: Output

    def __init__(self, vocabulary: Vocabulary, tokenizer: Tokenizer, config: NeuralConfig) -> None:
        super().__init__()
        if config.softmax == "adaptive":  # the cutoffs chosen are part of what is stored
            config = config.model_copy(update={"cutoffs": check_cutoffs(config.cutoffs, len(vocabulary))})
        self.vocabulary, self.tokenizer, self.config = vocabulary, tokenizer, config
        backend = getattr(config, "backend", "auto")
        self.embedding = Embedding(len(vocabulary), config.embedding_size, backend=backend)

    @classmethod
    @abstractmethod
    def expected_shapes(cls, config: Mapping[str, Any], vocabulary_size: int) -> Shapes:
        """Name → (shape, dtype) of every array of a stored model, without allocating. FormatError."""

    @property
    def parameter_count(self) -> int:
        """Trainable numbers; a tied weight counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    def config_json(self) -> dict[str, Any]:
        """The configuration as JSON: everything but vocabulary, tokenizer and weights."""
        return self.config.model_dump(mode="json")

    def describe(self) -> dict[str, Any]:
        """What the model is, for people: the configuration and the number of parameters."""
        return {"kind": self.kind, "parameters": self.parameter_count} | self.config_json()

    def arrays(self) -> dict[str, Tensor]:
        """Every weight once, by its name in `state_dict`; not copies."""
        names = self.expected_shapes(self.config_json(), len(self.vocabulary))
        weights = self.state_dict()
        return {name: weights[name].detach() for name in names}

    @classmethod
    def from_parts(
        cls,
        config: Mapping[str, Any],
        arrays: Mapping[str, Tensor],
        vocabulary: Vocabulary,
        tokenizer: Tokenizer,
    ) -> Self:
        """The stored model, in evaluation mode. FormatError when the parts do not belong together."""
        parsed = cls.parse_config(config)
        if getattr(parsed, "backend", "auto") == "fused" and not native.available():
            warnings.warn("this model asks for backend fused, which is not here: auto.", Note, stacklevel=2)
            parsed = parsed.model_copy(update={"backend": "auto"})
        expected = cls.expected_shapes(config, len(vocabulary))
        check_arrays(expected, arrays)
        with torch.device("meta"):  # no memory and no random numbers are spent on weights to be replaced
            model = cls(vocabulary, tokenizer, parsed)
        model.load_state_dict({name: arrays[name].clone() for name in expected}, strict=False, assign=True)
        model.share_weights()
        return model.eval()

    @classmethod
    def parse_config(cls, config: Mapping[str, Any]) -> Any:
        """The configuration of a stored model. FormatError names the field that is wrong."""
        return parse_config(cls.config_class, cls.kind, config)

    def share_weights(self) -> None:
        """Tie what is tied; called again after weights were replaced."""
        return None


def parse_config(config_class: type[BaseModel], kind: str, config: Mapping[str, Any]) -> Any:
    """A stored configuration as `config_class`. FormatError names the field that is wrong."""
    try:
        # from JSON, strictly: a list is a tuple there, but a string is no number
        return config_class.model_validate_json(json.dumps(config), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "config"
        cause = f"the {kind} model's configuration is not valid: {field}: {first['msg']}."
    except (OptionError, TypeError) as error:
        told = error.cause if isinstance(error, OptionError) else str(error)
        cause = f"the {kind} model's configuration is not valid: {told}"
    raise FormatError(
        cause, reason="the file is damaged or of another version.", remedy="save the model again."
    )


def build_output(config: NeuralConfig, size: int, vocabulary_size: int, *, backend: str = "auto") -> Output:
    """The output layer on `size` features, with its own weights."""
    if config.softmax == "adaptive":
        return AdaptiveOutput(size, vocabulary_size, config.cutoffs, backend=backend)
    return SoftmaxOutput(size, vocabulary_size, backend=backend)


@torch.no_grad()
def initialize_uniform(module: nn.Module, scale: float) -> None:
    """Every parameter of the module, biases too, from U(-scale, scale); a tied weight is drawn once."""
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -scale, scale)


def check_arrays(expected: Shapes, arrays: Mapping[str, Tensor]) -> None:
    """FormatError unless the arrays are those expected, by name, shape and dtype, and finite."""
    remedy = "the file is damaged or of another model; save the model again."
    if missing := sorted(expected.keys() - arrays.keys()):
        raise FormatError(f"the model's weights lack {', '.join(missing[:4])}.", remedy=remedy)
    if unknown := sorted(arrays.keys() - expected.keys()):
        raise FormatError(
            f"the model's weights hold unknown arrays: {', '.join(unknown[:4])}.", remedy=remedy
        )
    for name, (shape, dtype) in expected.items():
        array = arrays[name]
        if tuple(array.shape) != shape or array.dtype != dtype:
            raise FormatError(
                f"array {name} is {array.dtype} {list(array.shape)}, not {dtype} {list(shape)}.",
                reason="the weights do not fit the configuration.",
                remedy=remedy,
            )
        if not bool(torch.isfinite(array).all()):
            raise FormatError(f"array {name} holds infinities or NaN.", remedy=remedy)
