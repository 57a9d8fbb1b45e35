"""Replacing loses nothing: what was there stays until what comes is whole, for files, models and runs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from elman import disk, run_folder
from elman.checkpoint import load_checkpoint, load_model, save_model
from elman.errors import ElmanError, FormatError, OptionError
from elman.mixture import Mixture
from elman.neural.vectors import write_vectors
from elman.ngram.arpa_writing import write_arpa
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.report import page
from elman.train import train
from elman.training.events import Saved, Step
from test_crash_safety import Fault
from training_example import make_config, make_corpus, make_model, run

CORPUS = make_corpus()


def ngram(order: int = 2) -> Any:
    return estimate(CORPUS.train, CORPUS.vocabulary, CORPUS.tokenizer, KneserNeySettings(order=order))


def mixture(*weights: float) -> Mixture:
    return Mixture([make_model(CORPUS, "gru"), ngram()], weights)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["in one step", "one after the other"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system's exchange of names, and on one that has none."""
    if request.param == "one after the other":
        monkeypatch.setattr(disk.sys, "platform", "plan9")


@pytest.mark.usefixtures("_both_ways")
def test_a_mixture_replaces_a_mixture_and_a_run_a_model(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model(mixture(0.3, 0.7), folder)
    save_model(mixture(0.6, 0.4), folder, overwrite=True)
    assert load_model(folder).weights == (0.6, 0.4)  # type: ignore[attr-defined]
    run(make_model(CORPUS), CORPUS, make_config(epochs=1), save=folder, overwrite=True)
    assert run_folder.is_run(folder)
    save_model(ngram(), folder, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "vocabulary.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_strange_files_within_a_mixture_are_not_replaced(tmp_path: Path) -> None:
    save_model(mixture(0.3, 0.7), tmp_path / "model")
    (tmp_path / "model" / "1" / "thesis.tex").write_text("years of work")
    with pytest.raises(FormatError, match=r"1/thesis\.tex"):
        save_model(ngram(), tmp_path / "model", overwrite=True)
    (tmp_path / "photos" / "1").mkdir(parents=True)
    with pytest.raises(FormatError, match="holds files that are not of a training run: 1"):
        save_model(ngram(), tmp_path / "photos", overwrite=True)
    assert (tmp_path / "model" / "1" / "thesis.tex").read_text() == "years of work"


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("kind", ["ngram", "mixture", "run"])
def test_a_fault_at_any_call_of_replacing_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    folder = tmp_path / "model"

    def write(number: int) -> None:
        if kind == "run":
            options = {"n": number}
            events = train(
                make_model(CORPUS, seed=number),
                CORPUS,
                make_config(epochs=1),
                save=folder,
                overwrite=True,
                options=options,
            )
            for event in events:
                if isinstance(event, Saved):
                    break
            return
        model = (
            ngram(2 + number) if kind == "ngram" else mixture(0.25 * (1 + number), 1 - 0.25 * (1 + number))
        )
        save_model(model, folder, overwrite=True)

    write(0)
    old = content(folder)
    write(1)
    new = content(folder)
    assert old.keys() == new.keys()
    assert old != new
    failed, at, done = 0, 0, False
    while not done:
        write(0)
        at += 1
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, at, "full")
            try:
                write(1)
            except ElmanError as error:
                assert "what was saved before is kept" in str(error)  # noqa: PT017
                failed += 1
            done = fault.count < at
        found = content(folder)
        found.pop(".lock", None)
        assert found.keys() | {"log.jsonl"} == old.keys() | {"log.jsonl"}
        assert found in (old, new) or kind == "run"  # a log and clocks differ
        load_checkpoint(folder) if kind == "run" else load_model(folder)
        left = [path for path in tmp_path.iterdir() if path.name != "model"]
        assert len(left) <= 1  # where removing itself was what failed
        for path in left:
            assert path.name.startswith(".tmp-")
            disk.remove(path)
    assert failed > 8


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    save_model(ngram(2), tmp_path / "elsewhere" / "kn")
    link = tmp_path / "kn"
    link.symlink_to("elsewhere/kn")
    save_model(ngram(3), link, overwrite=True)
    assert link.is_symlink()
    assert load_model(tmp_path / "elsewhere" / "kn").order == 3  # type: ignore[attr-defined]
    (tmp_path / "elsewhere" / "note").write_text("old")
    (tmp_path / "note").symlink_to("elsewhere/note")
    disk.replace_file(tmp_path / "note", b"new")
    assert (tmp_path / "note").is_symlink()
    assert (tmp_path / "elsewhere" / "note").read_text() == "new"
    assert not list(tmp_path.rglob(".tmp-*"))


def test_the_folder_one_stands_in_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(ngram(2), tmp_path / "kn")
    monkeypatch.chdir(tmp_path / "kn")
    with pytest.raises(OptionError, match="the folder you are in"):
        save_model(ngram(3), ".", overwrite=True)
    assert load_model(tmp_path / "kn").order == 2  # type: ignore[attr-defined]


def test_a_first_save_that_fails_leaves_nothing(tmp_path: Path) -> None:
    failed = 0
    for at in range(1, 40):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda descriptor: None)
            Fault(patch, at, "full")
            try:
                run(
                    make_model(CORPUS), CORPUS, make_config(epochs=0), save=tmp_path / "run", options={"a": 1}
                )
            except ElmanError:
                failed += 1
                assert not (tmp_path / "run").exists() or run_folder.is_run(tmp_path / "run")
        disk.remove(tmp_path / "run")
        assert not list(tmp_path.iterdir())
    assert failed > 20


