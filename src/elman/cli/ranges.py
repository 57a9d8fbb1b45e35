"""Every number on the command line has a range, which stands at the option itself (annotated_types).

Checked as it was typed, before anything is converted, loaded or begun: 0.5 is no whole number, nan is no
number, 1e30 units are none that a computer has. A test walks over all numeric options of all verbs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from annotated_types import Ge, GroupedMetadata, Gt, Interval, Le, Lt
from cyclopts import App, ArgumentCollection

from elman.errors import OptionError

Seed = Annotated[int, Interval(ge=0, le=2**63 - 1)]
Place = Annotated[int, Interval(ge=0, le=10**9)]
"""A token of a text, counted from 0."""


@dataclass(frozen=True)
class Range:
    """From low to high; `above` and `below`: without the ends."""

    whole: bool
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        if value == self.low or value == self.high:
            return not (self.above if value == self.low else self.below)
        return self.low < value < self.high

    def __str__(self) -> str:
        what = "a whole number" if self.whole else "a number"
        low, high = _plain(self.low), _plain(self.high)
        if not self.above and not self.below:
            return f"{what} from {low} to {high}"
        lowest = f"above {low}" if self.above else f"from {low}"
        return f"{what} {lowest}, {'below' if self.below else 'up to'} {high}"


def range_of(annotation: Any) -> Range | None:
    """Of an option's type, perhaps within None, list or tuple; None where it is no number."""
    kinds = {each for each, _ in _numbers(annotation, ())}
    if not kinds:
        return None
    limits: dict[str, Any] = {}
    for limit in (each for _, found in _numbers(annotation, ()) for each in found):
        if isinstance(limit, Ge | Gt):
            limits |= {"low": getattr(limit, "ge", getattr(limit, "gt", 0)), "above": isinstance(limit, Gt)}
        else:
            limits |= {"high": getattr(limit, "le", getattr(limit, "lt", 0)), "below": isinstance(limit, Lt)}
    return Range(kinds == {int}, **limits)


def check_numbers(app: App, commands: Sequence[str], arguments: ArgumentCollection) -> None:
    """For cyclopts, when the words of the command line have been given to their options."""
    for argument in arguments:
        limits = range_of(argument.field_info.annotation)
        for token in argument.tokens if limits else ():
            value = _read(token.value)
            if value is None or limits is None:  # not a number at all: cyclopts says so
                continue
            what = f"{token.keyword or argument.name} {token.value}"
            if limits.whole and not (isinstance(value, int) or value.is_integer()):
                raise OptionError(f"{what} is not a whole number.", remedy=f"give {limits}.")
            if not limits.holds(value):
                raise OptionError(f"{what} is out of range.", remedy=f"give {limits}.")


def _read(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _numbers(annotation: Any, limits: tuple[Any, ...]) -> Iterator[tuple[type, tuple[Any, ...]]]:
    """int and float within an annotation, each with the limits around it."""
    if annotation in (int, float):
        yield annotation, limits
    elif get_origin(annotation) is Annotated:
        inner, *around = get_args(annotation)
        for each in around:
            found = tuple(each) if isinstance(each, GroupedMetadata) else (each,)
            limits += tuple(limit for limit in found if isinstance(limit, Ge | Gt | Le | Lt))
        yield from _numbers(inner, limits)
    else:
        for each in get_args(annotation):
            yield from _numbers(each, limits)


def _plain(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) and abs(value) < 10**12 else f"{value:g}"
