"""The options of a training run: one frozen value that flags, TOML and checkpoints all are.

Not here: the shape of the model (neural/), the text (text/). Imports no torch.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from elman.errors import OptionError

FREE = frozenset(
    {
        "epochs",
        "max_steps",
        "save_every",
        "save_seconds",
        "keep",
        "log_every",
        "samples",
        "sample_length",
        "device",
    }
)
"""Options that may change on resume: they do not decide what the next step does."""


def _default_lr(data: dict[str, Any]) -> float:
    if data.get("optimizer") != "sgd":
        return 0.002
    return 1.0 if data.get("loss") == "sum" else 20.0


class TrainConfig(BaseModel):
    """Options of `train`. Frozen; unknown names are refused.

    The loss is summed over time and averaged over the batch ("sum", Zaremba et al. 2014: lr 1 and clip 5
    refer to that scale) or averaged over both ("mean").
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(10, ge=0, le=100_000, description="Passes over the training text.")
    batch_size: int = Field(20, ge=1, le=65_536, description="Streams (or sentences) side by side.")
    bptt: int = Field(35, ge=1, le=100_000, description="Steps unrolled: how far back a gradient reaches.")
    update_interval: int | None = Field(
        None, ge=1, le=100_000, description="Steps between two updates, at most bptt (default: bptt)."
    )
    random_length: bool = Field(
        False, description="Draw every window's length around bptt, as AWD-LSTM does."
    )
    independent: bool = Field(False, description="Sentences on their own, shuffled; no state between them.")

    optimizer: Literal["sgd", "adam", "adamw"] = Field("adam", description="How gradients become updates.")
    loss: Literal["sum", "mean"] = Field(
        default_factory=lambda data: "sum" if data.get("optimizer") == "sgd" else "mean",
        description="Over time; always averaged over the batch. Default: sum for sgd, else mean.",
    )
    lr: float = Field(
        default_factory=_default_lr,
        gt=0,
        le=1e4,
        description="Learning rate. Default: 0.002; sgd 1 (sum) or 20 (mean).",
    )
    momentum: float = Field(0.0, ge=0, lt=1, description="Of sgd.")
    weight_decay: float = Field(
        default_factory=lambda data: 0.01 if data.get("optimizer") == "adamw" else 0.0,
        ge=0,
        le=1e3,
        description="On matrices, never on biases. Decoupled under adamw. Default: 0; adamw 0.01.",
    )
    clip: float = Field(
        default_factory=lambda data: 5.0 if data.get("loss") == "sum" else 1.0,
        ge=0,
        le=1e9,
        description="Largest norm of the whole gradient; 0 is off. Default: 5 for sum, 1 for mean.",
    )
    clip_value: float = Field(
        0.0, ge=0, le=1e9, description="Largest entry of the gradient, before the norm; 0 is off."
    )

    schedule: Literal["constant", "plateau", "zaremba", "cosine", "one-cycle"] = Field(
        "cosine", description="How the learning rate changes."
    )
    decay: float = Field(
        2.0, ge=1, le=1e6, description="plateau, zaremba: what the learning rate is divided by."
    )
    decay_after: int = Field(4, ge=0, le=100_000, description="zaremba: epochs at the full learning rate.")
    warmup: int = Field(
        0, ge=0, le=10**9, description="Steps over which the learning rate rises from 0; not for one-cycle."
    )
    min_lr: float = Field(
        0.0, ge=0, le=1e4, description="cosine: the last learning rate; plateau: the smallest."
    )
    patience: int | None = Field(
        None, ge=1, le=100_000, description="Stop after so many epochs without a better validation."
    )
    max_steps: int | None = Field(None, ge=0, le=10**12, description="Stop after so many updates.")

    seed: int = Field(1, ge=0, lt=2**63, description="Of dropout, shuffling and random lengths.")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16: products in bfloat16, weights in float32."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="auto: cuda, else mps, else cpu."
    )

    save_every: int | None = Field(
        None, ge=1, le=10**12, description="Save after so many updates too, not only each epoch."
    )
    save_seconds: float = Field(
        600.0, gt=0, le=1e9, description="Save at least so often within a long epoch."
    )
    keep: int = Field(2, ge=1, le=1000, description="Latest checkpoints kept, besides the best.")
    log_every: int = Field(100, ge=1, le=10**12, description="Updates between two lines of log.jsonl.")
    samples: int = Field(0, ge=0, le=100, description="Samples of text shown after each epoch.")
    sample_length: int = Field(30, ge=1, le=10_000, description="Tokens of each sample.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.update_interval is not None and self.update_interval > self.bptt:
            raise OptionError(
                f"update_interval={self.update_interval} is longer than bptt={self.bptt}.",
                reason="events between two windows would never be learned from.",
                remedy=f"--bptt {self.update_interval} or more.",
            )
        if self.random_length and self.update_interval not in (None, self.bptt):
            raise OptionError(
                "--random-length and --update-interval contradict each other.", remedy="drop one."
            )
        if self.independent and (self.random_length or self.update_interval not in (None, self.bptt)):
            raise OptionError(
                "independent sentences end where they end.",
                remedy="drop --random-length and --update-interval.",
            )
        if self.momentum and self.optimizer != "sgd":
            raise OptionError(f"momentum is of sgd; {self.optimizer} has its own.", remedy="drop --momentum.")
        if self.min_lr > self.lr:
            raise OptionError(f"min_lr={self.min_lr:g} is above lr={self.lr:g}.")
        if self.warmup and self.schedule == "one-cycle":
            raise OptionError(
                "one-cycle has its own warm-up, the first 30 % of all steps.", remedy="drop --warmup."
            )
        return self

    @property
    def interval(self) -> int:
        """k1: positions between two updates."""
        return self.bptt if self.update_interval is None else self.update_interval


def parse_train_config(options: dict[str, Any]) -> TrainConfig:
    """These options, defaults for the rest; OptionError names the one that is wrong."""
    try:
        return TrainConfig.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise OptionError(
            f"option {name} = {first['input']!r}: {first['msg']}.",
            remedy="`elman train --help` lists the options and their ranges.",
        ) from None


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Options in which two configurations (as JSON) differ and a resumed run would be another run."""
    why = {}
    if before.get("schedule") in ("cosine", "one-cycle"):  # the number of epochs shapes the whole curve
        why["epochs"] = f" (the {before['schedule']} schedule spans them)"
    return [
        f"{name}: {before.get(name)} in the run, {now.get(name)} now{why.get(name, '')}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and (name not in FREE or name in why)
    ]
