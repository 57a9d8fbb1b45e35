"""Lines of text → the surprisal of every token, word or sentence, as they come.

Not here: reading files and printing rows (cli/evaluate.py), the score of a whole text (evaluate.py).
A surprisal is -log2 P(token | what stands before it), in bits (Hale 2001; Levy 2008). Sentences are
scored in groups for speed; the numbers do not depend on the grouping.

T steps, N events of a group.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
import torch

from elman.errors import OptionError
from elman.event_nats import CHUNK, WINDOW, run_window, sentence_nats
from elman.language_model import LanguageModel, State, StatePolicy, UnknownPolicy
from elman.text.tokenizers import Token

Per = Literal["token", "word", "sentence"]

GROUP = 256  # lines scored together when all of them are at hand
BATCH = 32  # sentences side by side


@dataclass(frozen=True)
class TokenSurprisal:
    """One event, or under `words` the events of one word.

    token    as the model names it (`</s>` ends the sentence); text is line[start:end] of the original
             line, offsets in characters (empty for `</s>`)
    nats     -log P; `bits` is the same in base 2
    unknown  the token is not in the vocabulary: the number is that of `<unk>`
    matched  for an n-gram model the length of the longest n-gram found that ends here, else None
    tokens   how many events the row sums: 1, or the tokens of a word
    """

    token: str
    text: str
    start: int
    end: int
    nats: float
    unknown: bool
    matched: int | None = None
    tokens: int = 1

    @property
    def bits(self) -> float:
        return self.nats / math.log(2)


@dataclass(frozen=True)
class SentenceSurprisal:
    """The events of one sentence, `</s>` last; `line` and `sentence` count from 1 in the input."""

    line: int
    sentence: int
    text: str  # the line of the original text
    tokens: tuple[TokenSurprisal, ...]

    @property
    def nats(self) -> float:
        """-log P of the sentence, `</s>` and unknown tokens included."""
        return math.fsum(token.nats for token in self.tokens)

    @property
    def known_nats(self) -> float:
        """-log P of the tokens that are not unknown: what unknown="skip" counts."""
        return math.fsum(token.nats for token in self.tokens if not token.unknown)

    @property
    def unknown(self) -> int:
        return sum(token.unknown for token in self.tokens)

    def words(self) -> tuple[TokenSurprisal, ...]:
        """The tokens summed per whitespace-separated word of the line, then `</s>`.

        White space that is a token of its own (characters, bytes) counts with the word it ends: it is
        what says that the word is over. White space before the first word counts with that word. A
        word of which the tokenizer keeps nothing has no row. The sum over rows is the sentence's.
        """
        starts = [match.start() for match in re.finditer(r"\S+", self.text)]
        ends = [match.end() for match in re.finditer(r"\S+", self.text)]
        grouped: dict[int, list[TokenSurprisal]] = {}
        for token in self.tokens[:-1]:
            inside = self.text[token.start : token.end]
            lead = len(inside) - len(inside.lstrip())  # a subword may begin with the space before it
            place = token.start + (lead if lead < len(inside) else 0)
            word = int(np.searchsorted(starts, place, side="right")) - 1
            grouped.setdefault(max(word, 0), []).append(token)
        rows = []
        for word, tokens in grouped.items():
            start, end = (starts[word], ends[word]) if starts else (tokens[0].start, tokens[-1].end)
            rows.append(
                TokenSurprisal(
                    token="".join(token.token for token in tokens),
                    text=self.text[start:end],
                    start=start,
                    end=end,
                    nats=math.fsum(token.nats for token in tokens),
                    unknown=any(token.unknown for token in tokens),
                    tokens=len(tokens),
                )
            )
        return (*rows, self.tokens[-1])


def surprisals(
    model: LanguageModel, lines: Iterable[str], *, state: StatePolicy = "reset", group: int = GROUP
) -> Iterator[SentenceSurprisal]:
    """Every sentence of `lines` in order, scored `group` lines at a time (1: each line as it comes).

    state="reset": each sentence on its own. state="carry": the lines are one document.
    Raises OptionError for a group below 1 or an unknown state policy, and what the tokenizer raises.
    """
    if group < 1:
        raise OptionError(f"a group of {group} lines is below 1.", remedy="give 1 or more.")
    source = iter(lines)
    return grouped_surprisals(model, iter(lambda: list(islice(source, group)), []), state=state)


def grouped_surprisals(
    model: LanguageModel, groups: Iterable[list[str]], *, state: StatePolicy = "reset"
) -> Iterator[SentenceSurprisal]:
    """As `surprisals`, with the lines already in groups: all that have come so far, for instance."""
    if state not in ("carry", "reset"):
        raise OptionError(f"state policy {state!r} is unknown.", remedy='use "carry" or "reset".')
    scorer = _Scorer(model, state)
    line_number = sentence_number = 0
    for lines in groups:
        placed: list[tuple[int, str, list[Token]]] = []
        for line in lines:
            line_number += 1
            placed += [(line_number, line, tokens) for tokens in model.tokenizer.sentences(line)]
        if not placed:
            continue
        for (number, line, _), events in zip(placed, scorer.score(placed), strict=True):
            sentence_number += 1
            yield SentenceSurprisal(number, sentence_number, line, events)


def rows(
    sentence: SentenceSurprisal, *, per: Per = "token", unknown: UnknownPolicy = "word"
) -> Iterator[dict[str, object]]:
    """A sentence as flat rows for a table: one for each token, each word, or one in all.

    bits      -log2 P; None under unknown="skip" where the token is unknown or the word holds such a token
    ln, log10 of a sentence are logarithms of its probability, so at most 0; under unknown="skip" its
              unknown tokens are in no sum and not in `events`
    """
    place: dict[str, object] = {"line": sentence.line, "sentence": sentence.sentence}
    if per == "sentence":
        skip = unknown == "skip"
        nats = sentence.known_nats if skip else sentence.nats
        yield place | {
            "events": len(sentence.tokens) - (sentence.unknown if skip else 0),
            "unknown": sentence.unknown,
            "ln": -nats,
            "log10": -nats / math.log(10),
            "bits": nats / math.log(2),
            "text": sentence.text[sentence.tokens[0].start : sentence.tokens[-1].end],
        }
        return
    for position, token in enumerate(sentence.tokens if per == "token" else sentence.words(), start=1):
        row = place | {"position": position}
        row |= (
            {"token": token.token}
            if per == "token"
            else {"word": token.text or token.token, "tokens": token.tokens}
        )
        row |= {"start": token.start, "end": token.end, "unknown": int(token.unknown)}
        row |= {"bits": None if token.unknown and unknown == "skip" else token.bits}
        if per == "token":
            row |= {"text": token.text} | ({} if token.matched is None else {"matched": token.matched})
        yield row


class _Scorer:
    """Nats of group after group; carries the state from one to the next when asked to."""

    def __init__(self, model: LanguageModel, policy: StatePolicy) -> None:
        self.model, self.policy = model, policy
        self.state: State | None = None
        self.last = model.vocabulary.eos_id

    def score(self, sentences: list[tuple[int, str, list[Token]]]) -> Iterator[tuple[TokenSurprisal, ...]]:
        vocabulary = self.model.vocabulary
        pieces = [
            np.append(vocabulary.ids([token.text for token in tokens]), vocabulary.eos_id)
            for _, _, tokens in sentences
        ]
        ids = np.concatenate(pieces)
        ends = np.cumsum([len(piece) for piece in pieces])
        nats = self._nats(ids, ends)
        matched = self._matched(ids)
        begin = 0
        for (_, line, tokens), end in zip(sentences, ends, strict=True):
            rows = []
            for k in range(begin, end):
                token = tokens[k - begin] if k < end - 1 else _end(tokens, line)
                rows.append(
                    TokenSurprisal(
                        token=token.text,
                        text=line[token.start : token.end],
                        start=token.start,
                        end=token.end,
                        nats=float(nats[k]),
                        unknown=bool(ids[k] == vocabulary.unk_id),
                        matched=None if matched is None else int(matched[k]),
                    )
                )
            yield tuple(rows)
            begin = end

    def _nats(self, ids: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """ids [N] → float64 nats [N]."""
        if self.policy == "reset":
            return sentence_nats(self.model, ids, ends, BATCH, WINDOW)
        parts = []
        for first in range(0, len(ids), CHUNK):
            window = np.concatenate(([self.last], ids[first : first + CHUNK]))[:, None]
            part, self.state = run_window(self.model, window, self.state)
            self.last = int(window[-1, 0])
            parts.append(part[:, 0])
        return np.concatenate(parts)

    def _matched(self, ids: np.ndarray) -> np.ndarray | None:
        """ids [N] → int64 [N], for a model that looks up n-grams; none of them reaches over a `</s>`."""
        find = getattr(self.model, "matched_lengths", None)
        if find is None:
            return None
        stream = torch.from_numpy(np.append(self.model.vocabulary.eos_id, ids).astype(np.int64))
        found: np.ndarray = find(stream[:, None], self.model.start(1))[:, 0].numpy()
        return found


def _end(tokens: list[Token], line: str) -> Token:
    """`</s>`: empty, after the last token of its sentence."""
    end = tokens[-1].end if tokens else len(line)
    return Token("</s>", end, end)
