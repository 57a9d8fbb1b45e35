"""What a tokenizer is: a line of text → sentences → tokens with their place in the line; and back to text.

A tokenizer knows no ids (vocabulary.py does) and reads no files. Those there are stand in tokenizers.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

Unit = Literal["word", "character", "byte", "subword"]


class Token(NamedTuple):
    """A token and its place: line[start:end] in the original line (characters, not bytes)."""

    text: str
    start: int
    end: int


class Tokenizer(ABC):
    """One line of the original text → sentences of tokens. `</s>` is not among them: it ends each one."""

    name: ClassVar[str]
    unit: ClassVar[Unit]
    lost: ClassVar[str] = ""
    """What of a text its tokens do not tell, in words: bits per byte then are of less than the text."""
    blank_begins: ClassVar[bool] = False
    """Whether a blank is the beginning of the word after it, as where subwords hold both. Else it ends the
    word before it: it is what says that the word is over."""

    @property
    def alphabet(self) -> Sequence[str]:
        """Every token that can come, where all are known beforehand: they belong to every vocabulary."""
        return ()

    def paragraphs(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """The lines of a file as this tokenizer takes them: as they are."""
        return blocks

    def spans(self, line: str) -> list[tuple[int, int]]:
        """Spans [start, end) of the sentences; together they are the whole line."""
        return [(0, len(line))]

    @abstractmethod
    def tokens(self, piece: str) -> list[Token]:
        """The tokens of one sentence, offsets from its beginning."""

    def texts(self, piece: str) -> list[str]:
        """The same without offsets."""
        return [token.text for token in self.tokens(piece)]

    def pieces(self, line: str) -> list[tuple[int, int, list[Token]]]:
        """`spans` with the tokens in each, whose offsets are those in the line."""
        found = []
        for first, last in self.spans(line):
            tokens = self.tokens(line[first:last])
            found.append((first, last, [Token(text, first + a, first + b) for text, a, b in tokens]))
        return found

    def sentences(self, line: str) -> list[list[Token]]:
        """The sentences of a line. Exactly one (perhaps empty) for each line, except prose: none to many."""
        return [tokens for _, _, tokens in self.pieces(line)]

    def split(self, line: str) -> list[list[str]]:
        """`sentences` without offsets."""
        return [self.texts(line[first:last]) for first, last in self.spans(line)]

    @abstractmethod
    def join(self, tokens: Sequence[str]) -> str:
        """Readable text of tokens (no specials): what `elman generate` prints."""

    def as_json(self) -> dict[str, Any]:
        """What `tokenizer_from_json` needs to make the same tokenizer."""
        return {"name": self.name}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.as_json() == other.as_json()

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
