"""Tokens as they come → the pieces of text that they add.

Not here: which tokens come (generate.py), how a tokenizer joins a whole sentence (text/tokenizers.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from elman.text.tokenizers import Tokenizer

JOINED = 64  # tokens looked back on when a new one is joined to the text


class Joiner:
    """Tokens one by one → the text each one adds, so that the pieces make up `tokenizer.join`."""

    def __init__(self, tokenizer: Tokenizer, before: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.tokens = _last(before)
        self.shown = self.tokenizer.join(self.tokens)

    def push(self, token: str) -> str:
        """What the token adds to the sentence; "" while a character is not complete."""
        self.tokens.append(token)
        text = self.tokenizer.join(self.tokens)
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        piece = text[len(self.shown) :] if text.startswith(self.shown) else text[_common(text, self.shown) :]
        if len(self.tokens) >= 2 * JOINED:
            self.tokens = _last(self.tokens)
            text = self.tokenizer.join(self.tokens)
        self.shown = text
        return piece

    def end(self) -> str:
        """The rest of the sentence and the line's end."""
        text = self.tokenizer.join(self.tokens)
        rest = text[len(self.shown) :] if text.startswith(self.shown) else ""
        self.tokens, self.shown = [], ""
        return rest + "\n"


def _last(tokens: Sequence[str]) -> list[str]:
    """The tokens looked back on, after a quotation mark where one is open since before them."""
    opened = tokens[:-JOINED].count('"') % 2
    return ['"'] * opened + list(tokens[-JOINED:])


def _common(left: str, right: str) -> int:
    """The length of the common start of two texts."""
    same = (index for index, (a, b) in enumerate(zip(left, right, strict=False)) if a != b)
    return next(same, min(len(left), len(right)))
