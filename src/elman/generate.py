"""A model and a prompt → text, by sampling. Beam search is in beam.py; both see only the contract.

The distribution of the next token is filtered in this order: `<unk>` out, temperature, top-k, top-p,
then made to sum to one again. Each sample draws from its own stream of random numbers, so that the
first of five samples is the same as a single one with that seed.

B samples side by side, V vocabulary size. Log-probabilities in nats, float64 once filtered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from elman.errors import ElmanError, OptionError
from elman.event_nats import device_of, evaluating
from elman.joining import Joiner
from elman.kernels.streaming import Drawing
from elman.language_model import LanguageModel, State, select

DEFAULT_LENGTH = 100  # tokens, when neither length nor lines is given
LONGEST_LINE = 1000  # tokens a line may have when only lines is given: a greedy model may never end it


@dataclass(frozen=True)
class GenerationSettings:
    """How to generate; raises OptionError for values out of range.

    length       tokens at most, `</s>` included, the prompt not (None: 100, or 1000 a line with `lines`)
    lines        stop after this many `</s>` (None: no limit)
    temperature  log-probabilities are divided by it; 0 takes the most probable token
    top_k        only the k most probable tokens (None: all)
    top_p        only the fewest most probable tokens that together reach p (Holtzman et al. 2020)
    seed         same seed, same text
    allow_unknown  whether `<unk>` may be generated
    """

    length: int | None = None
    lines: int | None = None
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 1
    allow_unknown: bool = False

    def __post_init__(self) -> None:
        require(
            self.length is None or self.length >= 1, f"--length {self.length} is below 1 token", "1 or more"
        )
        require(
            self.lines is None or self.lines >= 1, f"--lines {self.lines} is below 1 sentence", "1 or more"
        )
        require(
            math.isfinite(self.temperature) and self.temperature >= 0,
            f"--temperature {self.temperature:g} is not a number of 0 or more",
            "0 (the most probable token) up to about 2; 1 is the model's own distribution",
        )
        require(self.top_k is None or self.top_k >= 1, f"--top-k {self.top_k} keeps no token", "1 or more")
        require(
            0 < self.top_p <= 1, f"--top-p {self.top_p:g} is not in (0, 1]", "0.9, say; 1 keeps all tokens"
        )
        require(self.seed >= 0, f"--seed {self.seed} is negative", "0 or more")

    @property
    def most_tokens(self) -> int:
        """Where generation ends whatever comes."""
        if self.length is not None:
            return self.length
        return DEFAULT_LENGTH if self.lines is None else LONGEST_LINE * self.lines


def require(holds: bool, cause: str, allowed: str) -> None:
    """Raise OptionError unless the condition holds."""
    if not holds:
        raise OptionError(f"{cause}.", remedy=f"give {allowed}.")


@dataclass(frozen=True)
class Prompt:
    """What the model reads first: ids after the opening `</s>`; the tokens of the open last sentence."""

    ids: tuple[int, ...]
    text: str
    open_tokens: tuple[str, ...]
    unknown: tuple[str, ...]


def read_prompt(model: LanguageModel, prompt: str) -> Prompt:
    """The prompt in the model's tokens. Its lines are sentences; the last one stays open."""
    vocabulary, tokenizer = model.vocabulary, model.tokenizer
    sentences = [tokens for line in prompt.split("\n") for tokens in tokenizer.split(line)] if prompt else []
    ids: list[int] = []
    for place, tokens in enumerate(sentences):
        ids += [vocabulary.eos_id] if place else []
        ids += [int(i) for i in vocabulary.ids(tokens)]
    unknown = [token for tokens in sentences for token in tokens if vocabulary.id(token) == vocabulary.unk_id]
    text = "\n".join(tokenizer.join(tokens) for tokens in sentences)
    return Prompt(tuple(ids), text, tuple(sentences[-1] if sentences else ()), tuple(dict.fromkeys(unknown)))


