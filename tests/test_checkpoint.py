"""Folders on disk: what is written loads the same, what is damaged is refused, a fault loses nothing."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from checkpoint_example import check, save
from elman import run_folder, storage
from elman.checkpoint import load_checkpoint, load_model, save_model
from elman.errors import ElmanError, FormatError, Note, OptionError
from elman.mixture import Mixture
from elman.neural.feedforward import FeedforwardConfig, FeedforwardModel
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from training_example import make_corpus, make_model

CORPUS = make_corpus()


def feedforward() -> FeedforwardModel:
    config = FeedforwardConfig(window=3, embedding_size=4, hidden_size=5, direct=True)
    return FeedforwardModel(CORPUS.vocabulary, CORPUS.tokenizer, config)


def ngram() -> Any:
    return estimate(CORPUS.train, CORPUS.vocabulary, CORPUS.tokenizer, KneserNeySettings(order=3))


def make(kind: str) -> Any:
    if kind == "mixture":
        return Mixture([make_model(CORPUS, "gru"), ngram()], [0.3, 0.7])
    return {"ngram": ngram, "feedforward": feedforward}.get(kind, lambda: make_model(CORPUS, kind))()


def nats(model: Any) -> torch.Tensor:
    ids = torch.from_numpy(CORPUS.test.stream().astype("int64"))[:, None]
    if isinstance(model, torch.nn.Module):
        model.eval()
    with torch.no_grad():
        return model.token_nats(ids, model.start(1))[0]


# -- models


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn", "rnn-relu", "feedforward", "ngram", "mixture"])
def test_a_saved_model_loads_the_same(tmp_path: Path, kind: str) -> None:
    model = make(kind)
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert type(loaded) is type(model)
    assert loaded.vocabulary == model.vocabulary
    assert loaded.tokenizer == model.tokenizer
    assert torch.equal(nats(loaded), nats(model))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_of_a_comparison_loads_by_the_name_of_its_folder(tmp_path: Path) -> None:
    model = make("gru")
    save_model(model, tmp_path / "gru-8126047f" / "model")
    loaded = load_model(tmp_path / "gru-8126047f")
    assert all(torch.equal(array, loaded.arrays()[name]) for name, array in model.arrays().items())  # type: ignore[attr-defined]


def test_loading_from_a_read_only_folder_writes_nothing(tmp_path: Path) -> None:
    save_model(make("mixture"), tmp_path / "model")
    save(tmp_path / "run", 1)
    places = [tmp_path / "model", tmp_path / "run"]
    everything = [path for place in places for path in [place, *place.rglob("*")]]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in everything}
    try:
        for place in places:
            load_model(place)
        load_checkpoint(tmp_path / "run")
        assert {path: path.stat().st_mtime_ns for path in everything} == before
    finally:
        for path in everything:
            path.chmod(0o755)


def test_save_model_replaces_only_when_told_and_only_its_own(tmp_path: Path) -> None:
    save_model(make("gru"), tmp_path / "model")
    with pytest.raises(OptionError, match="is not empty"):
        save_model(make("lstm"), tmp_path / "model")
    save_model(make("lstm"), tmp_path / "model", overwrite=True)
    assert load_model(tmp_path / "model").config.cell == "lstm"  # type: ignore[attr-defined]
    (tmp_path / "model" / "thesis.tex").write_text("years of work")
    with pytest.raises(ElmanError, match=r"thesis\.tex"):
        save_model(make("lstm"), tmp_path / "model", overwrite=True)
    assert (tmp_path / "model" / "thesis.tex").read_text() == "years of work"


def test_file_modes_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_model(make("gru"), tmp_path / "model")
        save(tmp_path / "run", 1)
    finally:
        os.umask(before)
    for path in (tmp_path / "model" / "config.json", tmp_path / "run" / "latest"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "run" / "step-000001").stat().st_mode) == 0o750


# -- damaged model folders


def edit(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        document = json.loads((folder / name).read_text())
        change(document)
        (folder / name).write_text(json.dumps(document))

    return damage


def swap_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    """Other weights, their digest put right: the check of names, shapes and dtypes must hold by itself."""

    def damage(folder: Path) -> None:
        tensors = storage.read_tensors(folder / "model.safetensors")
        change(tensors)
        (folder / "model.safetensors").unlink()
        digest = storage.write_tensors(folder / "model.safetensors", tensors)
        edit("config.json", lambda config: config["files"].update({"model.safetensors": digest}))(folder)

    return damage


def flip(name: str) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[-9] ^= 1
        (folder / name).write_bytes(data)

    return damage


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "No such file"),
    "no vocabulary": (lambda folder: (folder / "vocabulary.json").unlink(), "No such file"),
    "a folder for a file": (
        lambda folder: ((folder / "vocabulary.json").unlink(), (folder / "vocabulary.json").mkdir()),
        "Is a directory",
    ),
    "one bit of the weights": (flip("model.safetensors"), "its SHA-256 is not the recorded one"),
    "one bit of the vocabulary": (flip("vocabulary.json"), "its SHA-256 is not the recorded one"),
    "config not JSON": (lambda folder: (folder / "config.json").write_text("{"), "not JSON"),
    "config empty": (lambda folder: (folder / "config.json").write_text(""), "not JSON"),
    "config a list": (
        lambda folder: (folder / "config.json").write_text("[]"),
        "a list instead of an object",
    ),
    "config too large": (
        lambda folder: (folder / "config.json").write_bytes(b" " * ((16 << 20) + 1)),
        "at most 16,777,216 are read",
    ),
    "another format": (edit("config.json", lambda c: c.update(format="bert")), "not an elman-model file"),
    "a later version": (edit("config.json", lambda c: c.update(version=2)), "version 2; this Elman reads 1"),
    "unknown kind": (edit("config.json", lambda c: c.update(kind="os:system")), "unknown kind of model"),
    "kind a list": (edit("config.json", lambda c: c.update(kind=["lstm"])), "unknown kind of model"),
    "no digests": (
        edit("config.json", lambda c: c.pop("files")),
        "files: Field required",
    ),
    "a digest lost": (
        edit("config.json", lambda c: c["files"].clear()),
        "of vocabulary.json is not recorded",
    ),
    "no tokenizer": (edit("config.json", lambda c: c.pop("tokenizer")), "tokenizer"),
    "huge layer": (edit("config.json", lambda c: c["config"].update(hidden_size=10**9)), "hidden_size"),
    "other layer": (
        edit("config.json", lambda c: c["config"].update(hidden_size=8)),
        "is torch.float32 [28, 6]",
    ),
    "unknown option": (edit("config.json", lambda c: c["config"].update(attention=True)), "attention"),
    "a tensor too few": (swap_tensors(lambda t: t.pop("output.bias")), "lacks output.bias"),
    "a tensor too many": (swap_tensors(lambda t: t.update(x=torch.zeros(1))), "holds unknown x"),
    "another dtype": (
        swap_tensors(lambda t: t.update({"output.bias": t["output.bias"].double()})),
        "output.bias is torch.float64",
    ),
    "a weight not finite": (swap_tensors(lambda t: t["output.bias"].fill_(float("nan"))), "NaN"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_model_folders(tmp_path: Path, name: str) -> None:
    damage, message = DAMAGED[name]
    save_model(make("lstm"), tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(FormatError) as caught:
        load_model(tmp_path / "model")
    assert message in caught.value.cause
    assert str(tmp_path / "model") in caught.value.cause


def test_sizes_are_compared_before_anything_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(make("lstm"), tmp_path / "model")
    edit("config.json", lambda c: c["config"].update(hidden_size=16_384, num_layers=60))(tmp_path / "model")

    def allocate(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("allocated")

    class Opened:
        """An opened file of which only the header may be read."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.file = safe_open(*arguments, **options)
            self.keys, self.get_slice = self.file.keys, self.file.get_slice
            self.get_tensor = self.get_tensors = allocate

        def __enter__(self) -> Opened:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.__exit__(*_)

    monkeypatch.setattr(torch, "empty", allocate)
    monkeypatch.setattr(storage, "safe_open", Opened)
    with pytest.raises(AssertionError, match="allocated"):
        storage.read_tensors(tmp_path / "model" / "model.safetensors")
    with pytest.raises(FormatError, match="lacks recurrence"):
        load_model(tmp_path / "model")


