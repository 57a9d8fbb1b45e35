"""A small exact language model that keeps the contract, and a plain-Python oracle of it.

Its state is one number that hashes everything read so far, so a lost, shifted, leaked or forgotten
state changes every later probability; the table of log-probabilities is random float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from elman.cli import VERBS
from elman.cli.app import main
from elman.language_model import State
from elman.text.corpus import Text
from elman.text.tokenizers import Tokenizer, get_tokenizer
from elman.text.vocabulary import Vocabulary

STATES = 211


class TableModel:
    """state' = (5·state + token + 1) mod 211; P(next | state') = softmax(table[state'])."""

    def __init__(self, words: Sequence[str], *, tokenizer: str | Tokenizer = "words", seed: int = 3) -> None:
        counts = [7, 40, *(max(0, 3000 // (k + 1) ** 2 - 1) for k in range(len(words)))]
        self.vocabulary = Vocabulary(["<unk>", "</s>", *words], counts)
        self.tokenizer = get_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
        logits = 1.5 * np.random.default_rng(seed).standard_normal((STATES, len(self.vocabulary)))
        self.table = torch.log_softmax(torch.from_numpy(logits), dim=1)
        self.calls: list[tuple[int, int]] = []  # (steps, streams) of every token_nats

    def start(self, batch: int) -> State:
        return (torch.full((batch, 1), 17, dtype=torch.int64),)

    def advance(self, state: State, token: Tensor) -> tuple[State, Tensor]:
        moved = (5 * state[0][:, 0] + token + 1) % STATES
        return (moved[:, None],), self.table[moved]

    def token_nats(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        self.calls.append((ids.shape[0] - 1, ids.shape[1]))
        nats = []
        for step in range(len(ids) - 1):
            state, log_probs = self.advance(state, ids[step])
            nats.append(-log_probs.gather(1, ids[step + 1][:, None])[:, 0])
        return torch.stack(nats), state


def oracle(model: TableModel, ids: Iterable[int], *, carry: bool) -> list[float]:
    """The nats of every event, one by one in Python floats, from the equation above."""
    table = model.table.tolist()
    state, before, nats = 17, 1, []
    for token in map(int, ids):
        state = (5 * state + before + 1) % STATES
        nats.append(-table[state][token])
        before = token
        if token == 1 and not carry:
            state = 17
    return nats


def random_text(vocabulary_size: int, lengths: Sequence[int], *, seed: int = 11) -> Text:
    """Sentences of these many tokens (and `</s>`), every id but `</s>` drawn, `<unk>` among them."""
    random = np.random.default_rng(seed)
    pieces = []
    for length in lengths:
        ids = random.integers(1, vocabulary_size, size=length)
        pieces.append(np.append(np.where(ids == 1, 0, ids), 1))
    ids = np.concatenate(pieces).astype(np.int32) if pieces else np.zeros(0, dtype=np.int32)
    words = np.array(lengths, dtype=np.int32)
    return Text(ids=ids, words=words, bytes=(5 * words + 1).astype(np.int32))


def close(left: float, right: float, *, relative: float = 1e-12) -> bool:
    return math.isclose(left, right, rel_tol=relative, abs_tol=relative)


def save_small_models(folder: Path) -> None:
    """Random models as `elman train` would leave them: words/, wide/ (more words), letters/, prose/."""
    from elman.checkpoint import save_model
    from elman.neural.recurrent import RecurrentConfig, RecurrentModel

    some = ["the", "cat", "sat", "on", "mat", "of", "a"]
    kinds = {
        "words": (some, "words"),
        "wide": ([*some, "zebra", "dog"], "words"),
        "letters": (list("abcdehmnorst␣"), "characters"),
        "prose": ([*some, ".", ",", "!"], "prose"),
    }
    for seed, (name, (tokens, tokenizer)) in enumerate(kinds.items()):
        torch.manual_seed(seed)
        config = RecurrentConfig(embedding_size=7, hidden_size=9, num_layers=1, init_scale=1.0)
        counts = [3, 50, *range(len(tokens), 0, -1)]
        vocabulary = Vocabulary(["<unk>", "</s>", *tokens], counts)
        save_model(RecurrentModel(vocabulary, get_tokenizer(tokenizer), config), folder / name)


def run_cli(*arguments: str) -> int:
    """The exit status of `elman` with these arguments."""
    for verb in VERBS:
        import_module(f"elman.cli.{verb}")
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert isinstance(stopped.value.code, int)
    return stopped.value.code
