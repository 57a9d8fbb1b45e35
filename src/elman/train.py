"""The training loop: one generator of events for every model that learns by gradient.

    for event in train(model, corpus, TrainConfig(epochs=5), save=Path("runs/first")): ...

For each window: forward from the carried state, loss, backward, clip, update, cut the state from the
graph; after each epoch validate and save. It prints nothing. n-grams are counted, not trained (ngram/).
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from elman import run_folder, storage
from elman.checkpoint import TrainingState, load_checkpoint, load_model, save_checkpoint
from elman.errors import DivergenceError, FormatError, OptionError
from elman.evaluate import evaluate
from elman.language_model import State
from elman.text.corpus import Corpus, Text
from elman.text.windows import Windows, carried_windows, sentence_windows
from elman.training import resume as resuming
from elman.training.config import TrainConfig
from elman.training.device import PrivateRandom, deterministic, resolve_device
from elman.training.events import Event, Reason, Sampled, Saved, Started, Step, Stopped, Validated
from elman.training.log import Log
from elman.training.optimizer import build_optimizer, load_optimizer, optimizer_tensors
from elman.training.progress import Progress, perplexity
from elman.training.schedule import learning_rate
from elman.training.update import clip_gradients, guard, window_loss


def train(
    model: Any, corpus: Corpus, config: TrainConfig, *, save: Path | None = None, resume: bool = False
) -> Iterator[Event]:
    """Train `model` (a neural model, in place) on corpus.train, validating on corpus.valid each epoch.

    Yields Started, then Step for every update, Validated (and Sampled) after every epoch, Saved for
    every checkpoint, and Stopped. Afterwards the model is in evaluation mode and holds the weights of
    the epoch with the best validation.

    save    folder of the run: checkpoints, `latest`, `best`, log.jsonl
    resume  continue the run in `save` exactly; where nothing has been saved yet, begin

    Ctrl-C, or closing the generator, ends the run between two updates with its exact state saved; a
    second Ctrl-C quits at once. Dropout draws from a random state of the run's own: the caller's is
    neither used nor moved.
    Raises OptionError (options that contradict; a resumed run that would be another), FormatError
    (nothing readable to resume), DivergenceError (the checkpoints saved before are kept).
    """
    return _Training(model, corpus, config, save, resume).run()


def epoch_windows(text: Text, config: TrainConfig, epoch: int) -> Windows:
    """The windows of an epoch (from 0) as the options say."""
    sizes = {"batch_size": config.batch_size, "seed": config.seed, "epoch": epoch}
    if config.independent:
        return sentence_windows(text, max_length=config.bptt, **sizes)
    return carried_windows(
        text, bptt=config.bptt, update_interval=config.interval, random_length=config.random_length, **sizes
    )


class _Interrupted(Exception):
    """Ctrl-C, noticed where the state is exact."""


class _Training:
    """One run. Between two calls of `_update` the fields below are the exact state, all of it."""

    def __init__(
        self, model: Any, corpus: Corpus, config: TrainConfig, save: Path | None, resume: bool
    ) -> None:
        _check(model, corpus, save, resume)
        self.device = resolve_device(config.device)
        self.model, self.corpus, self.config = model.to(self.device), corpus, config
        self.folder, self.resume = save, resume
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = build_optimizer(model, config)
        self.random = PrivateRandom(self.device, config.seed)
        self.progress = Progress()
        self.carried: State = ()
        self.best: dict[str, Tensor] | None = None
        self.exact = True  # False only while the optimizer writes
        self.saved: tuple[int, int, int] | None = None
        self.asked = self.stopping = False
        self.log: Log | None = None
        self.nominal = len(epoch_windows(corpus.train, config, 0))

    def run(self) -> Iterator[Event]:
        with ExitStack() as stack:
            stack.enter_context(deterministic(self.device))
            stack.callback(self._listen())
            self.random.enter()
            stack.callback(self.random.leave)
            stack.callback(self.model.eval)
            started = self._start()
            if self.log is not None:
                stack.callback(self.log.close)
            reason: Reason = "interrupted"
            try:
                yield from self._give(started)
                for event in self._epochs():
                    yield from self._give(event)
                reason = self._finished() or "max_steps"
            except GeneratorExit:  # whoever consumes the events has had enough
                self._save()
                raise
            except (_Interrupted, KeyboardInterrupt):
                self.stopping = True
            for event in self._saved():
                yield from self._give(event)
            self._load_best()
            yield from self._give(self._stopped(reason))

    def _start(self) -> Started:
        notes: list[str] = []
        resumed = self.folder is not None and self.resume and run_folder.is_run(self.folder)
        if resumed:
            notes = self._restore(load_checkpoint(self.folder))  # type: ignore[arg-type]
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            storage.clean(self.folder)
            self.log = Log(self.folder / run_folder.LOG, self.progress.log_bytes)
        if self._finished() is not None:
            notes.append(
                f"this run has finished after {self.progress.epoch} epochs; more --epochs continue it."
            )
        return Started(
            epoch=self.progress.epoch,
            step=self.progress.step,
            steps=self.config.epochs * self.nominal,
            parameters=sum(parameter.numel() for parameter in self.parameters),
            device=str(self.device),
            resumed=resumed,
            notes=tuple(notes),
        )

    def _give(self, event: Event) -> Iterator[Event]:
        """Hand an event over; the run's random state is put aside meanwhile."""
        if self.log is not None:
            self.log.write(event, self.config.log_every)
        self.random.leave()
        try:
            yield event
        finally:
            self.random.enter()
        self._heed()

    def _heed(self, done: int = 0, of: int = 0) -> None:
        """Stop here if Ctrl-C was pressed: the state is exact (also while a validation runs)."""
        if self.asked and not self.stopping:
            self.stopping = True
            raise _Interrupted

    def _epochs(self) -> Iterator[Event]:
        progress, config = self.progress, self.config
        if progress.step == 0:
            yield from self._saved()
        while self._finished() is None:
            windows = epoch_windows(self.corpus.train, config, progress.epoch)
            self.model.train()
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
        progress, config = self.progress, self.config
        started = time.perf_counter()
        random_before = self.random.state()
        window = windows[progress.position]
        events = window.events
        lr = self._rate(len(windows))
        if config.random_length and config.loss == "mean":
            lr *= window.length / config.bptt  # AWD-LSTM: a short window must not weigh as much as a long one
        try:
            loss, scale, carried = window_loss(self.model, window, self.carried, config)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = clip_gradients(self.parameters, config)
            nats = loss.item() * scale
        except KeyboardInterrupt:
            self.random.load(random_before)  # as if this window had not begun
            raise
        guard(progress, config, nats / max(1, events), norm, len(self.corpus.vocabulary))
        self.exact = False
        if math.isfinite(norm):
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
        self.carried = carried
        progress.step += 1
        progress.position += 1
        progress.nats += nats
        progress.events += events
        now = time.perf_counter()
        progress.seconds += now - started
        self.exact = True
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

    def _rate(self, windows: int) -> float:
        """The learning rate here; random lengths make `windows` differ from the nominal number."""
        progress = self.progress
        return learning_rate(
            self.config,
            step=progress.epoch * self.nominal + progress.position * (self.nominal / windows),
            steps=self.config.epochs * self.nominal,
            epoch=progress.epoch,
            setbacks=progress.setbacks,
        )

    def _validate(self, windows: int, tokens_per_second: float) -> Validated:
        """Score the validation text and close the epoch."""
        progress, train_perplexity = self.progress, self.progress.train_perplexity
        progress.position -= 1  # the rate of the epoch's last update
        lr = self._rate(windows)
        progress.position += 1
        state: Any = "reset" if self.config.independent else "carry"
        score = evaluate(self.model, self.corpus.valid, state=state, progress=self._heed)
        best = progress.close_epoch(score.nats / score.events, lr)
        self.carried = ()
        if best:
            self.best = {name: tensor.clone() for name, tensor in resuming.weights_of(self.model).items()}
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
        from elman.generate import GenerationSettings, samples

        settings = GenerationSettings(length=self.config.sample_length, seed=self.config.seed)
        drawn = samples(self.model, "", settings, self.config.samples)
        return Sampled(self.progress.epoch, tuple(sample.text for sample in drawn))

    def _finished(self) -> Reason | None:
        if self.config.patience is not None and self.progress.waiting >= self.config.patience:
            return "patience"
        return "finished" if self.progress.epoch >= self.config.epochs else None

    def _stopped(self, reason: Reason) -> Stopped:
        progress = self.progress
        return Stopped(
            reason=reason,
            epoch=progress.epoch,
            step=progress.step,
            best_epoch=progress.best_epoch,
            valid_perplexity=None if progress.best_nats is None else perplexity(progress.best_nats),
            seconds=progress.seconds,
            folder=self.folder,
        )

    def _saved(self) -> Iterator[Saved]:
        folder = self._save()
        if folder is not None:
            yield Saved(self.progress.step, folder)

    def _save(self) -> Path | None:
        """A checkpoint of the state as it is, unless it is saved already or half written."""
        progress = self.progress
        if self.folder is None or not self.exact or progress.key == self.saved:
            return None
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters):
            raise DivergenceError(
                f"training diverged: the weights are not finite after update {progress.step}. "
                "The last good checkpoint is kept.",
                remedy=f"a smaller --lr (now {self.config.lr:g}), in a new --save folder.",
            )
        progress.log_bytes = self.log.sync() if self.log is not None else 0
        record = {
            "step": progress.step,
            "progress": progress.as_json(),
            "run": resuming.describe_run(self.model, self.corpus, self.config),
            "circumstances": resuming.circumstances(self.device),
        }
        carried = self.carried if progress.position else ()
        tensors = optimizer_tensors(self.model, self.optimizer)
        state = TrainingState(self.model, tensors, self.random.state(), carried, record)
        folder = save_checkpoint(self.folder, state, best=progress.is_best, keep=self.config.keep)
        self.saved = progress.key
        return folder

    def _restore(self, state: TrainingState) -> list[str]:
        """Become the saved run; notes for the user."""
        now = resuming.describe_run(self.model, self.corpus, self.config)
        run = state.record.get("run")
        if not isinstance(run, dict):
            raise FormatError("the checkpoint does not say which run it is of.")
        resuming.require_same_run(run, now)
        self.progress = Progress.from_json(state.record.get("progress"))
        resuming.restore_model(self.model, state)
        load_optimizer(self.model, self.optimizer, self.config.optimizer, state.optimizer)
        self.random.load(state.random)
        self.carried = resuming.require_carried(state.carried, self.model.start(1), self.progress)
        self.saved = self.progress.key
        changed = resuming.changed_circumstances(
            state.record.get("circumstances"), resuming.circumstances(self.device)
        )
        return state.notes + changed

    def _load_best(self) -> None:
        """Leave the model with the weights of the best epoch, if one was validated."""
        if self.best is None and self.progress.best_epoch is not None and self.folder is not None:
            self.best = resuming.weights_of(load_model(self.folder))
        if self.best is not None:
            resuming.copy_weights(self.model, self.best)

    def _listen(self) -> Callable[[], object]:
        """From here on the first Ctrl-C asks and the second breaks off; returns what ends that."""
        main = threading.current_thread() is threading.main_thread()
        if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return lambda: None

        def ask(number: int, frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True

        signal.signal(signal.SIGINT, ask)
        return lambda: signal.signal(signal.SIGINT, signal.default_int_handler)


def _check(model: Any, corpus: Corpus, save: Path | None, resume: bool) -> None:
    if resume and save is None:
        raise OptionError("resuming needs the folder of the run.", remedy="--save DIR --resume")
    if save is not None and not resume and save.exists() and (not save.is_dir() or any(save.iterdir())):
        raise OptionError(
            f"{save} is not empty.",
            reason="something was saved there before.",
            remedy="--resume to continue that run, --overwrite to begin anew, or another --save folder.",
        )
    if model.vocabulary != corpus.vocabulary:
        raise OptionError(
            f"the model has a vocabulary of {len(model.vocabulary)} and the corpus another of "
            f"{len(corpus.vocabulary)}.",
            remedy="build the model with the corpus's vocabulary.",
        )
