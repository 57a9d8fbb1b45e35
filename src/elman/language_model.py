"""The contract that every language model keeps, and the two values that carry a number's meaning.

An n-gram is a recurrence with a finite state, an RNN one with a continuous state. Evaluation,
comparison, mixing and generation see only `LanguageModel` and never ask which they hold.

T steps, B batch, V vocabulary size. Nats throughout.
"""

from __future__ import annotations

import math
import typing
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elman.errors import ElmanError, ProtocolError
from elman.text.tokenizers import Tokenizer, Unit
from elman.text.vocabulary import Vocabulary

UnknownPolicy = Literal["word", "skip"]
StatePolicy = Literal["carry", "reset"]

State = tuple[Tensor, ...]
"""What a model remembers: tensors whose second axis from the right is the batch ([B, n] or [L, B, H])."""


class LanguageModel(typing.Protocol):
    """(state, token) → (state, next-token log-probabilities).

    A text is one stream of ids in which `</s>` ends every sentence. Before the first token of a text
    the models see `</s>` too: the end of one sentence is the start of the next. So `<s>` is never an
    input nor an event; an n-gram reads `</s>` as "the context is now `<s>`".
    """

    vocabulary: Vocabulary
    tokenizer: Tokenizer

    def start(self, batch: int) -> State:
        """The state before any token, for `batch` independent streams."""
        ...

    def advance(self, state: State, token: Tensor) -> tuple[State, Tensor]:
        """token [B] int64 → the state after it, log-probabilities of the next token [B, V] in nats."""
        ...

    def token_nats(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """ids [T+1, B] int64 → nats [T, B], where nats[t] = -log P(ids[t+1] | state, ids[0..t]).

        The state returned is the one after ids[T-1]: the next window begins with ids[T].
        Equals `advance` step by step, by test. Differentiable where the model has parameters.
        """
        ...


def parameter_count(model: object) -> int | None:
    """How many numbers a model stores, as each kind says of itself: trainable weights, the weights that a
    quantized model stands for, an n-gram's probabilities and backoffs; None where it does not say."""
    count: int | None = getattr(model, "parameter_count", None)
    return count


def read(model: LanguageModel, ids: Tensor, state: State) -> State:
    """ids [T, B] int64 → the state after ids[T-1]; predicts nothing where the model can leave that out."""
    own = getattr(model, "read", None)
    if own is not None:
        after: State = own(ids, state)
        return after
    return model.token_nats(torch.cat([ids, ids[-1:]]), state)[1]


def select(state: State, rows: Tensor) -> State:
    """The streams `rows` [K] int64 of a state, in that order; rows may repeat (beam search)."""
    return tuple(tensor.index_select(-2, rows.to(tensor.device)) for tensor in state)


def detach(state: State) -> State:
    """The same numbers, cut from the graph: where truncated BPTT truncates."""
    return tuple(tensor.detach() for tensor in state)


@dataclass(frozen=True)
class Protocol:
    """How events were counted. Two numbers mean the same only under one protocol.

    unit     what one event is: word, character, byte or subword
    unknown  "word": `<unk>` counts like a word (closed vocabulary, as in all Penn Treebank tables);
             "skip": an event whose target is unknown is left out (it stays in the context)
    state    "carry": the model remembers across sentences (Zaremba et al. 2014);
             "reset": every sentence is scored on its own (what an n-gram sees)
    end_of_sentence  whether `</s>` is an event: always, but for a model that knows of no ends (an ARPA file
             without `</s>`), and in other tools
    normalized  whether the tokens do not tell all of the text (capital letters, numbers, blanks of prose):
             bits per byte are then of less than the text
    """

    unit: Unit
    unknown: UnknownPolicy = "word"
    state: StatePolicy = "carry"
    end_of_sentence: bool = True
    normalized: bool = False

    def __str__(self) -> str:
        end = "</s> counted" if self.end_of_sentence else "</s> not counted"
        return f"per {self.unit}, unknown={self.unknown}, state={self.state}, {end}"

    def counted(self, ids: NDArray[np.integer]) -> NDArray[np.bool_]:
        """ids [N] → which of these events count."""
        counted = np.ones(len(ids), dtype=bool)
        if self.unknown == "skip":
            counted &= ids != Vocabulary.unk_id
        if not self.end_of_sentence:
            counted &= ids != Vocabulary.eos_id
        return counted

    def require_comparable(self, other: Protocol) -> None:
        """Raise ProtocolError unless both count the same events. `state` may differ: it is
        what a model knows, not what is counted, and tables print it."""
        for name, what in (
            ("unit", "one event is not the same thing"),
            ("unknown", "unknown words are counted in one and left out of the other"),
            ("end_of_sentence", "</s> is an event in one and not in the other"),
        ):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ProtocolError(
                    f"cannot compare {name}={mine} with {name}={theirs}: {what}.",
                    remedy="score both in one way; models with other tokens compare per word or per byte.",
                )


@dataclass(frozen=True)
class Score:
    """A sum of nats and the counts to divide it by; scores of parts add to the score of the whole.

    nats     -log probability of all events, natural logarithm
    events   predicted tokens, `</s>` included
    words    whitespace-separated words of the original text (line ends are not words)
    bytes    UTF-8 bytes of the original text, one for each line end included
    unknown  events whose target was `<unk>`; counted in `events` only under unknown="word"
    known_nats  those of the other events, which are `nats` under unknown="skip"
    """

    nats: float
    events: int
    words: int
    bytes: int
    unknown: int
    protocol: Protocol
    known_nats: float

    def __add__(self, other: Score) -> Score:
        if not isinstance(other, Score):
            return NotImplemented
        if self.protocol != other.protocol:
            raise ProtocolError(
                f"cannot add scores of unlike protocols: [{self.protocol}] and [{other.protocol}].",
                remedy="evaluate both parts with the same options.",
            )
        return replace(
            self,
            nats=self.nats + other.nats,
            events=self.events + other.events,
            words=self.words + other.words,
            bytes=self.bytes + other.bytes,
            unknown=self.unknown + other.unknown,
            known_nats=self.known_nats + other.known_nats,
        )

    @property
    def whole(self) -> bool:
        """Whether `nats` are those of the whole text: only then may its words and bytes divide them."""
        return self.protocol.unknown == "word" or not self.unknown

    @property
    def perplexity(self) -> float:
        """exp(nats / events): per predicted token, the number of the Penn Treebank tables."""
        return perplexity(self.nats, self.events)

    @property
    def word_perplexity(self) -> float:
        """exp(nats / words): comparable between tokenizers; NaN where events are left out."""
        return perplexity(self.nats, self.words) if self.whole else math.nan

    @property
    def known_perplexity(self) -> float:
        """The perplexity without the events that are `<unk>`: what unknown="skip" gives."""
        left_out = 0 if self.protocol.unknown == "skip" else self.unknown
        return perplexity(self.known_nats, self.events - left_out)

    @property
    def unknown_share(self) -> float:
        """The share of the nats that unknown words take, 0 to 1."""
        return 1.0 - self.known_nats / self.nats if self.nats else 0.0

    @property
    def bits_per_token(self) -> float:
        """log2 of the perplexity."""
        return _ratio(self.nats, self.events) / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers and kinds of token; NaN where events are left out."""
        whole = self.whole and self.protocol.end_of_sentence  # a line end is a byte
        return _ratio(self.nats, self.bytes) / math.log(2) if whole else math.nan

    def as_json(self) -> dict[str, object]:
        """The counts, the derived figures and the protocol, ready for `json.dumps`."""
        return {
            "nats": self.nats,
            "events": self.events,
            "words": self.words,
            "bytes": self.bytes,
            "unknown": self.unknown,
            "unknown_share": self.unknown_share,
            "known_perplexity": self.known_perplexity,
            "perplexity": self.perplexity,
            "word_perplexity": self.word_perplexity,
            "bits_per_token": self.bits_per_token,
            "bits_per_byte": self.bits_per_byte,
            "protocol": asdict(self.protocol),
        }


def require_no_nan(nats: Tensor) -> None:
    """Raise ElmanError where a model has left the numbers."""
    if bool(nats.isnan().any()):
        raise ElmanError(
            "the model gives NaN for some tokens.",
            reason="its weights are damaged or its training diverged.",
            remedy="train again with a smaller --lr or --clip, or take an earlier checkpoint.",
        )


def _ratio(nats: float, count: int) -> float:
    return nats / count if count else math.nan


def perplexity(nats: float, count: int = 1) -> float:
    """exp(nats / count); NaN of nothing."""
    return exponential(_ratio(nats, count))


def exponential(power: float) -> float:
    """e to a power, infinite rather than an error where it overflows."""
    try:
        return math.exp(power)
    except OverflowError:
        return math.inf
