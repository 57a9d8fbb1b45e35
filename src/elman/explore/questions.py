"""What the page may ask: JSON → checked questions. Whatever is not plainly right is refused, with the place.

Not here: who may ask (access.py), the answers (answers.py).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from elman.explore.access import Refused

CHARACTERS = 2000
"""The longest text, in characters."""
DETAIL = 200
"""The most tokens whose gates and gradients are given at once."""
TOP = 10
"""How many of the most probable next tokens are given."""
MODELS = 16

Id = Annotated[str, Field(max_length=8)]
Place = Annotated[int, Field(ge=0, le=1 << 20)]
"""A token of the text, counted from 0."""


class Question(BaseModel, ABC):
    """What every question has: a text and whether its sentences are read as one document."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    text: Annotated[str, Field(min_length=1, max_length=CHARACTERS)]
    state: Literal["carry", "reset"] = "carry"

    @abstractmethod
    def ids(self) -> tuple[str, ...]:
        """The models that are asked."""

    @property
    def lines(self) -> list[str]:
        """The text as `elman score` would read it from a file."""
        return self.text.replace("\r\n", "\n").removesuffix("\n").split("\n")


class Read(Question):
    """The surprisal of every token under several models."""

    models: Annotated[list[Id], Field(min_length=1, max_length=MODELS)]

    @field_validator("models")
    @classmethod
    def _once_each(cls, models: list[str]) -> list[str]:
        if len(set(models)) < len(models):
            raise ValueError("a model is named twice")
        return models

    def ids(self) -> tuple[str, ...]:
        return tuple(self.models)


class _Range(Question):
    """Tokens first to last (excluded) of the text, under one model."""

    model: Id
    first: Place
    last: Place

    @model_validator(mode="after")
    def _rising(self) -> _Range:
        if not 0 < self.last - self.first <= DETAIL:
            raise ValueError(f"the range of tokens must hold 1 to {DETAIL}")
        return self

    def ids(self) -> tuple[str, ...]:
        return (self.model,)


class Trace(_Range):
    """Gates, states and gradients."""


class Similar(_Range):
    """Which units of a layer (counted from 1) stay on, and where else in the reference text they do.

    threshold  of a unit's size; None: one that suits the layer
    """

    layer: Annotated[int, Field(ge=1, le=1000)]
    part: Literal["h", "c"]
    threshold: Annotated[float, Field(gt=0, le=65504, allow_inf_nan=False)] | None = None


KINDS: dict[str, type[Question]] = {"read": Read, "trace": Trace, "similar": Similar}


def parse(kind: str, body: bytes) -> Question:
    """The body of a POST → the question; raises Refused (400)."""
    document = _json(body)
    try:
        return KINDS[kind].model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))[:80]
        message = first["msg"].removeprefix("Value error, ")
        cause = f"{place}: {message[0].lower()}{message[1:]}." if place else f"{message}."
        if place == "text":
            raise Refused(400, cause, remedy=f"give a text of 1 to {CHARACTERS:,} characters.") from None
        raise Refused(400, cause, "page and server are of two versions.", "load the page anew.") from None


def _json(body: bytes) -> Any:
    """Strict JSON: UTF-8, every key once, no NaN, of reasonable depth."""
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_number)
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise Refused(400, "the body is not the JSON of a question.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key stands there twice")
    return document


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