@dataclass(frozen=True)
class Sample:
    """One generated text, prompt included; `tokens` and `nats` (the model's -log P, before any
    filter) are those of the continuation, `</s>` among them."""

    text: str
    tokens: tuple[str, ...]
    nats: float

    def as_json(self) -> dict[str, object]:
        return {"text": self.text, "tokens": list(self.tokens), "nats": self.nats}


def next_distribution(log_probs: Tensor, settings: GenerationSettings, unk_id: int = 0) -> np.ndarray:
    """log_probs [B, V] → the probabilities [B, V] float64 that are drawn from; rows sum to one.

    Ties are broken by the smaller id. Raises ElmanError when nothing but `<unk>` has probability.
    """
    scores = log_probs.to("cpu", torch.float64, copy=True).numpy()
    if not settings.allow_unknown:
        scores[:, unk_id] = -np.inf
    best = scores.max(axis=1, keepdims=True)
    if not np.isfinite(best).all():
        raise nothing_to_draw()
    if settings.temperature == 0:
        chosen = np.zeros_like(scores)
        chosen[np.arange(len(scores)), scores.argmax(axis=1)] = 1.0
        return chosen
    with np.errstate(under="ignore", over="ignore"):
        weights: np.ndarray = np.exp((scores - best) / settings.temperature)
    if (settings.top_k is None or settings.top_k >= weights.shape[1]) and settings.top_p == 1:
        weights /= weights.sum(axis=1, keepdims=True)
        return weights
    order = np.argsort(-weights, axis=1, kind="stable")
    ranked = np.take_along_axis(weights, order, axis=1)
    if settings.top_k is not None:
        ranked[:, settings.top_k :] = 0.0
    ranked /= ranked.sum(axis=1, keepdims=True)
    if settings.top_p < 1:
        before = np.zeros_like(ranked)  # a token stays while those above it fall short of p
        before[:, 1:] = np.cumsum(ranked, axis=1)[:, :-1]
        ranked[before >= settings.top_p] = 0.0
        ranked /= ranked.sum(axis=1, keepdims=True)
    np.put_along_axis(weights, order, ranked, axis=1)
    return weights


def nothing_to_draw() -> ElmanError:
    """What is raised where no token can follow."""
    return ElmanError(
        "the model gives probability to no token but <unk>, or NaN.",
        reason="its training text was almost empty, or its weights are damaged.",
        remedy="allow unknown tokens with --allow-unknown, or train on more text.",
    )


