"""Where a run is kept: begun in one step, gone on with, saved. Not here: what is saved (state.py)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from elman import disk, run_folder
from elman.checkpoint import CONFIG, load_checkpoint, save_checkpoint
from elman.errors import OptionError
from elman.training.events import Event
from elman.training.log import Log
from elman.training.state import RunState
from elman.visible import json_text


class Place:
    """The folder of a run, or none; what is there and which state of it is on disk."""

    def __init__(
        self, folder: Path | None, resume: bool, overwrite: bool, options: Mapping[str, object] | None
    ) -> None:
        self.folder, self._resume, self._overwrite, self._options = folder, resume, overwrite, options
        self._saved: tuple[int, int, int] | None = None  # key of the state on disk
        self._log: Log | None = None

    def open(self, state: RunState, stack: ExitStack) -> tuple[list[str], bool]:
        """Go on with the run that is there, or begin one: notes, whether resumed. Held until `stack` ends."""
        if self.folder is None:
            return [], False
        notes, resumed = list[str](), self._resume and run_folder.is_run(self.folder)
        if resumed:
            stack.enter_context(run_folder.locked(self.folder))
            notes = state.restore(load_checkpoint(self.folder))
            if self._options is not None:
                disk.replace_file(self.folder / run_folder.OPTIONS, json_text(self._options, indent=1) + "\n")
        else:
            if self._resume:
                notes.append(f"there was no run in {self.folder} to resume: it begins now.")
            self._begin(self.folder, state)
            stack.enter_context(run_folder.locked(self.folder))
        self._saved = state.progress.key
        disk.clean(self.folder)
        self._log = Log(self.folder / run_folder.LOG, state.progress.log_bytes)
        stack.callback(self._log.close)
        return notes, resumed

    def _begin(self, folder: Path, state: RunState) -> None:
        """The first checkpoint, in a folder that gets the run's name when it is whole."""
        if self._resume and (folder / CONFIG).is_file():
            raise OptionError(f"{folder} is a model, not a training run.", remedy="--save another.")
        with run_folder.in_place_of(folder, overwrite=self._overwrite) as beside:
            if self._options is not None:
                disk.write_json(beside / run_folder.OPTIONS, self._options)
            save_checkpoint(beside, state.snapshot(), keep=state.config.keep)

    def note(self, event: Event, every: int) -> None:
        """A line in the log; of the updates only every `every`th."""
        if self._log is not None:
            self._log.write(event, every)

    def save(self, state: RunState) -> Path | None:
        """A checkpoint of the state as it is, unless it is saved already or half written."""
        progress = state.progress
        if self.folder is None or not state.exact or progress.key == self._saved:
            return None
        progress.log_bytes = self._log.sync() if self._log is not None else 0
        folder = save_checkpoint(self.folder, state.snapshot(), best=progress.is_best, keep=state.config.keep)
        self._saved = progress.key
        return folder
