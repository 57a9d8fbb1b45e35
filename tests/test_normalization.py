"""Sums over the whole vocabulary: as `advance` gives them context by context; what is told, and of what."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from elman.ngram import normalization
from elman.ngram.arpa import read_arpa
from elman.ngram.backoff import NgramModel
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.ngram.normalization import unnormalized
from elman.ngram.smoothing import add_k, stupid_backoff
from elman.text.tokenizers import Words
from ngram_oracle import EOS, GOLDEN, read_golden
from test_arpa import SMALL, put

TEXT, VOCABULARY = read_golden("rhyme.txt")


def damaged(model: NgramModel, order: int, change: float) -> NgramModel:
    """The model with one backoff weight of an order moved: of the context with most successors."""
    tables = list(model.tables)
    base = len(model.vocabulary) + 1
    row = int(np.bincount(tables[order].keys // base).argmax())
    backoff = tables[order - 1].log10_backoff.copy()
    backoff[row] += change
    tables[order - 1] = replace(tables[order - 1], log10_backoff=backoff)
    return NgramModel(model.vocabulary, model.tokenizer, tables, method="arpa")


def brute_force(model: NgramModel, words: list[int]) -> float:
    """Σ P(w | words) by reading the words one by one."""
    state = model.start(1)
    logs = torch.zeros(0)
    for word in words:
        state, logs = model.advance(state, torch.tensor([EOS if word == len(model.vocabulary) else word]))
    return float(logs.exp().sum())


@pytest.mark.parametrize("order", [2, 3, 4])
def test_sums_are_those_of_the_whole_vocabulary(order: int) -> None:
    whole = estimate(TEXT, VOCABULARY, Words(), KneserNeySettings(order=order))
    random = np.random.default_rng(order)
    tables = [
        replace(
            table,
            log10_prob=(table.log10_prob - random.gamma(1.0, 0.3, len(table.keys))).astype(np.float32),
            log10_backoff=random.normal(0, 0.4, len(table.log10_backoff)).astype(np.float32),
        )
        for table in whole.tables
    ]
    model = NgramModel(VOCABULARY, Words(), tables, method="arpa")  # no sum is 1
    compared = 0
    for n in range(1, order):
        rows = np.arange(len(tables[n - 1].keys))
        words = normalization.words_of(model.tables, n, rows, len(VOCABULARY))
        reached = ~(words == EOS).any(axis=0)
        found = normalization._sums(model, words[:, reached], rows[reached])
        for column, total in list(zip(words[:, reached].T.tolist(), found, strict=True))[::3]:
            assert abs(total - brute_force(model, column)) <= 1e-6 * max(1.0, total), column
            compared += 1
    assert compared > 30


def test_our_own_models_are_distributions() -> None:
    for order in (1, 2, 5):
        assert unnormalized(estimate(TEXT, VOCABULARY, Words(), KneserNeySettings(order=order))) == ""
    assert (
        unnormalized(estimate(TEXT, VOCABULARY, Words(), KneserNeySettings(order=4, prune=(0, 0, 1)))) == ""
    )
    assert unnormalized(add_k(TEXT, VOCABULARY, Words(), order=3, k=0.1)) == ""
    assert unnormalized(stupid_backoff(TEXT, VOCABULARY, Words(), order=3)) == ""


@pytest.mark.parametrize("order", [1, 2, 3])
def test_one_wrong_weight_is_told(order: int) -> None:
    model = estimate(TEXT, VOCABULARY, Words(), KneserNeySettings(order=4))
    for change in (0.1, -0.1, 4.7):
        assert "do not sum to 1" in unnormalized(damaged(model, order, change))
    assert unnormalized(damaged(model, order, 1e-5)) == ""  # as decimals round


def test_weights_above_one_may_be_right(tmp_path: Path) -> None:
    """P(b | a) = 0.02 is less than P(b) = 0.3, so that more is left for the others than they have alone."""
    p = {"<unk>": 0.1, "</s>": 0.2, "a": 0.25, "b": 0.3, "c": 0.15}
    backoff = (1 - 0.02) / (1 - 0.3)
    lines = "".join(f"{np.log10(value):.6f}\t{word}\t0\n" for word, value in p.items() if word != "a")
    data = (
        "\\data\\\nngram 1=6\nngram 2=1\n\n\\1-grams:\n0\t<s>\t0\n"
        f"{np.log10(0.25):.6f}\ta\t{np.log10(backoff):.6f}\n{lines}\n"
        f"\\2-grams:\n{np.log10(0.02):.6f}\ta b\n\n\\end\\\n"
    )
    assert backoff > 1
    assert read_arpa(put(tmp_path, data.encode())).report == []
    wrong = read_arpa(put(tmp_path, data.replace(f"{np.log10(backoff):.6f}", "4.7").encode()))
    assert "after 1 of 6 contexts looked at" in wrong.report[0]
    assert "(after 'a' to 35083)" in wrong.report[0]


def test_many_contexts_are_looked_at_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalization, "MOST", 11)
    model = estimate(TEXT, VOCABULARY, Words(), KneserNeySettings(order=4))
    assert unnormalized(model) == ""
    tables = list(model.tables)
    tables[0] = replace(tables[0], log10_prob=tables[0].log10_prob - np.float32(0.1))
    assert "of 31 contexts" in unnormalized(NgramModel(VOCABULARY, Words(), tables, method="arpa"))


def test_files_of_others(tmp_path: Path) -> None:
    for path in sorted(GOLDEN.glob("*.arpa")):
        assert read_arpa(path).report == [], path.name
    assert "do not sum to 1" in read_arpa(put(tmp_path, SMALL)).report[-1]
    folder = os.environ.get("ELMAN_KENLM")
    for path in sorted(Path(folder).glob("*.arpa.gz")) if folder else []:
        assert read_arpa(path).report == [], path.name
