"""The line-up, trained and scored on one corpus: a generator that yields what happens.

Every model is chosen on the validation text and scored once on the test text, with carried state and,
where that is something else, with the state reset at each sentence. The consumer prints; this does not.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elman.compare.bootstrap import Floats
from elman.compare.comparison import CurvePoint
from elman.compare.events import Begun, Event, Finished, Interrupted, Settings, Working
from elman.compare.lineup import Spec
from elman.compare.outcome import (
    RUN,
    Facts,
    Outcome,
    bf16_here,
    bytes_of,
    drop_checkpoints,
    load_outcome,
    sample_texts,
    save_outcome,
)
from elman.compare.side_by_side import train_together
from elman.errors import OptionError
from elman.evaluate import event_nats
from elman.language_model import LanguageModel, StatePolicy, parameter_count
from elman.mixture import Mixture, fit_weights, mix_nats
from elman.neural.feedforward import FeedforwardConfig, FeedforwardModel
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.ngram.smoothing import add_k
from elman.run_folder import LOG
from elman.text.corpus import Corpus, Text
from elman.train import train
from elman.training.config import parse_train_config
from elman.training.events import Started, Step, Stopped, Validated
from elman.training.interrupt import Terminated

SHORTEST_COLUMN = 20
"""Events of a column of the training text at least: a preset's batch size is for texts that are longer."""


def run(corpus: Corpus, specs: Sequence[Spec], settings: Settings) -> Iterator[Event]:
    """Train, choose and score each of `specs`; a mixture needs its parts before it.

    Raises what training, scoring and saving raise. Models finished in `settings.save` are taken again
    where specification, corpus and seed are the same. With several jobs models finish in any order.
    """
    prints: dict[str, str] = {}
    for spec in specs:
        parts = [prints[part] for part in spec.parts]
        prints[spec.name] = spec.fingerprint(corpus.digest, settings.seed, parts)
    finished: dict[str, Outcome] = {}
    for position, spec in enumerate(specs, start=1):
        if spec.name in finished:
            continue
        folder = None
        if settings.save is not None:
            folder = settings.save / f"{spec.name}-{prints[spec.name]}"
            old = load_outcome(spec, folder, corpus.valid.events, corpus.test.events)
            if old is not None:
                finished[spec.name] = old
                drop_checkpoints(folder)  # an earlier version kept them, or it was killed before this
                yield Finished(old, reused=True)
                continue
        rest = [(place, other) for place, other in enumerate(specs, start=1) if place >= position]
        together = [(place, other) for place, other in rest if other.kind in ("feedforward", "recurrent")]
        if settings.jobs > 1 and len(together) > 1 and spec == together[0][1]:
            stopped = False
            for event in train_together(corpus, together, settings, len(specs), prints):
                if isinstance(event, Finished):
                    finished[event.outcome.spec.name] = event.outcome
                stopped = isinstance(event, Interrupted)
                yield event
            if stopped:
                return
            continue
        yield Begun(spec, position, len(specs))
        if spec.kind == "mixture":
            outcome = _mix(spec, [finished[part] for part in spec.parts], settings)
        else:
            learned = yield from _learn(spec, corpus, settings, folder)
            if learned is None:
                yield Interrupted(spec)
                return
            outcome = yield from _score(spec, corpus, settings, learned)
        if folder is not None:
            save_outcome(outcome, folder)
            drop_checkpoints(folder)
        finished[spec.name] = outcome
        yield Finished(outcome)


@dataclass(frozen=True)
class _Learned:
    model: LanguageModel
    seconds: float
    curve: tuple[CurvePoint, ...]
    details: dict[str, str]


def _learn(
    spec: Spec, corpus: Corpus, settings: Settings, folder: Path | None
) -> Generator[Event, None, _Learned | None]:
    if spec.kind != "ngram":
        return (yield from _train(spec, corpus, settings, folder))
    begin = time.perf_counter()
    model = count(spec, corpus)
    details = {name: str(value) for name, value in spec.options.items()}
    report = [str(line) for line in getattr(model, "report", ())]
    if report:
        details["notes"] = " ".join(report)
    return _Learned(model, time.perf_counter() - begin, (), details)


def count(spec: Spec, corpus: Corpus) -> LanguageModel:
    """The n-gram model of a specification, counted on the training text."""
    options = dict(spec.options)
    smoothing = options.pop("smoothing")
    if smoothing == "kneser-ney":
        known = KneserNeySettings(**options)
        return estimate(corpus.train, corpus.vocabulary, corpus.tokenizer, known)
    if smoothing == "add-k":
        return add_k(corpus.train, corpus.vocabulary, corpus.tokenizer, **options)
    raise OptionError(f"smoothing {smoothing!r} of {spec.name} is unknown.", remedy="kneser-ney or add-k.")


