"""`elman bench`: how fast Elman is beside its peers on this machine, each proven equal first.

Not here: what is measured and how (bench/).
"""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from elman.cli.app import Json, app, emit, examples, messages, results
from elman.cli.ladder import Bar
from elman.errors import OptionError

if TYPE_CHECKING:
    from elman.bench.measure import Settings

EXAMPLES = examples(
    "elman bench --quick",
    "elman bench --rows lstm-2x200 gru-2x200 --rounds 15",
    "elman bench --scaling --threads 2 --save speed.json",
)

wide = Console(markup=False, highlight=False, width=200)
"""Numbers are never cut to fit: a narrow terminal wraps the line."""
Several = Parameter(consume_multiple=True, negative="")


@app.command(help_epilogue=EXAMPLES)
def bench(
    *,
    rows: Annotated[tuple[str, ...], Several] = (),
    rounds: Annotated[int, Interval(ge=1, le=10_000)] | None = None,
    threads: Annotated[int, Interval(ge=1, le=1_024)] | None = None,
    peers: Annotated[tuple[str, ...] | None, Several] = None,
    quick: Annotated[bool, Parameter(negative="")] = False,
    scaling: Annotated[bool, Parameter(negative="")] = False,
    save: Path | None = None,
    json: Json = False,
) -> None:
    """Time Elman beside PyTorch, JAX, ONNX Runtime and KenLM: equal first, then in turns, round by round.

    Every contender takes the same weights and must give the same loss and gradients (or probabilities)
    before anything is timed. A ratio is taken within each round; the median of the rounds is printed.

    Parameters
    ----------
    rows
        What to time (all): see the names in a run's table.
    rounds
        Rounds that count (9; with --quick 3).
    threads
        Of every contender (as many as PyTorch takes).
    peers
        Beside torch: compile, jax, onnx, kenlm (all that are installed); `--peers torch` for none of them.
    quick
        The four smallest rows, three rounds, no torch.compile: a minute or two.
    scaling
        Also vary H, B, T, V and threads one at a time around the small LSTM.
    save
        Write the JSON document to this file, after every row.
    """
    from elman.bench.measure import Settings, document, measure
    from elman.bench.peers import choose_peers
    from elman.bench.rows import choose_rows
    from elman.disk import replace_file

    if save is not None and (save.is_dir() or not save.parent.is_dir()):
        raise OptionError(f"{save} cannot be written.", remedy="--save takes a file in a folder that exists.")
    chosen = choose_rows(rows, quick=quick)
    if peers is None and quick:
        peers = ("jax", "onnx", "kenlm")
    settings = Settings(rounds or (3 if quick else 9) if rounds != 0 else 0, threads, choose_peers(peers))
    found: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []

    def keep() -> dict[str, Any]:
        whole = document(found, settings, points)
        if save is not None:
            text = json_module.dumps(whole, ensure_ascii=False, indent=1, allow_nan=False)
            replace_file(save, text + "\n")
        return whole

    with Bar() as bar:
        for row in measure(chosen, settings, bar.show):
            bar.hide()
            found.append(row)
            keep()  # what is measured outlives Ctrl-C
            if not json:
                show_row(row)
        if scaling:
            points = _scale(settings, bar)
    whole = keep()
    if save is not None:
        messages.print(f"saved to {save}")
    if json:
        emit(whole)
        return
    if points:
        show_scaling(points)
    show_end(whole)


def _scale(settings: Settings, bar: Bar) -> list[dict[str, Any]]:
    from elman.bench.measure import thread_count
    from elman.bench.scaling import measure_scaling

    with thread_count(settings.threads) as most:
        counts = sorted({1, *(count for count in (2, 4, 8, 16, 32, 64) if count < most), most})
    found = list(measure_scaling(settings, counts, bar.show))
    bar.hide()
    return found


def show_row(row: dict[str, Any]) -> None:
    """One row's table: every contender, then the ratios with their goals."""
    results.print(f"\n{row['title']}  [{row['name']}]", style="bold")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for title in ("time", "tokens/s", "GFLOP/s", "of peak", "error / allowed"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in row["contenders"]:
        fraction, proof = one["fraction_of_peak"], row["equality"][one["name"]]
        table.add_row(
            one["name"],
            _time(one["seconds"]["median"]),
            f"{one['tokens_per_second']:,.0f}",
            "" if one["gflops"] is None else f"{one['gflops']:,.1f}",
            "" if fraction is None else f"{fraction['median']:.0%}",
            f"{proof['error']:.1e} / {proof['allowed']:.1e}",
        )
    wide.print(table)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("ratio of", "over"):
        table.add_column(title, no_wrap=True)
    for title in ("median", "rounds", "floor", "aim"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for each in row["ratios"]:
        said = {"aim": "aim reached", "floor": "floor reached", "below": "below the floor", None: ""}
        unsure = "rounds disagree" if each["rounds_disagree"] else ""
        table.add_row(
            each["ours"],
            each["peer"],
            f"{each['median']:.2f}",
            f"{each['low']:.2f}-{each['high']:.2f}",
            *("" if each[key] is None else f"{each[key]:.1f}" for key in ("floor", "aim")),
            ", ".join(part for part in (said[each["reached"]], unsure) if part),
        )
    wide.print(table)
    for note in row["notes"]:
        results.print(f"- {note}")


def show_scaling(points: list[dict[str, Any]]) -> None:
    """One line a point."""
    results.print("\nScaling of the training step, fp32: elman over torch", style="bold")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("axis", "value", "elman", "torch", "ratio", "rounds", "GFLOP/s", "of peak"):
        table.add_column(title, justify="left" if title == "axis" else "right", no_wrap=True)
    for point in points:
        ratio, fraction = point["ratio"], point["fraction_of_peak"]
        table.add_row(
            point["axis"],
            f"{point['value']:,}",
            _time(point["elman_seconds"]),
            _time(point["torch_seconds"]),
            f"{ratio['median']:.2f}",
            f"{ratio['low']:.2f}-{ratio['high']:.2f}",
            f"{point['gflops']:,.1f}",
            "" if fraction is None else f"{fraction['median']:.0%}",
        )
    wide.print(table)


def show_end(whole: dict[str, Any]) -> None:
    """How it was measured, and who could not take part."""
    machine = whole["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in whole["versions"].items())
    results.print(
        f"\n{machine['processor']}, {machine['cores']} cores, {whole['threads']} threads, "
        f"kernels {whole['instruction_set'] or 'none: Elman ran on torch'}; {versions}."
    )
    results.print(
        f"Medians of {whole['rounds']} rounds; a ratio is the peer's time over Elman's in the same round. "
        "GFLOP/s count the matrix products alone; the peak is float32 multiply-adds in registers, measured "
        "in every round on the same threads (for bf16 and int8 too)."
    )
    for row in whole["rows"]:
        for count, peak in row["peak_gflops"].items():
            if peak["rounds_disagree"]:
                results.print(
                    f"- {row['name']}: the peak on {count} threads went from {peak['low']:.0f} to "
                    f"{peak['high']:.0f} GFLOP/s: the machine is shared or throttles; trust the ratios more "
                    "than the seconds."
                )
    for absent in whole["absent"]:
        results.print(f"- {absent['peer']} is not installed: {absent['install']}")


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.2f} ms"
