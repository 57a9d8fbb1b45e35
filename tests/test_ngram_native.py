"""The compiled n-gram code against its twin in NumPy: counts, lengths, scores and files to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from elman.errors import ElmanError
from elman.event_nats import event_nats
from elman.kernels import native as kernels
from elman.ngram import native
from elman.ngram.arpa_writing import write_arpa
from elman.ngram.backoff import NgramModel
from elman.ngram.counts import Counts, count
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.ngram.tables import Table
from elman.text.corpus import Text
from elman.text.tokenizers import Words
from ngram_oracle import vocabulary_of

pytestmark = pytest.mark.skipif(not kernels.available(), reason="the kernels are not in this installation")

EOS = 1
SHAPES = [  # events, V, order
    (1, 2, 3),
    (2, 2, 5),
    (7, 2, 6),
    (53, 3, 4),
    (997, 20, 6),
    (20011, 307, 5),
    (5003, 70001, 3),
    (9001, 41, 10),
    (101, 5, 1),
    (150001, 1009, 5),  # groups of places large enough for the radix sort
    (40009, 6, 2),
]
Ids = np.ndarray


def draw(events: int, size: int, seed: int = 5) -> Ids:
    """Ids with Zipf's frequencies, empty lines, `<unk>`; for even seeds the end may lack `</s>`."""
    rng = np.random.default_rng([seed, events])
    ids = np.minimum(rng.zipf(1.3, events) - 1, size - 1).astype(np.int32)
    if events > 40:
        ids[10:13] = EOS
    if seed % 2:
        ids[-1] = EOS
    return ids


@contextmanager
def numpy_only() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "usable", lambda events: False)
        yield


@pytest.mark.parametrize("size", [2**22 - 2, 2**22 - 1, 2**22, 5_000_000])
def test_words_by_the_million(size: int) -> None:
    """As many bits as an id can have, in groups of places large enough for the radix sort."""
    ids = np.random.default_rng(0).integers(2, size, 30000).astype(np.int32)
    ids[::3] = 2
    found = count(ids, 3, size)
    with numpy_only():
        wanted = count(ids, 3, size)
    for own, other in zip(found.orders, wanted.orders, strict=True):
        np.testing.assert_array_equal(own.keys, other.keys)
        np.testing.assert_array_equal(own.raw, other.raw)


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def require_same_counts(found: Counts, expected: Counts) -> None:
    for own, other in zip(found.orders, expected.orders, strict=True):
        for name in ("keys", "raw", "suffix", "initial"):
            np.testing.assert_array_equal(getattr(own, name), getattr(other, name))
            assert getattr(own, name).dtype == getattr(other, name).dtype


def require_same_model(found: NgramModel, expected: NgramModel) -> None:
    """The doubles are the same; log10 of two libraries may be rounded to neighbouring float32."""
    assert found.details == expected.details
    assert found.report == expected.report
    for own, other in zip(found.tables, expected.tables, strict=True):
        np.testing.assert_array_equal(own.keys, other.keys)
        np.testing.assert_array_max_ulp(own.log10_prob, other.log10_prob, maxulp=1)
        np.testing.assert_array_max_ulp(own.log10_backoff, other.log10_backoff, maxulp=1)


def fit(ids: Ids, size: int, order: int, prune: tuple[int, ...] = (0,), strict: bool = False) -> NgramModel:
    chosen = KneserNeySettings(order=order, prune=prune[:order], interpolate_unigrams=not strict)
    nothing = np.zeros(0, dtype=np.int32)
    return estimate(Text(ids, nothing, nothing), vocabulary_of(size), Words(), chosen)


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("seed", [5, 6])
@pytest.mark.parametrize(("events", "size", "order"), SHAPES)
def test_counts(events: int, size: int, order: int, seed: int, number: int) -> None:
    ids = draw(events, size, seed)
    with threads(number):
        found = count(ids, order, size)
    with numpy_only():
        require_same_counts(found, count(ids, order, size))


