"""What `elman train` can be told: flags, a TOML file, and what a saved run was told; then the model itself.

Each group of options is one frozen pydantic value: its fields are the flags, the TOML keys and the
checks. Later sources win: defaults, the run that is resumed, --config, flags.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from annotated_types import Interval
from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from elman.cli.app import out_of_range
from elman.errors import FormatError, OptionError
from elman.text.building import TextSettings
from elman.training.config import TrainConfig, parse_train_config

if TYPE_CHECKING:
    from elman.ngram.backoff import NgramModel
    from elman.text.corpus import Corpus

Kind = Literal["lstm", "gru", "rnn", "rnn-relu", "feedforward", "ngram"]
Count = Annotated[int, Interval(ge=0, le=10**9)]
LARGEST_FILE = 1 << 20


class ModelOptions(BaseModel):
    """Shape and start of a model; None is the model's own default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    embedding_size: Annotated[int | None, Parameter(name=("--emsize", "--embedding-size"))] = Field(
        None, ge=1, le=16_384, description="Size of a token's vector (200)."
    )
    hidden_size: Annotated[int | None, Parameter(name=("--nhid", "--hidden-size"))] = Field(
        None, ge=1, le=16_384, description="Units of a layer (200)."
    )
    num_layers: Annotated[int | None, Parameter(name=("--nlayers", "--num-layers"))] = Field(
        None, ge=1, le=64, description="Recurrent layers (2)."
    )
    dropout: float | None = Field(
        None, ge=0, lt=1, description="Share of units dropped, between layers and never along time (0)."
    )
    tied: bool | None = Field(None, description="Output weight = embedding; needs emsize = nhid (no).")
    softmax: Literal["full", "adaptive"] | None = Field(
        None, description="Output: over all tokens, or adaptive for large vocabularies (full)."
    )
    init: Literal["uniform", "orthogonal"] | None = Field(None, description="How weights begin (uniform).")
    init_scale: float | None = Field(None, gt=0, le=10, description="uniform: from U(-scale, scale) (0.1).")
    forget_bias: float | None = Field(
        None, ge=-100, le=100, description="lstm: added to the forget gate's bias (0)."
    )
    backend: Literal["auto", "fused", "torch", "reference"] | None = Field(
        None, description="What computes the recurrence (auto)."
    )
    window: int | None = Field(None, ge=1, le=1_000, description="feedforward: previous tokens seen (5).")
    direct: bool | None = Field(None, description="feedforward: embeddings straight to the output too (no).")
    order: int | None = Field(None, ge=1, le=10, description="ngram: tokens of the longest n-gram (5).")
    smoothing: Literal["kneser-ney", "add-k", "stupid-backoff"] | None = Field(
        None, description="ngram: how unseen n-grams get their share (kneser-ney)."
    )
    prune: Annotated[list[Count] | None, Parameter(consume_multiple=True, negative="")] = Field(
        None, description="ngram, kneser-ney: counts up to these are cut, by order: 0 0 1 (no pruning)."
    )
    add_k: float | None = Field(
        None, gt=0, le=1e6, description="ngram, add-k: what is added to each count (1)."
    )


class TrainFlags(TrainConfig):
    """The training options of one command line: whether they agree is seen once all sources are merged."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        return self


class SaveOptions(BaseModel):
    """Where a training is written and what is shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    save: Path | None = Field(None, description="Folder for the model, its checkpoints and log.jsonl.")
    resume: Annotated[bool, Parameter(negative="")] = Field(
        False, description="Continue the run in --save exactly where it stopped; its options are remembered."
    )
    overwrite: Annotated[bool, Parameter(negative="")] = Field(
        False, description="Remove the run or model that --save holds and begin anew."
    )
    config: Path | None = Field(None, description="TOML file of options; flags win over it.")
    dry_run: Annotated[bool, Parameter(negative="")] = Field(
        False,
        description="Show the configuration, the number of parameters and the memory needed; train nothing.",
    )
    json_: Annotated[bool, Parameter(name="--json", negative="")] = Field(
        False, description="Print one JSON document on stdout."
    )


RECURRENT = {
    "embedding_size", "hidden_size", "num_layers", "dropout", "tied", "softmax", "init", "init_scale",
    "forget_bias", "backend",
}  # fmt: skip
FEEDFORWARD = {
    "embedding_size",
    "hidden_size",
    "dropout",
    "softmax",
    "init",
    "init_scale",
    "window",
    "direct",
}
NGRAM = {"order", "smoothing", "prune", "add_k"}
TEXT_FIELDS = asdict(TextSettings())
ALIASES = {"nhid": "hidden_size", "nlayers": "num_layers", "emsize": "embedding_size"}
FLAGS = {field: flag for flag, field in ALIASES.items()} | {"cell": "model"}


@dataclass(frozen=True)
class Options:
    """Everything that was asked for, by group; only what was said, defaults left out."""

    kind: str
    model: dict[str, Any]
    training: dict[str, Any]
    text: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {"model": self.kind, **self.model, **self.training, **self.text}


def said(value: BaseModel | None) -> dict[str, Any]:
    """The fields that were given, not those left at their default."""
    return {} if value is None else value.model_dump(mode="json", include=value.model_fields_set)


