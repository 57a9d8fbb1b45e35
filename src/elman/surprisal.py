"""Lines of text → the surprisal of every token, word or sentence, as they come.

Not here: reading files and printing rows (cli/evaluate.py), the score of a whole text (evaluate.py).
A surprisal is -log2 P(token | what stands before it), in bits (Hale 2001; Levy 2008). Sentences are
scored in groups for speed; the numbers do not depend on the grouping.

T steps, N events of a group.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
import torch

from elman.errors import OptionError, TextError
from elman.event_nats import CHUNK, WINDOW, run_window, sentence_nats
from elman.language_model import LanguageModel, State, StatePolicy, UnknownPolicy
from elman.text.tokenizers import Token
from elman.text.vocabulary import WORD

Per = Literal["token", "word", "sentence"]

GROUP = 1024  # lines scored together when all of them are at hand
BATCH = 32  # sentences side by side


@dataclass(frozen=True)
class TokenSurprisal:
    """One event, or under `words` the events of one word.

    token    as the model names it (`</s>` ends the sentence); text is line[start:end] of the original
             line, offsets in characters (empty for `</s>`)
    nats     -log P; `bits` is the same in base 2
    unknown  the token is not in the vocabulary: the number is that of `<unk>`
    matched  for an n-gram model the length of the longest n-gram found that ends here, else None
    tokens   how many events the row sums: 1, or the tokens of a word, of which the tokenizer may keep none
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
    """The events of one sentence, `</s>` last; `line` and `sentence` count from 1 in the input.

    text          the line of the original text; the sentence is text[start:end]
    blank_begins  see `Tokenizer.blank_begins`
    """

    line: int
    sentence: int
    text: str
    tokens: tuple[TokenSurprisal, ...]
    start: int = 0
    end: int | None = None
    blank_begins: bool = False

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
        """The tokens summed by word of the sentence, then `</s>`: the words that are counted (Text.words).

        A blank that is a token of its own (characters, bytes) counts with the word it ends, in front of the
        first word with that word. Of subwords it counts with what it begins, the next word or `</s>`, alone
        as well as inside a subword. Without a word, blanks count with `</s>`. The rows sum to the sentence.
        """
        spans = [found.span() for found in WORD.finditer(self.text, self.start, self._stop)]
        starts = [start for start, _ in spans]
        held: list[list[TokenSurprisal]] = [[] for _ in range(len(spans) + 1)]
        for token in self.tokens[:-1]:
            held[self._word_of(token, starts)].append(token)
        rows = [
            TokenSurprisal(
                token="".join(token.token for token in tokens),
                text=self.text[start:end],
                start=start,
                end=end,
                nats=math.fsum(token.nats for token in tokens),
                unknown=any(token.unknown for token in tokens),
                tokens=len(tokens),
            )
            for (start, end), tokens in zip(spans, held[:-1], strict=True)
        ]
        ending = (*held[-1], self.tokens[-1])
        unknown = any(token.unknown for token in ending)
        nats = math.fsum(token.nats for token in ending)
        return (*rows, replace(ending[-1], nats=nats, unknown=unknown, tokens=len(ending)))

    def _word_of(self, token: TokenSurprisal, starts: list[int]) -> int:
        """The place of a token's word among `starts`; one beyond them for `</s>`."""
        if letter := WORD.search(self.text, token.start, token.end):
            return bisect_right(starts, letter.start()) - 1
        after = bisect_left(starts, token.start)
        return after if self.blank_begins else max(after - 1, 0)

    @property
    def _stop(self) -> int:
        return len(self.text) if self.end is None else self.end


def surprisals(
    model: LanguageModel,
    lines: Iterable[str],
    *,
    state: StatePolicy = "reset",
    group: int = GROUP,
    name: str = "the text",
) -> Iterator[SentenceSurprisal]:
    """Every sentence of `lines` in order, scored `group` lines at a time (1: each line as it comes).

    state="reset": each sentence on its own. state="carry": the lines are one document.
    Raises OptionError for a group below 1 or an unknown state policy; TextError for a line that is no text,
    with `name` and its number, after the sentences before it.
    """
    if group < 1:
        raise OptionError(f"a group of {group} lines is below 1.", remedy="give 1 or more.")
    source = iter(lines)
    groups = iter(lambda: list(islice(source, group)), [])
    return grouped_surprisals(model, groups, state=state, name=name)


def grouped_surprisals(
    model: LanguageModel,
    groups: Iterable[list[str]],
    *,
    state: StatePolicy = "reset",
    name: str = "the text",
) -> Iterator[SentenceSurprisal]:
    """As `surprisals`, with the lines already in groups: all that have come so far, for instance."""
    if state not in ("carry", "reset"):
        raise OptionError(f"state policy {state!r} is unknown.", remedy='use "carry" or "reset".')
    scorer = _Scorer(model, state)
    line_number = sentence_number = 0
    begins = model.tokenizer.blank_begins
    for lines in groups:
        placed: list[_Placed] = []
        fault: TextError | None = None
        for line in lines:
            line_number += 1
            try:
                placed += [_Placed(line_number, line, *piece) for piece in model.tokenizer.pieces(line)]
            except TextError as error:
                fault = error.at(name, line_number)
                break
        for (number, line, start, end, _), events in zip(placed, scorer.score(placed), strict=True):
            sentence_number += 1
            yield SentenceSurprisal(number, sentence_number, line, events, start, end, begins)
        if fault is not None:
            raise fault


class _Placed(NamedTuple):
    """A sentence of a line: line[start:end]."""

    number: int
    line: str
    start: int
    end: int
    tokens: list[Token]


def rows(
    sentence: SentenceSurprisal, *, per: Per = "token", unknown: UnknownPolicy = "word"
) -> Iterator[dict[str, object]]:
    """A sentence as flat rows for a table: one for each token, each word, or one in all.

    text      the piece of the original line, exactly; empty for `</s>`
    bits      -log2 P; None where the tokenizer keeps nothing of a word, and under unknown="skip" where the
              token is unknown or the word holds such a token
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
            "text": sentence.text[sentence.start : sentence.end],
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
        absent = not token.tokens or (token.unknown and unknown == "skip")
        row |= {"bits": None if absent else token.bits, "text": token.text}
        if per == "token" and token.matched is not None:
            row["matched"] = token.matched
        yield row


class _Scorer:
    """Nats of group after group; carries the state from one to the next when asked to."""

    def __init__(self, model: LanguageModel, policy: StatePolicy) -> None:
        self.model, self.policy = model, policy
        self.state: State | None = None
        self.last = model.vocabulary.eos_id

    def score(self, sentences: list[_Placed]) -> Iterator[tuple[TokenSurprisal, ...]]:
        if not sentences:
            return
        vocabulary = self.model.vocabulary
        pieces = [
            np.append(vocabulary.ids([token.text for token in sentence.tokens]), vocabulary.eos_id)
            for sentence in sentences
        ]
        ids = np.concatenate(pieces)
        ends = np.cumsum([len(piece) for piece in pieces])
        nats = self._nats(ids, ends)
        matched = self._matched(ids)
        begin = 0
        for (_, line, _, stop, tokens), end in zip(sentences, ends, strict=True):
            rows = []
            for k in range(begin, end):
                token = tokens[k - begin] if k < end - 1 else _end(tokens, stop)
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


def _end(tokens: list[Token], stop: int) -> Token:
    """`</s>`: empty, after the last token of its sentence."""
    end = tokens[-1].end if tokens else stop
    return Token("</s>", end, end)
