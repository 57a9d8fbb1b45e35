"""Every numeric option of every verb has a range, and no number in it or outside is a traceback or a hang."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import pytest
import torch
from annotated_types import Ge, Interval, Lt
from cyclopts import App

from cli_example import save_two_models, write_text
from elman.cli import VERBS
from elman.cli.app import app
from elman.cli.ranges import Range, range_of
from elman.cli.train_options import read_options
from elman.errors import FormatError
from table_model import run_cli

for verb in VERBS:
    import_module(f"elman.cli.{verb}")

VALUES = ("nan", "inf", "-inf", "-1", "0", "1e30", "1e10", "0.5", "-0.5", "1" + "0" * 30, "1e400", "-0")
SECONDS = 60

SMALL = "--nhid 3 --emsize 3 --nlayers 1 --batch-size 2 --bptt 4 --max-steps 2 --epochs 1"
WORDS = "w3 w4 w5"
CALLS = {
    "data": "TEXT",
    "train": f"TEXT {SMALL}",
    "evaluate": "GRU TEXT",
    "ppl": "GRU TEXT",
    "compare": "a=GRU b=LSTM --text TEXT --no-report --bootstrap 20",
    "generate": "GRU --length 3",
    "sample": "GRU --length 3",
    "inspect": "GRU --neighbours NEAR",
    "memory": "GRU TEXT --events 20 --histories 1 2",
    "memory connectivity": "GRU NEAR",
    "memory units": "GRU TEXT NEAR",
    "trace": "GRU TEXT",
    "gradients": "GRU TEXT --lags 10 --passages 1 --losses 1 --spectra 0",
    "explore": "missing",
    "export": "GRU out",
    "bench": "--rows missing",
}
"""What each verb is called with besides the option in question: small, and quick."""
OTHERWISE = {
    "--window": "--model feedforward --nhid 3 --emsize 3 --batch-size 2 --bptt 4 --max-steps 2 --epochs 1",
    "--order": "--model ngram",
    "--prune": "--model ngram",
    "--add-k": "--model ngram --smoothing add-k",
    "--bpe-size": f"--tokenizer bpe {SMALL}",
    "--momentum": f"--optimizer sgd {SMALL}",
    "--length-penalty": "--length 3 --beam 2",
    "--beam": "--length 3",
}
DEMONSTRATION = ("--nhid", "--radii", "--inputs", "--gate-bias", "--clip", "--clip-value", "--seed")


def numeric() -> Iterator[tuple[str, str, Range | None]]:
    """Verb, option and range of every numeric option."""

    def walk(here: App, path: tuple[str, ...]) -> Iterator[tuple[str, str, Range | None]]:
        for name in (each for each in here if not each.startswith("-")):
            below = here[name]
            if below.default_command is not None:
                for argument in below.assemble_argument_collection():
                    limits = range_of(argument.field_info.annotation)
                    if limits is not None:
                        yield " ".join((*path, name)), argument.names[0], limits
            yield from walk(below, (*path, name))

    yield from walk(app, ())


OPTIONS = list(numeric())


def test_the_walk_finds_them() -> None:
    found = {(verb, option) for verb, option, _ in OPTIONS}
    assert len(found) > 80
    assert {
        ("explore", "--port"),
        ("train", "--lr"),
        ("train", "--prune"),
        ("memory units", "--layer"),
    } <= found
    assert {verb for verb, _ in found} <= set(CALLS)


@pytest.mark.parametrize(("verb", "option", "limits"), OPTIONS, ids=lambda each: str(each)[:24])
def test_each_has_a_range(verb: str, option: str, limits: Range) -> None:
    assert math.isfinite(limits.low), f"elman {verb} {option} has no smallest value"
    assert math.isfinite(limits.high), f"elman {verb} {option} has no largest value"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranges")
    save_two_models(folder, 1)
    write_text(folder / "text.txt")
    return folder


@pytest.fixture(autouse=True)
def bounded(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In a folder of its own, with its own threads, and not for ever."""

    def too_long(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"not at an end after {SECONDS} seconds")

    monkeypatch.chdir(place)
    threads, before = torch.get_num_threads(), signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    torch.set_num_threads(threads)


def call(verb: str, option: str, place: Path) -> list[str]:
    words = verb.split()
    rest = CALLS[verb]
    if option in OTHERWISE and verb in ("train", "generate", "sample"):
        rest = f"{rest.split()[0]} {OTHERWISE[option]}"
    if verb == "gradients" and option in DEMONSTRATION:
        rest = "--lags 10 --cells rnn --nhid 3 --radii 1 --inputs 0.1"
    known = {"GRU": place / "gru" / "run", "LSTM": place / "lstm" / "run", "TEXT": "text.txt"}
    known["NEAR"] = (place / "text.txt").read_text().split()[0]
    for name, stands_for in known.items():
        rest = rest.replace(name, str(stands_for))
    given = rest.split()
    if option in given:  # the one in question takes its place
        start = given.index(option)
        end = next((k for k in range(start + 1, len(given)) if given[k].startswith("--")), len(given))
        del given[start:end]
    return [*words, *given]


@pytest.mark.parametrize(("verb", "option", "limits"), OPTIONS, ids=lambda each: str(each)[:24])
def test_no_number_is_a_traceback(
    verb: str, option: str, limits: Range, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = call(verb, option, place)
    for value in VALUES:
        code = run_cli(*base, option, value)  # anything but a clean exit fails here
        told = capsys.readouterr()
        assert "Traceback" not in told.err + told.out
        number = float(value)
        fits = limits.low <= number <= limits.high and (number.is_integer() or not limits.whole)
        if not fits:
            assert code == 2, f"{verb} {option} {value}: exit status {code}"
            assert f"{option} {value} is " in told.err, told.err
            assert "Remedy: give a" in told.err
        assert code in (0, 2), told.err


@pytest.mark.parametrize("verb", [verb for verb in CALLS if verb not in ("explore", "export", "bench")])
def test_each_verb_runs_as_it_is_called_here(
    verb: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(*call(verb, "", place)) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("annotation", "shown"),
    [
        (Annotated[int, Interval(ge=0, le=65_535)], "a whole number from 0 to 65,535"),
        (Annotated[float, Interval(gt=0, lt=1)] | None, "a number above 0, below 1"),
        (tuple[Annotated[int, Ge(2), Lt(9)], ...], "a whole number from 2, below 9"),
        (str | None, "None"),
        (bool, "None"),
    ],
)
def test_a_range_in_words(annotation: Any, shown: str) -> None:
    assert str(range_of(annotation)) == shown


def test_its_ends_belong_to_it_or_do_not() -> None:
    limits = range_of(Annotated[float, Interval(gt=0, le=1)])
    assert limits is not None
    assert [limits.holds(value) for value in (0, 1e-9, 1, 1.001, math.nan)] == [
        False,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("name", ["options.toml", "options.json"])
def test_options_nested_without_end(name: str, tmp_path: Path) -> None:
    depth = 50_000
    text = "[" * depth + "]" * depth
    (tmp_path / name).write_text(f"a = {text}\n" if name.endswith("toml") else text)
    with pytest.raises(FormatError, match="options"):
        read_options(tmp_path / name)
