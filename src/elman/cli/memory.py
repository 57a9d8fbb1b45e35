"""`elman memory`: how far back models look, as a table, JSON or a picture; and what its commands share.

Not here: the measurement (memory/context.py) and how texts are found (evaluate.py of this folder). Its
commands are in gates.py, connectivity.py and units.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval
from cyclopts import App, Parameter

from elman.cli.app import Json, app, emit, examples, progress
from elman.cli.models_and_text import (
    ArpaOptions,
    Sources,
    Split,
    held_out,
    load,
    models_and_source,
    short_names,
)
from elman.cli.ranges import Seed
from elman.errors import OptionError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from elman.memory.context import UsableContext

FEW = 500
"""Events below which a loss of 1 % cannot be told from chance."""

EXAMPLES = examples(
    "elman memory runs/lstm sotu-modern",
    "elman memory runs/rnn runs/gru runs/lstm sotu-modern --figure memory.svg",
    "elman memory runs/kn5 runs/lstm novel.txt --histories 1 2 4 8 16 32 --events 5000 --json",
)


History = Annotated[int, Interval(ge=1, le=1_000_000)]

memory_app = App(name="memory", help_epilogue=EXAMPLES, version_flags=[])
app.command(memory_app)


@memory_app.default
def memory_command(
    *models_and_text: Sources,
    histories: Annotated[tuple[History, ...], Parameter(consume_multiple=True, negative="")] = (),
    events: Annotated[int, Interval(ge=1, le=10**9)] = 2000,
    split: Split | None = None,
    seed: Seed = 1,
    figure: Path | None = None,
    arpa: ArpaOptions | None = None,
    json: Json = False,
) -> None:
    """How far back a model looks: its perplexity when all but the last k tokens are taken away.

    The same events are predicted from 1, 2, 3, 5 … 500 tokens and from the whole text before them. A loss is
    how much higher the perplexity is than with the whole text; usable is the shortest history that costs at
    most 1 %, as every longer one does (Khandelwal et al. 2018). The commands look inside: how long units keep
    what they hold, which earlier tokens matter, where else in a text the same units are on.

    Parameters
    ----------
    models_and_text
        MODEL… TEXT, as in `elman evaluate`.
    histories
        The numbers of tokens to keep, rising.
    events
        How many tokens of the text are predicted again and again, drawn at random.
    split
        Which part of a corpus, or of a file that a model was trained from, is used (test).
    seed
        Of the draw.
    figure
        Also draw loss against history into this file (.svg, .png, .pdf); needs matplotlib.
    """
    from elman.memory.context import HISTORIES, usable_context

    names, source = models_and_source("memory", models_and_text, "sotu-modern")
    if figure is not None:
        require_drawable(figure)
    models = [load(name, arpa) for name in names]
    labels = short_names(names)
    texts = held_out(source, models, split)
    found: dict[str, UsableContext] = {}
    with progress() as display:
        for name, model in zip(names, models, strict=True):
            task = display.add_task(name, total=None, rate="")

            def report(done: int, work: int, task: TaskID = task) -> None:
                display.update(task, completed=done, total=work)

            text = texts.of(model)
            chosen = histories or tuple(k for k in HISTORIES if k < text.events)
            found[labels[name]] = usable_context(
                model, text, chosen, events=events, seed=seed, progress=report
            )
    if figure is not None:
        draw(found, figure)
    if json:
        rows = zip(names, found.values(), strict=True)
        emit({"text": source, "models": [{"model": name, **each.as_json()} for name, each in rows]})
    else:
        _print(found, source)


def _print(found: dict[str, UsableContext], source: str) -> None:
    width = max([18, *(len(name) for name in found)])
    first = next(iter(found.values()))
    print(
        f"{first.events:,} events of {source}: perplexity, and what is lost of it without the text before\n"
    )
    print(f"{'history':>9}" + "".join(f"  {name:>{width}}" for name in found))
    for row, cut in enumerate(first.cuts):
        cells = [each.cuts[row] for each in found.values()]
        shown = [f"{c.perplexity:.1f} {_more(c.loss):+7.1f} %" for c in cells]
        print(f"{cut.history:>9,}" + "".join(f"  {cell:>{width}}" for cell in shown))
    whole = "".join(f"  {f'{each.perplexity:.1f}' + ' ' * 10:>{width}}" for each in found.values())
    print(f"{'whole':>9}{whole}\n")
    for name, each in found.items():
        longest = each.cuts[-1].history
        low, usable, high = (
            f"{k:,}" if k else f"more than {longest:,}"
            for k in (each.usable_range()[0], each.usable(), each.usable_range()[1])
        )
        print(f"{name} uses {usable} tokens of history (by the ends of the intervals: {low} to {high})")
    print("(the shortest history that costs at most 1 % of the perplexity, as every longer one does)")
    if first.events < FEW:
        print(f"{first.events:,} events are few: take a longer text, or shorter --histories.")


def _more(nats: float) -> float:
    """Nats an event more → per cent of the perplexity more."""
    from elman.language_model import exponential

    return 100 * (exponential(nats) - 1)


def require_drawable(path: Path) -> None:
    """Before any work: is there matplotlib, and does it write such files?"""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise OptionError(
            f"{path} cannot be drawn: matplotlib is not installed.", remedy="pip install matplotlib"
        ) from error
    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix[1:].lower() not in known:
        raise OptionError(f"{path} is no kind of picture.", remedy=f"end it in one of .{', .'.join(known)}")


def save_figure(figure: Any, path: Path) -> None:
    """A picture of matplotlib's, in one step; what was there before stays until it is whole."""
    from elman.disk import new_file

    with new_file(path) as file:
        figure.savefig(file, format=path.suffix[1:].lower())


def draw(found: dict[str, UsableContext], path: Path) -> None:
    """Loss in per cent against history, both logarithmic, with 95 % intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, each in found.items():
        k = [cut.history for cut in each.cuts]
        loss, low, high = (
            [_more(getattr(cut, which)) for cut in each.cuts] for which in ("loss", "low", "high")
        )
        (line,) = axes.plot(k, loss, marker="o", markersize=3, label=name)
        axes.fill_between(k, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.axhline(1, color="0.5", linewidth=0.8, linestyle="--")
    axes.set(xscale="log", xlabel="tokens of history kept", ylabel="perplexity lost, %")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_yticks([0, 1, 10, 100])
    axes.set_ylim(bottom=-1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)
