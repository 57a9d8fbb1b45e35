"""`elman gradients`: what gradients do on their way back through time, in drawn and in trained models.

Not here: tables (gradients_display.py), pictures (gradients_figures.py), the measurement (gradients/).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Interval
from cyclopts import Parameter

from elman.cli.app import Json, app, emit, examples, progress
from elman.cli.gradients_display import NAMES, print_flows, print_sweep
from elman.cli.gradients_figures import draw_flows, draw_sweep
from elman.cli.memory import require_drawable
from elman.cli.models_and_text import Sources, Split, held_out, models_and_source, short_names
from elman.cli.ranges import Seed
from elman.errors import OptionError

if TYPE_CHECKING:
    from elman.gradients.flow import GradientFlow

CellName = Literal["rnn", "rnn-relu", "gru", "lstm"]
Several = Parameter(consume_multiple=True, negative="")

GATE_BIASES = (0.0, 1.0, 3.0)
"""Of the gate that keeps the old state: the demonstration shows each at initialization."""

EXAMPLES = examples(
    "elman gradients",
    "elman gradients --figure sweep.svg --cells rnn rnn-relu --radii 0.9 1 1.1 --inputs 0 0.01",
    "elman gradients --cells lstm --gate-bias 1",
    "elman gradients runs/rnn runs/gru runs/lstm sotu-modern --figure gradients.svg",
    "elman gradients runs/lstm novel.txt --lags 100 --passages 50 --json",
)


@app.command(name="gradients", help_epilogue=EXAMPLES)
def gradients_command(
    *models_and_text: Sources,
    lags: Annotated[int, Interval(ge=1, le=10_000)] = 200,
    cells: Annotated[tuple[CellName, ...] | None, Several] = None,
    nhid: Annotated[int, Interval(ge=1, le=2_000)] | None = None,
    radii: Annotated[tuple[Annotated[float, Interval(ge=0, le=100)], ...] | None, Several] = None,
    inputs: Annotated[tuple[Annotated[float, Interval(ge=0, le=1e6)], ...] | None, Several] = None,
    gate_bias: Annotated[float, Interval(ge=-100, le=100)] | None = None,
    clip: Annotated[float, Interval(gt=0, le=1e9)] | None = None,
    clip_value: Annotated[float, Interval(gt=0, le=1e9)] | None = None,
    seed: Seed | None = None,
    passages: Annotated[int, Interval(ge=1, le=100_000)] | None = None,
    losses: Annotated[int, Interval(ge=1, le=10_000)] | None = None,
    spectra: Annotated[int, Interval(ge=0, le=10_000)] | None = None,
    split: Split | None = None,
    figure: Path | None = None,
    json: Json = False,
) -> None:
    """What a gradient does on its way back through time: does it vanish, explode, or last?

    Without arguments, a demonstration on models drawn at random: rnn, gru and lstm side by side as training
    begins, their recurrent weights scaled to one spectral radius after another, and one step clipped.
    With models and a text, what their gradients do there: norm against lag with the fitted decay, what
    truncated BPTT leaves out, and the spectrum of the Jacobians.

    Parameters
    ----------
    models_and_text
        MODEL… TEXT, as in `elman evaluate`; recurrent models. Nothing: the demonstration.
    lags
        How many steps every loss is followed back.
    cells
        Demonstration: which cells (rnn gru lstm).
    nhid
        Demonstration: units (200).
    radii
        Demonstration: spectral radii of the recurrent weights (0.5 to 1.5).
    inputs
        Demonstration: standard deviations of the input; 0 is rest (0 0.1 1).
    gate_bias
        Demonstration: bias of the gate that keeps the old state, lstm's forget and gru's update gate (0).
    clip
        Demonstration: threshold of the gradient's norm (5).
    clip_value
        Demonstration: threshold of each entry (0.1).
    seed
        Demonstration: of the draws (1).
    passages
        Models: passages of the text, at even distances (30).
    losses
        Models: losses followed in each passage (20).
    spectra
        Models: passages at which the whole Jacobian is taken, 0 for none (4). Slow for large models.
    split
        Models: which part of a corpus, or of a file that a model was trained from, is used (test).
    figure
        Also draw three panels into this file (.svg, .png, .pdf); needs matplotlib.
    """
    drawn: dict[str, Any] = {
        "cells": cells and tuple(_cell(name) for name in cells),
        "hidden_size": nhid,
        "radii": radii,
        "inputs": inputs,
        "gate_bias": gate_bias,
        "clip": clip,
        "clip_value": clip_value,
        "seed": seed,
    }
    trained = {"passages": passages, "losses": losses, "spectra": spectra}
    sources = models_and_source("gradients", models_and_text, "sotu-modern") if models_and_text else None
    if sources is not None:
        _refuse(drawn, "models are read as they are", "leave the models out")
    else:
        _refuse({**trained, "split": split}, "there is no model", "give MODEL… TEXT")
    if figure is not None:
        require_drawable(figure)
    chosen = drawn if sources is None else trained
    given = {"lags": lags} | {name: value for name, value in chosen.items() if value is not None}
    if sources is None:
        _demonstration(given, figure, json=json)
    else:
        _models(*sources, split, given, figure, json=json)


def _demonstration(given: dict[str, Any], figure: Path | None, *, json: bool) -> None:
    import torch

    from elman.gradients.sweep import SweepOptions, at_initialization, sweep

    options = SweepOptions(**given)
    torch.set_num_threads(1)  # the products are too small to be shared; two threads wait for each other
    with progress() as display:
        task = display.add_task("gradients", total=None, rate="")

        def report(done: int, work: int) -> None:
            display.update(task, completed=done, total=work)

        biases = () if "gate_bias" in given else GATE_BIASES
        first = list(at_initialization(options, biases))
        points = list(sweep(options, report))
    if figure is not None:
        draw_sweep(options, first, points, figure)
    if json:
        shown = {**vars(options), "cells": [NAMES[cell] for cell in options.cells]}
        both = {"initialization": first, "sweep": points}
        told = {name: [p.as_json() | {"cell": NAMES[p.cell]} for p in each] for name, each in both.items()}
        emit({"options": shown, **told})
    else:
        print_sweep(options, first, points)


def _models(
    names: list[str],
    source: str,
    split: Split | None,
    given: dict[str, Any],
    figure: Path | None,
    *,
    json: bool,
) -> None:
    from elman.checkpoint import load_model
    from elman.gradients.flow import FlowOptions, gradient_flow
    from elman.gradients.reading import require_unrollable

    options = FlowOptions(**given)
    models = [load_model(name) for name in names]
    for model in models:
        require_unrollable(model)
    labels = short_names(names)
    texts = held_out(source, models, split)
    found: dict[str, GradientFlow] = {}
    with progress() as display:
        for name, model in zip(names, models, strict=True):
            task = display.add_task(name, total=None, rate="")

            def report(done: int, work: int, task: Any = task) -> None:
                display.update(task, completed=done, total=work)

            found[labels[name]] = gradient_flow(model, texts.of(model), options, report)
    if figure is not None:
        draw_flows(found, figure)
    if json:
        rows = zip(names, found.values(), strict=True)
        emit({"text": source, "models": [{"model": name, **each.as_json()} for name, each in rows]})
    else:
        print_flows(found, source)


def _cell(name: CellName) -> str:
    return next(cell for cell, known in NAMES.items() if known == name)


def _refuse(options: dict[str, Any], because: str, remedy: str) -> None:
    """An option of the other half, which would do nothing."""
    flags = {"hidden_size": "nhid"}
    for name, value in options.items():
        if value is not None:
            flag = "--" + flags.get(name, name).replace("_", "-")
            raise OptionError(
                f"{flag} does nothing here: {because}.", remedy=f"{remedy}, or leave {flag} out."
            )