def draw(probabilities: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """probabilities [B, V], uniform [B] in [0, 1) → the token [B] at that point of the distribution."""
    cumulative = np.cumsum(probabilities, axis=1)
    point = uniform[:, None] * cumulative[:, -1:]
    tokens: np.ndarray = (cumulative <= point).sum(axis=1)
    last = probabilities.shape[1] - 1 - (probabilities[:, ::-1] > 0).argmax(axis=1)
    np.minimum(tokens, last, out=tokens)  # rounding never reaches a token of probability zero
    return tokens


def prime(model: LanguageModel, ids: Sequence[int], batch: int) -> tuple[State, Tensor]:
    """`</s>` and the prompt read once, for `batch` streams: the state and the next log-probs [B, V]."""
    with evaluating(model):
        state = model.start(1)
        for token in (model.vocabulary.eos_id, *ids):
            state, log_probs = model.advance(state, torch.tensor([token], device=device_of(state)))
    rows = torch.zeros(batch, dtype=torch.int64)
    return select(state, rows), log_probs[rows.to(log_probs.device)]


def token_stream(
    model: LanguageModel, ids: Sequence[int], settings: GenerationSettings, count: int = 1
) -> Iterator[tuple[int, int, float]]:
    """(sample, token id, nats) as tokens are drawn, `count` samples side by side until all have ended."""
    eos = model.vocabulary.eos_id
    state, log_probs = prime(model, ids, count)
    seeds = np.random.SeedSequence(settings.seed).spawn(count)
    randoms = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
    running = np.arange(count)
    lines = np.zeros(count, dtype=np.int64)
    tokens, nats = _drawn(model, log_probs, settings, np.array([random.random() for random in randoms]))
    for step in range(settings.most_tokens):
        for row, sample in enumerate(running):
            yield int(sample), int(tokens[row]), float(nats[row])
        lines[running] += tokens == eos
        keep = np.flatnonzero(lines[running] < (settings.lines or np.inf))
        if not len(keep) or step + 1 == settings.most_tokens:
            return
        if len(keep) < len(running):
            state, running, tokens = select(state, torch.from_numpy(keep)), running[keep], tokens[keep]
        uniform = np.array([randoms[sample].random() for sample in running])
        state, tokens, nats = _next(model, state, tokens, settings, uniform)


def _next(
    model: LanguageModel, state: State, tokens: np.ndarray, settings: GenerationSettings, uniform: np.ndarray
) -> tuple[State, np.ndarray, np.ndarray]:
    """tokens [B], uniform [B] → the state after them, the tokens drawn next [B] and their nats [B].

    A model that draws by itself (`draw_next`) is asked first: it need not hand over all log-probabilities.
    """
    given = torch.from_numpy(tokens).to(device_of(state))
    with evaluating(model):
        draw_next = getattr(model, "draw_next", None)
        if draw_next is not None:
            excluded = -1 if settings.allow_unknown else model.vocabulary.unk_id
            how = Drawing(settings.temperature, settings.top_k or 0, settings.top_p, excluded)
            result = draw_next(state, given, how, torch.from_numpy(uniform))
            if result is not None:
                state, drawn, nats = result
                if bool((drawn < 0).any()):
                    raise nothing_to_draw()
                return state, drawn.numpy(), nats.numpy()
        state, log_probs = model.advance(state, given)
    return state, *_drawn(model, log_probs, settings, uniform)


def _drawn(
    model: LanguageModel, log_probs: Tensor, settings: GenerationSettings, uniform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """log_probs [B, V], uniform [B] → tokens [B] and their nats [B] before any filter."""
    tokens = draw(next_distribution(log_probs, settings, model.vocabulary.unk_id), uniform)
    nats = -log_probs.gather(1, torch.from_numpy(tokens).to(log_probs.device)[:, None])[:, 0]
    return tokens, nats.to("cpu", torch.float64).numpy()


def generate(
    model: LanguageModel, prompt: str = "", settings: GenerationSettings | None = None
) -> Iterator[str]:
    """Pieces of one text as they are drawn; joined they are the prompt and its continuation."""
    read = read_prompt(model, prompt)
    if read.text:
        yield read.text
    joiner = Joiner(model.tokenizer, read.open_tokens)
    for _, token, _ in token_stream(model, read.ids, settings or GenerationSettings()):
        piece = (
            joiner.end() if token == model.vocabulary.eos_id else joiner.push(model.vocabulary.token(token))
        )
        if piece:
            yield piece


def samples(
    model: LanguageModel, prompt: str = "", settings: GenerationSettings | None = None, count: int = 1
) -> list[Sample]:
    """`count` texts, drawn side by side. Raises OptionError for a count below 1."""
    require(count >= 1, f"{count} samples are none", "1 or more")
    read = read_prompt(model, prompt)
    drawn: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    for sample, token, nats in token_stream(model, read.ids, settings or GenerationSettings(), count):
        drawn[sample].append((token, nats))
    return [to_sample(model, read, tokens) for tokens in drawn]


def to_sample(model: LanguageModel, prompt: Prompt, drawn: Sequence[tuple[int, float]]) -> Sample:
    """The text of drawn (token id, nats) pairs after a prompt."""
    joiner = Joiner(model.tokenizer, prompt.open_tokens)
    pieces, eos = [prompt.text], model.vocabulary.eos_id
    names = [model.vocabulary.token(token) for token, _ in drawn]
    for (token, _), name in zip(drawn, names, strict=True):
        pieces.append(joiner.end() if token == eos else joiner.push(name))
    if drawn and drawn[-1][0] != eos:
        pieces.append(joiner.end()[:-1])
    return Sample("".join(pieces), tuple(names), math.fsum(nats for _, nats in drawn))
