"""Saved models, and score files of other programs, on one text → candidates of a comparison.

Not here: the models that `compare` trains itself (contest.py), the comparison (assembly.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from elman.checkpoint import load_model
from elman.compare.assembly import Candidate
from elman.compare.bootstrap import Floats
from elman.compare.outcome import Facts, bytes_of, sample_texts
from elman.compare.outside import LogBase, read_score_file
from elman.compare.table import Encoding, Scored
from elman.errors import OptionError, TextError
from elman.evaluate import event_nats, protocol_of
from elman.language_model import LanguageModel, StatePolicy, UnknownPolicy, parameter_count
from elman.ngram.arpa_lines import arpa_stem
from elman.text.builtin import BUILTIN
from elman.text.corpus import Text, encode_string, encode_text
from elman.text.opening import Source, content_digest, read_once
from elman.text.reading import open_blocks, read_text
from elman.text.sources import SPLITS, find_corpus

Report = Callable[[str, str, int, int], None]
"""Called with (model, what is done, events done, events in all)."""


@dataclass(frozen=True)
class Named:
    """A model and what it is called in the comparison."""

    name: str
    model: LanguageModel


def split_name(argument: str, option: str = "") -> tuple[str, str]:
    """ "NAME=PATH" → (NAME, PATH); a bare path (never for an option) is named after its last part."""
    name, equals, path = argument.partition("=")
    if equals and name and path and not Path(argument).exists():
        return name, path
    if option:
        raise OptionError(f"{option} {argument!r} has no name.", remedy=f"{option} NAME=FILE")
    name = Path(argument).name or argument
    return arpa_stem(name) or name, argument


def load_named(arguments: Sequence[str], load: Callable[[str], LanguageModel] = load_model) -> list[Named]:
    """Models by name; raises OptionError for a name used twice and what `load` raises."""
    named = [split_name(argument) for argument in arguments]
    names = [name for name, _ in named]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(
                f"two models are called {name!r}.",
                reason="a model is called after the last part of its path.",
                remedy=f"name them apart: first={arguments[names.index(name)]}",
            )
    return [Named(name, load(path)) for name, path in named]


class OriginalText:
    """A text that models with different tokenizers read in their own tokens; alike ones read it once.

    source  a file, "-", or a corpus (built-in name or folder), of which it is the test part
    """

    def __init__(self, source: str) -> None:
        """Raises TextError where there is no such text."""
        self.source = source
        self.corpus = find_corpus(source) if source in BUILTIN or Path(source).is_dir() else None
        if self.corpus is None and source != "-" and not Path(source).exists():
            find_corpus(source)  # says what is near
        self.held: str | None = None
        self.content = ""
        where: Source = "-" if source == "-" else Path(source)
        if read_once(where):
            self.held = read_text(where)
        elif self.corpus is not None:
            self.held = b"".join(self.corpus.parts[SPLITS.index("test")](None)).decode()
        else:
            self.content = content_digest(Path(source))
        self.known: dict[Encoding, Text] = {}

    @property
    def origin(self) -> str:
        return f"test part of {self.source}" if self.corpus is not None else f"file {self.source}"

    @property
    def digest(self) -> str:
        """12 hexadecimal digits of the text itself."""
        digest = hashlib.sha256()
        whole = None if self.held is None else [self.held.encode()]
        for block in whole or open_blocks(Path(self.source), digest=self.content):
            digest.update(block)
        return digest.hexdigest()[:12]

    def read(self, model: LanguageModel) -> Text:
        """In the tokens of a model. Raises TextError."""
        encoding = Encoding.of(model.vocabulary, model.tokenizer)
        if encoding not in self.known:
            tokens = model.tokenizer, model.vocabulary
            text = (
                encode_text(Path(self.source), *tokens, digest=self.content)
                if self.held is None
                else encode_string(self.held, *tokens)
            )
            if not text.events:
                raise TextError(f"{self.source} is empty: there is no event to score.", remedy="give a line.")
            self.known[encoding] = text
        return self.known[encoding]


def score_model(
    named: Named, source: OriginalText, unknown: UnknownPolicy, *, seed: int = 1, report: Report | None = None
) -> Candidate:
    """A saved model on the text, carried and, where that differs, reset."""
    model, text = named.model, source.read(named.model)
    encoding = Encoding.of(model.vocabulary, model.tokenizer)
    protocol = protocol_of(model, unknown=unknown)
    kind = str(getattr(model, "kind", "model"))
    policies: tuple[StatePolicy, ...] = ("carry",) if kind == "ngram" else ("carry", "reset")
    scored = []
    for state in policies:
        nats = _nats(named, text, state, report)
        scored.append(Scored(named.name, nats, text, encoding, replace(protocol, state=state)))
    facts = Facts(
        parameters=parameter_count(model),
        bytes=bytes_of(model),
        seconds=None,
        samples=sample_texts(model, seed),
    )
    reset = scored[1] if len(scored) > 1 else None
    return Candidate(named.name, kind, scored[0], model.vocabulary, reset, None, facts)


def _nats(named: Named, text: Text, state: StatePolicy, report: Report | None) -> Floats:
    parts, done = [], 0
    for part in event_nats(named.model, text, state=state, batch_size=64):
        parts.append(part)
        done += len(part)
        if report is not None:
            report(named.name, f"scoring, {state}", done, text.events)
    return np.concatenate(parts)


def outside_candidates(
    arguments: Sequence[str], like: Candidate, *, base: LogBase | None = None
) -> list[Candidate]:
    """`NAME=FILE` score files, as tokens of the same text that `like` was scored on."""
    found = []
    for argument in arguments:
        name, path = split_name(argument, "--scores")
        nats = read_score_file(path, like.scored.text, like.vocabulary, base=base)
        found.append(Candidate(name, "outside", replace(like.scored, name=name, nats=nats), like.vocabulary))
    return found
