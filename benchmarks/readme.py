"""The recorded results → the table and the pictures that README.md shows.

    python benchmarks/readme.py            # rewrites README.md and results/*.svg

Nothing is measured here. A test compares README.md with what this program would write.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
COMPARISON = "compare-sotu-modern-default"

# Validation perplexity by epoch: a log of the TensorFlow port, 5 epochs at the full rate. Then the paper's.
PUBLISHED = [182.20, 142.84, 131.15, 128.42, 128.23, 120.33, 121.63, 123.05, 123.89, 124.01, 123.62]
PUBLISHED += [123.16, 122.83]
PAPER = {"valid": 120.7, "test": 114.5}


def load(name: str) -> dict[str, Any]:
    """results/NAME.json."""
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return document


def comparison_block(comparison: dict[str, Any]) -> str:
    """The table of `make compare`, its picture and how it was counted."""
    subject, repeat = comparison["subject"], comparison["repeat"]
    lines = [
        f"`{repeat['command']}` on two cores ({repeat['machine']}), {minutes(repeat['seconds'])}: trained on "
        f"{subject['trained_on']:,} tokens, scored on the {subject['events']:,} events of the test text, "
        "vocabulary 10,000.",
        "",
        "| model | perplexity | 95 % interval | state reset | parameters | time |",
        "|---|--:|:-:|--:|--:|--:|",
    ]
    for entry in comparison["entries"]:
        row, reset = entry["row"], entry["reset"]
        low, high = row["interval"]
        interval = f"{low:.1f} to {high:.1f}"
        alone = f"{reset['figure']:.1f}" if reset else ""
        cells = (
            entry["label"],
            f"{row['figure']:.1f}",
            interval,
            alone,
            f"{entry['parameters']:,}",
            minutes(entry["seconds"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    picture = f"![Perplexities with their intervals, and learning curves](results/{COMPARISON}.svg)"
    return "\n".join([*lines, "", picture])


def minutes(seconds: float | None) -> str:
    """Whole seconds, or minutes and seconds."""
    if seconds is None:
        return ""
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def replace_block(page: str, name: str, block: str) -> str:
    """The page with what stands between <!-- name --> and <!-- /name --> replaced."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    assert pattern.search(page), f"README.md has no block {name}"
    return pattern.sub(lambda found: f"{found[1]}{block}\n{found[2]}", page)


def draw_comparison(comparison: dict[str, Any], path: Path) -> None:
    """Bars with intervals on the left, validation perplexity against time on the right."""
    import matplotlib.pyplot as plt

    entries = [entry for entry in comparison["entries"] if entry["name"] != "unigram"]
    figure, (bars, curves) = plt.subplots(1, 2, figsize=(10, 3.8), width_ratios=(3, 2))
    for place, entry in enumerate(reversed(entries)):
        row = entry["row"]
        low, high = row["interval"]
        color = {"ngram": "#8a8f98", "mixture": "#2a7f62"}.get(entry["kind"], "#2f6db5")
        bars.barh(place, row["figure"], color=color)
        bars.plot([low, high], [place, place], color="black", linewidth=1.5)
        bars.text(high + 2, place, f"{row['figure']:.1f}", va="center", fontsize=9)
    bars.set_yticks(range(len(entries)), [entry["label"] for entry in reversed(entries)])
    bars.set_xlabel("test perplexity, with 95 % interval (lower is better)")
    baseline = next(entry for entry in entries if entry["name"] == "kn5")
    curves.axhline(baseline["valid"], color="#8a8f98", linestyle="--", label=baseline["label"])
    for entry in entries:
        if entry["curve"]:
            points = entry["curve"]
            curves.plot(
                [point["seconds"] for point in points],
                [point["valid"] for point in points],
                marker="o",
                markersize=3,
                label=entry["label"],
            )
    curves.set_xlabel("seconds of training")
    curves.set_ylabel("validation perplexity")
    curves.legend(fontsize=8, frameon=False)
    finish(figure, (bars, curves), path)


def draw_zaremba(path: Path) -> None:
    """Validation perplexity by epoch: LSTM, GRU and RNN of 2 layers of 200, beside the published curve."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4))
    for cell in ("lstm", "gru", "rnn"):
        if (RESULTS / f"zaremba-small-{cell}.json").exists():
            points = load(f"zaremba-small-{cell}")["curve"]
            axis.plot(
                [point["epoch"] for point in points],
                [point["valid_perplexity"] for point in points],
                marker="o",
                markersize=3,
                label=f"Elman, {cell.upper()} 2×200, first lr {points[0]['lr']:g}",
            )
    axis.plot(range(1, 14), PUBLISHED, color="black", linestyle=":", label="LSTM, log of the TensorFlow port")
    axis.axhline(PAPER["valid"], color="black", linewidth=0.8, label="LSTM, Zaremba et al. (2014)")
    axis.set_ylim(105, 230)
    axis.set_xlabel("epoch")
    axis.set_ylabel("validation perplexity, Penn Treebank")
    axis.legend(fontsize=8, frameon=False)
    finish(figure, (axis,), path)


def finish(figure: Any, axes: tuple[Any, ...], path: Path) -> None:
    """One plain style; the same bytes for the same numbers."""
    import matplotlib as mpl

    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    with mpl.rc_context({"svg.hashsalt": "elman"}):
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Rewrite README.md's blocks and the pictures."""
    comparison = load(COMPARISON)
    readme = ROOT / "README.md"
    page = replace_block(readme.read_text("utf-8"), "results", comparison_block(comparison))
    readme.write_text(page, "utf-8")
    draw_comparison(comparison, RESULTS / f"{COMPARISON}.svg")
    draw_zaremba(RESULTS / "zaremba-small.svg")


if __name__ == "__main__":
    main()
