"""The whole page: one HTML file with style, script, Plotly and the data inside; opens offline.

A content policy in the page forbids every request, so that nothing can leave it or come in.
Not here: the parts (sections.py), the figures (figures.py).
"""

from __future__ import annotations

import math
from html import escape
from importlib.resources import files
from pathlib import Path

from elman.compare.comparison import Comparison, headline, protocol_in_words
from elman.disk import replace_file
from elman.errors import ElmanError, OptionError
from elman.report import sections
from elman.report.figures import Figure, by_bucket, learning_curves
from elman.visible import json_text

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def write_report(comparison: Comparison, path: Path) -> Path:
    """Write the page; raises OptionError where the place cannot be written, and leaves what was there."""
    page = render(comparison)
    try:
        replace_file(path, page)
    except ElmanError as error:
        raise OptionError(
            f"cannot write the report to {error.cause.replace(': cannot be written', '')}",
            reason=error.reason,
            remedy="give --report FILE in a folder that exists, or --no-report.",
        ) from error
    return path


def render(comparison: Comparison) -> str:
    """The page as one string (about 5 MB, nearly all of it Plotly)."""
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped, unused-ignore]

    here = files("elman.report")
    subject, repeat = comparison.subject, comparison.repeat
    parts = [(name, title, body) for name, title, body in _parts(comparison) if body]
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title, _ in parts)
    body = "".join(
        f'<section id="{name}" aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{title}</h2>{html}</section>'
        for name, title, html in parts
    )
    title = escape(f"{subject.name}: language models compared")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{title}</title>
<style>{(here / "page.css").read_text("utf-8")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the result</a>
<header>
<p class="over">{escape(f"elman compare · {subject.name} · {repeat.date}")}</p>
<h1>{escape(headline(comparison))}</h1>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main id="main">{body}</main>
<footer>Written by Elman {escape(repeat.version)}. This page is one file and loads nothing.</footer>
<script type="application/json" id="comparison">{embedded(comparison.as_json(), indent=1)}</script>
<script>{get_plotlyjs()}</script>
<script>{(here / "page.js").read_text("utf-8")}</script>
</body>
</html>
"""


def embedded(document: object, *, indent: int | None = None) -> str:
    """JSON that may stand inside <script>: no `<`, so no text can end the element; no NaN."""
    text = json_text(_finite(document), indent=indent)
    escapes = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
    for character, code in escapes.items():
        text = text.replace(character, code)
    return text


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _parts(comparison: Comparison) -> list[tuple[str, str, str]]:
    """(id, title, HTML) of each section; an empty one is left out."""
    notes = sections.bullets(comparison.notes) if comparison.notes else ""
    how = sections.bullets(protocol_in_words(comparison)) + notes
    gains = sections.gains(comparison.gains, comparison) if comparison.gains else ""
    result = sections.ladder(comparison) if comparison.entries else "<p>No model was finished.</p>"
    return [
        ("result", "Result", result),
        ("learning", "Learning", _learning(comparison)),
        ("where", "Where the nats fall", _where(comparison)),
        ("gains", "Word by word", gains),
        ("samples", "Samples", sections.samples(comparison)),
        ("protocol", "How it was counted", how),
        ("repeat", "How to repeat it", _repeat(comparison)),
    ]


def _plot(name: str, figures: list[Figure], caption: str, alternative: str) -> str:
    return (
        f'<figure><div class="plot" id="plot-{name}" data-figures="figures-{name}" role="img" '
        f'aria-label="{escape(caption)} The numbers are in the table below."></div>'
        f"<figcaption>{escape(caption)}</figcaption>{alternative}</figure>"
        f'<script type="application/json" id="figures-{name}">{embedded(figures)}</script>'
    )


def _learning(comparison: Comparison) -> str:
    found = [learning_curves(comparison, against) for against in ("epoch", "seconds")]
    figures = [figure for figure in found if figure is not None]
    if not figures:
        return ""
    switch = (
        '<div class="switch" role="group" aria-label="Horizontal axis">'
        '<button type="button" data-plot="plot-learning" data-figure="0" aria-pressed="true">'
        "per epoch</button>"
        '<button type="button" data-plot="plot-learning" data-figure="1" aria-pressed="false">'
        "per second</button>"
        "</div>"
    )
    caption = (
        "Perplexity of the validation text after each epoch. N-grams do not train in epochs: level lines."
    )
    return switch + _plot("learning", figures, caption, sections.curve_numbers(comparison))


def _where(comparison: Comparison) -> str:
    parts = []
    for what, caption in (
        ("frequency", "Perplexity by how often the predicted token stood in the training text."),
        ("positions", "Perplexity by the place of the token in its sentence (1 is its first token)."),
    ):
        figure = by_bucket(comparison, what)
        if figure is not None:
            table = sections.bucket_numbers(comparison, what, caption)
            parts.append("<div>" + _plot(what, [figure], caption, table) + "</div>")
    lead = '<p class="lead">Models that are hidden at first can be switched on in the legend.</p>'
    return lead + f'<div class="two">{"".join(parts)}</div>' if parts else ""


def _repeat(comparison: Comparison) -> str:
    subject, repeat = comparison.subject, comparison.repeat
    trained = "–" if subject.trained_on is None else f"{subject.trained_on:,} events"
    rows = {
        "version": f"Elman {repeat.version}",
        "seed": str(repeat.seed),
        "machine": repeat.machine,
        "time": f"{repeat.date}, {sections.duration(repeat.seconds)} in all",
        "text": f"{subject.name}: {subject.origin}",
        "text digest": subject.digest,
        "vocabulary": f"{subject.vocabulary:,} tokens",
        "trained on": trained,
        "scored": f"{subject.events:,} events, {subject.words:,} words, {subject.bytes:,} bytes",
    }
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows.items())
    settings = [
        f"{entry.label}: " + ", ".join(f"{name} {value}" for name, value in entry.details.items())
        for entry in comparison.entries
        if entry.details
    ]
    details = f"<details><summary>Settings of each model</summary>{sections.bullets(settings)}</details>"
    return (
        f"<pre><code>{escape(repeat.command)}</code></pre><dl>{facts}</dl>{details if settings else ''}"
        '<p><button class="solo" type="button" id="download">Download all numbers (JSON)</button></p>'
    )
