"""The text that models are scored on: a part that they have not seen, and the same bytes for all of them."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from elman.errors import TextError
from elman.text.corpus import Corpus, Text, TextSettings, encode_text, load_corpus
from elman.text.heldout import HeldOut, Split
from elman.text.tokenizers import Tokenizer
from elman.text.vocabulary import Vocabulary


@dataclass
class Model:
    """What a text is read for."""

    tokenizer: Tokenizer
    vocabulary: Vocabulary


def of(corpus: Corpus) -> Model:
    return Model(corpus.tokenizer, corpus.vocabulary)


def lines(count: int, seed: int = 7) -> list[str]:
    """Sentences, one or two a line, over few words and many."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        words = [f"w{rank}" if rank < 300 else "rare" for rank in draw.zipf(1.4, draw.integers(3, 12))]
        half = len(words) // 2
        made.append(" ".join(["Once", *words[:half]]) + ". " + " ".join(["Then", *words[half:]]) + ".")
    return made


@pytest.fixture
def novel(tmp_path: Path) -> Path:
    path = tmp_path / "novel.txt"
    path.write_text("\n".join(lines(200)) + "\n", "utf-8")
    return path


def same(left: Text, right: Text) -> bool:
    return left.ids.tolist() == right.ids.tolist() and left.bytes.tolist() == right.bytes.tolist()


@pytest.mark.parametrize("tokenizer", ["words", "prose", "characters", "bytes"])
def test_of_a_file_that_a_model_was_trained_from_the_test_part_is_taken(novel: Path, tokenizer: str) -> None:
    corpus = load_corpus(novel, TextSettings(tokenizer=tokenizer))  # type: ignore[arg-type]
    model = of(corpus)
    found = HeldOut(str(novel), [model])
    assert found.part == "test"
    assert same(found.of(model), corpus.test)
    assert "was split for training: its test part is taken" in found.notes[0]
    assert found.name == f"{novel}, test part"
    assert found.origin == f"test part of file {novel}"
    raw = novel.read_bytes()
    assert found.digest == hashlib.sha256(raw[-int(corpus.test.bytes.sum()) :]).hexdigest()[:12]
    whole = HeldOut(str(novel), [model], "whole")
    assert (whole.part, whole.notes) == ("whole", ())
    assert same(whole.of(model), encode_text(novel, model.tokenizer, model.vocabulary))
    assert whole.digest == hashlib.sha256(raw).hexdigest()[:12]
    for split in ("train", "valid", "test"):
        asked = HeldOut(str(novel), [model], split)  # type: ignore[arg-type]
        assert (asked.part, asked.notes) == (split, ())
        assert same(asked.of(model), getattr(corpus, split))
    usual = HeldOut(str(novel), [model], usual="valid")
    assert usual.part == "valid"
    assert same(usual.of(model), corpus.valid)


def test_another_text_is_scored_whole(novel: Path, tmp_path: Path) -> None:
    model = of(load_corpus(novel))
    changed = novel.read_text().replace("w1 ", "w2 ", 1)  # one word of the training part, as often in all
    for name, content in (("more.txt", "\n".join(lines(190, seed=8))), ("near.txt", changed)):
        path = tmp_path / name
        path.write_text(content, "utf-8")
        found = HeldOut(str(path), [model])
        assert (found.part, found.notes, found.name) == ("whole", (), str(path))
    unknown = Model(model.tokenizer, Vocabulary(model.vocabulary.tokens))  # of an ARPA file: no counts
    assert HeldOut(str(novel), [unknown]).part == "whole"
    assert same(HeldOut(str(novel), [unknown], "test").of(unknown), load_corpus(novel).test)


def test_the_training_text_itself_is_told(novel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name, seed in (("train", 1), ("valid", 2), ("test", 3)):
        (folder / f"{name}.txt").write_text("\n".join(lines(40, seed)) + "\n", "utf-8")
    corpus = load_corpus(folder)
    model = of(corpus)
    assert "is what a model was trained on" in HeldOut(str(folder / "train.txt"), [model]).notes[0]
    assert HeldOut(str(folder / "train.txt"), [model], "whole").notes == ()
    assert HeldOut(str(folder / "test.txt"), [model]).notes == ()
    parts = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}
    for split, text in (*parts.items(), (None, corpus.test)):
        found = HeldOut(str(folder), [model], split)  # type: ignore[arg-type]
        assert same(found.of(model), text)
        assert found.name == f"{folder}, {split or 'test'} part"
    whole = HeldOut(str(folder), [model], "whole")
    assert whole.of(model).events == sum(text.events for text in parts.values())
    assert whole.of(model).ids.tolist() == [number for text in parts.values() for number in text.ids.tolist()]
    raw = b"".join((folder / f"{name}.txt").read_bytes() for name in parts)
    assert whole.digest == hashlib.sha256(raw).hexdigest()[:12]


@pytest.mark.parametrize("split", [None, "train", "valid", "test"])
def test_models_that_cut_otherwise_take_the_same_bytes(novel: Path, split: Split | None) -> None:
    """Prose has two sentences in each line, so its twentieth need not begin where a line does."""
    novel.write_text("\n".join(["Short. One more. And more. Last.", *lines(200)]) + "\n", "utf-8")
    models = [
        of(load_corpus(novel, TextSettings(tokenizer=name))) for name in ("prose", "words", "characters")
    ]  # type: ignore[arg-type]
    found = HeldOut(str(novel), models, split)
    sizes = {int(found.of(model).bytes.sum()) for model in models}
    assert len(sizes) == 1
    counted = [found.of(model).sentences for model in models]
    assert counted[1] == counted[2] != counted[0]
    if split != "train":
        corpus = load_corpus(novel, TextSettings(tokenizer="prose"))
        wanted = getattr(corpus, split or "test")
        assert 0 <= int(wanted.bytes.sum()) - sizes.pop() < 200  # up to the next line


def test_what_has_no_part_is_told(novel: Path, tmp_path: Path) -> None:
    model = of(load_corpus(novel))
    short = tmp_path / "short.txt"
    short.write_text("w1 w2\nw3\n", "utf-8")
    with pytest.raises(TextError, match="too few for train, valid and test"):
        HeldOut(str(short), [model], "test")
    with pytest.raises(TextError, match="perhaps you meant"):
        HeldOut(str(tmp_path / "novle.txt"), [model])
    one = tmp_path / "line.txt"
    one.write_text("One two. " * 50 + "\nw1\nw1\n", "utf-8")
    prose = of(load_corpus(one, TextSettings(tokenizer="prose")))
    with pytest.raises(TextError, match="that all models cut alike"):
        HeldOut(str(one), [prose, model], "valid")


def test_a_pipe_is_read_once_for_all_models(novel: Path, tmp_path: Path) -> None:
    models = [of(load_corpus(novel, TextSettings(tokenizer=name))) for name in ("words", "characters")]  # type: ignore[arg-type]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(novel.read_bytes()))
    writer.start()
    found = HeldOut(str(pipe), models, "whole")
    writer.join()
    file = HeldOut(str(novel), models, "whole")
    assert found.digest == file.digest
    assert all(same(found.of(model), file.of(model)) for model in models)
    before = found._path
    assert before.is_file()
    del found
    assert not before.exists()
