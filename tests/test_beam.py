"""Beam search against the enumeration of every continuation of a tiny vocabulary."""

from __future__ import annotations

import itertools
import math

import pytest

from elman.beam import BeamSettings, Hypothesis, beam_search, search
from elman.errors import OptionError
from elman.generate import GenerationSettings, read_prompt, samples
from table_model import TableModel, close, oracle

MODEL = TableModel(["a", "b", "c"], seed=12)
V = len(MODEL.vocabulary)


def everything(
    prompt: list[int], length: int, penalty: float, allow_unknown: bool
) -> list[tuple[float, tuple[int, ...]]]:
    """(score, ids) of every continuation that ends in `</s>` or has `length` tokens, best first."""
    others = [token for token in range(V) if token != 1 and (allow_unknown or token != 0)]
    bodies = [body for n in range(length + 1) for body in itertools.product(others, repeat=n)]
    ended = [(*body, 1) for body in bodies if len(body) < length]
    found = []
    for ids in [*ended, *(body for body in bodies if len(body) == length)]:
        nats = math.fsum(oracle(MODEL, [*prompt, *ids], carry=True)[len(prompt) :])
        found.append((-nats / len(ids) ** penalty, ids))
    return sorted(found, key=lambda pair: (-pair[0], pair[1]))


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("prompt", ["", "b", "a c"])
@pytest.mark.parametrize("allow_unknown", [False, True])
def test_a_wide_beam_finds_the_best_of_all(penalty: float, prompt: str, allow_unknown: bool) -> None:
    length = 4
    read = read_prompt(MODEL, prompt)
    expected = everything(list(read.ids), length, penalty, allow_unknown)
    settings = BeamSettings(
        beam=V**length, best=12, length=length, length_penalty=penalty, allow_unknown=allow_unknown
    )
    found = search(MODEL, read, settings)
    assert [each.ids for each in found] == [ids for _, ids in expected[:12]]
    for each, (score, ids) in zip(found, expected, strict=False):
        assert close(each.score, score)
        assert each.finished == (ids[-1] == 1)
        assert close(-math.fsum(each.nats) / len(ids) ** penalty, score)


def textbook(prompt: list[int], settings: BeamSettings) -> list[tuple[float, tuple[int, ...]]]:
    """Beam search once more, with lists and a sort, scoring each prefix afresh."""

    def nats(ids: tuple[int, ...]) -> float:
        return math.fsum(oracle(MODEL, [*prompt, *ids], carry=True)[len(prompt) :])

    live: list[tuple[int, ...]] = [()]
    done: list[tuple[int, ...]] = []
    for _ in range(settings.length):
        done += [(*ids, 1) for ids in live]
        longer = [(*ids, token) for ids in live for token in range(2, V)]
        live = sorted(longer, key=lambda ids: (nats(ids), ids))[: settings.beam]
    ranked = [(-nats(ids) / len(ids) ** settings.length_penalty, ids) for ids in (*done, *live)]
    return sorted(ranked, key=lambda pair: (-pair[0], pair[1]))[: settings.best]


@pytest.mark.parametrize("beam", [1, 2, 3, 5])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_narrow_beam_is_the_textbooks(beam: int, penalty: float) -> None:
    for prompt in ("", "a", "c b"):
        settings = BeamSettings(beam=beam, best=min(beam, 2), length=9, length_penalty=penalty)
        read = read_prompt(MODEL, prompt)
        found = search(MODEL, read, settings)
        assert [each.ids for each in found] == [ids for _, ids in textbook(list(read.ids), settings)]


def test_a_length_penalty_prefers_longer_texts() -> None:
    def mean_length(penalty: float) -> float:
        found: list[Hypothesis] = []
        for prompt in ("", "a", "b", "c", "a b", "b a"):
            settings = BeamSettings(beam=40, length=6, length_penalty=penalty)
            found += search(MODEL, read_prompt(MODEL, prompt), settings)
        return sum(len(each.ids) for each in found) / len(found)

    assert mean_length(0.0) < mean_length(1.0) <= mean_length(3.0)


def test_texts_come_with_the_models_nats_best_first() -> None:
    found = beam_search(MODEL, "a b", BeamSettings(beam=6, best=4, length=5))
    assert [sample.nats for sample in found] == sorted(sample.nats for sample in found)
    for sample in found:
        assert sample.text.startswith("a b")
        ids = [MODEL.vocabulary.id(token) for token in ("a", "b", *sample.tokens)]
        assert close(sample.nats, math.fsum(oracle(MODEL, ids, carry=True)[2:]))


def test_no_sample_is_more_probable_than_the_best_of_a_full_beam() -> None:
    (best,) = beam_search(MODEL, "a", BeamSettings(beam=3**5, length=5))
    for sample in samples(MODEL, "a", GenerationSettings(lines=1, length=5), count=200):
        assert sample.nats >= best.nats - 1e-12


def test_unknown_is_left_out_unless_allowed() -> None:
    wide = BeamSettings(beam=200, best=200, length=4)
    assert not any("<unk>" in sample.tokens for sample in beam_search(MODEL, "", wide))
    allowed = BeamSettings(beam=200, best=200, length=4, allow_unknown=True)
    assert any("<unk>" in sample.tokens for sample in beam_search(MODEL, "", allowed))


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"beam": 0}, "--beam 0 keeps"),
        ({"length": 0}, "--length 0 is below"),
        ({"beam": 3, "best": 4}, "beam of 3 cannot return 4"),
        ({"best": 0}, "cannot return 0"),
        ({"length_penalty": -1.0}, "--length-penalty -1 is not"),
        ({"length_penalty": math.nan}, "--length-penalty nan is not"),
    ],
)
def test_settings_out_of_range_are_told(options: dict[str, float], cause: str) -> None:
    with pytest.raises(OptionError, match=cause):
        BeamSettings(**options)  # type: ignore[arg-type]
