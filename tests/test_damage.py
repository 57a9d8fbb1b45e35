"""Every value of every JSON file mutated by type and range, every file cut and zeroed: what loads is equal.

Else it is a FormatError: never another exception, never silently other numbers. Twice: with the digests as
they are, and with digests put right, as somebody would who writes such files; then it may be another model.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from elman import storage
from elman.checkpoint import load_checkpoint, load_model, save_model
from elman.compare.lineup import Spec
from elman.compare.outcome import Facts, Outcome, load_outcome, save_outcome
from elman.errors import ElmanError, FormatError, OptionError
from elman.mixture import Mixture
from elman.neural.feedforward import FeedforwardConfig, FeedforwardModel
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.neural.streaming import StreamingModel
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from training_example import final_state, make_config, make_corpus, make_model, run, same

CORPUS = make_corpus()
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**63, 2**70, 1.5, -0.5, 1e300, float("inf"), float("nan")),
    *("", "x", "7", "0" * 64, "lstm", "\ud800", [], [1], ["a", "b"], [[]], {}, {"a": 1}),
)
GONE = object()


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each value of a document stands; of long lists the first, one within and the last."""
    if at:
        yield at
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*at, key))
    elif isinstance(value, list):
        for index in sorted({0, len(value) // 2, len(value) - 1} & set(range(len(value)))):
            yield from places(value[index], (*at, index))


def mutants(document: Any, share: float = 1.0) -> Iterator[Any]:
    draw = random.Random(3)
    for changed in _mutants(document):
        if share == 1 or draw.random() < share:
            yield changed


def _mutants(document: Any) -> Iterator[Any]:
    for at in places(document):
        original = document
        for step in at:
            original = original[step]
        more: list[Any] = [GONE]
        if type(original) is int:
            more += [original + 1, original - 1, str(original), float(original)]
        elif isinstance(original, str):
            more += [original[:-1], original + "x", [original]]
        elif isinstance(original, list):
            more += [original[:-1], original + original[:1], original[::-1], dict(enumerate(original))]
        elif isinstance(original, dict):
            more += [list(original), original | {"unknown": 1}]
        for new in (*VALUES, *more):
            changed = copy.deepcopy(document)
            parent = changed
            for step in at[:-1]:
                parent = parent[step]
            if new is GONE:
                del parent[at[-1]]
            else:
                parent[at[-1]] = new
            if changed != document or repr(changed) != repr(document):
                yield changed


def nats(model: Any) -> torch.Tensor:
    ids = torch.from_numpy(CORPUS.test.stream().astype("int64"))[:, None]
    with torch.no_grad():
        return model.token_nats(ids, model.start(1))[0]


def recurrent(**options: Any) -> RecurrentModel:
    config = RecurrentConfig(embedding_size=4, hidden_size=5, num_layers=1, **options)
    return RecurrentModel(CORPUS.vocabulary, CORPUS.tokenizer, config)


def feedforward() -> FeedforwardModel:
    return FeedforwardModel(
        CORPUS.vocabulary, CORPUS.tokenizer, FeedforwardConfig(window=2, embedding_size=3, hidden_size=4)
    )


def ngram() -> Any:
    return estimate(CORPUS.train, CORPUS.vocabulary, CORPUS.tokenizer, KneserNeySettings(order=2))


MODELS: dict[str, Callable[[], Any]] = {
    "recurrent": lambda: recurrent(cell="rnn"),
    "adaptive": lambda: recurrent(cell="gru", softmax="adaptive", cutoffs=(5, 11)),
    "tied": lambda: RecurrentModel(
        CORPUS.vocabulary,
        CORPUS.tokenizer,
        RecurrentConfig(embedding_size=5, hidden_size=5, num_layers=1, tied=True, cell="lstm"),
    ),
    "feedforward": feedforward,
    "ngram": ngram,
    "streaming": lambda: StreamingModel(recurrent(cell="lstm"), "int8"),
    "mixture": lambda: Mixture([recurrent(cell="gru"), ngram()], [0.3, 0.7]),
}


def put_right(folder: Path) -> None:
    """All digests as somebody would have them who wrote these files."""
    for path in sorted(folder.rglob("config.json"), key=lambda path: -len(path.parts)):
        try:
            document = json.loads(path.read_text())
            for name in document["files"]:
                document["files"][name] = hashlib.sha256((path.parent / name).read_bytes()).hexdigest()
            document.pop("digest", None)
            document["digest"] = storage.digest_of(document)
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            continue
        path.write_text(json.dumps(document))


@pytest.mark.parametrize("name", MODELS)
def test_every_value_of_a_model_folder(tmp_path: Path, name: str) -> None:
    model = MODELS[name]()
    if isinstance(model, torch.nn.Module):
        model.eval()
    save_model(model, tmp_path / "model")
    wanted, equal, refused = nats(model), 0, 0
    for path in sorted((tmp_path / "model").rglob("*.json")):
        if name not in ("recurrent", "mixture") and path.name == "vocabulary.json":
            continue  # the same for all
        before = path.read_bytes()
        for changed in mutants(json.loads(before), 0.25):
            path.write_text(json.dumps(changed))
            try:
                found = nats(load_model(tmp_path / "model"))
            except FormatError:
                refused += 1
            else:
                assert torch.equal(found, wanted), changed
                equal += 1
        path.write_bytes(before)
    assert refused > 100
    assert equal < 40  # a digest that is gone; what is JSON-equal


@pytest.mark.parametrize("name", MODELS)
def test_every_value_with_its_digests_put_right(tmp_path: Path, name: str) -> None:
    save_model(MODELS[name](), tmp_path / "model")
    for path in sorted((tmp_path / "model").rglob("*.json")):
        if name not in ("recurrent", "adaptive", "mixture") and path.name == "vocabulary.json":
            continue
        before = {each: each.read_bytes() for each in (tmp_path / "model").rglob("*.json")}
        for changed in mutants(json.loads(before[path]), 0.15):
            if path.name == "config.json" and changed.get("digest") != json.loads(before[path])["digest"]:
                continue
            path.write_text(json.dumps(changed))
            put_right(tmp_path / "model")
            try:
                nats(load_model(tmp_path / "model"))
            except FormatError:
                pass
            except IndexError:  # a vocabulary that is really shorter than the text's ids
                assert path.name == "vocabulary.json"
            for each, content in before.items():
                each.write_bytes(content)


def equal_or_refused(folder: Path, wanted: torch.Tensor) -> bool:
    """Whether it was refused."""
    try:
        found = load_model(folder)
    except FormatError:
        return True
    assert torch.equal(nats(found), wanted)
    return False


def ruined(data: bytes) -> Iterator[bytes]:
    yield b""
    yield bytes(len(data))
    for part in (1, len(data) // 3, len(data) // 2, len(data) - 1):
        yield data[:part]
        yield data[:part] + bytes(len(data) - part)
    yield data + b"\0"
    yield data + data


@pytest.mark.parametrize("name", MODELS)
def test_every_file_cut_or_zeroed(tmp_path: Path, name: str) -> None:
    save_model(MODELS[name](), tmp_path / "model")
    wanted = nats(load_model(tmp_path / "model"))
    for path in [path for path in (tmp_path / "model").rglob("*") if path.is_file()]:
        before = path.read_bytes()
        for data in ruined(before):
            path.write_bytes(data)
            refused = equal_or_refused(tmp_path / "model", wanted)
            assert refused or data == before[:-1]  # the line end of a JSON file
        path.write_bytes(before)


# -- training states


def saved_run(folder: Path) -> Path:
    """Two checkpoints; the newest is within an epoch, so it carries a state."""
    run(make_model(CORPUS), CORPUS, make_config(save_every=2, max_steps=10, keep=2), save=folder, options={})
    return folder / (folder / "latest").read_text().strip()


def test_every_value_of_a_state_falls_back(tmp_path: Path) -> None:
    step = saved_run(tmp_path / "run")
    path = step / "state.json"
    before, wanted = path.read_bytes(), final_state(tmp_path / "run")
    for changed in mutants(json.loads(before), 0.25):
        path.write_text(json.dumps(changed))
        found = load_checkpoint(tmp_path / "run")
        assert found.notes or same(final_state(tmp_path / "run"), wanted), changed


def test_every_value_of_a_record_with_its_digest_put_right(tmp_path: Path) -> None:
    step = saved_run(tmp_path / "run")
    path = step / "state.json"
    original = json.loads(path.read_text())
    original.pop("digest")
    refused = 0
    for changed in mutants(original, 0.06):
        path.write_text(json.dumps(changed | {"digest": storage.digest_of(changed)}))
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        try:
            run(make_model(CORPUS), CORPUS, make_config(max_steps=10), save=tmp_path / "copy", resume=True)
        except (FormatError, OptionError):
            refused += 1
        shutil.rmtree(tmp_path / "copy")
    assert refused > 50


def other_tensors(step: Path, name: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change a tensor file, all digests put right."""
    tensors = storage.read_tensors(step / name)
    change(tensors)
    (step / name).unlink()
    digest = storage.write_tensors(step / name, tensors)
    document = json.loads((step / "state.json").read_text())
    document["files"][name] = digest
    document.pop("digest")
    document["digest"] = storage.digest_of(document)
    (step / "state.json").write_text(json.dumps(document))


STATES: dict[str, tuple[str, Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "emptied": ("optimizer", lambda t: t.clear(), "lacks"),
    "one slot less": ("optimizer", lambda t: t.pop("output.bias/step"), "lacks 'output.bias/step'"),
    "one parameter less": (
        "optimizer",
        lambda t: [t.pop(name) for name in list(t) if name.startswith("output.bias")],
        "lacks 'output.bias",
    ),
    "unknown": ("optimizer", lambda t: t.update(x=torch.zeros(1)), "holds an unknown 'x'"),
    "not finite": ("optimizer", lambda t: t["output.bias/exp_avg"].fill_(float("nan")), "never has"),
    "negative": ("optimizer", lambda t: t["output.bias/exp_avg_sq"].fill_(-1), "never has"),
    "odd keys": ("carried", lambda t: t.update(x=t.pop("0")), "the carried state holds"),
    "keys as numbers may be written": (
        "carried",
        lambda t: t.update({" 0": t.pop("0")}),
        "the carried state holds",
    ),
    "a gap": ("carried", lambda t: t.update({"2": t.pop("1")}), "the carried state holds"),
    "one too few": ("carried", lambda t: t.pop("1"), "is not one of this model"),
    "another shape": ("carried", lambda t: t.update({"1": torch.zeros(2, 5, 8)}), "is (2, 5, 8)"),
    "another batch": (
        "carried",
        lambda t: t.update({"0": torch.zeros(2, 4, 7), "1": torch.zeros(2, 4, 7)}),
        "has [4, 4] rows, not 5",
    ),
    "emptied carried": ("carried", lambda t: t.clear(), "has [] rows, not 5"),
    "no generator": ("random", lambda t: t.clear(), "random state"),
    "a short generator": ("random", lambda t: t.update(cpu=t["cpu"][:-1]), "random state"),
    "a generator of zeros": ("random", lambda t: t["cpu"].zero_(), "random state"),
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_is_none_of_this_run(tmp_path: Path, name: str) -> None:
    step = saved_run(tmp_path / "run")
    file, change, message = STATES[name]
    other_tensors(step, f"{file}.safetensors", change)
    try:
        events = run(make_model(CORPUS), CORPUS, make_config(), save=tmp_path / "run", resume=True)
        told = " ".join(events[0].notes)  # type: ignore[union-attr]
    except FormatError as error:
        told = error.cause
    assert message in told


def test_a_parameter_that_has_had_no_gradient_yet_is_resumed(tmp_path: Path) -> None:
    """The tail of an adaptive softmax that no token of the first windows is in."""
    corpus = make_corpus()
    corpus.train.ids[:60] = 2 + corpus.train.ids[:60] % 3

    def model(seed: int) -> RecurrentModel:
        torch.manual_seed(seed)
        return recurrent(softmax="adaptive", cutoffs=(11, 21))

    options = {"batch_size": 1, "bptt": 6, "epochs": 1}
    run(model(1), corpus, make_config(**options), save=tmp_path / "whole")
    run(model(1), corpus, make_config(**options, max_steps=3), save=tmp_path / "run")
    assert load_checkpoint(tmp_path / "run").record["untouched"]
    run(model(2), corpus, make_config(**options), save=tmp_path / "run", resume=True)
    assert same(final_state(tmp_path / "run"), final_state(tmp_path / "whole"))


# -- finished models of a comparison


def test_every_value_of_an_outcome(tmp_path: Path) -> None:
    model = recurrent(cell="gru").eval()
    spec = Spec("gru", "GRU", "recurrent", {}, {})
    valid, test = (nats(model)[:, 0].double().numpy()[:count] for count in (7, 9))
    saved = Outcome(spec, Facts(3, 12, 1.5, (), ("a b",), {"lr": "1"}), valid, test, test, held=model)
    save_outcome(saved, tmp_path / "gru")
    path = tmp_path / "gru" / "outcome.json"
    before, refused = path.read_bytes(), 0
    for changed in mutants(json.loads(before)):
        path.write_text(json.dumps(changed))
        try:
            found = load_outcome(spec, tmp_path / "gru", 7, 9)
        except FormatError:
            refused += 1
        else:
            assert found is not None
            assert found.facts == saved.facts
    assert refused > 300
    path.write_bytes(before)
    nats_path = tmp_path / "gru" / "nats.safetensors"
    data = bytearray(nats_path.read_bytes())
    data[-1] ^= 1
    nats_path.write_bytes(data)
    with pytest.raises(FormatError, match="SHA-256"):
        load_outcome(spec, tmp_path / "gru", 7, 9)


def test_an_error_that_is_no_format_error_leads_to_the_next_checkpoint(tmp_path: Path) -> None:
    """Cutoffs that do not fit the vocabulary were an OptionError, which no fallback caught."""
    save_model(MODELS["adaptive"](), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    document = json.loads(path.read_text())
    document["config"]["cutoffs"] = [5, 90]
    document.pop("digest")
    path.write_text(json.dumps(document))
    with pytest.raises(FormatError, match="cutoffs"):
        load_model(tmp_path / "model")
    assert issubclass(FormatError, ElmanError)
