"""Encoded corpora on disk: found again, rebuilt when damaged, done without when there is no room."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from elman.errors import ElmanError, TextError
from elman.text import cache as store
from elman.text import corpus
from elman.text.corpus import TextSettings, load_corpus
from elman.text.sources import CorpusSource

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
    ("old", "new"),
    [(b'"</s>", "', b'"</s>", "x'), (b'"sentences": [0, ', b'"sentences": [0, 1'), (b"{", b"[" * 99999)],
)
def test_damage_that_is_still_a_description_is_seen(tmp_path: Path, old: bytes, new: bytes) -> None:
    """Another word, other splits: numbers would be wrong without a word. And what JSON cannot be read of."""
    path, cache = write(tmp_path / "one.txt", "\n".join(LINES)), tmp_path / "cache"
    first = load_corpus(path, cache=cache)
    (entry,) = (cache / "corpora").iterdir()
    raw = (entry / "corpus.json").read_bytes()
    assert old in raw
    write(entry / "corpus.json", raw.replace(old, new, 1))
    again = load_corpus(path, cache=cache)
    assert again.vocabulary == first.vocabulary
    assert again.train.ids.tolist() == first.train.ids.tolist()
    assert any("damaged" in note for note in again.notes)


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


def entry_of(path: Path, cache: Path) -> Path:
    load_corpus(path, cache=cache)
    (entry,) = (cache / "corpora").iterdir()
    return entry


def test_a_rivals_finished_folder_stays_and_a_damaged_one_goes(tmp_path: Path) -> None:
    entry = entry_of(write(tmp_path / "one.txt", "\n".join(LINES)), tmp_path / "cache")
    for damage in (False, True):
        mine = store.building_folder(entry.parent)
        for file in entry.iterdir():
            (mine / file.name).write_bytes(file.read_bytes())
        before = (entry / "whole.i32").stat().st_ino
        if damage:
            (entry / "words.i32").write_bytes(b"")
        store.publish(mine, entry)
        assert ((entry / "whole.i32").stat().st_ino == before) is not damage
        assert store.read_cache(entry) is not None
        assert [place.name for place in entry.parent.iterdir()] == [entry.name]


def test_what_cannot_be_published_says_why(tmp_path: Path) -> None:
    (tmp_path / "corpora").mkdir()
    built = store.building_folder(tmp_path / "corpora")
    with pytest.raises(FileNotFoundError):
        store.publish(built, tmp_path / "nowhere" / "key")


def test_a_cache_deleted_while_a_corpus_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = write(tmp_path / "one.txt", "\n".join(LINES)), tmp_path / "cache"
    build = corpus.build

    def deleted(source: object, resolved: object, place: Path, report: object) -> None:
        build(source, resolved, place, report)  # type: ignore[arg-type]
        if place.is_relative_to(cache):
            shutil.rmtree(cache)

    monkeypatch.setattr(corpus, "build", deleted)
    made = load_corpus(path, cache=cache)
    assert made.train.sentences == 54
    assert "is not kept" in made.notes[0]


def test_a_file_replaced_between_digest_and_encoding_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is kept under either digest; the corpus of a folder likewise."""
    path, cache = write(tmp_path / "one.txt", "\n".join(LINES)), tmp_path / "cache"
    folder = tmp_path / "folder"
    folder.mkdir()
    for split in ("train", "valid", "test"):
        write(folder / f"{split}.txt", "\n".join(LINES))
    other = "\n".join(reversed(LINES))
    assert len(other) == len("\n".join(LINES))
    find = corpus.find_corpus
    for source, victim in ((path, path), (folder, folder / "test.txt")):

        def replaced(given: Path, victim: Path = victim) -> CorpusSource:
            found = find(given)
            os.replace(write(tmp_path / "new", other), victim)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(corpus, "find_corpus", replaced)
            with pytest.raises(TextError, match=f"{victim.name} changed while it was read"):
                load_corpus(source, cache=cache)
        assert list((cache / "corpora").iterdir()) == []
        load_corpus(source, cache=cache)
        shutil.rmtree(cache)


RACER = """
import sys
import time
from pathlib import Path
from elman.text.corpus import load_corpus
path, cache, go = map(Path, sys.argv[1:])
end = time.monotonic() + 100
for number in range(8):
    while not (go / str(number)).exists():
        if time.monotonic() > end:
            sys.exit(9)
    made = load_corpus(path, cache=cache / str(number))
    lost = [note for note in made.notes if "not kept" in note or (number % 2 and "damaged" in note)]
    print(made.digest, made.train.stream().sum(), made.test.words.sum(), lost, flush=True)
"""


def test_many_programs_at_once(tmp_path: Path) -> None:
    """Four programs begin at the same moment, eight times, half of these on a damaged entry."""
    path, go = write(tmp_path / "one.txt", "\n".join(LINES * 300)), tmp_path / "go"
    go.mkdir()
    made = load_corpus(path, cache=tmp_path / "own")
    wanted = f"{made.digest} {made.train.stream().sum()} {made.test.words.sum()} []"
    for number in range(0, 8, 2):
        entry = entry_of(path, tmp_path / "caches" / str(number))
        (entry / "whole.i32").write_bytes(b"half")
    command = [sys.executable, "-c", RACER, str(path), str(tmp_path / "caches"), str(go)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(command, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    try:
        for number in range(8):
            (go / str(number)).touch()
            found = [racer.stdout.readline().strip() for racer in racers]
            assert found == [wanted] * 4
        assert [racer.communicate(timeout=60) for racer in racers] == [("", "")] * 4
        assert [racer.returncode for racer in racers] == [0] * 4
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    for number in range(8):
        left = [place.name for place in (tmp_path / "caches" / str(number) / "corpora").iterdir()]
        assert len(left) == 1
        assert store.read_cache(tmp_path / "caches" / str(number) / "corpora" / left[0]) is not None
