"""One process at a time trains in a run folder; a killed one leaves it free."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from elman import run_folder
from elman.checkpoint import load_checkpoint, load_model, save_model
from elman.errors import ElmanError, OptionError
from elman.train import train
from elman.training.events import Saved
from table_model import run_cli
from training_example import final_state, make_config, make_corpus, make_model, run, same

CORPUS = make_corpus()
TRAINING = """
import sys
from pathlib import Path
from elman.train import train
from elman.training.events import Saved
from training_example import make_config, make_corpus, make_model
corpus = make_corpus()
for event in train(make_model(corpus), corpus, make_config(save_every=2), save=Path(sys.argv[1])):
    if isinstance(event, Saved) and event.step == 2:
        print("saved", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains in `run` and has come to its second update."""
    paths = [str(Path(__file__).parent), *sys.path]
    with subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "saved\n"
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_until_the_first_is_dead(
    tmp_path: Path, other: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, options = tmp_path / "run", make_config(save_every=2)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for resume in (True, False):
        with pytest.raises(OptionError, match="run is in use"):
            run(make_model(CORPUS), CORPUS, options, save=folder, resume=resume)
    with pytest.raises(OptionError, match="run is in use"):
        save_model(make_model(CORPUS), folder, overwrite=True)
    importlib.import_module("elman.cli.train")  # the verb registers itself
    (tmp_path / "text").write_text("a b c\n" * 400)
    for flags in (["--resume"], ["--overwrite"]):
        assert run_cli("train", str(tmp_path / "text"), "--save", str(folder), *flags) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert "is in use" in told
        assert "another process trains and saves there" in told
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    load_model(folder)  # to read is not refused

    other.kill()
    other.wait()
    assert (folder / run_folder.LOCK).exists()
    assert load_checkpoint(folder).record["step"] == 2
    run(make_model(CORPUS), CORPUS, options, save=folder, resume=True)
    run(make_model(CORPUS), CORPUS, options, save=tmp_path / "whole")
    assert same(final_state(folder), final_state(tmp_path / "whole"))
    assert not (folder / run_folder.LOCK).exists()


def test_one_process_does_not_train_twice_in_a_folder(tmp_path: Path) -> None:
    first = train(make_model(CORPUS), CORPUS, make_config(), save=tmp_path / "run")
    assert any(isinstance(event, Saved) for event in first)
    with pytest.raises(OptionError, match="is in use"):
        run(make_model(CORPUS), CORPUS, make_config(), save=tmp_path / "run", resume=True)
    first.close()  # type: ignore[attr-defined]
    run(make_model(CORPUS), CORPUS, make_config(), save=tmp_path / "run", resume=True)


def test_a_lock_left_behind_hinders_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / run_folder.LOCK).touch()
    run(make_model(CORPUS), CORPUS, make_config(epochs=1), save=tmp_path / "run")
    (tmp_path / "run" / run_folder.LOCK).touch()
    save_model(make_model(CORPUS), tmp_path / "run", overwrite=True)
    assert not (tmp_path / "run" / run_folder.LOCK).exists()


def test_a_lock_removed_by_its_holder_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened before the holder removed it, locked after: the next one would lock another file."""
    lock, calls = run_folder._lock, 0

    def late(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            (tmp_path / run_folder.LOCK).unlink()
        lock(descriptor)

    monkeypatch.setattr(run_folder, "_lock", late)
    with run_folder.locked(tmp_path):
        assert calls == 2
        with pytest.raises(OptionError), run_folder.locked(tmp_path):
            pass
    with run_folder.locked(tmp_path):
        pass


def test_where_no_lock_can_stand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="is not a folder"), run_folder.locked(tmp_path / "file"):
        pass
    with pytest.raises(ElmanError, match="cannot be written"), run_folder.locked(tmp_path / "file" / "run"):
        pass
