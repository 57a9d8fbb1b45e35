"""What the tests of verbs that look into models share: two small ones on disk, and a verb's answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from elman.checkpoint import save_model
from elman.cli import app
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from neural_oracle import WORDS, vocabulary


def run_verb(capsys: Any, verb: str, *arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr; a verb may set torch's threads, which is undone."""
    threads = torch.get_num_threads()
    try:
        with pytest.raises(SystemExit) as caught:
            app.main([verb, *map(str, arguments)])
    finally:
        torch.set_num_threads(threads)
    shown = capsys.readouterr()
    return int(caught.value.code or 0), shown.out, shown.err


def save_two_models(folder: Path, layers: int) -> None:
    """lstm/run and gru/run over 13 tokens, with gates that open and close."""
    torch.manual_seed(1)
    for cell in ("lstm", "gru"):
        config = RecurrentConfig(
            cell=cell, embedding_size=3, hidden_size=5, num_layers=layers, init_scale=1.0
        )
        save_model(RecurrentModel(vocabulary(13), WORDS, config), folder / cell / "run")


def write_text(path: Path) -> None:
    """30 lines of two to eight words that the models know."""
    words = vocabulary(13).tokens[2:]
    lines = [" ".join(words[(3 * k + j * j) % len(words)] for j in range(k % 7 + 2)) for k in range(30)]
    path.write_text("\n".join(lines) + "\n")
