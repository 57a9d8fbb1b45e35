"""SIGTERM and SIGHUP end what runs long as Ctrl-C does: saved, nothing left, exit status 143 and 129."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elman import run_folder
from elman.checkpoint import load_checkpoint
from training_example import final_state, same

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

ENTRY = [sys.executable, "-c", "from elman.cli import main; main()"]
SMALL = ("--nhid=5", "--emsize=4", "--nlayers=1", "--batch-size=3", "--bptt=7", "--dropout=0.2")
ENDS = [(signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat\na dog ran under it and then\n" * 60)
    return path


@pytest.fixture
def long_text(tmp_path: Path) -> Path:
    """Enough that no model is finished, and its checkpoints gone, before both are in training."""
    path = tmp_path / "long.txt"
    path.write_text("the cat sat on the mat\na dog ran under it and then\n" * 2500)
    return path


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*ENTRY, *map(str, arguments)], env=environment, **options)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def steps(folder: Path) -> int:
    return load_checkpoint(folder).record["step"] if run_folder.is_run(folder) else 0


@pytest.mark.parametrize(("number", "status"), ENDS)
def test_train_saves_and_resumes_exactly(tmp_path: Path, text: Path, number: int, status: int) -> None:
    flags = ("train", text, *SMALL, "--epochs", "25")
    assert start(*flags, "--save", tmp_path / "whole", stderr=subprocess.DEVNULL).wait(120) == 0
    with start(*flags, "--save", tmp_path / "run", stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        until(lambda: steps(tmp_path / "run") > 0)
        before = steps(tmp_path / "run")
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert b"Traceback" not in err
    assert b"interrupted; --resume continues exactly here" in err
    assert b"test perplexity" not in out
    assert steps(tmp_path / "run") > before
    assert not list(tmp_path.glob("**/.tmp-*"))
    assert not (tmp_path / "run" / ".lock").exists()
    again = start("train", text, "--save", tmp_path / "run", "--resume", stderr=subprocess.DEVNULL)
    assert again.wait(120) == 0
    assert same(final_state(tmp_path / "run"), final_state(tmp_path / "whole"))


def test_a_terminal_that_is_closed(tmp_path: Path, text: Path) -> None:
    """The kernel sends SIGHUP, and every line printed after it fails."""
    process, terminal = pty.fork()
    if process == 0:
        os.execv(
            sys.executable,
            [*ENTRY, "train", str(text), *SMALL, "--epochs", "99", "--save", str(tmp_path / "run")],
        )
    until(lambda: bool(os.read(terminal, 1 << 16)) and steps(tmp_path / "run") > 0)
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.WEXITSTATUS(status) == 129
    assert steps(tmp_path / "run") > 0


@pytest.mark.parametrize(("number", "status"), ENDS)
@pytest.mark.parametrize("jobs", [1, 2])
def test_compare_and_its_children_save(
    tmp_path: Path, long_text: Path, number: int, status: int, jobs: int
) -> None:
    folder = tmp_path / "save"
    flags = (
        "compare",
        long_text,
        "--models",
        "rnn,gru",
        "--preset",
        "default",
        "--jobs",
        jobs,
        "--save",
        folder,
    )
    with start(*flags, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        until(lambda: len(list(folder.glob("*/run/best"))) == jobs)
        until(lambda: all(steps(path.parent) > 0 for path in folder.glob("*/run/best")))
        before = [steps(path.parent) for path in sorted(folder.glob("*/run/best"))]
        process.send_signal(number)
        _, err = process.communicate(timeout=90)
    assert process.returncode == status, err
    assert b"Traceback" not in err
    runs = [path.parent for path in sorted(folder.glob("*/run/best"))]
    assert all(not (run / ".lock").exists() for run in runs)  # the children have ended, tidily
    assert all(steps(run) >= done > 0 for run, done in zip(runs, before, strict=True))
    assert not list(folder.rglob(".tmp-*"))


def test_a_child_that_a_scheduler_ends_itself_saves(tmp_path: Path, long_text: Path) -> None:
    """SIGTERM to every process of the job at once."""
    folder = tmp_path / "save"
    flags = ("compare", long_text, "--models", "rnn,gru", "--jobs", 2, "--save", folder)
    with start(*flags, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        until(lambda: len(list(folder.glob("*/run/best"))) == 2)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        threads = [each.read_text().split() for each in Path(f"/proc/{process.pid}/task").glob("*/children")]
        assert children.exists()
        for child in {int(pid) for pids in threads for pid in pids}:
            os.kill(child, signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=90)
    assert process.returncode == 143, err
    assert all(steps(path.parent) > 0 for path in folder.glob("*/run/best"))
    assert all(not (path.parent / ".lock").exists() for path in folder.glob("*/run/best"))


@pytest.mark.parametrize(
    "verb",
    [
        ("train", "text.txt", "--model", "ngram", "--order", "5", "--save", "kn"),
        ("gradients", "--json"),
        ("bench", "--quick", "--save", "bench.json"),
    ],
    ids=lambda verb: verb[0],
)
def test_other_verbs_leave_nothing(tmp_path: Path, verb: tuple[str, ...]) -> None:
    (tmp_path / "text.txt").write_text("".join(f"the cat {n} sat on {n % 71} mats\n" for n in range(40_000)))
    with start(*verb, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        time.sleep(4)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode in (143, -15, 0), err
    assert b"Traceback" not in err
    assert {path.name for path in tmp_path.iterdir()} <= {"text.txt", "kn", "bench.json"}


def test_a_script_of_ones_own_is_saved_then_ended(tmp_path: Path) -> None:
    """A program that calls train() and handles no SIGTERM dies of it, as before, but saved."""
    code = """
import os, signal, sys
from pathlib import Path
from elman.train import train
from elman.training.events import Step
from training_example import make_config, make_corpus, make_model
corpus = make_corpus()
for event in train(make_model(corpus), corpus, make_config(), save=Path(sys.argv[1])):
    if isinstance(event, Step) and event.step == 9:
        os.kill(os.getpid(), signal.SIGTERM)
print("went on")
"""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
    )
    assert done.returncode == -signal.SIGTERM
    assert done.stdout == b""
    assert steps(tmp_path / "run") == 9