def test_an_old_run_stays_until_the_new_one_is_saved(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(make_model(CORPUS), CORPUS, make_config(epochs=1), save=folder)
    before = content(folder)
    bad = make_model(CORPUS)
    with torch.no_grad():
        bad.output.bias.fill_(float("nan"))
    with pytest.raises(ElmanError, match="diverged"):
        run(bad, CORPUS, make_config(), save=folder, overwrite=True)
    assert content(folder) == before
    for event in train(make_model(CORPUS), CORPUS, make_config(), save=folder, overwrite=True):
        if isinstance(event, Step):
            assert load_checkpoint(folder).record["step"] == 0
            break
    with pytest.raises(OptionError, match="is not empty"):
        run(make_model(CORPUS), CORPUS, make_config(), save=folder)


WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: disk.replace_file(path, b"new" * 9000),
    "report": lambda path: page.write_report(None, path),  # type: ignore[arg-type]
    "arpa": lambda path: write_arpa(ngram(3), path),
    "arpa.gz": lambda path: write_arpa(ngram(3), path),
    "vec": lambda path: write_vectors(make_model(CORPUS), CORPUS.vocabulary, path),
    "vec.gz": lambda path: write_vectors(make_model(CORPUS), CORPUS.vocabulary, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_no_writer_leaves_a_torso(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(page, "render", lambda comparison: "new" * 9000)
    path = tmp_path / f"file.{name}"
    path.write_text("old")
    path.chmod(0o640)
    for call in ("open", "write", "fsync", "replace"):
        with pytest.MonkeyPatch.context() as patch:

            def full(*arguments: Any, **options: Any) -> Any:
                raise OSError(28, "No space left on device")

            patch.setattr(os, call, full)
            if call == "write" and name not in ("bytes", "report"):
                continue  # these write through a buffer: the campaign (benchmarks/faults.py) fails its calls
            with pytest.raises(ElmanError, match="No space left") as caught:
                WRITERS[name](path)
            assert str(path) in caught.value.cause
        assert path.read_text() == "old"
    WRITERS[name](path)
    assert path.read_bytes() != b"old"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_device_and_a_pipe_are_written_to_not_replaced(tmp_path: Path) -> None:
    disk.replace_file(Path("/dev/null"), b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    disk.replace_file(tmp_path / "pipe", b"through")
    assert os.read(reader, 99) == b"through"
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_file_in_shared_memory_is_replaced_and_not_written_into() -> None:
    if not os.path.isdir("/dev/shm"):
        pytest.skip("no /dev/shm on this machine")
    path = Path(f"/dev/shm/elman-test-{os.getpid()}")
    try:
        disk.replace_file(path, b"long before")
        disk.replace_file(path, b"short")
        assert path.read_bytes() == b"short"
    finally:
        path.unlink(missing_ok=True)


def test_names_of_255_bytes(tmp_path: Path) -> None:
    for name in ("n" * 255, "ü" * 127):
        disk.replace_file(tmp_path / name, b"1")
        assert (tmp_path / name).read_bytes() == b"1"
    save_model(ngram(2), tmp_path / ("m" * 255))


# -- pipes and devices within a folder


PARTS = ("config.json", "vocabulary.json", "model.safetensors")


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_device_within_a_model_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    save_model(make_model(CORPUS), tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    if kind == "pipe":
        os.mkfifo(tmp_path / "model" / name)
    else:
        (tmp_path / "model" / name).symlink_to("/dev/zero")
    with pytest.raises(FormatError):
        load_model(tmp_path / "model")


@pytest.mark.parametrize(
    "name",
    [
        "latest",
        "best",
        "log.jsonl",
        "step/state.json",
        "step/optimizer.safetensors",
        "step/model.safetensors",
    ],
)
def test_a_pipe_within_a_run_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    run(make_model(CORPUS), CORPUS, make_config(epochs=1), save=folder)
    path = folder / name.replace("step", run_folder.pointer(folder, "latest").name)  # type: ignore[union-attr]
    path.unlink()
    os.mkfifo(path)
    notes = []
    try:
        if name == "best":
            load_model(folder)
        events = run(make_model(CORPUS), CORPUS, make_config(epochs=1), save=folder, resume=True)
        notes = list(events[0].notes)  # type: ignore[union-attr]
    except ElmanError as error:
        notes.append(str(error))
    assert any("pipe or a device" in note or "it is no file" in note for note in notes)
