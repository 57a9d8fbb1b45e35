"""`elman generate`: what generate(), samples() and beam_search() give, and what bad input is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import elman.cli.generate  # noqa: F401
from elman.beam import BeamSettings, beam_search
from elman.checkpoint import load_model
from elman.generate import GenerationSettings, samples
from table_model import run_cli, save_small_models


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate")
    save_small_models(folder)
    return folder


@pytest.fixture(autouse=True)
def _inside(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(room)


@pytest.mark.parametrize("model", ["words", "letters", "prose"])
def test_the_text_is_that_of_samples(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = GenerationSettings(length=25, temperature=0.8, top_k=5, top_p=0.9, seed=6)
    (sample,) = samples(load_model(model), "the cat", settings)
    arguments = ("--length", "25", "--temperature", "0.8", "--top-k", "5", "--top-p", "0.9", "--seed", "6")
    for verb in ("generate", "sample"):
        assert run_cli(verb, model, "--prompt", "the cat", *arguments) == 0
        out, err = capsys.readouterr()
        assert out == sample.text + ("" if sample.text.endswith("\n") else "\n")
        assert err == ""


def test_the_seed_decides(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for seed in ("3", "3", "4"):
        assert run_cli("generate", "words", "--seed", seed, "--length", "40") == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_lines_are_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("generate", "words", "--lines", "1", "-n", "5") == 0
    expected = samples(load_model("words"), "", GenerationSettings(lines=1), 5)
    assert capsys.readouterr().out == "".join(sample.text for sample in expected)


def test_json_holds_every_sample(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("generate", "words", "-n", "3", "--length", "7", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    expected = samples(load_model("words"), "", GenerationSettings(length=7), 3)
    assert [each["text"] for each in document["samples"]] == [sample.text for sample in expected]
    assert all(len(each["tokens"]) == 7 for each in document["samples"])


def test_beam_prints_the_best_with_their_log_probabilities(capsys: pytest.CaptureFixture[str]) -> None:
    settings = BeamSettings(beam=4, best=3, length=6, length_penalty=1.0)
    found = beam_search(load_model("words"), "the", settings)
    arguments = ("--prompt", "the", "--length", "6", "--length-penalty", "1", "--beam", "4")
    assert run_cli("generate", "words", *arguments, "-n", "3") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{-sample.nats:.4f}\t{sample.text.rstrip()}" for sample in found
    ]
    assert run_cli("generate", "words", *arguments) == 0
    assert capsys.readouterr().out == found[0].text.rstrip() + "\n"


def test_unknown_words_of_the_prompt_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("generate", "words", "--prompt", "the zebra ran", "--length", "1") == 0
    out, err = capsys.readouterr()
    assert "does not know zebra, ran" in err
    assert out.startswith("the zebra ran")


def test_unknown_is_generated_when_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("generate", "words", "--length", "300") == 0
    assert "<unk>" not in capsys.readouterr().out
    assert run_cli("generate", "words", "--length", "300", "--allow-unknown") == 0
    assert "<unk>" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("missing",), "missing does not exist"),
        ((), "requires an argument"),
        (("words", "--temperature", "-1"), "--temperature -1 is out of range"),
        (("words", "--temperature", "warm"), "Invalid value"),
        (("words", "--top-p", "0"), "--top-p 0 is out of range"),
        (("words", "--top-p", "1.5"), "--top-p 1.5 is out of range"),
        (("words", "--top-k", "0"), "--top-k 0 is out of range"),
        (("words", "--length", "0"), "--length 0 is out of range"),
        (("words", "--lines", "0"), "--lines 0 is out of range"),
        (("words", "--seed", "-4"), "--seed -4 is out of range"),
        (("words", "-n", "0"), "-n 0 is out of range"),
        (("words", "--beam", "0"), "--beam 0 is out of range"),
        (("words", "--beam", "2", "-n", "3"), "a beam of 2 cannot return 3"),
        (("words", "--beam", "2", "--temperature", "0.5"), "--beam cannot be combined"),
        (("words", "--beam", "2", "--lines", "4"), "--beam ends with the sentence"),
        (("words", "--length-penalty", "1"), "is an option of beam search"),
        (("words", "--prompt", "the </s> cat"), "</s> is a mark of Elman's own"),
        (("words", "--tempreature", "1"), "Did you mean --temperature"),
    ],
)
def test_bad_input_is_told(arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("generate", *arguments) == 2
    out, err = capsys.readouterr()
    assert told in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    assert out == ""
