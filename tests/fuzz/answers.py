"""Any question that passes its check, about any text, is answered with JSON: models of every kind,
searched too."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from typing import Any

from elman.explore import questions
from elman.explore.access import Refused
from elman.explore.answers import load
from fuzz.folders import LINES, valid
from fuzz.target import Target, scratch

MODELS = ("recurrent", "gru", "ngram", "mixture", "feedforward")


@cache
def _answer() -> Callable[[dict[str, Any]], dict[str, Any]]:
    reference = scratch() / "reference.txt"
    reference.write_text(LINES * 3, "utf-8")
    order = {
        "models": [[kind, str(valid(kind))] for kind in MODELS],
        "folder": str(scratch()),
        "reference": ["a text", str(reference)],
        "state": "carry",
    }
    return load(order, lambda *_: None)[1]


def run(data: bytes) -> None:
    """First line: the kind; then the body."""
    kind, _, body = data.partition(b"\n")
    name = kind.decode("latin-1")
    if name not in questions.KINDS:
        return
    question = questions.parse(name, body)
    if not {*question.ids()} <= {f"m{place}" for place in range(len(MODELS))}:
        return
    answer = _answer()({"kind": name, "lines": question.lines} | question.model_dump())
    json.dumps(answer, allow_nan=False)
    for traced in answer.get("traces", {}).values():
        bits = [token["bits"] for token in traced["tokens"]]
        assert len(bits) == traced["total"]
        assert all(number >= 0 and math.isfinite(number) for number in bits)


def seeds() -> list[bytes]:
    text = "the cat\nsat the cat the\n"
    asked: list[tuple[str, dict[str, Any]]] = [
        ("read", {"text": text, "models": ["m0", "m1", "m2", "m3", "m4"]}),
        ("read", {"text": "the é  <unk>\r\n\r\n", "models": ["m3"], "state": "reset"}),
        ("trace", {"text": text, "model": "m0", "first": 0, "last": 4}),
        ("trace", {"text": text, "model": "m1", "first": 2, "last": 5, "state": "reset"}),
        (
            "similar",
            {"text": text, "model": "m0", "first": 1, "last": 3, "layer": 1, "part": "c", "threshold": 0.01},
        ),
        ("similar", {"text": text, "model": "m1", "first": 1, "last": 2, "layer": 1, "part": "h"}),
    ]
    return [kind.encode() + b"\n" + json.dumps(document).encode() for kind, document in asked]


MARKS = (
    b"<s>",
    b"</s>",
    b"<unk>",
    b"\\u0000",
    b"\\u2028",
    b"\\u00a0",
    b"\\r\\n",
    b"\\n\\n",
    b'"m4"',
    b'"reset"',
    b"1e-320",
)
ANSWERS = Target(run, seeds, MARKS, largest=1024, answers=(Refused,), json=True)
