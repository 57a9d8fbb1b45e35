"""Several models as one: P = Σ w_m P_m, with weights by EM on held-out text (Jelinek & Mercer 1980).

A mixture is a language model like any other: scored, generated from, saved and mixed again. It is not
trained: its models are taken as they are, and only the weights are fitted.

M models, N events, T steps, B batch, V vocabulary size. Nats throughout; sums in float64.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elman.aligned import align, alignment
from elman.errors import FormatError, OptionError, ProtocolError
from elman.event_nats import event_nats
from elman.language_model import LanguageModel, State, parameter_count
from elman.text.corpus import Text
from elman.text.tokenizers import Tokenizer
from elman.text.vocabulary import Vocabulary

TOLERANCE_NATS = 1e-7
"""EM stops when no weights could lower the mean nats by more than this."""

MOST_ITERATIONS = 20_000
MOST_MODELS = 64


class Mixture:
    """P(token | history) = Σ w_m P_m(token | history); keeps the `LanguageModel` contract.

    models   over equal tokenizers, in evaluation mode from now on; vocabularies are aligned (aligned.py)
    weights  M numbers ≥ 0; divided by their sum
    The state is the models' states, one after the other.
    """

    kind: ClassVar[str] = "mixture"

    def __init__(
        self, models: Sequence[LanguageModel], weights: Sequence[float] | NDArray[np.float64]
    ) -> None:
        """Raises OptionError for unusable weights, ProtocolError for models that cut text differently."""
        _require_equal(models)
        self.models: list[LanguageModel] = list(models)
        self.aligned: list[LanguageModel] = align(models)  # the same, over one vocabulary
        self.weights: tuple[float, ...] = _normalized(weights, len(self.models))
        self.vocabulary, self.tokenizer = self.aligned[0].vocabulary, models[0].tokenizer
        for model in self.models:
            if isinstance(model, torch.nn.Module):
                model.eval()
        self._tensors = [len(model.start(1)) for model in self.models]  # of each model's state

    @classmethod
    def fit(
        cls,
        models: Sequence[LanguageModel],
        text: Text,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Self:
        """The mixture with the best weights for a held-out text in its vocabulary, read as one stream.

        progress is called with (events done, events in all), counting every model's pass.
        """
        _require_equal(models)
        rows = []
        for number, model in enumerate(align(models)):
            report = None if progress is None else _shifted(progress, number * text.events, len(models))
            rows.append(np.concatenate(list(event_nats(model, text, progress=report))))
        return cls(models, fit_weights(np.stack(rows)))

    def start(self, batch: int) -> State:
        """The states of all models before any token."""
        return tuple(tensor for model in self.models for tensor in model.start(batch))

    def advance(self, state: State, token: Tensor) -> tuple[State, Tensor]:
        """token [B] int64 → state after it, next-token log-probabilities [B, V] float64."""
        logs, states = [], []
        for model, part in self._parts(state):
            after, log_probs = model.advance(part, token)
            logs.append(log_probs)
            states.append(after)
        return _joined(states), mix_logs(logs, self.weights)

    def token_nats(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """ids [T+1, B] int64 → nats [T, B] float64, state after ids[T-1]."""
        logs, states = [], []
        for model, part in self._parts(state):
            nats, after = model.token_nats(ids, part)
            logs.append(-nats)
            states.append(after)
        return -mix_logs(logs, self.weights), _joined(states)

    def config_json(self) -> dict[str, Any]:
        """The weights; the models are stored beside it, each as itself."""
        return {"weights": list(self.weights)}

    def arrays(self) -> dict[str, Tensor]:
        """None of its own."""
        return {}

    @classmethod
    def from_parts(
        cls,
        config: Mapping[str, Any],
        arrays: Mapping[str, Tensor],
        vocabulary: Vocabulary,
        tokenizer: Tokenizer,
        models: Sequence[LanguageModel],
    ) -> Self:
        """The stored mixture of stored models. FormatError when the parts do not belong together."""
        weights = config.get("weights")
        try:
            if config.keys() != {"weights"} or arrays or not isinstance(weights, list):
                raise OptionError("it needs weights, and nothing else.")
            if not all(type(weight) in (int, float) for weight in weights):
                raise OptionError("its weights are not numbers.")
            mixture = cls(models, weights)
            if mixture.vocabulary != vocabulary or mixture.tokenizer.as_json() != tokenizer.as_json():
                raise OptionError("its models have another vocabulary or tokenizer than it has.")
        except (OptionError, ProtocolError, OverflowError) as error:
            cause = error.cause if isinstance(error, OptionError | ProtocolError) else str(error)
            raise FormatError(
                f"the mixture is not valid: {cause}",
                reason="a file is damaged.",
                remedy="mix the models again.",
            ) from error
        return mixture

    @property
    def ends_sentences(self) -> bool:
        """Whether one of its models gives `</s>` a probability."""
        return any(getattr(model, "ends_sentences", True) for model in self.models)

    @property
    def parameter_count(self) -> int:
        """Of its models together."""
        return sum(parameter_count(model) or 0 for model in self.models)

    def describe(self) -> dict[str, Any]:
        """What the mixture is, for people: each model's weight and description."""
        parts = []
        for weight, model in zip(self.weights, self.models, strict=True):
            own = getattr(model, "describe", None)
            described = own() if own is not None else {"kind": getattr(model, "kind", type(model).__name__)}
            parts.append({"weight": weight} | described)
        names = [f"model {number}" for number in range(1, len(parts) + 1)]
        report = alignment(self.models, names)
        return {"kind": self.kind, "parameters": self.parameter_count, "models": parts, "report": report}

    def _parts(self, state: State) -> Iterator[tuple[LanguageModel, State]]:
        first = 0
        for model, count in zip(self.aligned, self._tensors, strict=True):
            yield model, state[first : first + count]
            first += count