def build(spec: Spec, corpus: Corpus, seed: int) -> FeedforwardModel | RecurrentModel:
    """The untrained neural model of a specification; its weights are drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if spec.kind == "feedforward":
            shape = FeedforwardConfig(**spec.options)
            return FeedforwardModel(corpus.vocabulary, corpus.tokenizer, shape)
        return RecurrentModel(corpus.vocabulary, corpus.tokenizer, RecurrentConfig(**spec.options))


def _train(
    spec: Spec, corpus: Corpus, settings: Settings, folder: Path | None
) -> Generator[Event, None, _Learned | None]:
    options: dict[str, Any] = {**spec.training, "seed": settings.seed, "device": settings.device}
    if options.get("precision") == "auto":
        options["precision"] = "bf16" if bf16_here() else "fp32"
    # the columns of a tiny text would be shorter than a sentence, or empty
    options["batch_size"] = max(1, min(int(options["batch_size"]), corpus.train.events // SHORTEST_COLUMN))
    config = parse_train_config(options)
    model = build(spec, corpus, settings.seed)
    curve: list[CurvePoint] = []
    total, stopped = 1, None
    run_folder = None if folder is None else folder / RUN
    # where a run was interrupted, it goes on; its earlier epochs are read back from its log
    for event in train(model, corpus, config, save=run_folder, resume=run_folder is not None):
        if isinstance(event, Started):
            total = event.steps
            if event.resumed and run_folder is not None:
                curve = earlier_epochs(run_folder / LOG, corpus)
        elif isinstance(event, Step):
            yield Working(spec, f"epoch {event.epoch}", event.step, total, event.tokens_per_second)
        elif isinstance(event, Validated):
            valid = event.valid.perplexity
            curve.append(_point(event.epoch, event.seconds, event.train_perplexity, valid, corpus))
        elif isinstance(event, Stopped):
            stopped = event
    if stopped is not None and stopped.signal is not None and stopped.signal != signal.SIGINT:
        raise Terminated(stopped.signal)
    if stopped is None or stopped.reason == "interrupted":
        return None
    details = {name.replace("_", " "): str(value) for name, value in spec.options.items()}
    details |= {name.replace("_", " "): str(options[name]) for name in spec.training}
    if stopped.best_epoch is not None:
        details["best epoch"] = str(stopped.best_epoch)
    return _Learned(model, stopped.seconds, tuple(curve), details)


def _point(
    epoch: int, seconds: float, train_perplexity: float | None, valid: float, corpus: Corpus
) -> CurvePoint:
    return CurvePoint(epoch, seconds, epoch * corpus.train.events, train_perplexity, valid)


def earlier_epochs(log: Path, corpus: Corpus) -> list[CurvePoint]:
    """The curve of a run that goes on, as far as its log tells; a line that is no JSON is passed over."""
    points = []
    for line in log.read_text("utf-8").splitlines() if log.is_file() else ():
        try:
            record = json.loads(line)
            if record["event"] == "validated":
                valid = float(record["valid"]["perplexity"])
                point = (int(record["epoch"]), float(record["seconds"]), record["train_perplexity"], valid)
                points.append(_point(*point, corpus))
        except (ValueError, KeyError, TypeError):
            continue
    return points


def _score(
    spec: Spec, corpus: Corpus, settings: Settings, learned: _Learned
) -> Generator[Event, None, Outcome]:
    model = learned.model
    policies: list[tuple[str, Text, StatePolicy]] = [
        ("scoring valid", corpus.valid, "carry"),
        ("scoring test", corpus.test, "carry"),
    ]
    if spec.kind != "ngram":  # an n-gram starts every sentence afresh by itself
        policies.append(("scoring test, reset", corpus.test, "reset"))
    found: list[Floats] = []
    for doing, text, state in policies:
        parts, done = [], 0
        for part in event_nats(model, text, state=state, batch_size=64):
            parts.append(part)
            done += len(part)
            yield Working(spec, doing, done, text.events)
        found.append(np.concatenate(parts))
    if isinstance(model, torch.nn.Module):
        model.to("cpu")  # where it is sampled from and mixed
    facts = Facts(
        parameters=parameter_count(model),
        bytes=bytes_of(model),
        seconds=learned.seconds,
        curve=learned.curve,
        samples=sample_texts(model, settings.seed),
        details=learned.details,
    )
    reset = found[2] if len(found) > 2 else None
    return Outcome(spec, facts, found[0], found[1], reset, held=model)


def _mix(spec: Spec, parts: Sequence[Outcome], settings: Settings) -> Outcome:
    """Weights by EM on the validation nats of the parts; the mixture's nats follow from theirs."""
    begin = time.perf_counter()
    weights = fit_weights(np.stack([part.valid for part in parts]))
    model = Mixture([part.model for part in parts], weights)
    resets = [part.test if part.reset is None else part.reset for part in parts]
    facts = Facts(
        parameters=parameter_count(model),
        bytes=bytes_of(model),
        seconds=sum(part.facts.seconds or 0.0 for part in parts) + time.perf_counter() - begin,
        samples=sample_texts(model, settings.seed),
        details={
            "weights": " + ".join(
                f"{weight:.3f} {part.spec.label}" for weight, part in zip(weights, parts, strict=True)
            )
        },
    )
    return Outcome(
        spec,
        facts,
        mix_nats([part.valid for part in parts], weights),
        mix_nats([part.test for part in parts], weights),
        mix_nats(resets, weights),
        held=model,
    )
