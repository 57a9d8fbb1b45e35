"""Nats of every event against a plain-Python oracle; no cut of the work changes them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

import elman.event_nats as events
from elman.errors import ElmanError, OptionError, TextError
from elman.event_nats import evaluating, event_nats
from elman.language_model import State
from elman.text.corpus import Text, encode_string
from table_model import TableModel, oracle, random_text

WORDS = [f"w{k}" for k in range(23)]
LENGTHS = (5, 0, 17, 1, 300, 2, 9, 64, 65, 0, 33, 3, 128, 7)  # some end on a window's edge, some are empty
MODEL = TableModel(WORDS)
TEXT = random_text(len(MODEL.vocabulary), LENGTHS)


def nats_of(text: Text = TEXT, model: TableModel = MODEL, **options: object) -> np.ndarray:
    return np.concatenate(list(event_nats(model, text, **options)))  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ["carry", "reset"])
def test_each_event_is_the_oracles(state: str) -> None:
    expected = oracle(MODEL, TEXT.ids, carry=state == "carry")
    found = nats_of(state=state)
    assert found.dtype == np.float64
    assert found.tolist() == expected  # the same float64 numbers, added to nothing


def test_carry_and_reset_differ_after_the_first_sentence_only() -> None:
    carried, reset = nats_of(state="carry"), nats_of(state="reset")
    first = int(TEXT.ends[0]) + 1
    assert np.array_equal(carried[:first], reset[:first])
    assert not np.isclose(carried[first:], reset[first:]).any()


@pytest.mark.parametrize("state", ["carry", "reset"])
@pytest.mark.parametrize("batch_size", [1, 7, 32])
@pytest.mark.parametrize("chunk", [None, 1, 2, 13, 64, 10_000])
def test_no_cut_of_the_work_changes_a_number(state: str, batch_size: int, chunk: int | None) -> None:
    assert np.array_equal(nats_of(state=state, batch_size=batch_size, chunk=chunk), nats_of(state=state))


@pytest.mark.parametrize("block", [1, 3, 19, 66, 301, 302, 700])
def test_no_block_size_changes_a_number(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = oracle(MODEL, TEXT.ids, carry=False)
    monkeypatch.setattr(events, "BLOCK", block)  # also sentences longer than a block
    monkeypatch.setattr(events, "CHUNK", 11)
    for batch_size in (1, 4):
        assert nats_of(state="reset", batch_size=batch_size).tolist() == expected


@pytest.mark.parametrize("block", [4, 1000])
def test_a_tail_without_end_of_sentence_counts(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "BLOCK", block)
    ids = np.concatenate([TEXT.ids[:30], [5, 6, 7, 4, 3, 8]]).astype(np.int32)
    text = Text(ids=ids, words=np.array([36], np.int32), bytes=np.array([200], np.int32))
    assert nats_of(text, state="reset").tolist() == oracle(MODEL, ids, carry=False)


def test_parts_of_a_text_make_up_the_whole_when_the_state_is_reset() -> None:
    pieces = [nats_of(TEXT.part(a, b), state="reset") for a, b in itertools.pairwise((0, 1, 6, 7, 14))]
    assert np.array_equal(np.concatenate(pieces), nats_of(state="reset"))


def test_chunks_come_in_text_order_and_progress_counts_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    chunks = list(event_nats(MODEL, TEXT, chunk=100, progress=lambda done, whole: seen.append((done, whole))))
    assert [len(chunk) for chunk in chunks[:-1]] == [100] * (len(chunks) - 1)
    assert seen == [(min(100 * k, TEXT.events), TEXT.events) for k in range(1, len(chunks) + 1)]


def test_a_long_sentence_does_not_blow_up_the_padding() -> None:
    """31 short sentences beside one of 20,000: work stays within the events and one window a lane."""
    text = random_text(len(MODEL.vocabulary), [5] * 31 + [20_000])
    MODEL.calls.clear()
    nats_of(text, state="reset")
    assert sum(steps * streams for steps, streams in MODEL.calls) <= text.events + 31 * events.WINDOW


# Known wrong evaluations, each of which must differ from the oracle by more than rounding.

Evaluation = Callable[[], np.ndarray]


def _first_token_skipped() -> np.ndarray:
    return nats_of()[1:]


def _tail_dropped() -> np.ndarray:
    rows = TEXT.events // 10
    return nats_of()[: rows * 10]


class _StateNotReset(TableModel):
    """Sentences follow one another in the lane although each should start afresh."""

    kept: State | None = None

    def start(self, batch: int) -> State:
        return super().start(batch) if self.kept is None or batch != 1 else self.kept

    def token_nats(self, ids: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        nats, self.kept = super().token_nats(ids, state)
        return nats, self.kept


def _state_not_reset() -> np.ndarray:
    return nats_of(model=_StateNotReset(WORDS), state="reset", batch_size=1)


class _PaddingLeaks(TableModel):
    """Lane 0's continuation reads what the other lanes were padded with."""

    def token_nats(self, ids: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        nats, state = super().token_nats(ids, state)
        return nats.roll(1, 1), state


def _padding_leaks() -> np.ndarray:
    return nats_of(model=_PaddingLeaks(WORDS), state="reset", batch_size=3)


def _starts_with_the_first_token() -> np.ndarray:
    ids = torch.from_numpy(np.concatenate([TEXT.ids[:1], TEXT.ids]).astype(np.int64))[:, None]
    return MODEL.token_nats(ids, MODEL.start(1))[0][:, 0].numpy()


@pytest.mark.parametrize(
    ("wrong", "carry"),
    [
        (_first_token_skipped, True),
        (_tail_dropped, True),
        (_state_not_reset, False),
        (_padding_leaks, False),
        (_starts_with_the_first_token, True),
    ],
)
def test_known_wrong_evaluations_are_caught(wrong: Evaluation, carry: bool) -> None:
    expected = oracle(MODEL, TEXT.ids, carry=carry)
    found = wrong().tolist()
    assert found != expected
    assert abs(sum(found) - sum(expected)) > 1e-3 * sum(expected) or len(found) != len(expected)


class Noisy(torch.nn.Module, TableModel):
    """A module whose dropout would show; one part is frozen in evaluation mode on purpose."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        TableModel.__init__(self, WORDS)
        self.dropout = torch.nn.Dropout(0.5)
        self.frozen = torch.nn.Dropout(0.5).eval()
        self.weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))

    def token_nats(self, ids: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        nats, state = TableModel.token_nats(self, ids, state)
        return self.dropout(nats) * self.weight, state


def test_dropout_is_off_and_every_mode_comes_back() -> None:
    model = Noisy().train()
    model.frozen.eval()
    chunks = event_nats(model, TEXT, chunk=50)
    first = next(chunks)
    assert model.training  # also between chunks, where the caller may train
    assert model.dropout.training
    assert not model.frozen.training
    assert torch.is_grad_enabled()
    assert np.concatenate([first, *chunks]).tolist() == oracle(MODEL, TEXT.ids, carry=True)


def test_modes_come_back_after_an_error_and_inside_a_mixture() -> None:
    part = Noisy().train()
    mixed = TableModel(WORDS)
    mixed.models = (part, TableModel(WORDS))  # type: ignore[attr-defined]
    modes = []

    def fail() -> None:
        with evaluating(mixed):
            modes.append(part.training)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert modes == [False]
    assert part.training


def test_bad_input_is_told() -> None:
    with pytest.raises(TextError, match="empty"):
        nats_of(random_text(5, []))
    with pytest.raises(OptionError, match="batch size 0"):
        nats_of(batch_size=0)
    with pytest.raises(OptionError, match="chunk -3"):
        nats_of(chunk=-3)
    with pytest.raises(OptionError, match="'forget'"):
        nats_of(state="forget")
    with pytest.raises(ElmanError, match=r"outside the model's vocabulary of 25.*\n.*another vocabulary"):
        nats_of(random_text(60, [9, 30]))


def test_nan_is_told() -> None:
    model = TableModel(WORDS)
    model.table[:] = float("nan")
    with pytest.raises(ElmanError, match=r"NaN"):
        nats_of(model=model)


def test_alike_sentences_run_once() -> None:
    model = TableModel(["a", "b"])
    text = encode_string("a b\n" + "\n" * 5000 + "b\na b\n\nb a b\n", model.tokenizer, model.vocabulary)
    found = np.concatenate(list(event_nats(model, text, state="reset")))
    assert found.tolist() == oracle(model, text.ids.tolist(), carry=False)
    assert sum(streams for _, streams in model.calls) == 4
