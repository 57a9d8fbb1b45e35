"""What `elman compare CORPUS` trains, for each preset: one table of plain values.

Not here: the training (contest.py). To tune a preset, change a number in this file and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

from elman.errors import OptionError

Kind = Literal["ngram", "feedforward", "recurrent", "mixture"]
BASELINE = "kn5"


@dataclass(frozen=True)
class Spec:
    """One model of the line-up.

    name      on the command line and of its folder; label is what people read
    options   of the model: an n-gram's `smoothing` and its numbers, else fields of its configuration
    training  fields of TrainConfig; `precision: "auto"` is bf16 where the processor has it
    parts     a mixture's models by name; its weights are fitted by EM on the validation text
    """

    name: str
    label: str
    kind: Kind
    options: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[str, ...] = ()

    def fingerprint(self, corpus_digest: str, seed: int, parts: Sequence[str] = ()) -> str:
        """8 hexadecimal digits: equal where a finished model may be taken again. A mixture is no longer
        the same when one of its parts is not: `parts` are their fingerprints."""
        what = json.dumps([asdict(self), corpus_digest, seed, *parts], sort_keys=True)
        return hashlib.sha256(what.encode()).hexdigest()[:8]


def _ngrams() -> tuple[Spec, ...]:
    return (
        Spec("unigram", "Unigram", "ngram", {"smoothing": "kneser-ney", "order": 1}),
        Spec("addk2", "Bigram, add-k", "ngram", {"smoothing": "add-k", "order": 2, "k": 0.01}),
        *(
            Spec(f"kn{order}", f"Kneser-Ney {order}", "ngram", {"smoothing": "kneser-ney", "order": order})
            for order in (2, 3, 4, 5)
        ),
    )


def _learned(
    *, width: int, feedforward: Mapping[str, Any], recurrent: Mapping[str, Any], training: Mapping[str, Any]
) -> tuple[Spec, ...]:
    sizes = {"embedding_size": width, "hidden_size": width}
    # a forget gate that begins open: Jozefowicz et al. (2015) found it to close the gap to the GRU
    return (
        Spec("feedforward", "Feed-forward", "feedforward", {**sizes, **feedforward}, training),
        Spec("rnn", "RNN (tanh)", "recurrent", {"cell": "rnn", **sizes, **recurrent}, training),
        Spec("gru", "GRU", "recurrent", {"cell": "gru", **sizes, **recurrent}, training),
        Spec(
            "lstm", "LSTM", "recurrent", {"cell": "lstm", "forget_bias": 1.0, **sizes, **recurrent}, training
        ),
    )


_MIXTURES = (
    Spec("lstm-kn5", "LSTM + Kneser-Ney 5", "mixture", parts=("lstm", "kn5")),
    Spec("mixture", "Mixture of all", "mixture", parts=("kn5", "feedforward", "rnn", "gru", "lstm")),
)
_ADAM: dict[str, Any] = {"optimizer": "adam", "schedule": "one-cycle", "loss": "mean", "precision": "auto"}

PRESETS: dict[str, tuple[Spec, ...]] = {
    # at most 90 s in all on two cores
    "quick": (
        *_ngrams(),
        *_learned(
            width=96,
            feedforward={"window": 4, "softmax": "adaptive"},
            recurrent={"num_layers": 1, "softmax": "adaptive"},
            training={**_ADAM, "epochs": 1, "batch_size": 64, "bptt": 35, "lr": 1.5e-2, "clip": 1.0},
        ),
        *_MIXTURES,
    ),
    # at most 15 minutes in all on two cores
    "default": (
        *_ngrams(),
        *_learned(
            width=256,
            feedforward={"window": 4, "dropout": 0.3, "softmax": "adaptive"},
            recurrent={"num_layers": 1, "dropout": 0.3, "softmax": "adaptive"},
            training={**_ADAM, "epochs": 4, "batch_size": 32, "bptt": 35, "lr": 4e-3, "clip": 1.0},
        ),
        *_MIXTURES,
    ),
    # the best numbers; hours
    "full": (
        *_ngrams(),
        *_learned(
            width=650,
            feedforward={"window": 5, "dropout": 0.5},
            recurrent={"num_layers": 2, "dropout": 0.5, "tied": True},
            training={**_ADAM, "epochs": 30, "batch_size": 32, "bptt": 50, "lr": 1.5e-3, "clip": 1.0},
        ),
        *_MIXTURES,
    ),
}


def choose(preset: str, names: Sequence[str] = ()) -> tuple[Spec, ...]:
    """The models of a preset, all or those named, in the order of the table.

    A mixture takes those of its parts that are chosen. Raises OptionError for an unknown name, or a
    mixture of fewer than two.
    """
    if preset not in PRESETS:
        raise OptionError(f"preset {preset!r} is unknown.", remedy=f"one of: {', '.join(PRESETS)}.")
    specs = PRESETS[preset]
    known = [spec.name for spec in specs]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise OptionError(
                f"--models: {name!r} is not in the line-up.",
                reason=f"perhaps you meant {near[0]}." if near else "",
                remedy=f"some of: {', '.join(known)}.",
            )
    wanted = set(names or known)
    chosen = []
    for spec in specs:
        if spec.name in wanted:
            missing = [part for part in spec.parts if part not in wanted]
            if spec.parts and len(spec.parts) - len(missing) < 2:
                raise OptionError(
                    f"--models: {spec.name} mixes {', '.join(spec.parts)}; fewer than two are chosen.",
                    remedy=f"add {', '.join(missing)} to --models, or leave {spec.name} out.",
                )
            parts = tuple(part for part in spec.parts if part in wanted)
            chosen.append(Spec(spec.name, spec.label, spec.kind, spec.options, spec.training, parts))
    return tuple(chosen)
