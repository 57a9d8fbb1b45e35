"""The line-up: a table that holds together, one model after the other, nothing done twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from elman.compare import contest, lineup
from elman.compare.assembly import assemble, candidate_of, subject_of
from elman.compare.comparison import Repeat
from elman.compare.contest import Begun, Finished, Settings, Working
from elman.compare.lineup import BASELINE, PRESETS, Spec, choose
from elman.compare.outcome import Outcome, load_outcome
from elman.errors import ElmanError, FormatError, OptionError
from elman.evaluate import event_nats
from elman.language_model import Protocol
from elman.neural.feedforward import FeedforwardConfig
from elman.neural.recurrent import RecurrentConfig
from elman.text.corpus import Corpus, load_corpus
from elman.training.config import parse_train_config
from tolerance import tolerance

TRAINING = {"optimizer": "adam", "lr": 5e-3, "epochs": 2, "batch_size": 16, "bptt": 9}
SIZES = {"embedding_size": 7, "hidden_size": 7, "dropout": 0.2}
TINY = (
    Spec("unigram", "Unigram", "ngram", {"smoothing": "kneser-ney", "order": 1}),
    Spec("addk2", "Bigram, add-k", "ngram", {"smoothing": "add-k", "order": 2, "k": 0.05}),
    Spec("kn5", "Kneser-Ney 3", "ngram", {"smoothing": "kneser-ney", "order": 3}),
    Spec("feedforward", "Feed-forward", "feedforward", {**SIZES, "window": 3}, TRAINING),
    Spec("lstm", "LSTM", "recurrent", {"cell": "lstm", "num_layers": 1, **SIZES}, TRAINING),
    Spec("lstm-kn5", "LSTM + Kneser-Ney", "mixture", parts=("lstm", "kn5")),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A slice of the standard library's text, small enough to train on in a moment."""
    whole = load_corpus("pydoc", cache=tmp_path_factory.mktemp("cache"))
    return replace(
        whole, train=whole.train.part(0, 120), valid=whole.valid.part(0, 23), test=whole.test.part(0, 37)
    )


def finished(corpus: Corpus, specs: tuple[Spec, ...], **settings: object) -> dict[str, Outcome]:
    events = contest.run(corpus, specs, Settings(**settings))  # type: ignore[arg-type]
    return {event.outcome.spec.name: event.outcome for event in events if isinstance(event, Finished)}


@pytest.fixture(scope="module")
def outcomes(corpus: Corpus) -> dict[str, Outcome]:
    return finished(corpus, TINY)


# -- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_holds_together(preset: str) -> None:
    specs = choose(preset)
    names = [spec.name for spec in specs]
    assert len(set(names)) == len(names)
    assert BASELINE in names
    assert names[0] == "unigram"
    for position, spec in enumerate(specs):
        if spec.kind == "feedforward":
            FeedforwardConfig(**spec.options)
        elif spec.kind == "recurrent":
            RecurrentConfig(**spec.options)
        elif spec.kind == "ngram":
            assert 1 <= spec.options["order"] <= 10
        assert set(spec.parts) <= set(names[:position]), "a mixture stands after its parts"
        assert bool(spec.parts) == (spec.kind == "mixture")
        if spec.training:
            parse_train_config({**spec.training, "precision": "bf16", "seed": 1})


def test_choosing_models_keeps_the_order_and_shrinks_mixtures() -> None:
    chosen = choose("quick", ["mixture", "lstm", "kn5"])
    assert [spec.name for spec in chosen] == ["kn5", "lstm", "mixture"]
    assert chosen[-1].parts == ("kn5", "lstm")