def fit_weights(nats: NDArray[np.float64]) -> NDArray[np.float64]:
    """nats [M, N] of held-out events → the weights [M] of the best mixture, by EM.

    Events that no model finds possible cannot be helped by any weights and are left out.
    Raises OptionError when nothing is left, or for NaN.
    """
    weights, _ = deque(em_steps(nats), maxlen=1).pop()
    return weights


def mix_nats(nats: Iterable[NDArray[np.float64]], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """nats [N] of each of M models, weights [M] → nats [N] of their mixture; infinite where all are."""
    mixed: NDArray[np.float64] = -mix_logs([torch.from_numpy(-row) for row in nats], weights.tolist()).numpy()
    return mixed


def mix_logs(logs: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """M tensors of log-probabilities and their weights → log Σ w_m P_m, float64; -inf where all are."""
    # a weight of zero adds log 0 = -inf, which logsumexp leaves out
    weighted = [
        log.double() + (math.log(weight) if weight else -math.inf)
        for log, weight in zip(logs, weights, strict=True)
    ]
    return torch.logsumexp(torch.stack(weighted), dim=0)


def em_steps(nats: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.float64], float]]:
    """The course of EM from equal weights: (weights [M], mean nats of the mixture under them), never rising.

        E   r[m, n] = w_m p_mn / Σ_k w_k p_kn
        M   w_m = mean over n of r[m, n] = w_m g_m,   g_m = mean over n of p_mn / Σ_k w_k p_kn

    The mean log-likelihood is concave in w with gradient g and Σ w_m g_m = 1, so no weights are better
    than the present ones by more than max g - 1 nats: that bound is the criterion for stopping.
    """
    nats = np.asarray(nats, dtype=np.float64)
    if nats.ndim != 2 or not nats.size:
        raise OptionError(f"weights need nats of shape [models, events], not {list(nats.shape)}.")
    if np.isnan(nats).any():
        raise OptionError(
            "a model gives NaN for some events.", reason="its weights are damaged.", remedy="leave it out."
        )
    best = nats.min(axis=0)
    nats = nats[:, np.isfinite(best)]
    if not nats.size:
        raise OptionError(
            "no event of the tuning text is possible under any of the models.",
            remedy="tune on held-out text of the kind the models were trained on.",
        )
    best = best[np.isfinite(best)]
    ratios = np.exp(best - nats)  # probabilities relative to the event's best model: no underflow
    weights = np.full(len(nats), 1.0 / len(nats))
    for _ in range(MOST_ITERATIONS):
        mixed = weights @ ratios
        yield weights, float(np.mean(best - np.log(mixed)))
        gradient = ratios @ (1.0 / mixed) / ratios.shape[1]
        if gradient.max() - 1.0 <= TOLERANCE_NATS:
            return
        weights = weights * gradient
        weights = weights / weights.sum()


def _require_equal(models: Sequence[LanguageModel]) -> None:
    if not 1 <= len(models) <= MOST_MODELS:
        raise OptionError(
            f"a mixture of {len(models)} models is not possible.", remedy=f"give 1 to {MOST_MODELS} models."
        )
    first = models[0]
    for number, model in enumerate(models[1:], start=2):
        if model.tokenizer.as_json() != first.tokenizer.as_json():
            raise ProtocolError(
                f"models 1 and {number} cut text differently: {first.tokenizer} and {model.tokenizer}.",
                remedy="train both with the same tokenizer.",
            )


def _normalized(weights: Sequence[float] | NDArray[np.float64], count: int) -> tuple[float, ...]:
    numbers = [float(weight) for weight in weights]
    usable = all(math.isfinite(weight) and weight >= 0 for weight in numbers)
    if len(numbers) != count or not usable or not sum(numbers) > 0:
        raise OptionError(
            f"weights {numbers} do not fit a mixture of {count} models.",
            remedy="give one number of at least 0 for each model, not all 0.",
        )
    total = math.fsum(numbers)
    if abs(total - 1.0) <= 1e-12:  # stored weights come back as they were
        return tuple(numbers)
    return tuple(weight / total for weight in numbers)


def _shifted(progress: Callable[[int, int], None], before: int, passes: int) -> Callable[[int, int], None]:
    return lambda done, total: progress(before + done, total * passes)


def _joined(states: list[State]) -> State:
    return tuple(tensor for state in states for tensor in state)
