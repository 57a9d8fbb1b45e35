"""add-k and stupid backoff against their formulas."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elman.errors import OptionError
from elman.ngram.backoff import NgramModel
from elman.ngram.smoothing import add_k, stupid_backoff
from elman.text.tokenizers import Words
from ngram_oracle import EOS, START, text_of, vocabulary_of
from tolerance import tolerance

SIZE = 7  # token 6 is never seen
SENTENCES = st.lists(st.lists(st.sampled_from([0, 2, 3, 4, 5]), max_size=6), min_size=1, max_size=8)
CONTEXT = st.lists(st.sampled_from([0, 2, 3, 4, 5, 6]), max_size=5)


def count(sentences: list[list[int]], n: int) -> Counter[tuple[int | str, ...]]:
    counts = Counter[tuple[int | str, ...]]()
    for sentence in sentences:
        padded = (START, *sentence, EOS)
        counts.update(padded[at : at + n] for at in range(len(padded) - n + 1))
    if n == 1:
        del counts[(START,)]
    return counts


def after(model: NgramModel, context: list[int]) -> np.ndarray:
    """Nats [V] of the next word after a sentence's beginning."""
    state = model.start(1)
    for token in (EOS, *context):
        state, log_probs = model.advance(state, torch.tensor([token]))
    return log_probs[0].numpy()


def require_close(found: np.ndarray, prob: list[float], order: int) -> None:
    expected = np.log(prob)
    allowed = tolerance(torch.float32, order) * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=allowed)


@given(SENTENCES, st.integers(1, 4), CONTEXT, st.sampled_from([0.01, 0.5, 1.0, 3.0]))
@settings(max_examples=50, deadline=None)
def test_add_k(sentences: list[list[int]], order: int, context: list[int], k: float) -> None:
    model = add_k(text_of(sentences), vocabulary_of(SIZE), Words(), order=order, k=k)
    padded = (START, *context)
    before = padded[max(0, len(padded) - (order - 1)) :] if order > 1 else ()
    counts = count(sentences, len(before) + 1)
    total = sum(number for gram, number in counts.items() if gram[:-1] == before)
    expected = [(counts[(*before, word)] + k) / (total + k * SIZE) for word in range(SIZE)]
    require_close(after(model, context), expected, order)


def stupid(counts: list[Counter[tuple[int | str, ...]]], alpha: float, context: tuple, word: int) -> float:
    """S(w | context) of Brants et al. (2007), equation 5, α / V for unseen words."""
    if not context:
        seen = counts[1][(word,)]
        return seen / sum(counts[1].values()) if seen else alpha / SIZE
    seen = counts[len(context) + 1][(*context, word)]
    total = sum(number for gram, number in counts[len(context) + 1].items() if gram[:-1] == context)
    return seen / total if seen else alpha * stupid(counts, alpha, context[1:], word)


@given(SENTENCES, st.integers(1, 4), CONTEXT, st.sampled_from([0.1, 0.4, 1.0]))
@settings(max_examples=50, deadline=None)
def test_stupid_backoff(sentences: list[list[int]], order: int, context: list[int], alpha: float) -> None:
    model = stupid_backoff(text_of(sentences), vocabulary_of(SIZE), Words(), order=order, alpha=alpha)
    counts = [Counter[tuple[int | str, ...]](), *(count(sentences, n) for n in range(1, order + 1))]
    padded = (START, *context)
    before = padded[max(0, len(padded) - (order - 1)) :] if order > 1 else ()
    scores = [stupid(counts, alpha, before, word) for word in range(SIZE)]
    require_close(after(model, context), [score / sum(scores) for score in scores], order)


@pytest.mark.parametrize("k", [0.0, -1.0, float("nan"), float("inf")])
def test_k_out_of_range(k: float) -> None:
    with pytest.raises(OptionError, match="k is"):
        add_k(text_of([[2]]), vocabulary_of(4), Words(), order=2, k=k)


@pytest.mark.parametrize("alpha", [0.0, 1.1, float("nan")])
def test_alpha_out_of_range(alpha: float) -> None:
    with pytest.raises(OptionError, match="alpha is"):
        stupid_backoff(text_of([[2]]), vocabulary_of(4), Words(), alpha=alpha)