@pytest.mark.parametrize(
    ("preset", "names", "message"),
    [
        ("quik", [], "preset 'quik' is unknown"),
        ("quick", ["lstn"], "'lstn' is not in the line-up.\nLikely reason: perhaps you meant lstm"),
        ("quick", ["lstm", "lstm-kn5"], "lstm-kn5 mixes lstm, kn5; fewer than two are chosen"),
    ],
)
def test_wrong_choices_are_refused(preset: str, names: list[str], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        choose(preset, names)
    assert message in str(caught.value)


def test_a_fingerprint_changes_with_all_that_matters() -> None:
    spec = TINY[4]
    prints = {
        spec.fingerprint("a", 1),
        spec.fingerprint("b", 1),
        spec.fingerprint("a", 2),
        replace(spec, training={**TRAINING, "lr": 1e-3}).fingerprint("a", 1),
        replace(spec, options={**spec.options, "hidden_size": 8}).fingerprint("a", 1),
        spec.fingerprint("a", 1, ["0123abcd"]),  # a mixture whose part is another
    }
    assert len(prints) == 6
    assert spec.fingerprint("a", 1) == replace(spec).fingerprint("a", 1)


# -- the run --------------------------------------------------------------------------------------


def test_models_come_in_order_and_the_first_at_once(corpus: Corpus) -> None:
    events = contest.run(corpus, TINY[:4], Settings())
    seen = [next(events)]
    while not isinstance(seen[-1], Finished):
        seen.append(next(events))
    assert isinstance(seen[0], Begun)
    assert (seen[0].position, seen[0].of) == (1, 4)
    assert seen[-1].outcome.spec.name == "unigram"
    rest = list(events)
    assert [event.outcome.spec.name for event in rest if isinstance(event, Finished)] == [
        "addk2",
        "kn5",
        "feedforward",
    ]
    work = [event for event in rest if isinstance(event, Working)]
    assert all(0 <= event.done <= event.total for event in work)
    assert any(event.rate for event in work)


def test_outcomes_are_what_the_models_score(corpus: Corpus, outcomes: dict[str, Outcome]) -> None:
    for name, outcome in outcomes.items():
        model = outcome.model
        for text, state, nats in (
            (corpus.valid, "carry", outcome.valid),
            (corpus.test, "carry", outcome.test),
            (corpus.test, "reset", outcome.test if outcome.reset is None else outcome.reset),
        ):
            again = np.concatenate(list(event_nats(model, text, state=state)))  # type: ignore[arg-type]
            allowed = tolerance(torch.float32, 30, 7)
            np.testing.assert_allclose(nats, again, rtol=allowed, atol=allowed, err_msg=f"{name} {state}")
    assert [name for name, outcome in outcomes.items() if outcome.reset is None] == [
        "unigram",
        "addk2",
        "kn5",
    ]


def test_weights_come_from_the_validation_text(outcomes: dict[str, Outcome]) -> None:
    mixed, parts = outcomes["lstm-kn5"], [outcomes["lstm"], outcomes["kn5"]]
    best = min(part.valid.mean() for part in parts)
    assert mixed.valid.mean() <= best + 1e-9
    assert "Kneser-Ney" in mixed.facts.details["weights"]


def test_facts_are_filled(corpus: Corpus, outcomes: dict[str, Outcome]) -> None:
    lstm = outcomes["lstm"]
    assert [point.epoch for point in lstm.facts.curve] == [1, 2]
    assert min(point.valid for point in lstm.facts.curve) == pytest.approx(
        np.exp(lstm.valid.mean()), rel=1e-4
    )
    assert lstm.facts.parameters == sum(tensor.numel() for tensor in lstm.model.arrays().values())  # type: ignore[attr-defined]
    assert len(lstm.facts.samples) == 2
    mixture = outcomes["lstm-kn5"].facts
    assert mixture.parameters == lstm.facts.parameters + outcomes["kn5"].facts.parameters


def test_the_ladder_is_assembled(corpus: Corpus, outcomes: dict[str, Outcome]) -> None:
    protocol = Protocol("word")
    whole = assemble(
        [candidate_of(outcome, corpus, protocol) for outcome in outcomes.values()],
        subject=subject_of(corpus.name, corpus.origin, corpus.digest, corpus.test, corpus.vocabulary, 1),
        repeat=Repeat("elman compare pydoc", "0", 1, "here", "today"),
    )
    assert whole.baseline == "kn5"
    assert len(whole.against_baseline) == 5
    assert {d.name for d in whole.reset_against_baseline} == {"feedforward", "lstm", "lstm-kn5"}
    assert whole.entry("lstm").row.score.events == corpus.test.events
    json.dumps(whole.as_json())


# -- kept on disk ---------------------------------------------------------------------------------


def test_a_second_run_takes_what_is_finished(
    corpus: Corpus, tmp_path: Path, outcomes: dict[str, Outcome]
) -> None:
    first = finished(corpus, TINY, save=tmp_path)
    events = list(contest.run(corpus, TINY, Settings(save=tmp_path)))
    assert all(isinstance(event, Finished) and event.reused for event in events)
    for event in events:
        assert isinstance(event, Finished)
        name = event.outcome.spec.name
        np.testing.assert_array_equal(event.outcome.test, first[name].test)
        np.testing.assert_array_equal(event.outcome.test, outcomes[name].test)
        assert event.outcome.facts.curve == first[name].facts.curve
        assert event.outcome.facts.samples == outcomes[name].facts.samples
    other = list(contest.run(corpus, TINY[:1], Settings(save=tmp_path, seed=2)))
    assert isinstance(other[0], Begun)


def test_a_mixture_is_made_from_models_of_an_earlier_run(corpus: Corpus, tmp_path: Path) -> None:
    finished(corpus, (TINY[2], TINY[4]), save=tmp_path)
    mixed = finished(corpus, (TINY[2], TINY[4], TINY[5]), save=tmp_path)["lstm-kn5"]
    again = np.concatenate(list(event_nats(mixed.model, corpus.test)))
    np.testing.assert_allclose(mixed.test, again, rtol=tolerance(torch.float32, 30, 7))


def test_an_interrupted_run_goes_on(corpus: Corpus, tmp_path: Path, outcomes: dict[str, Outcome]) -> None:
    events = contest.run(corpus, TINY[4:5], Settings(save=tmp_path))
    steps = 0
    for event in events:
        steps += isinstance(event, Working)
        if steps == 5:
            events.close()  # type: ignore[attr-defined]
            break
    resumed = finished(corpus, TINY[4:5], save=tmp_path)["lstm"]
    np.testing.assert_array_equal(resumed.test, outcomes["lstm"].test)
    before = [(point.epoch, point.valid) for point in outcomes["lstm"].facts.curve]
    assert [(point.epoch, point.valid) for point in resumed.facts.curve] == before


def test_ctrl_c_ends_the_line_up_after_what_is_done(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> Iterator[object]:
        yield contest.Stopped("interrupted", 1, 3, None, None, 0.1)

    monkeypatch.setattr(contest, "train", stopped)
    events = list(contest.run(corpus, TINY[2:], Settings()))
    assert [type(event).__name__ for event in events if not isinstance(event, Working)] == [
        "Begun",
        "Finished",
        "Begun",
        "Interrupted",
    ]


@pytest.mark.parametrize("damage", ["outcome.json", "nats.safetensors", "short", "version"])
def test_damage_is_named(corpus: Corpus, tmp_path: Path, damage: str) -> None:
    outcome = finished(corpus, TINY[:1], save=tmp_path)["unigram"]
    folder = next(tmp_path.iterdir())
    valid, test = len(outcome.valid), len(outcome.test)
    if damage == "short":
        test += 1
    elif damage == "version":
        document = json.loads((folder / "outcome.json").read_text())
        (folder / "outcome.json").write_text(json.dumps(document | {"format": 99}))
    else:
        (folder / damage).write_bytes((folder / damage).read_bytes()[:-9])
    with pytest.raises(FormatError, match=r"delete .*: the model is then trained again"):
        load_outcome(TINY[0], folder, valid, test)


def test_an_unfinished_folder_is_no_outcome(tmp_path: Path) -> None:
    assert load_outcome(TINY[0], tmp_path, 1, 1) is None


def test_a_place_that_cannot_be_written_is_named(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ElmanError, match="cannot write"):
        finished(corpus, TINY[:1], save=tmp_path / "file")


def test_no_smoothing_of_that_name(corpus: Corpus) -> None:
    with pytest.raises(OptionError, match="smoothing 'witten-bell' of x is unknown"):
        contest.count(Spec("x", "X", "ngram", {"smoothing": "witten-bell", "order": 2}), corpus)


def test_tiny_is_no_preset() -> None:
    assert TINY not in lineup.PRESETS.values()


def test_a_mixture_is_made_anew_when_a_part_is_another(corpus: Corpus, tmp_path: Path) -> None:
    def folders(specs: Sequence[Spec]) -> set[str]:
        settings = contest.Settings(save=tmp_path)
        ended = [
            event for event in contest.run(corpus, specs, settings) if isinstance(event, contest.Finished)
        ]
        assert len(ended) == len(specs)
        return {path.name for path in tmp_path.glob("both-*")}

    first = Spec("kn2", "Kneser-Ney 2", "ngram", {"smoothing": "kneser-ney", "order": 2})
    second = Spec("kn3", "Kneser-Ney 3", "ngram", {"smoothing": "kneser-ney", "order": 3})
    both = Spec("both", "Both", "mixture", parts=("kn2", "kn3"))
    before = folders([first, second, both])
    changed = replace(second, options={**second.options, "order": 4})
    assert len(folders([first, changed, both]) - before) == 1