def test_what_is_no_model_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="does not exist"):
        load_model(tmp_path / "none")
    with pytest.raises(FormatError, match="holds no model"):
        load_model(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"\x80\x02")
    with pytest.raises(FormatError, match="models are folders"):
        load_model(tmp_path / "model.pt")


# -- training states


def test_the_latest_two_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in range(1, 7):
        save(tmp_path, step, best=step == 2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best", "latest", "step-000002", "step-000005", "step-000006"]
    check(load_checkpoint(tmp_path), 6)
    weight = load_model(tmp_path).state_dict()["output.bias"]  # type: ignore[attr-defined]
    assert torch.equal(weight, torch.full_like(weight, 2.0))


def test_saving_a_step_again_does_not_touch_the_first(tmp_path: Path) -> None:
    save(tmp_path, 3)
    assert save(tmp_path, 3).name == "step-000003.1"
    assert run_folder.pointer(tmp_path, "latest") == tmp_path / "step-000003.1"
    assert save(tmp_path, 4).name == "step-000004"
    check(load_checkpoint(tmp_path), 4)


STEP_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "state cut": (lambda f: (f / "state.json").write_text('{"format"'), "not JSON"),
    "state gone": (lambda f: (f / "state.json").unlink(), "No such file"),
    "a number changed": (edit("state.json", lambda s: s["record"].update(step=1)), "not what was written"),
    "optimizer gone": (lambda f: (f / "optimizer.safetensors").unlink(), "No such file"),
    "optimizer bit": (flip("optimizer.safetensors"), "SHA-256"),
    "random bit": (flip("random.safetensors"), "SHA-256"),
    "carried bit": (flip("carried.safetensors"), "SHA-256"),
    "weights cut": (lambda f: os.truncate(f / "model.safetensors", 1500), "file not fully covered"),
    "zero-filled": (lambda f: (f / "model.safetensors").write_bytes(bytes(4000)), "header"),
    "config of another": (edit("config.json", lambda c: c.update(kind="ngram")), "SHA-256"),
    "all gone": (lambda f: [path.unlink() for path in f.iterdir()], "No such file"),
}


