"""Encoded corpora on disk: found again, rebuilt when damaged, done without when there is no room."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from elman.errors import ElmanError
from elman.text import cache as store
from elman.text import corpus
from elman.text.corpus import TextSettings, load_corpus

LINES = [f"w{number % 7} x{number % 3} y{number % 11}" for number in range(60)]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_the_cache_is_used_and_keyed_by_content_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = write(tmp_path / "one.txt", "\n".join(LINES)), tmp_path / "cache"
    first = load_corpus(path, cache=cache)
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "build", lambda *_: pytest.fail("built again"))
        again = load_corpus(path, cache=cache)
    assert again.digest == first.digest
    assert again.origin == first.origin
    assert np.array_equal(again.train.stream(), first.train.stream())
    load_corpus(path, TextSettings(numbers=False), cache=cache)  # no part of a word corpus: the same entry
    assert len(list((cache / "corpora").iterdir())) == 1
    load_corpus(path, TextSettings(min_count=2), cache=cache)
    write(path, "\n".join([*LINES, "more"]))
    load_corpus(path, cache=cache)
    assert len(list((cache / "corpora").iterdir())) == 3
    with pytest.raises(ValueError):
        again.train.ids[0] = 5


@pytest.mark.parametrize("name", ["whole.i32", "words.i32", "bytes.i32", "corpus.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "empty"])
def test_a_damaged_cache_is_built_again(tmp_path: Path, name: str, damage: str) -> None:
    path, cache = write(tmp_path / "one.txt", "\n".join(LINES)), tmp_path / "cache"
    first = load_corpus(path, cache=cache)
    digest, stream = first.digest, first.train.stream().tolist()
    del first
    (entry,) = (cache / "corpora").iterdir()
    raw = bytearray((entry / name).read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    (entry / name).unlink()
    if damage != "remove":
        write(entry / name, {"flip": bytes(raw), "cut": bytes(raw[:-1]), "empty": b""}[damage])
    again = load_corpus(path, cache=cache)
    assert again.digest == digest
    assert again.train.stream().tolist() == stream
    assert any("damaged" in note for note in again.notes)
    assert load_corpus(path, cache=cache).notes == ()


@pytest.mark.parametrize(
    "change", [{"sentences": 3}, {"events": [0]}, {"tokenizer": {}}, {"vocabulary": None}]
)
def test_a_cache_that_lies_is_built_again(tmp_path: Path, change: dict[str, object]) -> None:
    path, cache = write(tmp_path / "one.txt", "\n".join(LINES)), tmp_path / "cache"
    load_corpus(path, cache=cache)
    (entry,) = (cache / "corpora").iterdir()
    description = json.loads((entry / "corpus.json").read_text("utf-8"))
    write(entry / "corpus.json", json.dumps(description | change))
    assert any("damaged" in note for note in load_corpus(path, cache=cache).notes)


def test_an_unwritable_cache_is_gone_round(tmp_path: Path) -> None:
    path, blocked = write(tmp_path / "one.txt", "\n".join(LINES)), write(tmp_path / "file", "no folder")
    made = load_corpus(path, cache=blocked)
    assert made.train.sentences == 54
    assert "cannot be written" in made.notes[0]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = write(tmp_path / "one.txt", "\n".join(LINES)), tmp_path / "cache"
    calls: list[Path] = []

    def full(source: object, resolved: object, place: Path, report: object) -> None:
        calls.append(place)
        write(place / "whole.i32", "half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(corpus, "build", full)
        with pytest.raises(ElmanError, match="No space left") as caught:
            load_corpus(path, cache=cache)
    assert "ELMAN_CACHE" in caught.value.remedy
    assert len(calls) == 2
    assert not any(place.exists() for place in calls)
    assert load_corpus(path, cache=cache).notes == ()


def test_leftovers_of_killed_programs_go(tmp_path: Path) -> None:
    root = tmp_path / "corpora"
    old, fresh = root / ".building-old", root / ".building-new"
    for place in (old, fresh):
        place.mkdir(parents=True)
    os.utime(old, (1, 1))
    store.building_folder(root)
    assert not old.exists()
    assert fresh.exists()
