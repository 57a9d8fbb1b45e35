"""The tokenizers: words, prose, characters, bytes, subwords; each by name, and as JSON.

No token ever holds ASCII white space, so every token can stand in an ARPA file or a table: characters show a
blank as ␣.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from elman.errors import FormatError, OptionError, TextError
from elman.text.bpe import guarded, load_bpe, train_bpe
from elman.text.paragraphs import as_paragraphs
from elman.text.prose import TOKEN, Style, as_printed
from elman.text.tokens import Token as Token
from elman.text.tokens import Tokenizer as Tokenizer
from elman.text.tokens import Unit as Unit
from elman.text.vocabulary import BOS, EOS, WORD

_PICTURES = {" ": "␣", "\t": "␉", "\n": "␊", "\v": "␋", "\f": "␌", "\r": "␍"}
_VISIBLE = _PICTURES | {picture: f"<{ord(picture):X}>" for picture in _PICTURES.values()}
_SHOWN = {token: letter for letter, token in _VISIBLE.items()}


class Words(Tokenizer):
    """Words between ASCII white space, one sentence a line, as KenLM and the Penn Treebank files have it.

    A no-break space (U+00A0) and other Unicode blanks stay inside a word. A literal `<unk>` is the
    unknown symbol; a literal `<s>` or `</s>` raises TextError.
    """

    name = "words"
    unit = "word"

    def tokens(self, piece: str) -> list[Token]:
        found = [Token(match[0], match.start(), match.end()) for match in WORD.finditer(piece)]
        require_no_marks(token.text for token in found)
        return found

    def join(self, tokens: Sequence[str]) -> str:
        return " ".join(tokens)


def require_no_marks(words: Iterable[str], where: str = "") -> None:
    """Raise TextError when a word is literally `<s>` or `</s>`. where: file and line, if known."""
    for word in words:
        if word in (BOS, EOS):
            raise TextError(
                f"{where and f'{where}: '}the word {word} is a mark of Elman's own, which no text may hold.",
                reason="the text was prepared for another tool; Elman adds sentence ends by itself.",
                remedy="remove the marks, for instance: sed -E 's#</?s>##g' TEXT > CLEAN",
            )


class Prose(Tokenizer):
    """Running prose, one paragraph a line, read as its style says (prose.py)."""

    name = "prose"
    unit = "word"
    lost = "blanks, and where the style says so capital letters, numbers and notes in brackets"

    def __init__(self, numbers: bool = True, **others: Any) -> None:
        self.style = Style(numbers, **others)

    def paragraphs(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        return as_paragraphs(blocks, self.style.wrapped)

    def spans(self, line: str) -> list[tuple[int, int]]:
        return self.style.spans(line)

    def tokens(self, piece: str) -> list[Token]:
        found = TOKEN.finditer(self.style.shown(piece))
        return [Token(self.style.normal(match[0]), match.start(), match.end()) for match in found]

    def texts(self, piece: str) -> list[str]:
        return [self.style.normal(text) for text in TOKEN.findall(self.style.shown(piece))]

    def join(self, tokens: Sequence[str]) -> str:
        return as_printed(tokens)

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, **self.style.as_json()}


class Characters(Tokenizer):
    """Unicode code points; white space is shown by its picture (␣ for a blank), such a picture as <2423>."""

    name = "characters"
    unit = "character"

    def tokens(self, piece: str) -> list[Token]:
        return [Token(_VISIBLE.get(letter, letter), at, at + 1) for at, letter in enumerate(piece)]

    def texts(self, piece: str) -> list[str]:
        return [_VISIBLE.get(letter, letter) for letter in piece]

    def join(self, tokens: Sequence[str]) -> str:
        return "".join(_SHOWN.get(token, token) for token in tokens)


BYTE_TEXTS = tuple(
    "␣" if byte == 32 else chr(byte) if 33 <= byte < 127 else f"<{byte:02X}>" for byte in range(256)
)
"""The token of each byte: printable ASCII as it is, ␣ for a blank, else hexadecimal as <C3>."""
_BYTE_OF = {text: byte for byte, text in enumerate(BYTE_TEXTS)}


class Bytes(Tokenizer):
    """UTF-8 bytes. The bytes of one character share its offsets."""

    name = "bytes"
    unit = "byte"

    @property
    def alphabet(self) -> Sequence[str]:
        """The bytes that UTF-8 has, but for NUL and LF, which stand in no line."""
        return [BYTE_TEXTS[byte] for byte in range(1, 0xF5) if byte not in (0x0A, 0xC0, 0xC1)]

    def tokens(self, piece: str) -> list[Token]:
        return [
            Token(BYTE_TEXTS[byte], at, at + 1)
            for at, letter in enumerate(piece)
            for byte in letter.encode("utf-8", "surrogatepass")
        ]

    def join(self, tokens: Sequence[str]) -> str:
        return bytes(_BYTE_OF.get(token, 63) for token in tokens).decode("utf-8", "replace")


class BPE(Tokenizer):
    """Byte-level byte-pair encoding (Sennrich et al. 2016; bytes as in GPT-2): the extra `bpe`.

    A blank is the first letter of the subword that follows it, shown as Ġ.
    model  {"vocab": {subword: id}, "merges": [[left, right], …]}, from `BPE.train` or a stored file
    """

    name = "bpe"
    unit = "subword"
    blank_begins = True

    def __init__(self, model: object) -> None:
        self.engine: Any = load_bpe(model)
        assert isinstance(model, dict)
        self.model: dict[str, Any] = model

    @classmethod
    def train(cls, lines: Iterable[str], size: int = 8000) -> BPE:
        """Learn at most `size` subwords (256 bytes included) from lines of training text."""
        return cls(train_bpe(lines, size))

    @property
    def alphabet(self) -> Sequence[str]:
        """All subwords, the 256 bytes among them: no text is unknown."""
        return self.subwords

    @cached_property
    def subwords(self) -> list[str]:
        """The text of each of the engine's ids."""
        return sorted(self.model["vocab"], key=self.model["vocab"].__getitem__)

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """The engine's ids of many lines at once."""
        return guarded(
            lambda: [found.ids for found in self.engine.encode_batch(list(lines))], "BPE: cannot encode"
        )

    def tokens(self, piece: str) -> list[Token]:
        found = guarded(lambda: self.engine.encode(piece), "BPE: cannot encode")
        return [
            Token(text, start, end) for text, (start, end) in zip(found.tokens, found.offsets, strict=True)
        ]

    def join(self, tokens: Sequence[str]) -> str:
        known = [self.model["vocab"][token] for token in tokens if token in self.model["vocab"]]
        return str(guarded(lambda: self.engine.decode(known), "BPE: cannot decode"))

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "model": self.model}


