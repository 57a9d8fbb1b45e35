"""Models that left the numbers, or whose nats no exponential holds: every verb says so or gives infinity."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from elman.checkpoint import save_model
from elman.errors import ElmanError
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.text.tokenizers import Words
from elman.text.vocabulary import Vocabulary
from table_model import run_cli

WORDS = Vocabulary(["<unk>", "</s>", *"abcdefg"], [3] * 9)
VERBS = (
    ("evaluate", "MODEL", "text.txt", "--state", "both"),
    ("score", "MODEL", "text.txt"),
    ("trace", "MODEL", "text.txt", "--no-detail"),
    ("trace", "MODEL", "text.txt", "--json"),
    ("memory", "MODEL", "text.txt", "--histories", "1", "--histories", "2"),
    ("memory", "connectivity", "MODEL", "a b c"),
    ("compare", "MODEL", "sane", "--text", "text.txt", "--no-report"),
    ("mix", "MODEL", "sane", "--tune", "text.txt"),
    ("generate", "MODEL", "--length", "3"),
    ("generate", "MODEL", "--beam", "3", "--prompt", "a b c"),
    ("gradients", "MODEL", "text.txt", "--lags", "10", "--losses", "2", "--passages", "2"),
)


def saved(name: str, cell: str, scale: float, part: str) -> None:
    torch.manual_seed(7)
    config = RecurrentConfig(cell=cell, embedding_size=6, hidden_size=7, num_layers=1)
    model = RecurrentModel(WORDS, Words(), config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.mul_(scale if part in key else 1.0)
    save_model(model, name)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diverged")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        saved("sane", "gru", 1.0, "")
        saved("nan", "rnn-relu", 1e37, "recurrence")  # states become infinite, then NaN
        saved("far", "gru", 1e5, "output")  # thousands of nats an event
        Path("text.txt").write_text("a b c d e f g\nb c nothing a\nf f a\n" * 3, "utf-8")
    return folder


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_nan_is_told(verb, room, monkeypatch, capsys) -> None:
    monkeypatch.chdir(room)
    assert run_cli(*("nan" if word == "MODEL" else word for word in verb)) == 2
    assert "NaN" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_what_is_too_large_is_infinite(verb, room, monkeypatch, capsys) -> None:
    monkeypatch.chdir(room)
    assert run_cli(*("far" if word == "MODEL" else word for word in verb)) == 0
    out, err = capsys.readouterr()
    assert "Warning" not in err
    if verb[0] in ("evaluate", "compare", "mix") or (verb[:2] == ("trace", "MODEL") and "--json" not in verb):
        assert "inf" in out


def test_a_beam_without_a_text_says_so() -> None:
    from elman.beam import search
    from elman.generate import Prompt

    class Nothing:
        vocabulary, tokenizer = WORDS, Words()

        def start(self, batch):
            return (torch.zeros(batch, 1),)

        def advance(self, state, token):
            return state, torch.full((len(token), len(WORDS)), -torch.inf)

    from elman.beam import BeamSettings

    with pytest.raises(ElmanError, match="no token but <unk>"):
        search(Nothing(), Prompt((), "", (), ()), BeamSettings(beam=2))
