"""The training loop: one generator of events for every model that learns by gradient.

    for event in train(model, corpus, TrainConfig(epochs=5), save=Path("runs/first")): ...

For each window: forward from the carried state, loss, backward, clip, update, cut the state from the
graph; after each epoch validate and save. It prints nothing. n-grams are counted, not trained (ngram/).
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from elman import run_folder
from elman.errors import OptionError, of_memory
from elman.evaluate import evaluate
from elman.generate import GenerationSettings, samples
from elman.kernels import native
from elman.language_model import StatePolicy, perplexity
from elman.text.corpus import Corpus, Text
from elman.text.windows import Windows, carried_windows, sentence_windows
from elman.training.config import TrainConfig
from elman.training.device import deterministic
from elman.training.events import Event, Reason, Sampled, Saved, Started, Step, Stopped, Validated
from elman.training.interrupt import Interrupted, Interrupts
from elman.training.place import Place
from elman.training.resume import require_place
from elman.training.schedule import cut_short, learning_rate
from elman.training.state import RunState
from elman.training.update import clip_gradients, guard, window_loss


def train(
    model: Any,
    corpus: Corpus,
    config: TrainConfig,
    *,
    save: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    options: Mapping[str, object] | None = None,
) -> Iterator[Event]:
    """Train `model` (a neural model, in place) on corpus.train, validating on corpus.valid each epoch.

    Yields Started, then Step for every update, Validated (and Sampled) after every epoch, Saved for
    every checkpoint, and Stopped. Afterwards the model is in evaluation mode and holds the weights of
    the epoch with the best validation.

    save       folder of the run: checkpoints, `latest`, `best`, log.jsonl
    resume     continue the run in `save` exactly; where nothing has been saved yet, begin
    overwrite  begin anew; the run or model in `save` stays until the first checkpoint is whole
    options    JSON kept beside it as run.json: what the run was told

    Ctrl-C, SIGTERM, SIGHUP, or closing the generator, ends the run between two updates with its exact
    state saved; a second one quits at once. Dropout draws from a random state of the run's own: the
    caller's is neither used nor moved.
    Raises OptionError (options that contradict; a resumed run that would be another; a folder in use),
    FormatError (nothing readable to resume), DivergenceError (the checkpoints saved before are kept).
    """
    _check(model, corpus, save, resume)
    place = Place(save, resume, overwrite and not resume, options)
    return _Training(model, corpus, config, place).run()


def epoch_windows(text: Text, config: TrainConfig, epoch: int) -> Windows:
    """The windows of an epoch (from 0) as the options say."""
    sizes = {"batch_size": config.batch_size, "seed": config.seed, "epoch": epoch}
    if config.independent:
        return sentence_windows(text, max_length=config.bptt, **sizes)
    return carried_windows(
        text, bptt=config.bptt, update_interval=config.interval, random_length=config.random_length, **sizes
    )


class _Training:
    """One run: its exact state, and what only this process needs."""

    def __init__(self, model: Any, corpus: Corpus, config: TrainConfig, place: Place) -> None:
        self.config, self.corpus, self.place = config, corpus, place
        self.nominal = len(epoch_windows(corpus.train, config, 0))
        self.state = RunState(model, corpus, config)
        self.interrupts = Interrupts()

    def run(self) -> Iterator[Event]:
        state = self.state
        with ExitStack() as stack:
            stack.enter_context(deterministic(state.device))
            stack.enter_context(self.interrupts.listening())
            state.random.enter()
            stack.callback(state.random.leave)
            stack.callback(state.model.eval)
            started = self._start(stack)
            reason: Reason = "interrupted"
            try:
                yield from self._give(started)
                if self.place.folder is not None and not started.resumed:
                    yield from self._give(Saved(0, run_folder.step_folders(self.place.folder)[0]))
                for event in self._epochs():
                    yield from self._give(event)
                reason = self._finished() or "max_steps"
            except GeneratorExit:  # whoever consumes the events has had enough
                self.place.save(state)
                raise
            except (Interrupted, KeyboardInterrupt) as stop:
                # the state is exact, or is not saved
                self.interrupts.note(getattr(stop, "number", signal.SIGINT))
            except (MemoryError, RuntimeError) as error:
                if not of_memory(error):
                    raise
                state.optimizer.zero_grad()  # makes room
                self.place.save(state)
                raise
            for event in self._saved():
                yield from self._give(event)
            state.load_best(self.place.folder)
            yield from self._give(self._stopped(reason))

    def _start(self, stack: ExitStack) -> Started:
        state = self.state
        notes, resumed = self.place.open(state, stack)
        if resumed:
            windows = epoch_windows(self.corpus.train, self.config, state.progress.epoch)
            require_place(state.progress, state.carried, windows)
        if self._finished() is not None:
            done = state.progress.epoch
            notes.append(f"this run has finished after {done} epochs; more --epochs continue it.")
        notes += cut_short(self.config, self.config.epochs * self.nominal)
        backend = getattr(getattr(state.model, "config", None), "backend", "auto")
        if self.config.precision == "bf16" and state.device.type == "cpu":
            notes += native.keeps_float32(backend)
        return Started(
            epoch=state.progress.epoch,
            step=state.progress.step,
            steps=self.config.epochs * self.nominal,
            parameters=sum(parameter.numel() for parameter in state.parameters),
            device=str(state.device),
            resumed=resumed,
            notes=tuple(notes),
        )

    def _give(self, event: Event) -> Iterator[Event]:
        """Hand an event over; the run's random state is put aside meanwhile."""
        self.place.note(event, self.config.log_every)
        self.state.random.leave()
        try:
            yield event
        finally:
            self.state.random.enter()
        self.interrupts.heed()

    def _epochs(self) -> Iterator[Event]:
        progress, config = self.state.progress, self.config
        while self._finished() is None:
            windows = epoch_windows(self.corpus.train, config, progress.epoch)
            self.state.model.train()
            began = saved = time.perf_counter()
            tokens = 0
            while progress.position < len(windows):
                if config.max_steps is not None and progress.step >= config.max_steps:
                    return
                step = self._update(windows, began, tokens)
                tokens += step.events
                yield step
                due = config.save_every is not None and progress.step % config.save_every == 0
                late = time.perf_counter() - saved > config.save_seconds
                if (due or late) and progress.position < len(windows):
                    yield from self._saved()
                    saved = time.perf_counter()
            yield self._validate(len(windows), tokens / max(1e-9, time.perf_counter() - began))
            yield from self._saved()
            if config.samples:
                yield self._sample()

    def _update(self, windows: Windows, began: float, tokens: int) -> Step:
        """One window: forward, backward, clip, update."""
        state, progress, config = self.state, self.state.progress, self.config
        started = time.perf_counter()
        random_before = state.random.state()
        window = windows[progress.position]
        events = window.events
        lr = self._rate(progress.position, len(windows))
        if config.random_length and config.loss == "mean":
            lr *= window.length / config.bptt  # AWD-LSTM: a short window must not weigh as much as a long one
        try:
            state.optimizer.zero_grad()  # first: the new gradients may take the memory of the old
            loss, scale, carried = window_loss(state.model, window, state.carried, config)
            loss.backward()  # type: ignore[no-untyped-call]
            norm, clipped = clip_gradients(state.parameters, config)
            nats = loss.item() * scale
        except (KeyboardInterrupt, MemoryError, RuntimeError):
            state.random.load(random_before)  # as if this window had not begun
            raise
        guard(progress, config, nats / max(1, events), norm, len(self.corpus.vocabulary))
        state.exact = False
        if math.isfinite(norm):
            for group in state.optimizer.param_groups:
                group["lr"] = lr * clipped
            state.optimizer.step()
        state.carried = carried
        progress.step += 1
        progress.position += 1
        progress.nats += nats
        progress.events += events
        now = time.perf_counter()
        progress.seconds += now - started
        state.exact = True
        return Step(
            epoch=progress.epoch + 1,
            step=progress.step,
            position=progress.position,
            of=len(windows),
            nats=nats,
            events=events,
            train_perplexity=progress.train_perplexity,
            lr=lr,
            gradient_norm=norm,
            tokens_per_second=(tokens + events) / (now - began),
            skipped=not math.isfinite(norm),
        )

    def _rate(self, position: int, windows: int) -> float:
        """The learning rate there; random lengths make `windows` differ from the nominal number."""
        progress = self.state.progress
        return learning_rate(
            self.config,
            step=progress.epoch * self.nominal + position * (self.nominal / windows),
            steps=self.config.epochs * self.nominal,
            epoch=progress.epoch,
            setbacks=progress.setbacks,
        )

    def _validate(self, windows: int, tokens_per_second: float) -> Validated:
        """Score the validation text and close the epoch."""
        state, progress = self.state, self.state.progress
        policy: StatePolicy = "reset" if self.config.independent else "carry"
        score = evaluate(state.model, self.corpus.valid, state=policy, progress=self.interrupts.heed)
        lr, train_perplexity = self._rate(windows - 1, windows), progress.train_perplexity
        best = progress.close_epoch(score.nats / score.events, lr)
        state.carried = ()
        if best:
            state.remember_best()
        return Validated(
            epoch=progress.epoch,
            step=progress.step,
            lr=lr,
            train_perplexity=train_perplexity,
            valid=score,
            best=best,
            seconds=progress.seconds,
            tokens_per_second=tokens_per_second,
        )

    def _sample(self) -> Sampled:
        settings = GenerationSettings(length=self.config.sample_length, seed=self.config.seed)
        drawn = samples(self.state.model, "", settings, self.config.samples)
        return Sampled(self.state.progress.epoch, tuple(sample.text for sample in drawn))

    def _finished(self) -> Reason | None:
        if self.config.patience is not None and self.state.progress.waiting >= self.config.patience:
            return "patience"
        return "finished" if self.state.progress.epoch >= self.config.epochs else None

    def _stopped(self, reason: Reason) -> Stopped:
        progress = self.state.progress
        return Stopped(
            reason=reason,
            epoch=progress.epoch,
            step=progress.step,
            best_epoch=progress.best_epoch,
            valid_perplexity=None if progress.best_nats is None else perplexity(progress.best_nats),
            seconds=progress.seconds,
            folder=self.place.folder,
            signal=self.interrupts.number if reason == "interrupted" else None,
        )

    def _saved(self) -> Iterator[Saved]:
        folder = self.place.save(self.state)
        if folder is not None:
            yield Saved(self.state.progress.step, folder)


def _check(model: Any, corpus: Corpus, save: Path | None, resume: bool) -> None:
    if resume and save is None:
        raise OptionError("resuming needs the folder of the run.", remedy="--save DIR --resume")
    if model.vocabulary != corpus.vocabulary:
        raise OptionError(
            f"the model has a vocabulary of {len(model.vocabulary)} and the corpus another of "
            f"{len(corpus.vocabulary)}.",
            remedy="build the model with the corpus's vocabulary.",
        )
