"""What exactness depends on is recorded and told; two trainings in two threads do not touch each other."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import elman.train as loop
from elman.checkpoint import load_checkpoint, save_checkpoint
from elman.kernels import native
from elman.kernels.draws import drawing_from, dropout
from elman.recurrence import GRU, LSTM, RNN
from elman.training.events import Started
from training_example import final_state, make_config, make_corpus, make_model, run, same

CORPUS = make_corpus()
SETS = ("avx512", "avx2", "portable", "torch")
RESUMING = """
import sys
from pathlib import Path
import torch
from training_example import *
corpus = make_corpus()
config = make_config(max_steps=int(sys.argv[2])) if sys.argv[2] != "-" else make_config()
events = run(make_model(corpus), corpus, config, save=Path(sys.argv[1]), resume=True)
print(*events[0].notes, sep="\\n")
"""


def in_a_process(folder: Path, steps: object, kernels: str, threads: int = 1) -> str:
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {"PYTHONPATH": paths, "ELMAN_KERNELS": kernels, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", RESUMING, str(folder), str(steps)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not native.available(), reason="needs the compiled kernels")
def test_another_instruction_set_is_told(tmp_path: Path) -> None:
    own = native.require().instruction_set()
    in_a_process(tmp_path / "run", 5, own)
    told = load_checkpoint(tmp_path / "run").record["circumstances"]
    assert told["kernels"] == own
    assert told.keys() == {"device", "torch", "threads", "kernels", "processor", "torch's instructions"}
    notes = in_a_process(tmp_path / "run", 9, "portable")
    assert f"kernels was {own} and is portable: the run goes on, but not bit for bit." in notes
    notes = in_a_process(tmp_path / "run", 12, "torch", threads=2)
    assert "kernels was portable and is torch" in notes
    assert "threads was 1 and is 2" in notes
    assert in_a_process(tmp_path / "run", 13, "torch", threads=2).strip() == ""


def test_an_older_record_knows_fewer(tmp_path: Path) -> None:
    run(make_model(CORPUS), CORPUS, make_config(max_steps=3), save=tmp_path / "run")
    state = load_checkpoint(tmp_path / "run")
    for name in ("kernels", "processor", "torch's instructions"):
        del state.record["circumstances"][name]
    del state.record["untouched"]
    save_checkpoint(tmp_path / "run", state)
    events = run(make_model(CORPUS), CORPUS, make_config(), save=tmp_path / "run", resume=True)
    assert isinstance(events[0], Started)
    assert events[0].notes == ()


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
def test_two_trainings_in_two_threads_are_each_what_it_is_alone(tmp_path: Path, backend: str) -> None:
    options = {"one": make_config(seed=1), "two": make_config(seed=2, bptt=5)}

    def model() -> Any:
        made = make_model(CORPUS)
        made.recurrence.backend = backend
        return made

    for name, config in options.items():
        run(model(), CORPUS, config, save=tmp_path / f"{name} alone")
    start = threading.Barrier(2)
    models = {name: model() for name in options}  # weights are drawn from torch's generator: one by one

    def train(name: str) -> None:
        start.wait()
        run(models[name], CORPUS, options[name], save=tmp_path / name)

    threads = [threading.Thread(target=train, args=(name,)) for name in options]
    before = torch.get_rng_state()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(torch.get_rng_state(), before)
    for name in options:
        assert same(final_state(tmp_path / name), final_state(tmp_path / f"{name} alone"))


@pytest.mark.parametrize("make", [RNN, GRU, LSTM])
@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_generator_of_ones_own_gives_torchs_numbers(
    make: Any, backend: str, batch_first: bool, bidirectional: bool
) -> None:
    torch.manual_seed(5)
    options = {"batch_first": batch_first, "bidirectional": bidirectional}
    module = make(3, 4, num_layers=3, dropout=0.4, backend=backend, **options)
    x = torch.randn(9, 5, 3)
    torch.manual_seed(8)
    wanted = module(x)
    with drawing_from(torch.Generator().manual_seed(8)):
        found = module(x)
    for a, b in zip(_tensors(wanted), _tensors(found), strict=True):
        assert torch.equal(a, b)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [] if value is None else [t for each in value for t in _tensors(each)]


def test_dropout_is_torchs() -> None:
    x = torch.randn(7, 11)
    torch.manual_seed(3)
    wanted = torch.nn.functional.dropout(x, 0.3)
    with drawing_from(torch.Generator().manual_seed(3)):
        assert torch.equal(dropout(x, 0.3), wanted)


# -- memory


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("not enough memory: you tried")])
def test_memory_that_is_gone_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run(make_model(CORPUS), CORPUS, make_config(), save=tmp_path / "whole")
    work, calls = loop.window_loss, iter(range(100))

    def breaking(*arguments: Any) -> Any:
        result = work(*arguments)
        if next(calls) == 10:
            raise error
        return result

    monkeypatch.setattr(loop, "window_loss", breaking)
    with pytest.raises(type(error)):
        run(make_model(CORPUS), CORPUS, make_config(), save=tmp_path / "run")
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "run").record["step"] == 10
    run(make_model(CORPUS), CORPUS, make_config(), save=tmp_path / "run", resume=True)
    assert same(final_state(tmp_path / "run"), final_state(tmp_path / "whole"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs ulimit -v")
@pytest.mark.parametrize("megabytes", [200, 2200])
def test_a_limit_is_told_plainly(tmp_path: Path, megabytes: int) -> None:
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n" * 60)
    command = f'ulimit -v {megabytes * 1000}; exec "$0" -c \'from elman.cli import main; main()\' "$@"'
    flags = ("train", "text.txt", "--nhid", "9000", "--emsize", "9000", "--save", "run")
    line = ["bash", "-c", command, sys.executable, *flags]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "elman: there is not enough memory." in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in tmp_path.iterdir() if path.name != "text.txt"]