@pytest.mark.parametrize("prune", [(0,), (0, 1), (0, 0, 1), (0, 1, 2, 4)])
@pytest.mark.parametrize(("events", "size", "order"), SHAPES)
def test_kneser_ney(events: int, size: int, order: int, prune: tuple[int, ...]) -> None:
    ids, strict = draw(events, size), prune == (0, 1)
    with threads(3):
        found = fit(ids, size, order, prune, strict)
    with numpy_only():
        require_same_model(found, fit(ids, size, order, prune, strict))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize(("events", "size", "order"), SHAPES)
def test_scores(events: int, size: int, order: int, number: int, batch: int) -> None:
    """In one call, and in two that hand over the state: the same numbers, to the bit."""
    model = fit(draw(events, size), size, order, (0, 0, 1))
    ids = torch.from_numpy(draw(30011 * batch, size, 7).reshape(-1, batch).astype(np.int64))
    with numpy_only():
        expected, state = model.token_nats(ids, model.start(batch))
        lengths = model.matched_lengths(ids, model.start(batch))
    with threads(number):
        nats, after = model.token_nats(ids, model.start(batch))
        assert torch.equal(model.matched_lengths(ids, model.start(batch)), lengths)
        first, middle = model.token_nats(ids[:258], model.start(batch))
        rest, _ = model.token_nats(ids[257:], middle)
    assert torch.equal(nats, expected)
    assert torch.equal(torch.cat([first, rest]), expected)
    assert torch.equal(after[0], state[0])
    if order > 2 and events > 900:
        assert lengths.unique().numel() > 2


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize(("events", "size", "order"), SHAPES)
def test_the_index_scores_as_searching_does(
    events: int, size: int, order: int, number: int, batch: int
) -> None:
    """To the bit, in one call and in two; also where an n-gram is listed and its end is not."""
    model = fit(draw(events, size), size, order, (0, 0, 1))
    if order > 2:
        model = NgramModel(
            model.vocabulary, Words(), [_thinned(model.tables, n) for n in range(order)], method="arpa"
        )
    ids = torch.from_numpy(draw(30011 * batch, size, 7).reshape(-1, batch).astype(np.int64))
    with numpy_only():
        expected, _ = model.token_nats(ids, model.start(batch))
        lengths = model.matched_lengths(ids, model.start(batch))
    assert (model.prepare() > 0) == (order > 1)
    with threads(number):
        nats, _ = model.token_nats(ids, model.start(batch))
        assert torch.equal(model.matched_lengths(ids, model.start(batch)), lengths)
        first, middle = model.token_nats(ids[:258], model.start(batch))
        rest, _ = model.token_nats(ids[257:], middle)
    assert torch.equal(nats, expected)
    assert torch.equal(torch.cat([first, rest]), expected)


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("order", [2, 5, 6, 10])
def test_the_index_heeds_what_only_files_hold(order: int, lengths: bool) -> None:
    """Weights where nothing follows, also of 0 where something does; n-grams that go on after `</s>`."""
    model = fit(draw(20011, 20, 6), 20, order)
    rng = np.random.default_rng(order)
    tables = []
    for n, table in enumerate(model.tables, start=1):
        keys, prob, rows = table.keys, table.log10_prob, len(table.log10_backoff)
        backoff = np.where(rng.random(rows) < 0.3, 0, -rng.random(rows))
        if n == 2:  # `</s>` and a word
            own = EOS * 21 + np.arange(2, 20, 3)
            keys, where = np.unique(np.concatenate([keys, own]), return_index=True)
            assert len(keys) == len(table.keys) + len(own)
            prob = np.concatenate([prob, np.full(len(own), -0.125, np.float32)])[where]
            backoff = np.concatenate([backoff, -np.ones(len(own))])[where] if order > 2 else backoff
            moved = np.flatnonzero(where < len(table.keys))  # rows before → rows now
        elif n > 2:
            keys = moved[keys // 21] * 21 + keys % 21
            moved = np.arange(len(keys))
        tables.append(Table(keys, prob, backoff[: len(keys)].astype(np.float32)))
    model = NgramModel(model.vocabulary, Words(), tables, method="arpa")
    ids = torch.from_numpy(draw(30011, 20, 7).astype(np.int64))[:, None]
    with numpy_only():
        expected = model._score(ids, model.start(1), 1.0, lengths)
    model.prepare()
    found = model._score(ids, model.start(1), 1.0, lengths)
    np.testing.assert_array_equal(found[0], expected[0])
    if lengths:
        np.testing.assert_array_equal(found[1], expected[1])


def _thinned(tables: tuple[Table, ...], n: int) -> Table:
    """Order n + 1; the second highest keeps what a longer n-gram begins with, and a third of the rest."""
    own, last = tables[n], len(tables) - 1
    if n < last - 1:
        return own
    base = len(tables[0].keys)
    begun = np.isin(np.arange(len(tables[last - 1].keys)), tables[last].keys // base)
    kept = begun | (np.arange(len(begun)) % 3 == 0)
    if n == last - 1:
        return Table(own.keys[kept], own.log10_prob[kept], own.log10_backoff[kept])
    rows = np.cumsum(kept) - 1
    return Table(rows[own.keys // base] * base + own.keys % base, own.log10_prob, own.log10_backoff)


def test_the_index_is_made_once_it_pays() -> None:
    model = fit(draw(20011, 307), 307, 3)
    rows = sum(len(table.keys) for table in model.tables)
    ids = torch.from_numpy(draw(rows // 4 + 2, 307, 7).astype(np.int64))[:, None]
    model.token_nats(ids[:-1], model.start(1))
    lookup = model._lookup()
    assert lookup._index is None
    model.token_nats(ids[:2], model.start(1))
    assert lookup._index is not None
    assert rows * 16 < model.prepare() < rows * 64


@pytest.mark.parametrize(("events", "size", "order"), SHAPES)
def test_files(events: int, size: int, order: int, tmp_path: Path) -> None:
    model = fit(draw(events, size), size, order)
    model.tables[0].log10_prob[:2] = [-99.0, -1.5e-7]  # no decimals; an exponent
    write_arpa(model, tmp_path / "kernels.arpa")
    with numpy_only():
        write_arpa(model, tmp_path / "numpy.arpa")
    assert (tmp_path / "kernels.arpa").read_bytes() == (tmp_path / "numpy.arpa").read_bytes()


def test_a_token_longer_than_a_block_of_lines(tmp_path: Path) -> None:
    text = b"".join(native.arpa_lines([(np.arange(3), -np.ones(3, np.float32), np.zeros(3, np.float32))], 1,
                                      [b"a" * 3_000_000, b"b", b"<s>"]))  # fmt: skip
    assert text == b"-1.0\t" + b"a" * 3_000_000 + b"\t0\n-1.0\tb\t0\n-1.0\t<s>\t0\n"


def _sentences_run_on(ids: Ids) -> Ids:
    return np.where(ids == EOS, 3, ids)


def _first_place_lost(ids: Ids) -> Ids:
    return ids[1:]


def _rare_word_confused(ids: Ids) -> Ids:
    return np.where(ids == ids.max(), 2, ids)


@pytest.mark.parametrize("mistake", [_sentences_run_on, _first_place_lost, _rare_word_confused])
def test_mistakes_in_counting_are_caught(mistake: object) -> None:
    ids = draw(997, 20)
    assert callable(mistake)
    with numpy_only():
        expected = count(mistake(ids).astype(np.int32), 4, 20)
    with pytest.raises(AssertionError):
        require_same_counts(count(ids, 4, 20), expected)


@pytest.mark.parametrize(("prune", "strict"), [((0, 0, 2), False), ((0, 0, 0, 1), False), ((0, 0, 1), True)])
def test_mistakes_in_smoothing_are_caught(prune: tuple[int, ...], strict: bool) -> None:
    ids = draw(20011, 307)
    with numpy_only():
        expected = fit(ids, 307, 4, prune, strict)
        expected.details["settings"] = fit(ids, 307, 4, (0, 0, 1)).details["settings"]
    with pytest.raises(AssertionError):
        require_same_model(fit(ids, 307, 4, (0, 0, 1)), expected)


def test_a_discount_of_one_order_is_not_anothers() -> None:
    ids = draw(20011, 307)
    ngrams = native.Ngrams(ids, 2, 307)
    ngrams.adjust([0, 0])
    prob, backoff = ngrams.estimate(2, (0, 0.5, 1.0, 1.5), np.full(308, 0.01))
    other = native.Ngrams(ids, 2, 307)
    other.adjust([0, 0])
    prob2, backoff2 = other.estimate(2, (0, 0.5, 1.5, 1.0), np.full(308, 0.01))
    assert (prob != prob2).any()
    assert (backoff != backoff2).any()


def test_shapes_are_checked() -> None:
    ngrams = native.Ngrams(draw(53, 5), 2, 5)
    with pytest.raises(ValueError, match="cut-offs"):
        ngrams.adjust([0])
    ngrams.adjust([0, 0])
    with pytest.raises(ValueError, match="discounts"):
        ngrams.estimate(2, (0, 1), np.zeros(6))
    single = (np.arange(6), np.zeros(6, np.float32), np.zeros(6, np.float32))
    unsorted = (np.array([4, 2]), np.zeros(2, np.float32), np.zeros(0, np.float32))
    with pytest.raises(ValueError, match="not sorted"):
        native.Lookup([single, unsorted], 5)


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 257, 10_000, None])
@pytest.mark.parametrize(("size", "order"), [(307, 5), (20, 10), (41, 2), (5, 1)])
def test_a_text_read_in_place_scores_as_a_stream_does(
    size: int, order: int, chunk: int | None, indexed: bool
) -> None:
    """Wherever it is cut, on three threads, under either policy; the ids may be read-only."""
    model = fit(draw(20011, size), size, order, (0, 0, 1))
    ids = draw(2003 if chunk == 1 else 30011, size, 7)
    ids.flags.writeable = False
    nothing = np.zeros(0, dtype=np.int32)
    stream = torch.from_numpy(np.concatenate([[EOS], ids]))[:, None]
    with numpy_only():
        expected, _ = model.token_nats(stream, model.start(1))
        text = Text(ids[:60], nothing, nothing)
        uncompiled = np.concatenate(list(event_nats(model, text, chunk=chunk)))
    np.testing.assert_array_equal(uncompiled, expected[:60, 0].numpy())
    if indexed:
        model.prepare()
    for state in ("carry", "reset"):
        with threads(3):
            found = list(event_nats(model, Text(ids, nothing, nothing), state=state, chunk=chunk))
        np.testing.assert_array_equal(np.concatenate(found), expected[:, 0].numpy())


def test_a_history_that_begins_anew_in_the_middle() -> None:
    """-1 after words: what stands before it is forgotten."""
    model = fit(draw(20011, 20), 20, 5)
    ids = torch.from_numpy(draw(97, 20, 7).astype(np.int64))[:, None]
    ids[0] = -1
    state = (torch.tensor([[4, 3, 2, 5]]),)
    with numpy_only():
        expected, _ = model.token_nats(ids, state)
    searched, _ = model.token_nats(ids, state)
    model.prepare()
    indexed, _ = model.token_nats(ids, state)
    assert torch.equal(searched, expected)
    assert torch.equal(indexed, expected)


@pytest.mark.parametrize("wrong", [-1, 20])
def test_an_id_of_another_vocabulary_is_refused(wrong: int) -> None:
    model, nothing = fit(draw(997, 20), 20, 3), np.zeros(0, dtype=np.int32)
    text = Text(np.array([4, 3, wrong, 1], dtype=np.int32), nothing, nothing)
    with pytest.raises(ElmanError, match=f"token id {wrong} is outside the model's vocabulary of 20"):
        list(event_nats(model, text))
