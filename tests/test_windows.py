"""Windows against plain Python: every event once, each from its own past, the same whenever asked."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elman.errors import OptionError
from elman.text.windows import Window, carried_windows, sentence_windows
from training_example import make_text

EOS = 1


def equal(one: Window, other: Window) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(dataclasses.astuple(one), dataclasses.astuple(other), strict=True)
    )


@settings(max_examples=60, deadline=None)
@given(
    events=st.integers(45, 300),
    batch_size=st.integers(1, 11),
    interval=st.integers(1, 17),
    beyond=st.integers(0, 23),
)
def test_carried_windows_are_the_columns_cut_in_pieces(
    events: int, batch_size: int, interval: int, beyond: int
) -> None:
    text = make_text(events, events)
    windows = carried_windows(text, batch_size=batch_size, bptt=interval + beyond, update_interval=interval)
    column = events // batch_size
    stream = [EOS, *text.ids.tolist()]
    scored_events: list[int] = []
    place = 0  # where in its column the carried state stands
    for position, window in enumerate(windows):
        end = min(column, (position + 1) * interval)
        assert window.fresh == (position == 0)
        assert place == max(0, (position + 1) * interval - (interval + beyond))
        assert window.length == end - place
        assert window.scored == end - position * interval
        assert window.weights is None
        assert window.events == window.scored * batch_size
        for b in range(batch_size):
            first = b * column + place  # event number; its input is stream[first]
            assert window.ids[:, b].tolist() == stream[first : first + window.length + 1]
            scored_events += range(b * column + end - window.scored, b * column + end)
        assert 0 <= window.advance <= window.length
        place += window.advance
    assert sorted(scored_events) == list(range(batch_size * column))  # each event once, at most B-1 left
    assert windows.events == batch_size * column > events - batch_size
    if beyond == 0:
        assert all(window.advance == window.length == window.scored for window in windows)


def test_any_window_by_position_in_any_order() -> None:
    text = make_text(500, 4)
    for make in (
        lambda epoch: carried_windows(text, batch_size=7, bptt=11, random_length=True, seed=3, epoch=epoch),
        lambda epoch: sentence_windows(text, batch_size=7, max_length=11, seed=3, epoch=epoch),
    ):
        forward = list(make(2))
        again = make(2)
        for position in np.random.default_rng(1).permutation(len(forward)):
            assert equal(again[int(position)], forward[position])
        assert equal(again[0:2][1], forward[1])
        with pytest.raises(IndexError):
            again[len(forward)]
        other = list(make(3))
        assert [window.length for window in other] != [window.length for window in forward]


def test_the_text_may_be_memory_mapped_and_is_not_copied(tmp_path: object) -> None:
    class Counted(np.ndarray):  # type: ignore[type-arg]
        largest = 0

        def __getitem__(self, index: object) -> object:
            found = super().__getitem__(index)  # type: ignore[call-overload]
            Counted.largest = max(Counted.largest, np.size(found))
            return found

    text = make_text(5000, 4)
    text = dataclasses.replace(text, ids=text.ids.view(Counted))
    for window in carried_windows(text, batch_size=7, bptt=11):
        assert window.length
    assert 0 < Counted.largest <= 7 * 12


def test_random_lengths_follow_awd_lstm() -> None:
    """Mean .95·bptt + .05·bptt/2, standard deviation 5 around it, at least 5, all of it from the seed."""
    text, bptt = make_text(400_000, 1), 70
    windows = carried_windows(text, batch_size=1, bptt=bptt, random_length=True, seed=1, epoch=0)
    lengths = np.array([windows[position].length for position in range(len(windows) - 1)])
    near = np.abs(lengths - bptt) < 25
    share = near.mean()
    deviation = 4 * np.sqrt(0.95 * 0.05 / len(lengths))
    assert abs(share - 0.95) < deviation
    assert abs(lengths[near].mean() - (bptt - 0.5)) < 4 * 5 / np.sqrt(near.sum())  # whole numbers: half less
    assert abs(lengths[near].std() - 5) < 0.3
    assert abs(lengths[~near].mean() - (bptt / 2 - 0.5)) < 4 * 5 / np.sqrt((~near).sum())
    assert lengths.min() >= 5
    again = carried_windows(text, batch_size=1, bptt=bptt, random_length=True, seed=1, epoch=0)
    assert [w.length for w in again[:50]] == [w.length for w in windows[:50]]
    for seed, epoch in ((2, 0), (1, 1)):
        other = carried_windows(text, batch_size=1, bptt=bptt, random_length=True, seed=seed, epoch=epoch)
        assert [w.length for w in other[:50]] != [w.length for w in windows[:50]]


@settings(max_examples=60, deadline=None)
@given(
    events=st.integers(45, 400),
    batch_size=st.integers(1, 9),
    max_length=st.integers(1, 40),
    epoch=st.integers(0, 3),
)
def test_sentence_windows_hold_every_sentence_whole_and_once(
    events: int, batch_size: int, max_length: int, epoch: int
) -> None:
    text = make_text(events, events)
    windows = sentence_windows(text, batch_size=batch_size, max_length=max_length, epoch=epoch)
    found: list[tuple[int, ...]] = []
    columns: list[list[int]] = []
    for window in [*windows, None]:
        if window is None or window.fresh:
            found += [tuple(column) for column in columns]
            columns = [[] for _ in range(window.ids.shape[1])] if window else []
        if window is None:
            break
        assert window.weights is not None
        assert 1 <= window.length <= max_length
        assert window.advance == window.scored == window.length
        assert window.events == int(window.weights.sum()) > 0
        for b, column in enumerate(columns):
            inside = window.weights[:, b]
            assert torch.equal(inside, inside.cummin(0).values)  # padding only at the end
            if inside[0]:
                assert int(window.ids[0, b]) == (column[-1] if column else EOS)
            column += window.ids[1:, b][inside].tolist()
    ends = [-1, *text.ends.tolist()]
    sentences = [tuple(text.ids[a + 1 : b + 1].tolist()) for a, b in itertools.pairwise(ends)]
    assert sorted(found) == sorted(sentences)
    assert windows.events == events


def test_sentences_are_shuffled_and_little_padded() -> None:
    text = make_text(60_000, 9)
    one, other = (sentence_windows(text, batch_size=20, max_length=50, epoch=epoch) for epoch in (0, 1))
    firsts = [[tuple(w.ids[:, 0].tolist()) for w in windows[:20]] for windows in (one, other)]
    assert firsts[0] != firsts[1]
    cells = sum(window.ids[1:].numel() for window in one)
    assert one.events / cells > 0.9
    lengths = [window.length for window in one]
    assert abs(np.corrcoef(lengths[:-1], lengths[1:])[0, 1]) < 0.2  # short and long batches in no order


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0, "bptt": 5}, "each is at least 1"),
        ({"batch_size": 2, "bptt": 5, "update_interval": 6}, "update_interval=6 is longer than bptt=5"),
        ({"batch_size": 2, "bptt": 5, "update_interval": 3, "random_length": True}, "contradict"),
        ({"batch_size": 46, "bptt": 5}, "45 events, fewer than batch_size=46"),
    ],
)
def test_wrong_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        carried_windows(make_text(45, 1), **options)  # type: ignore[arg-type]
    with pytest.raises(OptionError):
        sentence_windows(make_text(45, 1), batch_size=3, max_length=0)
