"""MODEL… TEXT on the command line: which models and what to call them, which text.

Not here: what a model folder is (checkpoint.py), reading texts (text/).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from elman.cli.app import messages
from elman.errors import OptionError, TextError
from elman.visible import visible

if TYPE_CHECKING:
    from elman.language_model import LanguageModel
    from elman.text.corpus import Text

Sources = Annotated[str, Parameter(allow_leading_hyphen=True)]
Split = Literal["train", "valid", "test"]


@Parameter(name="*")
@dataclass(frozen=True)
class ArpaOptions:
    """How .arpa files are read.

    Attributes
    ----------
    strict
        Refuse an .arpa file that KenLM refuses, where else it is read with a note.
    encoding
        Of .arpa files, for instance latin-1.
    """

    strict: Annotated[bool, Parameter(negative="", show_default=False)] = False
    encoding: str = "utf-8"


def load(name: str | Path, arpa: ArpaOptions | None = None) -> LanguageModel:
    """A model; what stood otherwise than it should in an .arpa file is told on stderr."""
    from elman.checkpoint import load_model

    how = arpa or ArpaOptions()
    model = load_model(name, strict=how.strict, encoding=how.encoding)
    if Path(name).is_file():
        for line in getattr(model, "report", ()):
            messages.print(f"note: {name}: {line}")
    return model


def models_and_source(verb: str, given: Sequence[str], example: str) -> tuple[list[str], str]:
    """MODEL… TEXT → each model's path once, and the text. OptionError."""
    for name in given:
        if name.startswith("-") and name != "-":
            raise OptionError(f"unknown option: {name}.", remedy=f"elman {verb} --help lists the options.")
    if len(given) < 2:
        raise OptionError(
            f"{verb} needs at least one model and a text.",
            remedy=f"elman {verb} MODEL TEXT, for instance: elman {verb} runs/lstm {example}",
        )
    *names, source = given
    return list(dict.fromkeys(names)), source


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Path → the shortest end of it that no other has: runs/a/run, runs/b/run → a, b.

    The folder that a verb made inside, and the digest behind a model's name in a comparison, say nothing.
    """
    paths = [_telling(Path(name).parts) for name in names]
    for count in range(1, max(map(len, paths)) + 1):
        short = [str(Path(*parts[-count:])) for parts in paths]
        if len(set(short)) == len(set(names)):
            return dict(zip(names, map(visible, short), strict=True))  # labels, in figures too
    return {name: name for name in names}


def _telling(parts: tuple[str, ...]) -> tuple[str, ...]:
    *before, last = parts[:-1] if len(parts) > 1 and parts[-1] in ("run", "model") else parts
    return (*before, re.sub(r"-[0-9a-f]{8}$", "", last))


def find_texts(source: str, split: Split | None, *, several: bool) -> Callable[[LanguageModel], Text]:
    """A function from a model to the text in the model's tokens; like tokens are encoded once."""
    from elman.text.builtin import BUILTIN
    from elman.text.corpus import encode_string, encode_text
    from elman.text.opening import Source, content_digest, read_once
    from elman.text.reading import read_text
    from elman.text.sources import SPLITS, find_corpus

    known: list[tuple[LanguageModel, Text]] = []
    digests: list[str] = []  # of a file that models read in their own tokens: they shall read the same
    where: Source = "-" if source == "-" else Path(source)
    held = read_text(where) if several and read_once(where) else None
    corpus = find_corpus(source) if source in BUILTIN or Path(source).is_dir() else None

    def encode(model: LanguageModel) -> Text:
        tokens = model.tokenizer, model.vocabulary
        if held is not None:
            return encode_string(held, *tokens)
        if corpus is None:
            if source != "-" and not Path(source).exists():
                find_corpus(source)  # says what is near
            if several and not digests:
                digests.append(content_digest(Path(source)))
            text = encode_text(where, *tokens, digest="".join(digests))
            return text if split is None else _part(text, split, source)
        place = SPLITS.index(split or "test")
        if source in BUILTIN:
            return encode_string(b"".join(corpus.parts[place](None)).decode(), *tokens)
        return encode_text(Path(corpus.names[place]), *tokens)

    def find(model: LanguageModel) -> Text:
        for other, text in known:
            if other.tokenizer == model.tokenizer and other.vocabulary == model.vocabulary:
                return text
        text = encode(model)
        if text.events == 0:
            raise TextError(
                f"{source} is empty: there is no event to score.", remedy="give a text with a line."
            )
        known.append((model, text))
        return text

    return find


def _part(text: Text, split: Split, source: str) -> Text:
    """The part of a single file that training cuts off it."""
    from elman.text.building import _cut as cut
    from elman.text.sources import SPLITS

    marks = cut(text.sentences, source)
    place = SPLITS.index(split)
    return text.part(marks[place], marks[place + 1])
