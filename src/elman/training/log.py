"""log.jsonl: one JSON line for each event of a run, appended; cut back on resume to what was saved."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

from elman.errors import ElmanError
from elman.language_model import Score
from elman.training.events import Event, Saved, Step
from elman.visible import json_text


class Log:
    """An open log. Lines after byte `length` belong to updates that were lost and are done again."""

    def __init__(self, path: Path, length: int = 0) -> None:
        try:
            if path.exists() and not path.is_file():
                raise OSError(None, "it is no file")
            self._file = path.open("ab")
            self._file.truncate(min(length, self._file.tell()))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise ElmanError(
                f"{path}: cannot be written: {error.strerror}.", remedy="choose another --save folder."
            ) from error

    def write(self, event: Event, every: int) -> None:
        """Append an event; of the updates only every `every`th."""
        if isinstance(event, Saved) or (isinstance(event, Step) and event.step % every):
            return
        line = {"event": type(event).__name__.lower()} | _plain(event)
        self._file.write(json_text(line).encode() + b"\n")
        self._file.flush()

    def sync(self) -> int:
        """Through to the disk; the length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def _plain(value: Any) -> Any:
    if isinstance(value, Score):
        return _plain(value.as_json())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
