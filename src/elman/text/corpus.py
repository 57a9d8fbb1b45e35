"""A text as ids with its words and bytes counted; three splits as one corpus.

S sentences, N events (tokens and one `</s>` for each sentence).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from elman.text.tokenizers import Tokenizer
from elman.text.vocabulary import Vocabulary

_CHUNK = 1 << 22


@dataclass(frozen=True, eq=False)
class Text:
    """A text as a model sees it, and what it was before.

    ids    int32 [N], perhaps memory-mapped; `</s>` (1) ends every sentence
    words  int32 [S], words between ASCII white space of the original text, by sentence
    bytes  int32 [S], UTF-8 bytes of the original text, one for each line end included, by sentence;
           bytes between two sentences belong to the one before
    whole  int32 [N+1], `ids` with `</s>` in front where it is stored so; else None
    """

    ids: NDArray[np.int32]
    words: NDArray[np.int32]
    bytes: NDArray[np.int32]
    whole: NDArray[np.int32] | None = field(default=None, repr=False)

    @property
    def events(self) -> int:
        """N: predicted tokens, `</s>` included."""
        return len(self.ids)

    @property
    def sentences(self) -> int:
        """S."""
        return len(self.words)

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """int64 [S]: where the `</s>` stand in `ids`."""
        found = [
            np.flatnonzero(self.ids[at : at + _CHUNK] == Vocabulary.eos_id) + at
            for at in range(0, len(self.ids), _CHUNK)
        ]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    @cached_property
    def unknown(self) -> int:
        """Events that are `<unk>`."""
        starts = range(0, len(self.ids), _CHUNK)
        return sum(int(np.count_nonzero(self.ids[at : at + _CHUNK] == Vocabulary.unk_id)) for at in starts)

    def part(self, first: int, last: int) -> Text:
        """Sentences [first, last) as a text of their own (views, no copy)."""
        first, last = max(0, min(first, self.sentences)), max(0, min(last, self.sentences))
        start = int(self.ends[first - 1]) + 1 if first else 0
        stop = max(start, int(self.ends[last - 1]) + 1 if last else 0)
        whole = None if self.whole is None else self.whole[start : stop + 1]
        last = max(first, last)
        return Text(self.ids[start:stop], self.words[first:last], self.bytes[first:last], whole)

    def stream(self) -> NDArray[np.int32]:
        """int32 [N+1]: `</s>` and then the ids: event t is predicted from stream()[: t + 1]."""
        if self.whole is not None:
            return self.whole
        return np.concatenate([np.array([Vocabulary.eos_id], dtype=np.int32), self.ids])


@dataclass(frozen=True, eq=False)
class Corpus:
    """Three splits under one vocabulary, which knows the training split only.

    name    the built-in name, or the path as given
    origin  what was split how, in words
    digest  12 hexadecimal digits over the ids of the three splits and the vocabulary
    notes   what a user should be told: no room for a cache, a text that differs from the pinned one
    """

    name: str
    train: Text
    valid: Text
    test: Text
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    origin: str
    digest: str
    notes: tuple[str, ...] = ()
