"""From a grown corpus the few inputs that reach all that it reaches: for the corpus under version control.

Reached is a step from one line of the package to another. The smallest inputs come first, so what a large one
adds to them is all that it is kept for.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import elman
from elman.errors import ElmanError
from fuzz.target import Target

PACKAGE = str(Path(elman.__file__).parent)
Step = tuple[CodeType, int, int]


def steps(target: Target, data: bytes) -> set[Step]:
    """What an input reaches; () where it is a crash, which is kept by hand."""
    found: set[Step] = set()

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        code, last = frame.f_code, frame.f_lineno

        def line(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal last
            found.add((code, last, frame.f_lineno))
            last = frame.f_lineno
            return line

        return line

    sys.settrace(enter)
    try:
        target.run(data)
    except (ElmanError, *target.answers):
        pass
    except Exception:  # noqa: BLE001
        return set()
    finally:
        sys.settrace(None)
    return found


def minimise(target: Target, grown: Path, kept: Path) -> int:
    """Copy what adds to the seeds and to what is kept already; how many inputs that is."""
    reached: set[Step] = set()
    for data in (*target.seeds(), *(path.read_bytes() for path in sorted(kept.iterdir()))):
        reached |= steps(target, data)
    added = 0
    for path in sorted(grown.iterdir(), key=lambda path: (path.stat().st_size, path.name)):
        if new := steps(target, path.read_bytes()) - reached:
            reached |= new
            added += 1
            (kept / path.name[:12]).write_bytes(path.read_bytes())
    return added
