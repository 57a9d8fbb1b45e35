"""A tiny corpus and tiny models for the tests of training: sizes all different, seconds for a whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from elman.checkpoint import load_checkpoint
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.text.corpus import Corpus, Text
from elman.text.tokenizers import Words
from elman.text.vocabulary import Vocabulary
from elman.train import train
from elman.training.config import TrainConfig
from elman.training.events import Event

SIZE = 23


def make_text(events: int, seed: int) -> Text:
    """Random tokens in sentences of random lengths, the empty one and the one of 30 among them."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(2, SIZE, events).astype(np.int32)
    ids[draw.random(events) < 0.15] = 1
    ids[[2, 3, -1]] = 1
    ids[10:40] = np.where(ids[10:40] == 1, 0, ids[10:40])
    sentences = int((ids == 1).sum())
    return Text(ids, np.full(sentences, 3, np.int32), np.full(sentences, 11, np.int32))


def make_corpus(events: int = 211) -> Corpus:
    """Training text of `events` tokens, validation of 41, test of 43, 23 tokens."""
    vocabulary = Vocabulary(["<unk>", "</s>", *(f"w{number}" for number in range(SIZE - 2))])
    texts = make_text(events, 1), make_text(41 + 3, 2), make_text(43 + 3, 3)
    return Corpus("tiny", *texts, vocabulary, Words(), "made for a test", digest=f"tiny{events}")


def make_model(corpus: Corpus, cell: Any = "lstm", seed: int = 5, dropout: float = 0.4) -> RecurrentModel:
    """Two layers of 7 units, embedding of 6, dropout on; every parameter drawn from `seed`."""
    config = RecurrentConfig(cell=cell, embedding_size=6, hidden_size=7, num_layers=2, dropout=dropout)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RecurrentModel(corpus.vocabulary, corpus.tokenizer, config)


def make_config(**options: Any) -> TrainConfig:
    """Three epochs of eight windows, Adam with a plateau: every piece of state matters."""
    chosen = {"epochs": 3, "batch_size": 5, "bptt": 6, "optimizer": "adam", "lr": 0.2, "schedule": "plateau"}
    return TrainConfig(**(chosen | options))


def run(model: Any, corpus: Corpus, config: TrainConfig, **where: Any) -> list[Event]:
    """All events of a training."""
    return list(train(model, corpus, config, **where))


def final_state(folder: Path) -> dict[str, Any]:
    """Everything in the latest checkpoint but wall-clock time, for comparison."""
    state = load_checkpoint(folder)
    progress = dict(state.record["progress"])
    for name in ("seconds", "log_bytes"):
        progress.pop(name)
    progress["history"] = [row | {"seconds": 0} for row in progress["history"]]
    return {
        "model": state.model.state_dict(),  # type: ignore[attr-defined]
        "optimizer": state.optimizer,
        "random": state.random,
        "carried": dict(enumerate(state.carried)),
        "progress": progress,
        "notes": state.notes,
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """torch.equal in every tensor, == in every number."""
    for part in ("model", "optimizer", "random", "carried"):
        if one[part].keys() != other[part].keys():
            return False
        if not all(torch.equal(tensor, other[part][name]) for name, tensor in one[part].items()):
            return False
    return bool(one["progress"] == other["progress"])
