"""Which earlier tokens move a model's expectation of the next one: by exchanging them, and by gradients.

Exchange, for every language model: an earlier token is replaced by others, drawn as often as they occur in
the training text, and the rest of the text is read again. The number is the mean Kullback-Leibler divergence
of the next-token distribution before the exchange from the one after it. It says how much the expectation
depends on which token stands there while all others stay: a token whose news the others repeat scores
little, and so does one that only matters together with another. An n-gram's is exactly zero beyond its order.

Gradient, for recurrent models: |∂L_t/∂x_s|, x_s the embedding of the token read at s, L_t the nats of the
token that came at t (gradients/vanishing.py); Madsen (2019), "Visualizing memorization in RNNs", draws such
norms. It says how a tiny change of the embedding would change the loss of one word. No other word lies
that near; a saturated unit may have a gradient of zero and yet decide everything; and its size hangs on
the size of the embeddings, so that two models' gradients do not compare.

Both are about one text: an anecdote. What holds in general is measured over many events (context.py).

T tokens, K exchanges of each, V vocabulary size. Nats throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elman.errors import OptionError, TextError
from elman.event_nats import device_of, evaluating
from elman.gradients.reading import read_back, unrollable
from elman.gradients.vanishing import triangle
from elman.language_model import LanguageModel, State, require_no_nan, select
from elman.text.vocabulary import Vocabulary

MOST = 200  # tokens
EXCHANGES = 8
ROWS = 256  # streams side by side: their next-token distributions are all in memory

Matrix = NDArray[np.float64]
Progress = Callable[[int, int], None]
"""Called with (tokens done, tokens in all)."""


@dataclass(frozen=True)
class Connectivity:
    """Row t: the prediction of tokens[t]; column s ≤ t: inputs[s], which stands t - s + 1 tokens before it.

    inputs     what was read: `</s>`, then all tokens but the last
    exchanged  [T, T] nats, mean divergence when inputs[s] is another token; above the diagonal 0
    gradients  [T, T] |∂L_t/∂x_s|, None for a model without a recurrence
    """

    tokens: tuple[str, ...]
    inputs: tuple[str, ...]
    exchanged: Matrix
    gradients: Matrix | None

    def by_distance(self) -> Matrix:
        """[T] mean nats of exchanging the token 1, 2, … T before the one that is predicted."""
        return np.array([np.diagonal(self.exchanged, -lag).mean() for lag in range(len(self.tokens))])

    def as_json(self) -> dict[str, object]:
        """Rows of t + 1 numbers, to four digits."""
        return {
            "tokens": list(self.tokens),
            "inputs": list(self.inputs),
            "exchanged": _rows(self.exchanged),
            "gradients": None if self.gradients is None else _rows(self.gradients),
            "by_distance": [_short(value) for value in self.by_distance()],
        }


def connectivity(
    model: LanguageModel,
    ids: NDArray[np.integer],
    *,
    exchanges: int = EXCHANGES,
    seed: int = 1,
    progress: Progress | None = None,
) -> Connectivity:
    """ids [T] of a text, read from its beginning as one stream → what each prediction depends on.

    With one seed, models of one vocabulary see the same exchanges. Raises TextError for an empty text,
    OptionError for more than MOST tokens or no exchange.
    """
    if not len(ids):
        raise TextError("the text is empty: nothing is predicted.", remedy="give some words.")
    if len(ids) > MOST:
        raise OptionError(
            f"{len(ids)} tokens are too many: at most {MOST}.",
            reason="every token is exchanged for others and the text read again.",
            remedy="give a sentence or two.",
        )
    if exchanges < 1:
        raise OptionError(f"{exchanges} exchanges tell nothing.", remedy="give 1 or more.")
    stream = np.concatenate([[model.vocabulary.eos_id], ids]).astype(np.int64)
    others = drawn_others(model.vocabulary, stream[:-1], exchanges, seed)
    names = [model.vocabulary.tokens[number] for number in stream]
    exchanged = _exchange(model, stream[:-1], others, progress)
    return Connectivity(tuple(names[1:]), tuple(names[:-1]), exchanged, _gradients(model, stream))


def drawn_others(
    vocabulary: Vocabulary, ids: NDArray[np.int64], exchanges: int, seed: int
) -> NDArray[np.int64]:
    """ids [T] → [T, K] ids to stand in their place: never the same one, each as likely as in the training
    text, or equally likely where the vocabulary has no counts."""
    counts = np.ones(len(vocabulary)) if vocabulary.counts is None else vocabulary.counts.astype(float)
    random, found = np.random.default_rng(seed), np.empty((len(ids), exchanges), dtype=np.int64)
    for place, token in enumerate(ids):
        weights = counts.copy()
        weights[token] = 0
        if not weights.any():
            weights[:] = np.arange(len(weights)) != token
        found[place] = random.choice(len(weights), size=exchanges, p=weights / weights.sum())
    return found


def _exchange(
    model: LanguageModel, read: NDArray[np.int64], others: NDArray[np.int64], progress: Progress | None
) -> Matrix:
    """read [T], others [T, K] → [T, T]. Stream 0 is the text; K others differ from it at each place."""
    T, K = others.shape
    found = np.zeros((T, T))
    with evaluating(model):
        state = model.start(1)
        device = device_of(state)
        for t in range(T):
            # the K streams that differ at t begin here, from the state of the text
            state = select(state, torch.tensor([*range(1 + t * K), *[0] * K]))
            tokens = torch.full((1 + (t + 1) * K,), int(read[t]))
            tokens[-K:] = torch.from_numpy(others[t])
            state, changes = _advance(model, state, tokens.to(device))
            found[t, : t + 1] = changes.view(t + 1, K).mean(dim=1).cpu().numpy()
            if progress is not None:
                progress(t + 1, T)
    return found


def _advance(model: LanguageModel, state: State, tokens: Tensor) -> tuple[State, Tensor]:
    """tokens [1 + R] → the state after them, KL(stream 0 || each other) [R] in nats.

    Some streams at a time, stream 0 always beside them: kernels may round differently for other batches.
    """
    states, changes = [], []
    for first in range(1, len(tokens), ROWS):
        rows = torch.tensor([0, *range(first, min(first + ROWS, len(tokens)))])
        after, logs = model.advance(select(state, rows), tokens[rows.to(tokens.device)])
        logs = logs.double()
        require_no_nan(logs)
        p = logs[0].exp()
        terms = torch.where(p > 0, p * (logs[0] - logs[1:]), 0.0)  # 0 log 0 = 0
        changes.append(terms.sum(dim=1).clamp_min(0.0))  # below zero by rounding only
        states.append(after if first == 1 else select(after, torch.arange(1, len(rows))))
    joined = tuple(torch.cat(parts, dim=-2) for parts in zip(*states, strict=True))
    return joined, torch.cat(changes)


def _gradients(model: LanguageModel, stream: NDArray[np.int64]) -> Matrix | None:
    if not unrollable(model):
        return None
    with evaluating(model):
        ids = torch.from_numpy(stream)[:, None].to(device_of(model.start(1)))
        reading = read_back(model, ids)
    norms: Matrix = triangle(reading.unrolled, reading.dhidden[:, 0]).x.double().cpu().numpy()
    return norms


def _rows(matrix: Matrix) -> list[list[float]]:
    return [[_short(value) for value in row[: t + 1]] for t, row in enumerate(matrix)]


def _short(value: float) -> float:
    return float(f"{value:.4g}")
