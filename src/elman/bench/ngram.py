"""A Kneser-Ney model of order 5 scoring text, beside KenLM's Python module on the same model as ARPA.

KenLM's module is installed by the user (`pip install ufal-kenlm`) and imported here only. Its programs
lmplz and query are compared by benchmarks/ngram_speed.py.
"""

from __future__ import annotations

import importlib
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elman.bench.equality import FACTOR
from elman.errors import ElmanError
from elman.event_nats import event_nats
from elman.ngram.arpa_writing import write_arpa
from elman.ngram.backoff import NgramModel
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.text.corpus import Corpus, Text, load_corpus

ORDER = 5
CORPORA = ("sotu-modern", "pydoc")
"""The first one that is installed."""
WRITTEN = 1e-6
"""What the digits of an ARPA file may lose of a log-probability."""

Nats = NDArray[np.float64]


@dataclass(frozen=True)
class NgramTask:
    """A model and the text that it scores; an n-gram begins anew with every sentence."""

    model: NgramModel
    text: Text


def ngram_task() -> NgramTask:
    """Trained on the training part of a built-in corpus, to score its test part."""
    corpus = _corpus()
    settings = KneserNeySettings(order=ORDER)
    model = estimate(corpus.train, corpus.vocabulary, corpus.tokenizer, settings)
    model.prepare()  # KenLM's module too has its table before it is timed
    return NgramTask(model, corpus.test)


def _corpus() -> Corpus:
    for name in CORPORA[:-1]:
        try:
            return load_corpus(name)
        except ElmanError:  # its package is not installed
            continue
    return load_corpus(CORPORA[-1])


def elman_scores(task: NgramTask) -> Callable[[], Nats]:
    """→ nats [N] of all events."""
    return lambda: np.concatenate(list(event_nats(task.model, task.text)))


def kenlm_scores(task: NgramTask) -> Callable[[], Nats]:
    """The same from `full_scores`, sentence by sentence, each already a string of tokens."""
    kenlm = importlib.import_module("kenlm")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.arpa"
        write_arpa(task.model, path)
        config = kenlm.Config()
        config.show_progress = False
        config.arpa_complain = kenlm.ARPALoadComplain.NONE
        model: Any = kenlm.Model(str(path), config)
    tokens, eos = task.model.vocabulary.tokens, task.model.vocabulary.eos_id
    lines: list[list[str]] = [[]]
    for number in task.text.ids.tolist():
        if number == eos:
            lines.append([])
        else:
            lines[-1].append(tokens[number])
    sentences = [" ".join(line) for line in lines[:-1]]

    def scores() -> Nats:
        log10 = [score for sentence in sentences for score, _, _ in model.full_scores(sentence)]
        return np.array(log10) * -math.log(10)

    return scores


def ngram_tolerance() -> float:
    """A probability is a float32 product (a sum of logs) of at most ORDER factors, written in decimal."""
    return FACTOR * (math.sqrt(ORDER) * float(np.finfo(np.float32).eps) + WRITTEN)
