"""A fault at every call that writes, thirty kills, and the order of the calls: `latest` always loads."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from checkpoint_example import check, save, state
from elman import disk, run_folder
from elman.checkpoint import load_checkpoint, load_model, save_checkpoint
from elman.errors import ElmanError
from training_example import final_state, make_config, make_corpus, make_model, run, same

CALLS = ("mkdir", "open", "write", "fsync", "rename", "replace")


class Fault:
    """Counts the calls of `os` that write; the `at`th fails, and after it (`dead`) all others too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, kind: str) -> None:
        self.count, self.at, self.kind = 0, at, kind
        for name in CALLS:
            monkeypatch.setattr(os, name, self._wrap(getattr(os, name), name))
        if kind == "crash":  # the process is gone: nothing tidies up
            monkeypatch.setattr(shutil, "rmtree", lambda *arguments, **options: None)
            monkeypatch.setattr(Path, "unlink", lambda *arguments, **options: None)
            monkeypatch.setattr(Path, "rename", self._wrap(Path.rename, "rename"))

    def _wrap(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count < self.at or self.at == 0:
                return call(*arguments, **options)
            if self.count == self.at and name == "write":  # torn: half of it reaches the disk
                call(arguments[0], arguments[1][: len(arguments[1]) // 2])
            if self.kind == "crash" or self.count == self.at:
                raise OSError(errno.ENOSPC if self.kind == "full" else errno.EIO, os.strerror(errno.ENOSPC))
            return call(*arguments, **options)

        return wrapped


def count_calls(tmp_path: Path) -> int:
    save(tmp_path / "count", 1, best=True)
    with pytest.MonkeyPatch.context() as patch:
        fault = Fault(patch, 0, "full")
        save_checkpoint(tmp_path / "count", state(2), best=True)
    return fault.count


@pytest.mark.parametrize("kind", ["full", "crash"])
def test_a_fault_at_any_call_leaves_the_state_before_or_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the call counts, the disk's time does not
    calls = count_calls(tmp_path)
    assert calls > 30
    after = 0
    save(tmp_path / "before", 1, best=True)
    for at in range(1, calls + 1):
        run = tmp_path / f"{kind}-{at}"
        shutil.copytree(tmp_path / "before", run)
        with pytest.MonkeyPatch.context() as patch:
            Fault(patch, at, kind)
            # some faults (while old steps are pruned) are no error: the save is complete
            with suppress(ElmanError):
                save_checkpoint(run, state(2), best=True)
        found = load_checkpoint(run)
        assert not found.notes
        step = found.record["step"]
        check(found, step)
        assert step in (1, 2)
        after += step == 2
        load_model(run)
        if kind == "full":
            assert not list(run.glob(".tmp-*"))
        disk.clean(run)  # what the next start does
        assert not list(run.glob(".tmp-*"))
        save(run, 3)
        check(load_checkpoint(run), 3)
        shutil.rmtree(run)
    assert 0 < after < calls / 2


def test_a_full_disk_is_told_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "run", 1)
    Fault(monkeypatch, 5, "full")
    with pytest.raises(ElmanError, match="cannot be written: No space left on device") as caught:
        save_checkpoint(tmp_path / "run", state(2))
    assert "what was saved before is kept" in str(caught.value)


def test_everything_is_synced_before_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order that survives power loss: each file synced, then the folder, then its name; `latest` last."""
    calls: list[tuple[str, str]] = []
    paths: dict[int, str] = {}
    real = {name: getattr(os, name) for name in ("open", "write", "fsync", "rename", "replace", "close")}

    def opened(path: Any, *arguments: Any) -> int:
        descriptor: int = real["open"](path, *arguments)
        paths[descriptor] = Path(path).name
        return descriptor

    monkeypatch.setattr(os, "open", opened)
    for name in ("write", "fsync"):
        monkeypatch.setattr(
            os, name, lambda fd, *rest, name=name: (calls.append((name, paths[fd])), real[name](fd, *rest))[1]
        )
    for name in ("rename", "replace"):
        monkeypatch.setattr(
            os, name, lambda a, b, name=name: (calls.append((name, Path(b).name)), real[name](a, b))[1]
        )
    save(tmp_path / "run", 1, best=True)
    monkeypatch.undo()
    named = calls.index(("rename", "step-000001"))
    for name in sorted(path.name for path in (tmp_path / "run" / "step-000001").iterdir()):
        writes = [index for index, call in enumerate(calls) if call == ("write", name)]
        assert writes
        assert max(writes) < calls.index(("fsync", name)) < named
    assert calls[named - 1][0] == "fsync"
    assert calls[named - 1][1].startswith(".tmp-step-000001")
    assert calls[named + 1] == ("fsync", "run")
    assert named < calls.index(("replace", "best")) < calls.index(("replace", "latest"))
    assert calls[-1] == ("fsync", "run")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_thirty_times_nothing_is_lost(tmp_path: Path) -> None:
    """SIGKILL at random moments; each run that reaches its end is the never-killed one."""
    corpus, options = make_corpus(900), make_config(epochs=4, save_every=1, keep=2)
    run(make_model(corpus), corpus, options, save=tmp_path / "whole")
    draw, kills, runs, reached = random.Random(7), 0, 0, 0
    while kills < 30 or runs == 0:
        folder = tmp_path / f"run{runs}"
        child = os.fork()
        if child == 0:  # ends by SIGKILL or _exit
            code = 1
            try:
                run(make_model(corpus), corpus, options, save=folder, resume=True)
                code = 0
            finally:
                os._exit(code)
        if kills < 30:
            time.sleep(draw.uniform(0.005, 0.12))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            kills += 1
            if run_folder.is_run(folder):
                found = load_checkpoint(folder)
                assert not found.notes
                assert found.record["step"] >= reached
                reached = found.record["step"]
            continue
        assert os.WEXITSTATUS(status) == 0
        assert same(final_state(folder), final_state(tmp_path / "whole"))
        assert not list(folder.glob(".tmp-*"))
        runs, reached = runs + 1, 0  # a fast machine starts the next one
