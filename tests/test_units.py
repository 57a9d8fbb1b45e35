"""Which units stay on and where else: against plain Python loops over the definition, and planted units."""

from __future__ import annotations

import json

import numpy as np
import pytest

import elman.memory.units as units_module
from elman.errors import ElmanError, OptionError, TextError
from elman.memory.state_index import StateIndex, index_states, states_over
from elman.memory.units import Match, Unit, matches, similar, stays_on
from elman.text.corpus import Text
from memory_oracle import TEXT, expected, recurrent
from neural_oracle import vocabulary
from table_model import TableModel, random_text

N, H = 300, 11
LEVEL = 0.5


def wandering(seed: int, n: int = N) -> np.ndarray:
    """[n, H] values that stay for a while: smoothed noise, both signs, every unit with its own mean."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((n + 6, H))
    smooth = np.array([noise[k : k + 7].mean(axis=0) for k in range(n)])
    return 1.6 * smooth + random.uniform(-0.4, 0.4, H)


def index(values: np.ndarray) -> StateIndex:
    ids = np.random.default_rng(1).integers(0, 17, len(values)).astype(np.int32)
    return StateIndex(1, "h", np.ascontiguousarray(values.T.astype(np.float16)), ids, vocabulary(17))


def on(value: float, sign: int, level: float = LEVEL) -> bool:
    return sign * float(value) >= level


def by_loops(
    values: np.ndarray, units: list[Unit], shortest: int, limit: int
) -> list[tuple[int, int, int, int]]:
    """(units on throughout, others, start, end), best first and apart, from the definition, one at a time."""
    lit = [[on(row[u.unit], u.sign) for u in units] for row in values]
    stretches = set()
    for k in range(1, len(units) + 1):
        start = None
        for place, row in enumerate([*lit, [False]]):
            if sum(row) >= k:
                start = place if start is None else start
            elif start is not None:
                if place - start >= shortest:
                    stretches.add((start, place))
                start = None
    ranked = []
    for start, end in stretches:
        together = sum(all(lit[t][u] for t in range(start, end)) for u in range(len(units)))
        everyone = sum(
            any(all(on(values[t, u], sign) for t in range(start, end)) for sign in (1, -1)) for u in range(H)
        )
        if together:
            ranked.append((-together, everyone - together, start - end, start, end))
    chosen: list[tuple[int, int, int, int]] = []
    for together, others, _, start, end in sorted(ranked):
        if len(chosen) < limit and all(end <= s or e <= start for _, _, s, e in chosen):
            chosen.append((-together, others, start, end))
    return chosen


def agrees(seed: int) -> bool:
    values = wandering(seed).astype(np.float16).astype(np.float64)
    random = np.random.default_rng(seed)
    units = [Unit(int(u), int(random.choice([-1, 1])), 0.0, 0) for u in random.permutation(H)[: 2 + seed % 5]]
    shortest = 1 + seed % 3
    found = matches(index(values), units, LEVEL, shortest=shortest, limit=9)
    got = [(round(m.score * len(units)), m.others, m.start, m.end) for m in found]
    return len(got) > 3 and got == by_loops(values, units, shortest, 9)


@pytest.mark.parametrize("seed", range(12))
def test_matches_are_those_of_the_definition(seed: int) -> None:
    assert agrees(seed)


def one_early(on: np.ndarray, shortest: int) -> np.ndarray:
    return (STRETCHES(on, shortest) - np.array([1, 0])).clip(0)


def too_short(on: np.ndarray, shortest: int) -> np.ndarray:
    return STRETCHES(on, 1)


def all_at_once(on: np.ndarray, shortest: int) -> np.ndarray:
    return STRETCHES(on.all(axis=0, keepdims=True), shortest)


def without_sign(index: StateIndex, units: list[Unit], threshold: float) -> np.ndarray:
    return np.abs(index.values[[u.unit for u in units]]) >= threshold


def others_ignored(*_: object) -> int:
    return H


STRETCHES = units_module._stretches


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("_stretches", one_early),
        ("_stretches", too_short),
        ("_stretches", all_at_once),
        ("_on", without_sign),
        ("_throughout", others_ignored),
    ],
)
def test_known_wrong_versions_are_caught(name: str, wrong: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units_module, name, wrong)
    assert not all(agrees(seed) for seed in range(12))


def test_stays_on_says_which_how_strongly_and_where_they_switch() -> None:
    states = np.full((9, 6), 0.1)
    states[3:6, 0] = [0.6, 0.7, 0.8]  # on here alone
    states[2:6, 1] = -0.9  # on before, too
    states[:, 2] = 0.95  # always
    states[3:6, 3] = [0.9, 0.4, 0.9]  # flickers
    states[3:6, 4] = [0.9, -0.9, 0.9]  # changes its sign
    states[3:6, 5], states[2, 5] = 0.55, -0.9  # on before with the other sign: a switch
    found = stays_on(states, 3, 6, 0.5)
    assert [(u.unit, u.sign, round(u.mean, 9), u.edges) for u in found] == [
        (0, 1, 0.7, 2),
        (5, 1, 0.55, 2),
        (1, -1, -0.9, 1),
        (2, 1, 0.95, 0),
    ]
    whole = stays_on(states, 0, 9, 0.5)
    assert [(u.unit, u.edges) for u in whole] == [(2, 2)]  # off outside the text
    assert stays_on(states, 3, 6, 0.96) == []


def test_planted_units_are_found_with_their_words() -> None:
    values = 0.2 * wandering(3)
    values[40:45, [2, 7, 9]] = [0.8, -0.8, 0.7]
    values[200:203, [2, 7, 9]] = [0.6, -0.9, 0.9]
    values[297:300, [2, 9]] = 0.9  # at the end of the text, and not all
    values[0:4, [2, 7]] = 0.9  # 7 on the wrong side of zero
    states = 0.1 * wandering(4, 20)
    states[6:9, [2, 7, 9]] = [0.9, -0.7, 0.6]
    where = index(values)
    told = similar(where, states, 6, 9, LEVEL)
    assert [(u["unit"], u["sign"], u["mean"]) for u in told["units"]] == [
        (2, 1, 0.9),
        (7, -1, -0.7),
        (9, 1, 0.6),
    ]
    assert {key: told[key] for key in ("layer", "part", "threshold", "first", "last", "common")} == {
        "layer": 1,
        "part": "h",
        "threshold": LEVEL,
        "first": 6,
        "last": 9,
        "common": 0,
    }
    shown = told["matches"]
    assert [(m["score"], m["start"], m["end"]) for m in shown] == [
        (1.0, 40, 45),
        (1.0, 200, 203),
        (0.6667, 297, 300),
        (0.3333, 0, 4),
    ]
    words = [where.vocabulary.tokens[k] for k in where.ids]
    assert [m["tokens"] for m in shown] == [words[35:50], words[195:208], words[292:300], words[0:9]]
    assert [(m["from"], m["to"]) for m in shown] == [(5, 10), (5, 8), (5, 8), (0, 4)]
    assert json.loads(json.dumps(told)) == told


def test_units_that_are_nearly_always_on_are_left_out() -> None:
    values = 0.2 * wandering(3)
    values[:200, 4] = 0.9  # at 2 of 3 tokens
    values[50:60, 5] = 0.9
    states = np.zeros((5, H))
    states[1:4, [4, 5]] = 0.8
    told = similar(index(values), states, 1, 4, LEVEL)
    assert [u["unit"] for u in told["units"]] == [5]
    assert told["common"] == 1
    assert told["matches"][0]["start"] == 50
    states[:, 5] = 0
    told = similar(index(values), states, 1, 4, LEVEL)
    assert ([u["unit"] for u in told["units"]], told["common"]) == ([4], 0)  # better than nothing
    states[:] = 0
    told = similar(index(values), states, 1, 4, LEVEL)
    assert (told["units"], told["matches"], told["common"]) == ([], [], 0)


def test_thresholds_that_float16_has_not() -> None:
    """Beyond its largest number, below its smallest, and between two: on is what reaches the threshold."""
    values, unit = np.zeros((6, H)), [Unit(0, -1, 0.0, 0)]
    values[:, 0] = -np.array([0.0, 1e-7, 0.5, 0.50048828125, 3e4, 65504])
    for level, expected_on in ((1e5, 0), (65504, 1), (0.5001, 3), (0.5, 4), (1e-8, 5)):
        assert units_module._on(index(values), unit, level).sum() == expected_on, level


def test_one_token_may_match_one_token() -> None:
    values, states = 0.2 * wandering(3), np.zeros((5, H))
    values[77, 3] = values[90:92, 3] = 0.9
    states[2:4, 3] = 0.9
    assert [m["start"] for m in similar(index(values), states, 2, 3, LEVEL)["matches"]] == [90, 77]
    assert [m["start"] for m in similar(index(values), states, 2, 4, LEVEL)["matches"]] == [90]


def test_the_index_is_the_oracles_states_and_its_threshold_a_quarter() -> None:
    for cell in ("gru", "lstm"):
        model = recurrent(cell)
        for state in ("carry", "reset"):
            wanted = expected(model, state, np.append(TEXT.ids, 1))
            for layer in (1, 2):
                for part in ("h", "c") if cell == "lstm" else "h":
                    made = index_states(model, TEXT, layer, part, state=state)
                    exact = wanted[layer - 1, part][1:].T  # what predicts the next token has read this one
                    assert made.values.dtype == np.float16
                    assert np.allclose(made.values, exact, rtol=2**-10, atol=1e-6)
                    level = made.default_threshold()
                    assert (np.abs(exact) >= level).mean() == pytest.approx(0.25, abs=0.03)
    few = index_states(model, TEXT, tokens=20)
    assert few.values.shape == (7, 20)
    assert np.array_equal(few.ids, TEXT.ids[:20])
    seen: list[tuple[int, int]] = []
    index_states(model, TEXT, progress=lambda done, work: seen.append((done, work)))
    assert seen[-1] == (len(TEXT.ids), len(TEXT.ids))


def test_a_selection_finds_itself_in_its_own_text() -> None:
    model = recurrent("lstm")
    text = random_text(17, (30,) * 9)
    made, states = index_states(model, text, 2, "c"), states_over(model, text.ids, 2, "c")
    told = similar(made, states, 100, 103)
    best = told["matches"][0]
    assert best["score"] == 1.0
    assert any(m["start"] <= 100 and m["end"] >= 103 for m in told["matches"] if m["score"] == 1.0)


def test_values_beyond_float16_are_kept_at_its_end() -> None:
    model = recurrent("rnn-relu")
    with np.errstate(all="raise"):
        model.embedding.weight.data.mul_(1e9)
        made = index_states(model, TEXT)
    assert float(made.values.max()) == 65504
    model.embedding.weight.data.fill_(float("nan"))
    with pytest.raises(ElmanError, match="not finite"):
        index_states(model, TEXT)


def test_refusals() -> None:
    states = wandering(2, 8)
    for first, last in ((-1, 2), (3, 3), (5, 4), (6, 9)):
        with pytest.raises(OptionError, match="no stretch of a text of 8 tokens"):
            stays_on(states, first, last, LEVEL)
    for level in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="switches no unit"):
            stays_on(states, 1, 2, level)
    for layer, part in ((3, "h"), (0, "h"), (1, "c"), (1, "x")):
        with pytest.raises(OptionError, match="no state"):
            index_states(recurrent("gru"), TEXT, layer, part)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="no gates and no gradients"):
        index_states(TableModel(["a"]), TEXT)
    nothing = np.zeros(0, dtype=np.int32)
    with pytest.raises(TextError, match="empty"):
        index_states(recurrent("gru"), Text(nothing, nothing, nothing))


def test_a_match_as_the_page_reads_it() -> None:
    told = Match(5 / 6, 1203, 1209, 4, ("of", "the"), 5, 11).as_json()
    assert told == {
        "score": 0.8333,
        "start": 1203,
        "end": 1209,
        "tokens": ["of", "the"],
        "from": 5,
        "to": 11,
    }
