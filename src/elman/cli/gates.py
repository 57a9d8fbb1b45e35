"""`elman memory gates`: how open gates are, how often saturated, how long units keep what they hold.

Not here: the measurement (memory/gates.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from elman.cli.app import Json, emit, examples, progress
from elman.cli.memory import memory_app, require_drawable, save_figure
from elman.cli.models_and_text import Sources, Split, held_out, models_and_source, short_names

if TYPE_CHECKING:
    from rich.progress import TaskID

    from elman.memory.gates import GateReport, TimeConstants

EXAMPLES = examples(
    "elman memory gates runs/gru runs/lstm sotu-modern",
    "elman memory gates runs/lstm novel.txt --figure gates.svg --json",
)
NAMES = {
    "i": "input gate",
    "f": "forget gate",
    "g": "candidate",
    "o": "output gate",
    "r": "reset gate",
    "z": "update gate",
    "n": "candidate",
    "c": "cell",
    "h": "hidden state",
}

LEGEND = """\
low, high: share of values that are saturated. Gates: below 0.1, above 0.9. Candidates and h: below -0.9,
above 0.9. The cell: by its tanh. A ReLU's h: those that are 0. Quantiles are over tokens and units."""


@memory_app.command(name="gates", help_epilogue=EXAMPLES)
def gates_command(
    *models_and_text: Sources,
    split: Split | None = None,
    state: Literal["carry", "reset"] = "carry",
    figure: Path | None = None,
    json: Json = False,
) -> None:
    """How open the gates of recurrent models are over a text, and how long their units keep what they hold.

    For every gate, candidate and state: mean, standard deviation, quantiles over tokens and units, and how
    often it is saturated (Karpathy et al. 2016). For forget gates (z in a GRU) the time constant of each
    unit: after so many tokens 1/e of a stored value is left, unless it is written anew.

    Parameters
    ----------
    models_and_text
        MODEL… TEXT, as in `elman evaluate`; the models are RNNs, GRUs and LSTMs.
    split
        Which part of a corpus, or of a file that a model was trained from, is read (test).
    state
        carry: the text is one stream. reset: every sentence starts from zeros.
    figure
        Also draw gates and time constants into this file (.svg, .png, .pdf); needs matplotlib.
    """
    from elman.checkpoint import load_model
    from elman.memory.gates import gate_statistics

    names, source = models_and_source("memory gates", models_and_text, "sotu-modern")
    if figure is not None:
        require_drawable(figure)
    models = [load_model(name) for name in names]
    labels = short_names(names)
    texts = held_out(source, models, split)
    found: dict[str, GateReport] = {}
    with progress() as display:
        for name, model in zip(names, models, strict=True):
            task = display.add_task(name, total=None, rate="")

            def report(done: int, work: int, task: TaskID = task) -> None:
                display.update(task, completed=done, total=work)

            found[labels[name]] = gate_statistics(model, texts.of(model), state=state, progress=report)
    if figure is not None:
        draw(found, figure)
    if json:
        rows = zip(names, found.values(), strict=True)
        emit({"text": source, "models": [{"model": name, **each.as_json()} for name, each in rows]})
        return
    for name, each in found.items():
        _print(name, each, source)
    print(LEGEND)


def _print(name: str, found: GateReport, source: str) -> None:
    print(f"{name} ({found.cell}): {found.events:,} tokens of {source}, state={found.state}\n")
    heads = ("mean", "sd", "5 %", "25 %", "50 %", "75 %", "95 %", "low", "high")
    print(f"{'layer':>5}  {'':<14}" + "".join(f"{head:>8}" for head in heads))
    for gate in found.gates:
        numbers = (gate.mean, gate.deviation, *gate.quantiles)
        cells = [f"{number:>8.3f}" if abs(number) < 1000 else f"{number:>8.1e}" for number in numbers]
        shares = [f"{100 * share:>6.1f} %" for share in (gate.low, gate.high)]
        print(f"{gate.layer:>5}  {f'{gate.name} {NAMES[gate.name]}':<14}" + "".join(cells + shares))
    if found.time_constants:
        lengths = ("5 %", "25 %", "50 %", "75 %", "95 %", "longest", "> 10", "> 100")
        print(f"\n{'layer':>5}  {'tokens':<14}" + "".join(f"{head:>8}" for head in lengths))
    for each in found.time_constants:
        print(f"{each.layer:>5}  {f'time constant {each.gate}':<14}" + "".join(_tokens(each)))
    print()


def _tokens(each: TimeConstants) -> list[str]:
    """Quantiles over units, the longest, the shares of units beyond 10 and 100 tokens."""
    lengths = [*each.quantiles(), float(each.tokens.max())]
    shares = [float((each.tokens > limit).mean()) for limit in (10, 100)]
    shown = [f"{length:.1f}" if length < 1e5 else f"{length:.1e}" for length in lengths]
    return [*(f"{length:>8}" for length in shown), *(f"{100 * share:>6.1f} %" for share in shares)]


def draw(found: dict[str, GateReport], path: Path) -> None:
    """Left, what every gate does (quantiles, mean); right, the units' time constants in falling order."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    ticks: dict[float, str] = {}
    place = 0.0
    for number, (name, each) in enumerate(found.items()):
        color = f"C{number}"
        shown = [gate for gate in each.gates if gate.name not in ("c", "h") or each.cell.startswith("rnn")]
        several = max(gate.layer for gate in shown) > 1
        for gate in shown:
            low, first, middle, third, high = gate.quantiles
            left.plot([place, place], [low, high], color=color, linewidth=1.2)
            left.plot(
                [place, place], [first, third], color=color, linewidth=9, alpha=0.45, solid_capstyle="butt"
            )
            left.plot(place, middle, "o", color=color, markersize=5)
            left.plot(place, gate.mean, "_", color="black", markersize=11)
            ticks[place] = f"{gate.name}{gate.layer if several else ''}"
            place += 1
        place += 0.6
        left.plot([], [], color=color, linewidth=5, label=name)
        for line in each.time_constants:
            units = sorted(line.tokens, reverse=True)
            share = [100 * (k + 1) / len(units) for k in range(len(units))]
            style = "-" if line.layer == 1 else (0, (5, line.layer))
            layer = f", layer {line.layer}" if several else ""
            right.plot(share, units, color=color, linestyle=style, label=f"{name}: {line.gate}{layer}")
    left.set_xticks([*ticks], [*ticks.values()])
    left.axhline(0, color="0.5", linewidth=0.8)
    for limit in (0.1, 0.9):
        left.axhline(limit, color="0.6", linewidth=0.8, linestyle=":")
    left.set(ylabel="value: 5, 25, 50, 75, 95 %; dash: mean", title="gates, candidates; h of a plain RNN")
    left.grid(axis="y", alpha=0.25)
    right.set(
        xlabel="units, %, in falling order", ylabel="time constant, tokens", title="how long units keep"
    )
    right.grid(alpha=0.3)
    if right.lines:
        right.set_yscale("log")
        right.yaxis.set_major_formatter("{x:g}")
        right.legend(fontsize=8)
    else:
        right.text(0.5, 0.5, "a plain RNN has\nno gate that keeps", ha="center", transform=right.transAxes)
    figure.legend(
        loc="outside upper center", ncols=3, fontsize=9, handles=left.get_legend_handles_labels()[0]
    )
    save_figure(figure, path)