@pytest.mark.parametrize("name", STEP_DAMAGE)
def test_a_damaged_latest_falls_back_and_says_so(tmp_path: Path, name: str) -> None:
    save(tmp_path, 1)
    folder = save(tmp_path, 2)
    damage, message = STEP_DAMAGE[name]
    damage(folder)
    found = load_checkpoint(tmp_path)
    check(found, 1)
    assert message in found.notes[0]
    assert "Going back" in found.notes[0]


@pytest.mark.parametrize("text", [b"", b"step-0000", b"../../etc", b"step-000009\n", b"\xff" * 900])
def test_a_damaged_pointer_leads_to_the_newest_that_is_whole(tmp_path: Path, text: bytes) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "latest").write_bytes(text)
    check(load_checkpoint(tmp_path), 2)


def test_nothing_whole_is_an_error_and_a_lost_best_a_warning(tmp_path: Path) -> None:
    best = save(tmp_path, 1, best=True)
    latest = save(tmp_path, 2)
    flip("model.safetensors")(best)
    with pytest.warns(Note, match="step-000002 is used instead"):
        load_model(tmp_path)
    flip("model.safetensors")(latest)
    for load in (load_model, load_checkpoint):
        with pytest.raises(FormatError, match="no checkpoint can be read"):
            load(tmp_path)


def test_a_model_from_before_training_stands_in_for_no_other(tmp_path: Path) -> None:
    save(tmp_path, 0)
    check(load_checkpoint(tmp_path), 0)
    load_model(tmp_path)  # all there is, and whole
    flip("model.safetensors")(save(tmp_path, 1))
    with pytest.raises(FormatError, match="as it was before training"):
        load_model(tmp_path)
