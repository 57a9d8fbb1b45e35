"""How a training looks: a bar with tokens per second and perplexity on stderr, a line for each epoch."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from elman.cli.app import messages, progress, results
from elman.training.config import TrainConfig
from elman.training.events import Event, Sampled, Started, Step, Stopped, Validated

REFRESH_SECONDS = 0.1


def show(
    events: Iterable[Event], config: TrainConfig, *, quiet: bool
) -> tuple[Stopped, list[dict[str, Any]]]:
    """Consume the events of a training: (the last one, a row for each epoch).

    Epoch lines go to stdout, or to stderr when `quiet` (stdout then holds one JSON document).
    """
    out = messages if quiet else results
    rows: list[dict[str, Any]] = []
    stopped: Stopped | None = None
    with progress() as display:
        task = display.add_task("starting", total=None, rate="")

        def say(line: str) -> None:
            if not messages.is_terminal:
                out.print(line)
                return
            display.stop()  # or the bar would be drawn over the line
            out.print(line)
            display.start()

        refreshed = 0.0
        for event in events:
            if isinstance(event, Step):
                now = time.monotonic()
                if now - refreshed > REFRESH_SECONDS:
                    refreshed = now
                    rate = f"{event.tokens_per_second:,.0f} tokens/s  ppl {event.train_perplexity:,.1f}"
                    description = f"epoch {event.epoch}/{config.epochs}"
                    display.update(task, description=description, completed=event.step, rate=rate)
                    if event.position == event.of:
                        display.update(task, description="validating")
            elif isinstance(event, Validated):
                rows.append(_row(event))
                say(_line(event, config))
            elif isinstance(event, Sampled):
                for text in event.texts:
                    say(f"    {text}")
            elif isinstance(event, Started):
                limit = event.steps if config.max_steps is None else min(event.steps, config.max_steps)
                display.update(task, total=limit, completed=event.step)
                say(_greeting(event))
                for note in event.notes:
                    messages.print(f"note: {note}")
            elif isinstance(event, Stopped):
                stopped = event
    assert stopped is not None, "the loop always ends with Stopped"
    if stopped.reason != "finished":
        reason = {
            "patience": f"no better validation for {config.patience} epochs",
            "max_steps": f"{stopped.step:,} updates done",
            "interrupted": "interrupted; --resume continues exactly here",
        }[stopped.reason]
        messages.print(f"stopped: {reason}.")
    return stopped, rows


def _greeting(event: Started) -> str:
    from elman.kernels import native

    kernels = f" (kernels: {native.running()})" if event.device == "cpu" else ""
    what = f"{event.parameters:,} parameters on {event.device}{kernels}"
    if event.resumed:
        return f"{what}; resuming after {event.epoch} epochs, {event.step:,} updates"
    return f"{what}; {event.steps:,} updates"


def _line(event: Validated, config: TrainConfig) -> str:
    star = "*" if event.best else " "
    return (
        f"| epoch {event.epoch:>3}/{config.epochs} | lr {event.lr:<9.4g} "
        f"| train ppl {event.train_perplexity:9.2f} | valid ppl {event.valid.perplexity:9.2f}{star} "
        f"| {event.tokens_per_second:9,.0f} tokens/s |"
    )


def _row(event: Validated) -> dict[str, Any]:
    return {
        "epoch": event.epoch,
        "step": event.step,
        "lr": event.lr,
        "train_perplexity": event.train_perplexity,
        "valid": event.valid.as_json(),
        "best": event.best,
        "seconds": event.seconds,
        "tokens_per_second": event.tokens_per_second,
    }
