"""Models trained side by side are those trained one by one; what goes wrong in one process is told."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elman.compare import contest, side_by_side
from elman.compare.events import Begun, Finished, Interrupted, Settings, Working
from elman.compare.lineup import Spec
from elman.errors import ElmanError, OptionError, TextError
from elman.text.corpus import Corpus, load_corpus

pytestmark = pytest.mark.skipif(os.name != "posix", reason="several jobs need POSIX signals")

TRAINING: dict[str, Any] = {"optimizer": "adam", "lr": 5e-3, "epochs": 2, "batch_size": 4, "bptt": 7}
SIZES = {"embedding_size": 6, "hidden_size": 6, "dropout": 0.2}
LINEUP = (
    Spec("bigram", "Bigram", "ngram", {"smoothing": "kneser-ney", "order": 2}),
    Spec("gru", "GRU", "recurrent", {"cell": "gru", "num_layers": 1, **SIZES}, TRAINING),
    Spec("feedforward", "Feed-forward", "feedforward", {"window": 2, **SIZES}, TRAINING),
    Spec("mixed", "Mixed", "mixture", parts=("gru", "feedforward")),
)
LINES = ["a b c d e", "b c a", "", "e e d c b a f", "d a", "f g a b"]


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Corpus, str]:
    source = tmp_path / "text.txt"
    source.write_text("\n".join(LINES * 40) + "\n")
    return load_corpus(str(source)), str(source)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """A process's share of the threads, so that sums are added in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def finished(corpus: Corpus, settings: Settings) -> dict[str, Finished]:
    events = contest.run(corpus, LINEUP, settings)
    return {e.outcome.spec.name: e for e in events if isinstance(e, Finished)}


@pytest.mark.parametrize("save", [True, False], ids=["saved", "not saved"])
def test_side_by_side_is_one_by_one(corpus: tuple[Corpus, str], save: bool, tmp_path: Path) -> None:
    text, source = corpus
    alone = finished(text, Settings())
    folder = tmp_path / "runs" if save else None
    together = finished(text, Settings(save=folder, jobs=2, source=source))
    assert list(together) != [] and set(together) == set(alone)  # noqa: PT018
    for name, one in alone.items():
        other = together[name].outcome
        assert np.array_equal(one.outcome.valid, other.valid), name
        assert np.array_equal(one.outcome.test, other.test), name
        assert one.outcome.facts.samples == other.facts.samples
    if folder is not None:
        for name in ("gru", "feedforward"):  # weights and log, no optimizer and no checkpoint
            (run,) = folder.glob(f"{name}-*/run")
            assert (run / "log.jsonl").stat().st_size > 0
            assert not list(run.glob("step-*")) and not (run / "best").exists()  # noqa: PT018
            weights = sum(path.stat().st_size for path in run.parent.rglob("*") if path.is_file())
            assert weights < 3 * together[name].outcome.facts.bytes + 40_000
        again = finished(text, Settings(save=folder, jobs=2, source=source))
        assert all(each.reused for each in again.values())


def test_a_mistake_in_one_ends_all(corpus: tuple[Corpus, str]) -> None:
    text, source = corpus
    wrong = Spec("rnn", "RNN", "recurrent", {"cell": "rnn", "forget_bias": 1.0, **SIZES}, TRAINING)
    with pytest.raises(OptionError, match="no forget gate"):
        list(contest.run(text, [LINEUP[1], wrong], Settings(jobs=2, source=source)))


def test_a_text_that_changed_is_noticed(corpus: tuple[Corpus, str]) -> None:
    text, source = corpus
    Path(source).write_text("quite another text\n" * 50)
    with pytest.raises(TextError, match="has changed meanwhile"):
        list(contest.run(text, LINEUP[1:3], Settings(jobs=2, source=source)))


def test_a_process_that_dies_is_told(corpus: tuple[Corpus, str], monkeypatch: pytest.MonkeyPatch) -> None:
    text, source = corpus
    monkeypatch.setattr(side_by_side, "COMMAND", ("/bin/false",))
    with pytest.raises(ElmanError, match="ended without a word"):
        list(contest.run(text, LINEUP[1:3], Settings(jobs=2, source=source)))


def test_ctrl_c_stops_every_process_with_its_state_saved(corpus: tuple[Corpus, str], tmp_path: Path) -> None:
    text, source = corpus
    long = [
        Spec(spec.name, spec.label, spec.kind, spec.options, {**TRAINING, "epochs": 10_000})
        for spec in LINEUP[1:3]
    ]
    folder = tmp_path / "runs"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        heard: set[str] = set()
        ended = []
        for event in contest.run(text, long, Settings(save=folder, jobs=2, source=source)):
            if isinstance(event, Working):
                heard.add(event.spec.name)
                if len(heard) == 2 and event.done > 5:
                    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
                    heard.clear()
                    time.sleep(0.05)
            elif isinstance(event, Interrupted):
                ended.append(event.spec.name)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(ended) == 1
    assert len(list(folder.glob("*/run/step-*"))) >= 2, "each run can go on"


def test_closing_early_leaves_nothing_running(corpus: tuple[Corpus, str]) -> None:
    text, source = corpus
    events = contest.run(text, LINEUP[1:3], Settings(jobs=2, source=source))
    assert isinstance(next(events), Begun)
    started = [t for t in threading.enumerate() if t is not threading.main_thread()]
    events.close()  # type: ignore[attr-defined]
    assert not any(thread.is_alive() for thread in started)


def test_default_jobs() -> None:
    assert side_by_side.default_jobs("cpu") == 1
    torch.set_num_threads(3)
    assert side_by_side.default_jobs("cpu") == 3
    assert side_by_side.default_jobs("cuda") == 1
