"""MODEL… TEXT on the command line: which models and what to call them, which text.

Not here: what a model folder is (checkpoint.py), reading texts (text/heldout.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from elman.cli.app import messages
from elman.errors import OptionError
from elman.visible import visible

if TYPE_CHECKING:
    from elman.language_model import LanguageModel
    from elman.text.heldout import HeldOut

Sources = Annotated[str, Parameter(allow_leading_hyphen=True)]
Split = Literal["whole", "train", "valid", "test"]


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


def held_out(
    source: str, models: Sequence[LanguageModel], split: Split | None, *, usual: Split = "test"
) -> HeldOut:
    """The text for these models; a part that is taken unasked is told."""
    from elman.text.heldout import HeldOut

    text = HeldOut(source, models, split, usual=usual)
    for note in text.notes:
        messages.print(f"note: {note}")
    return text
