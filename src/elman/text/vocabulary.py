"""Token ↔ id. A vocabulary is built from training text only and never grows afterwards.

It is not a tokenizer: it never cuts text. V = number of predictable tokens: `<unk>` is 0, `</s>` is 1,
the others follow by falling training count. `<s>` is never predicted; n-gram contexts hold it as id V.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from elman.errors import FormatError, OptionError

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
MAX_TOKENS = 1_000_000
MAX_TOKEN_LENGTH = 100_000
RARE = 1000
"""Events of a text for one of `<unk>`: fewer do not change what the text is like."""
ASCII_SPACE = frozenset(" \t\n\r\v\f")
"""What a blank is, and so what separates words, as in KenLM; as in native/words.cpp and bytes.split().
Other Unicode blanks, the no-break space among them, are letters of a word."""
WORD = re.compile(r"[^ \t\n\r\v\f]+")
"""A word, wherever words are counted or told apart: what stands between blanks."""


class Vocabulary:
    """V tokens, `<unk>` and `</s>` first.

    tokens  token of each id; the two specials stand at 0 and 1
    counts  [V] int64, how often each was an event of the training text (for breakdowns by frequency), or None
    """

    unk_id = 0
    eos_id = 1

    def __init__(
        self, tokens: Sequence[str], counts: Sequence[int] | NDArray[np.int64] | None = None
    ) -> None:
        """Raises FormatError when the tokens are not a vocabulary."""
        self.tokens: tuple[str, ...] = tuple(tokens)
        _validate(self.tokens)
        self.counts: NDArray[np.int64] | None = None
        if counts is not None:
            self.counts = np.asarray(counts, dtype=np.int64).copy()
            if self.counts.shape != (len(self.tokens),) or (self.counts < 0).any():
                raise FormatError(
                    f"vocabulary: {len(self.tokens)} tokens need as many counts, none negative."
                )
            self.counts.flags.writeable = False
        self._ids = {token: number for number, token in enumerate(self.tokens)}
        if len(self._ids) != len(self.tokens):
            twice = next(token for number, token in enumerate(self.tokens) if self._ids[token] != number)
            raise FormatError(f"vocabulary: token {twice!r} occurs twice.")

    @classmethod
    def build(
        cls,
        counts: Mapping[str, int],
        *,
        sentences: int,
        size: int | None = None,
        min_count: int | None = 1,
        alphabet: Sequence[str] = (),
    ) -> Vocabulary:
        """The vocabulary of a training text.

        counts     how often each token occurs; a literal `<unk>` is counted as the unknown symbol
        sentences  how often `</s>` occurs
        size       keep the most frequent tokens so that V = size, specials included; None keeps all
        min_count  keep tokens that occur at least so often; None: where nothing else is `<unk>`, the rarest
                   tokens are (see `rarest`)
        alphabet   tokens that belong to it even where the text has none: nothing else exists
        Ties are broken by code point, so the result does not depend on the order of the text.
        Occurrences of tokens that are cut count for `<unk>`. Raises OptionError.
        """
        if size is not None and size < 3:
            raise OptionError(
                f"vocabulary size {size} leaves no room beside {UNK} and {EOS}.", remedy="at least 3."
            )
        if min_count is not None and min_count < 1:
            raise OptionError(f"min_count is {min_count}.", remedy="give 1 or more.")
        words = ((token, count) for token, count in counts.items() if token not in (UNK, EOS) and count > 0)
        always = dict.fromkeys(alphabet, 0)
        ranked = sorted((always | dict(words)).items(), key=lambda item: (-item[1], item[0]))
        room = len(ranked) if size is None else size - 2
        if min_count is None:
            trained = counts.get(UNK, 0) > 0 or len(ranked) > room or bool(always)
            min_count = 1 if trained else rarest([count for _, count in ranked]) + 1
        kept = [item for item in ranked if item[1] >= min_count or item[0] in always][:room]
        if len(kept) + 2 > MAX_TOKENS:
            raise OptionError(
                f"the training text has {len(kept):,} different tokens; the limit is {MAX_TOKENS:,}.",
                reason="words with punctuation attached, identifiers or numbers make endless vocabularies.",
                remedy="--vocabulary-size 50000, or --min-count 3, or tokenize the text.",
            )
        unknown = counts.get(UNK, 0) + sum(count for _, count in ranked) - sum(count for _, count in kept)
        tokens = (UNK, EOS, *(token for token, _ in kept))
        return cls(tokens, (unknown, sentences, *(count for _, count in kept)))

    @property
    def trained_unknown(self) -> int | None:
        """Events of the training text that were `<unk>`: what its probability was learned from; None where
        that is not known (a vocabulary read from an ARPA file)."""
        return None if self.counts is None else int(self.counts[self.unk_id])

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.tokens == other.tokens

    def __hash__(self) -> int:
        return hash(self.tokens)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self):,} tokens, {self.digest})"

    @property
    def bos_id(self) -> int:
        """V, one past the last predictable token: only n-gram contexts hold it, it is never an event."""
        return len(self)

    def id(self, token: str) -> int:
        """The id of a token; 0 when it is unknown."""
        return self._ids.get(token, self.unk_id)

    def ids(self, tokens: Iterable[str]) -> NDArray[np.int32]:
        """int32 [n]: the ids of n tokens, 0 for unknown ones."""
        get = self._ids.get
        return np.array([get(token, self.unk_id) for token in tokens], dtype=np.int32)

    def token(self, id: int) -> str:
        """The token of an id; `bos_id` gives `<s>`. Raises IndexError beyond it."""
        if id == self.bos_id:
            return BOS
        if id < 0:
            raise IndexError(id)
        return self.tokens[id]

    @cached_property
    def digest(self) -> str:
        """12 hexadecimal digits of the SHA-256 of the tokens in order: equal digests, equal ids."""
        return hashlib.sha256("\n".join(self.tokens).encode()).hexdigest()[:12]

    @cached_property
    def words_digest(self) -> str:
        """The same of the tokens sorted: equal for the same words in another order."""
        return hashlib.sha256("\n".join(sorted(self.tokens)).encode()).hexdigest()[:12]

    def as_json(self) -> dict[str, object]:
        """{"tokens": [...], "counts": [...] or null}, ready for `json.dumps`."""
        return {"tokens": list(self.tokens), "counts": None if self.counts is None else self.counts.tolist()}

    @classmethod
    def from_json(cls, value: object) -> Vocabulary:
        """The inverse of `as_json`. Raises FormatError for anything else."""
        if not isinstance(value, dict) or set(value) - {"tokens", "counts"} or "tokens" not in value:
            raise FormatError("vocabulary: expected an object with `tokens` and `counts`.")
        tokens, counts = value["tokens"], value.get("counts")
        if not isinstance(tokens, list):
            raise FormatError("vocabulary: `tokens` is not a list.")
        if counts is not None and not (
            isinstance(counts, list) and all(type(count) is int and 0 <= count < 2**62 for count in counts)
        ):
            raise FormatError("vocabulary: `counts` is not a list of whole numbers from 0.")
        return cls(tokens, counts)


def rarest(falling: Sequence[int]) -> int:
    """How often tokens may occur to be left to `<unk>`, so that it is trained at all; from falling counts.

    Once, in nearly every text: what is new in the next text is about as much (Good 1953). Where no token
    occurs once, as often as the rarest, if these are a thousandth of the text at most. 0 (none) where they
    are more, or all.
    """
    if not falling or falling[0] == falling[-1]:
        return 0
    least = falling[-1]
    lost = least * sum(1 for count in falling if count == least)
    return least if least == 1 or lost * RARE <= sum(falling) else 0


def _validate(tokens: tuple[str, ...]) -> None:
    if tokens[:2] != (UNK, EOS):
        raise FormatError(
            f"vocabulary: the first two tokens must be {UNK} and {EOS}, found {tokens[:2]!r:.80}."
        )
    if len(tokens) > MAX_TOKENS:
        raise FormatError(f"vocabulary: {len(tokens):,} tokens; the limit is {MAX_TOKENS:,}.")
    for number, token in enumerate(tokens):
        if not isinstance(token, str):
            raise FormatError(f"vocabulary: token {number} is not a string.")
        if not token or len(token) > MAX_TOKEN_LENGTH or not ASCII_SPACE.isdisjoint(token):
            raise FormatError(
                f"vocabulary: token {number} is empty, too long or holds a blank: {token!r:.80}."
            )
        if token == BOS:
            raise FormatError(
                f"vocabulary: {BOS} is never predicted and cannot be a token (number {number})."
            )
        if not token.isascii() and any("\ud800" <= letter <= "\udfff" for letter in token):
            raise FormatError(f"vocabulary: token {number} holds half a surrogate pair: {token!r:.80}.")
