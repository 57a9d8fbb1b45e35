"""Structured mutation: a value of a JSON document is replaced, doubled, taken out or given to another key.

Bytes alone seldom leave a document well-formed, and every value has to go through its check.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 255, 256, 65_536, 2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30,
    0.5, -0.5,
    1e-320, 1e308, -1e308, "", "0", "1", "a", "\x00", "\x1b[2J", " ", "\u2028", "\ud800", "../x",
    "/dev/zero", "x" * 300,
    [], [0], [None], [[]], {}, {"": 0}, [1, 2, 3], ["a", "a"], [[1], [2]], {"a": {"b": []}},
)  # fmt: skip


def mutate_json(document: Any, draw: random.Random) -> Any:
    """The document with one to three places changed."""
    for _ in range(draw.randint(1, 3)):
        places = list(_places(document))
        if not places:
            return draw.choice(HOSTILE)
        holder, key = draw.choice(places)
        how, hostile = draw.randrange(8), copy.deepcopy(draw.choice(HOSTILE))
        if how == 0:
            del holder[key]
        elif how == 1:
            _insert(holder, key, hostile)
        elif how == 2:
            other, there = draw.choice(places)
            holder[key] = json.loads(json.dumps(other[there]))
        elif how == 3 and type(holder[key]) in (int, float):
            holder[key] = draw.choice([holder[key] + 1, holder[key] - 1, -holder[key], str(holder[key])])
        elif how == 4 and isinstance(holder[key], list) and holder[key]:
            holder[key] = draw.choice([holder[key] * 2, holder[key][1:], holder[key][::-1]])
        elif how == 5 and isinstance(holder[key], str) and holder[key]:
            at = draw.randrange(len(holder[key]))
            holder[key] = (
                holder[key][:at] + draw.choice(["", "a", " ", "0", "\n", "é"]) + holder[key][at + 1 :]
            )
        else:
            holder[key] = hostile
    return document


def _places(document: Any) -> Any:
    """(container, key) of every value, at most some hundred of a long list."""
    if isinstance(document, dict):
        items: Any = list(document.items())[:200]
    elif isinstance(document, list):
        items = list(enumerate(document[:50]))
    else:
        return
    for key, value in items:
        yield document, key
        yield from _places(value)


def _insert(holder: Any, key: Any, value: Any) -> None:
    if isinstance(holder, list):
        holder.insert(key, value)
    else:
        holder[f"{key}_"] = value


def mutate(data: bytes, largest: int, seed: int, mutate_bytes: Callable[[bytes, int], bytes]) -> bytes:
    """A mutation of an input whose JSON stands alone, after one line of text, or after its own length.

    A document after its length (8 bytes, little-endian: safetensors) keeps what follows it.
    """
    draw = random.Random(seed)
    if draw.random() < 0.4:
        return mutate_bytes(data, largest)
    line, end, rest = data.partition(b"\n")
    if not end or line.lstrip()[:1] in (b"{", b"["):
        line, end, rest = b"", b"", data
    size = int.from_bytes(rest[:8], "little")
    sized = 2 <= size <= len(rest) - 8
    body, tail = (rest[8 : 8 + size], rest[8 + size :]) if sized else (rest, b"")
    try:
        text = json.dumps(mutate_json(json.loads(body), draw), ensure_ascii=draw.random() < 0.5)
    except (ValueError, RecursionError):
        return mutate_bytes(data, largest)
    new = text.encode("utf-8", "surrogatepass")
    if sized:
        new = len(new).to_bytes(8, "little") + new + tail
    new = line + end + new
    return new if len(new) <= largest else mutate_bytes(data, largest)