def said_of_text(settings: TextSettings | None) -> dict[str, Any]:
    """The fields that differ from their default."""
    return {} if settings is None else {n: v for n, v in asdict(settings).items() if v != TEXT_FIELDS[n]}


def read_options(path: Path) -> dict[str, Any]:
    """Options of a TOML or JSON file, tables flattened, names as on the command line or with underscores."""
    try:
        data = path.read_bytes()
        if len(data) > LARGEST_FILE:
            raise FormatError(f"{path}: {len(data):,} bytes are no file of options.")
        text = data.decode("utf-8")
        document = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise OptionError(f"{path}: cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{path}: {error}.", remedy='lines such as  nhid = 200  and  model = "lstm"'
        ) from error
    if not isinstance(document, dict):
        raise FormatError(f"{path}: not a table of options.")
    flat: dict[str, Any] = {}
    for key, value in document.items():
        flat |= value if isinstance(value, dict) else {key: value}
    flat = {str(name).replace("-", "_"): item for name, item in flat.items()}
    flat = {ALIASES.get(name, name): item for name, item in flat.items()}
    return flat


def merge(*layers: Mapping[str, Any]) -> Options:
    """Options of several sources, the later ones winning; OptionError for a name that no option has."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
    kind = str(merged.pop("model", "lstm"))
    if kind not in get_args(Kind):
        raise OptionError(f"--model {kind} is not known.", remedy=f"one of {', '.join(get_args(Kind))}.")
    groups = [
        {name: merged.pop(name) for name in list(merged) if name in fields}
        for fields in (ModelOptions.model_fields, TrainConfig.model_fields, TEXT_FIELDS)
    ]
    if merged:
        name = next(iter(merged))
        known = [*ModelOptions.model_fields, *TrainConfig.model_fields, *TEXT_FIELDS, *ALIASES, "model"]
        near = difflib.get_close_matches(name, known, 1)
        raise OptionError(
            f"no option is called {name}.",
            reason=f"perhaps {near[0]} is meant." if near else "",
            remedy="`elman train --help` lists the options.",
        )
    return Options(kind, *groups)


def model_config(options: Options) -> Any:
    """RecurrentConfig or FeedforwardConfig; OptionError for what the model does not have."""
    fits = {"feedforward": FEEDFORWARD, "ngram": NGRAM}.get(options.kind, RECURRENT)
    chosen = {name: value for name, value in options.model.items() if value is not None}
    for name in chosen:
        if name not in fits:
            flag = "--" + FLAGS.get(name, name).replace("_", "-")
            raise OptionError(f"--model {options.kind} has no {flag}.", remedy=f"leave out {flag}.")
    try:
        chosen = ModelOptions(**chosen).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise _wrong(error) from None
    if options.kind == "ngram":
        if options.training.keys() - {"seed"}:
            name = next(iter(options.training.keys() - {"seed"}))
            raise OptionError(
                f"an n-gram is counted, not trained: it has no --{name.replace('_', '-')}.",
                remedy="leave it out, or choose another --model.",
            )
        return chosen
    from elman.neural.feedforward import FeedforwardConfig
    from elman.neural.recurrent import RecurrentConfig

    try:
        if options.kind == "feedforward":
            return FeedforwardConfig(**chosen)
        return RecurrentConfig(cell=options.kind, **chosen)  # type: ignore[arg-type]
    except ValidationError as error:
        raise _wrong(error) from None


def train_config(options: Options) -> TrainConfig:
    """The training options with their defaults."""
    return parse_train_config(options.training)


def text_settings(options: Options) -> TextSettings:
    """The text options with their defaults."""
    try:
        return TypeAdapter(TextSettings).validate_python(options.text)
    except ValidationError as error:
        raise _wrong(error) from None


def build_model(options: Options, corpus: Corpus, seed: int) -> Any:
    """A neural model with fresh weights, drawn from `seed`; the caller's random state is not moved."""
    import torch

    from elman.neural.feedforward import FeedforwardModel
    from elman.neural.recurrent import RecurrentModel

    kind = FeedforwardModel if options.kind == "feedforward" else RecurrentModel
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(corpus.vocabulary, corpus.tokenizer, model_config(options))


def count_ngrams(options: Options, corpus: Corpus) -> NgramModel:
    """An n-gram model of the training text."""
    from elman.ngram.kneser_ney import KneserNeySettings, estimate
    from elman.ngram.smoothing import add_k, stupid_backoff

    chosen = model_config(options)
    parts = corpus.train, corpus.vocabulary, corpus.tokenizer
    smoothing, order = chosen.get("smoothing", "kneser-ney"), chosen.get("order", 5)
    if smoothing != "kneser-ney" and "prune" in chosen:
        raise OptionError(f"{smoothing} is not pruned.", remedy="leave out --prune.")
    if smoothing != "add-k" and "add_k" in chosen:
        raise OptionError(f"{smoothing} adds nothing to counts.", remedy="leave out --add-k.")
    if smoothing == "add-k":
        return add_k(*parts, order, chosen.get("add_k", 1.0))
    if smoothing == "stupid-backoff":
        return stupid_backoff(*parts, order)
    return estimate(*parts, KneserNeySettings(order=order, prune=tuple(chosen.get("prune") or (0,))))


def _wrong(error: ValidationError) -> OptionError:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "options"
    return out_of_range("--" + FLAGS.get(name, name).replace("_", "-"), error)