TOKENIZERS: dict[str, type[Tokenizer]] = {kind.name: kind for kind in (Words, Prose, Characters, Bytes, BPE)}
"""Every tokenizer by name: words, prose, characters, bytes, bpe."""


def get_tokenizer(name: str, **options: Any) -> Tokenizer:
    """The tokenizer of that name: Prose and BPE take options (see there). Raises OptionError."""
    if name not in TOKENIZERS:
        near = get_close_matches(name, TOKENIZERS, 1)
        raise OptionError(
            f"no tokenizer is called {name!r}.",
            reason=f"perhaps you meant {near[0]}." if near else "",
            remedy=f"choose one of {', '.join(TOKENIZERS)}.",
        )
    make: Callable[..., Tokenizer] = TOKENIZERS[name]
    try:
        return make(**options)
    except TypeError:
        raise OptionError(f"the tokenizer {name} does not take the options {sorted(options)}.") from None


def tokenizer_from_json(value: object) -> Tokenizer:
    """The inverse of `as_json`. Raises FormatError."""
    if (
        not isinstance(value, dict)
        or not isinstance(value.get("name"), str)
        or value["name"] not in TOKENIZERS
    ):
        raise FormatError(f"tokenizer: expected an object with a known `name`, found {value!r:.80}.")
    options = {key: option for key, option in value.items() if key != "name"}
    for name, option in options.items():
        if name != "model" and type(option) is not bool:
            raise FormatError(f"tokenizer: `{name}` must be true or false.")
    try:
        return get_tokenizer(value["name"], **options)
    except OptionError as error:
        raise FormatError(f"tokenizer: {error.cause}") from None
