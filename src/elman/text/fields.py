"""The row of a table as a line and back: fields parted by tabs, quoted as in CSV files where they must be.

As pandas, R's read.delim and the csv module read them by default: a field that holds a tab, a line end or a
`"` stands between two `"`, a `"` in it is doubled. Nothing else is changed; a backslash is a backslash. What
is not there is an empty field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_QUOTED_WHEN = re.compile(r'["\t\n\r]')
_QUOTED = re.compile(r'"((?:[^"]|"")*+)"(?:\t|\Z)')


def line_of(values: Iterable[object]) -> str:
    """The row without its line end. Numbers have six decimals; None is an empty field."""
    return "\t".join(map(_field, values))


def _field(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.6f}" if isinstance(value, float) else str(value)
    return '"' + text.replace('"', '""') + '"' if _QUOTED_WHEN.search(text) else text


def fields_of(line: str) -> list[str]:
    """The fields of a row. A `"` that opens nothing stands for itself, as where a tool quotes nothing."""
    if '"' not in line:
        return line.split("\t")
    found, rest = [], line + "\t"
    at = 0
    while at < len(rest):
        quoted = _QUOTED.match(rest, at)
        end = rest.index("\t", at) if quoted is None else quoted.end() - 1
        found.append(rest[at:end] if quoted is None else quoted[1].replace('""', '"'))
        at = end + 1
    return found
