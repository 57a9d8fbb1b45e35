"""What a terminal or UTF-8 cannot take as it is, written out: control characters, bytes of odd file names.

A model, a text or a name may come from anybody. On a terminal an escape sequence in it could move the
cursor, rename the window or hide a line; a name whose bytes are not UTF-8 could not be printed at all.
"""

from __future__ import annotations

import json
import re
from typing import Any

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NOT_JSON = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Control characters but line end and tab as \x1b, a byte of a name that is not UTF-8 as \xff."""
    return _CONTROL.sub(_escape, text)


def json_text(document: object, **form: Any) -> str:
    r"""JSON that is UTF-8 and safe to show: what UTF-8 lacks and what moves a terminal as \u001b.

    `json.loads` gives the same strings back. ValueError for numbers that are not finite.
    """
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, **form)
    return _NOT_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte that is not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
