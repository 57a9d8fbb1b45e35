"""Saved models, and score files of other programs, on one text → candidates of a comparison.

Not here: the models that `compare` trains itself (contest.py), the comparison (assembly.py).
"""

from __future__ import annotations

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
from elman.errors import OptionError
from elman.evaluate import event_nats, protocol_of
from elman.language_model import LanguageModel, StatePolicy, UnknownPolicy, parameter_count
from elman.ngram.arpa_lines import arpa_stem
from elman.text.corpus import Text
from elman.text.heldout import HeldOut

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


def score_model(
    named: Named, source: HeldOut, unknown: UnknownPolicy, *, seed: int = 1, report: Report | None = None
) -> Candidate:
    """A saved model on the text, carried and, where that differs, reset."""
    model, text = named.model, source.of(named.model)
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
