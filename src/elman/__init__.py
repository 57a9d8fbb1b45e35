"""Elman: recurrent language models, trained in minutes, compared honestly with n-grams.

Names are imported on first use, so that `import elman` and `elman --help` do not wait for torch.
Verbs live in the module of the same name: `from elman.train import train`, likewise `evaluate`,
`compare`, `generate`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elman.checkpoint import load_model as load_model
    from elman.checkpoint import save_model as save_model
    from elman.errors import ElmanError as ElmanError
    from elman.language_model import LanguageModel as LanguageModel
    from elman.language_model import Protocol as Protocol
    from elman.language_model import Score as Score
    from elman.mixture import Mixture as Mixture
    from elman.neural.feedforward import FeedforwardModel as FeedforwardModel
    from elman.neural.recurrent import RecurrentModel as RecurrentModel
    from elman.ngram.backoff import NgramModel as NgramModel
    from elman.recurrence import GRU as GRU
    from elman.recurrence import LSTM as LSTM
    from elman.recurrence import RNN as RNN
    from elman.surprisal import surprisals as surprisals
    from elman.text.corpus import encode_text as encode_text
    from elman.text.corpus import load_corpus as load_corpus

__version__ = "0.1.0"

_HOME = {
    "ElmanError": "elman.errors",
    "FeedforwardModel": "elman.neural.feedforward",
    "GRU": "elman.recurrence",
    "LSTM": "elman.recurrence",
    "LanguageModel": "elman.language_model",
    "Mixture": "elman.mixture",
    "NgramModel": "elman.ngram.backoff",
    "Protocol": "elman.language_model",
    "RNN": "elman.recurrence",
    "RecurrentModel": "elman.neural.recurrent",
    "Score": "elman.language_model",
    "encode_text": "elman.text.corpus",
    "load_corpus": "elman.text.corpus",
    "load_model": "elman.checkpoint",
    "save_model": "elman.checkpoint",
    "surprisals": "elman.surprisal",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'elman' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
