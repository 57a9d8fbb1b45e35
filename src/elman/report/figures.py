"""The figures of the page as plain Plotly JSON: traces and layout, no drawing.

Colours are written `var(--name)`; the page's script fills them in from its style sheet, so that one
figure serves light and dark. Plotly reads a little HTML in texts, so every name goes through `plain`.
Not here: the page (sections.py), the numbers (comparison.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from elman.compare.comparison import Comparison, Entry
from elman.evaluate import Bucket

Figure = dict[str, object]

LEARNED = {"feedforward": "--c-ff", "rnn": "--c-rnn", "gru": "--c-gru", "lstm": "--c-lstm"}
DASHES = ("dot", "dash", "dashdot", "longdash", "solid")


def plain(text: str) -> str:
    """Text that Plotly shows as it stands."""
    return escape(text, quote=False)


def colour(entry: Entry) -> str:
    """The variable of the style sheet that colours a model everywhere on the page."""
    if entry.kind == "mixture":
        return "var(--c-mix)" if entry.name == "mixture" else "var(--c-pair)"
    if entry.kind == "ngram":
        return "var(--c-ngram)"
    words = entry.name.split("-")[0]
    return f"var({LEARNED.get(words, '--c-other')})"


def main_models(comparison: Comparison) -> set[str]:
    """What a figure shows at first: all that is learned, and the best n-gram."""
    counted = [entry for entry in comparison.entries if entry.kind == "ngram"]
    best = min(counted, key=lambda entry: entry.row.figure).name if counted else ""
    return {entry.name for entry in comparison.entries if entry.kind != "ngram"} | {best}


def learning_curves(comparison: Comparison, against: str) -> Figure | None:
    """Validation perplexity against "epoch" or "seconds"; n-grams are horizontal lines."""
    curved = [entry for entry in comparison.entries if entry.curve]
    if not curved:
        return None

    def place(entry: Entry) -> list[float]:
        return [
            round(getattr(point, "epoch" if against == "epoch" else "seconds"), 3) for point in entry.curve
        ]

    right = max(max(place(entry)) for entry in curved)
    shown, traces = main_models(comparison), []
    for index, entry in enumerate(
        entry for entry in comparison.entries if not entry.curve and entry.kind == "ngram" and entry.valid
    ):
        trace = _line(entry, [0.0, right], [entry.valid, entry.valid], entry.name in shown)
        trace["mode"] = "lines"
        trace["line"] = {"color": colour(entry), "width": 1.5, "dash": DASHES[index % len(DASHES)]}
        traces.append(trace)
    traces += [_line(entry, place(entry), [point.valid for point in entry.curve], True) for entry in curved]
    title = "epochs" if against == "epoch" else "seconds of training"
    x: Figure = {"title": {"text": title}}
    if against == "epoch" and right <= 12:
        x["dtick"] = 1
    return _figure(traces, x=x, y="validation perplexity")


def by_bucket(comparison: Comparison, what: str) -> Figure | None:
    """Perplexity of the events of each bucket: what="frequency" or "positions"."""
    tables = {entry.name: getattr(entry, what) for entry in comparison.entries if getattr(entry, what)}
    if not tables:
        return None
    shown, traces = main_models(comparison), []
    for entry in comparison.entries:
        buckets: Sequence[Bucket] = [bucket for bucket in tables.get(entry.name, ()) if bucket.events]
        if buckets:
            trace = _line(
                entry,
                [plain(bucket.label) for bucket in buckets],
                [bucket.perplexity for bucket in buckets],
                entry.name in shown,
            )
            trace["customdata"] = [bucket.events for bucket in buckets]
            trace["hovertemplate"] = (
                "%{fullData.name}<br>%{x}: %{y:,.1f} (%{customdata:,} events)<extra></extra>"
            )
            traces.append(trace)
    x: Figure = {
        "type": "category",
        "title": {"text": "times in the training text" if what == "frequency" else "place in the sentence"},
    }
    return _figure(traces, x=x, y="perplexity")


def _line(entry: Entry, x: Sequence[object], y: Sequence[float | None], shown: bool) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plain(entry.label),
        "x": list(x),
        "y": [None if value is None else round(value, 3) for value in y],
        "visible": True if shown else "legendonly",
        "line": {"color": colour(entry), "width": 2.5 if entry.kind != "ngram" else 1.5},
        "marker": {"size": 6},
        "hovertemplate": "%{fullData.name}<br>%{x}: %{y:,.1f}<extra></extra>",
    }


def _figure(traces: list[Figure], *, x: Figure, y: str) -> Figure:
    axis = {"gridcolor": "var(--line)", "linecolor": "var(--line)", "zeroline": False, "automargin": True}
    return {
        "data": traces,
        "layout": {
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": "var(--ink)", "family": "system-ui, sans-serif", "size": 13},
            "margin": {"l": 50, "r": 12, "t": 8, "b": 46},
            "height": 400,
            "hovermode": "closest",
            "hoverlabel": {"bgcolor": "var(--card)", "font": {"color": "var(--ink)"}},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "xaxis": {**axis, **x},
            "yaxis": {**axis, "type": "log", "title": {"text": y}, **_ticks(traces)},
        },
    }


def _ticks(traces: list[Figure]) -> Figure:
    """Ticks of a logarithmic axis as plain numbers, dense enough for a narrow range."""
    values = [value for trace in traces if trace["visible"] is True for value in trace["y"] if value]  # type: ignore[attr-defined]
    low, high = (min(values), max(values)) if values else (1.0, 10.0)
    for steps in ((1, 10), (1, 3, 10), (1, 2, 5, 10), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9, 10)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = sorted({step * 10.0**power for power in powers for step in steps})
        if sum(low <= tick <= high for tick in ticks) >= 4:
            break
    else:
        width = 10.0 ** math.floor(math.log10(max(high - low, 1e-6) / 4))
        width *= next(step for step in (1, 2, 5, 10) if (high - low) / (step * width) <= 6)
        ticks = [width * i for i in range(int(low / width), int(high / width) + 2)]
    ticks = [tick for tick in ticks if low / 1.5 <= tick <= high * 1.5]
    return {"tickvals": ticks, "ticktext": [f"{tick:,.6g}" for tick in ticks]}
