"""What the page's questions are answered with: model cards, traces, units that stay on.

It runs in the process that computes (worker.py), and in `elman explore --export`. Not here: what a question
may hold (questions.py; it has been checked), the instruments themselves (trace.py, memory/units.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from elman.checkpoint import load_model, save_model
from elman.errors import OptionError
from elman.explore.questions import DETAIL, TOP
from elman.explore.reference import Reference
from elman.gradients.reading import unrollable
from elman.language_model import LanguageModel, StatePolicy
from elman.trace import TraceOptions, trace
from elman.tracing.document import model_card

Document = dict[str, Any]
DECIMALS = 3
"""Of states and gates: what can be seen on the page."""
Tell = Callable[[str, int, int], None]


class Explorer:
    """Loaded models by their opaque ids m0, m1 …; `cards` is what the page shows of them."""

    def __init__(self, models: Mapping[str, LanguageModel], reference: Reference | None = None) -> None:
        self.names = {f"m{place}": name for place, name in enumerate(models)}
        self.models = dict(zip(self.names, models.values(), strict=True))
        self.cards = [{"id": key, **model_card(model, self.names[key])} for key, model in self.models.items()]
        self.reference = reference

    def trace(self, key: str, lines: Sequence[str], **options: Any) -> Document:
        """As JSON; options as in TraceOptions."""
        model = self.models[key]
        chosen = TraceOptions(top=TOP, **options)
        return trace(model, lines, name=self.names[key], options=chosen).as_json(decimals=DECIMALS)

    def full_trace(self, key: str, lines: Sequence[str], state: StatePolicy) -> Document:
        """All tokens, and of a model that has gates all there is inside for the first `DETAIL` of them."""
        found = self.trace(key, lines, state=state, gates=False, gradients=False)
        if not unrollable(self.models[key]):
            return found
        inside = self.trace(key, lines, state=state, last=min(DETAIL, found["total"]))
        return found | {part: inside[part] for part in ("layers", "gradients")}

    def answer(self, question: Document) -> Document:
        """A checked question of `questions.py`, with its `kind` and `lines`, → JSON; raises ElmanError."""
        lines, state = question["lines"], question["state"]
        if question["kind"] == "read":
            shallow = {"state": state, "gates": False, "gradients": False}
            return {"traces": {key: self.trace(key, lines, **shallow) for key in question["models"]}}
        key = question["model"]
        if question["kind"] == "similar":
            assert self.reference is not None  # the server refuses it before
            return self.reference.similar(key, self.models[key], lines, question)
        return self.trace(key, lines, state=state, first=question["first"], last=question["last"])


def load(order: Document, tell: Tell) -> tuple[Document, Callable[[Document], Document]]:
    """What the process that computes begins with; see `worker.run`.

    order  models: [name, path] each · arpa: how ARPA files are read, as options of `load_model` ·
           folder: where what took long to prepare is kept for the next process ·
           reference: [name, path] of the text to search, or None · state: how it is read
    """
    folder = Path(order["folder"])
    models = {}
    for place, (name, path) in enumerate(order["models"]):
        tell(f"loading {name}", place, len(order["models"]))
        models[name] = _load(Path(path), folder / f"m{place}", order.get("arpa", {}))
    if order["reference"] is None:
        explorer = Explorer(models)
        return {"models": explorer.cards, "reference": None}, explorer.answer
    name, path = order["reference"]
    reference = Reference(Path(path), folder, order["state"])
    explorer = Explorer(models, reference)
    tokens = 0
    for key, model in explorer.models.items():
        doing = f"{explorer.names[key]} reads {name}"
        tokens = reference.prepare(key, model, partial(tell, doing)) or tokens
    if not tokens:
        raise OptionError(
            "no model here has states to search a reference text by.",
            reason="n-gram, feed-forward and mixed models have none, nor have exports to int8 or bfloat16.",
            remedy="leave --reference out, or add a model trained with --model rnn, gru or lstm.",
        )
    return {"models": explorer.cards, "reference": {"name": name, "tokens": tokens}}, explorer.answer


def _load(path: Path, kept: Path, arpa: Mapping[str, Any]) -> LanguageModel:
    """A model; one in the ARPA format, slow to read, is kept as a folder."""
    if kept.exists():
        return load_model(kept)
    model = load_model(path, **arpa)
    if path.is_file():
        save_model(model, kept)
    return model
