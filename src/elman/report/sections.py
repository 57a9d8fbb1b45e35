"""The parts of the page as HTML: every text that came from a file or a model is escaped here.

Not here: the frame with style and script (page.py), the figures (figures.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from elman.compare.comparison import FIGURES, Comparison, Entry, Gains, WordGain, number, percent, verdicts
from elman.compare.table import Difference, Row
from elman.report.figures import colour


def ladder(comparison: Comparison) -> str:
    """The table: figure, interval, bar, distance from the baseline, reset, size, time."""
    entries = comparison.entries
    per = entries[0].row.per
    most = _full_bar(entries)
    changes = {difference.name: difference for difference in comparison.against_baseline}
    base = comparison.entry(comparison.baseline).label if comparison.baseline else ""
    resets = any(entry.reset for entry in entries)
    heads = [FIGURES[per], "drawn"]
    heads += [f"against {base}"] if base else []
    heads += ["reset"] if resets else []
    unknown = any(entry.row.score.unknown for entry in entries) and comparison.protocol.unknown == "word"
    heads += ["unknown words"] if unknown else []
    heads += ["parameters", "training"]
    rows = []
    for entry in entries:
        cells = [
            f"<td>{number(entry.row.figure, per)}<br>{_bounds(entry.row)}</td>",
            f'<td class="bars">{_bar(entry, most)}</td>',
        ]
        if base:
            cells.append(f"<td>{_against(changes.get(entry.name))}</td>")
        if resets:
            reset = f"{number(entry.reset.figure, per)}<br>{_bounds(entry.reset)}" if entry.reset else "–"
            cells.append(f"<td>{reset}</td>")
        if unknown:
            cells.append(f"<td>{_unknown(entry)}</td>")
        cells.append(f"<td>{count(entry.parameters)}</td><td>{duration(entry.seconds)}</td>")
        tag = '<span class="tag">best</span>' if entry is comparison.best else ""
        kind = ' class="best"' if entry is comparison.best else ""
        swatch = f'<span class="swatch" style="background:{colour(entry)}"></span>'
        rows.append(f'<tr{kind}><th scope="row">{swatch}{escape(entry.label)}{tag}</th>{"".join(cells)}</tr>')
    lead = (
        f"Scored on {comparison.subject.name}, {comparison.subject.events:,} events. Smaller is better; "
        "brackets and whiskers are 95 % intervals. A bar that fades at its end is longer than drawn."
    )
    whole = table(["model", *heads], rows, caption="Each model on the same events", kind="ladder")
    return f'<p class="lead">{escape(lead)}</p>' + whole + bullets(verdicts(comparison))


def table(heads: Sequence[str], rows: Iterable[str], *, caption: str, kind: str = "") -> str:
    """`heads` are escaped; rows and caption are HTML. The box scrolls, the page does not."""
    cells = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    return (
        f'<div class="box" tabindex="0" role="region" aria-label="{escape(heads[0])} table">'
        f'<table class="{kind}"><caption><span>{caption}</span></caption><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def bullets(lines: Iterable[str]) -> str:
    return '<ul class="plain">' + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def numbers(heads: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str) -> str:
    """The numbers of a figure for those who do not see it."""
    body = (
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        "<details><summary>The numbers</summary>" + table(heads, body, caption=escape(caption)) + "</details>"
    )


def curve_numbers(comparison: Comparison) -> str:
    """Validation perplexity of each epoch, a row for each model."""
    curved = [entry for entry in comparison.entries if entry.curve]
    epochs = sorted({point.epoch for entry in curved for point in entry.curve})
    rows = []
    for entry in curved:
        known = {point.epoch: number(point.valid) for point in entry.curve}
        rows.append([entry.label, *(known.get(epoch, "–") for epoch in epochs), duration(entry.seconds)])
    rows += [
        [entry.label, *([number(entry.valid)] * len(epochs)), duration(entry.seconds)]
        for entry in comparison.entries
        if not entry.curve and entry.valid
    ]
    heads = ["model", *(f"epoch {epoch:g}" for epoch in epochs), "training"]
    return numbers(heads, rows, caption="Perplexity of the validation text")


def bucket_numbers(comparison: Comparison, what: str, caption: str) -> str:
    """Perplexity in each bucket, a row for each model, and the events of each bucket."""
    entries = [entry for entry in comparison.entries if getattr(entry, what)]
    labels = [bucket.label for bucket in getattr(entries[0], what) if bucket.events]
    rows = [["events", *(f"{bucket.events:,}" for bucket in getattr(entries[0], what) if bucket.events)]]
    for entry in entries:
        found = {bucket.label: number(bucket.perplexity) for bucket in getattr(entry, what)}
        rows.append([entry.label, *(found.get(label, "–") for label in labels)])
    return numbers(["model", *labels], rows, caption=caption)


def samples(comparison: Comparison) -> str:
    """What each model writes."""
    parts = []
    for entry in comparison.entries:
        if entry.samples:
            lines = "".join(f"<p>{escape(text)}</p>" for text in entry.samples)
            parts.append(
                f'<div class="sample" style="border-color:{colour(entry)}">'
                f"<h3>{escape(entry.label)}</h3>{lines}</div>"
            )
    return f'<div class="two">{"".join(parts)}</div>' if parts else ""


def gains(found: Gains, comparison: Comparison) -> str:
    """Which tokens one model predicts better than the other, and sentences at the extremes."""
    mine, theirs = (escape(comparison.entry(name).label) for name in (found.name, found.other))
    tables = "".join(
        f"<div>{_gain_table(rows, caption)}</div>"
        for rows, caption in (
            (found.won, f"Tokens on which {mine} saves most against {theirs}"),
            (found.lost, f"Tokens on which {theirs} is ahead of {mine}"),
        )
        if rows
    )
    lines = []
    for sentence in found.sentences:
        words = []
        for token in sentence:
            saved = (token.theirs - token.mine) / math.log(2)
            tint = f"rgba(var(--{'good' if saved > 0 else 'bad'}),{min(0.6, abs(saved) / 10):.2f})"
            title = f"{comparison.entry(found.name).label} {token.mine / math.log(2):.1f} bits, "
            title += f"{comparison.entry(found.other).label} {token.theirs / math.log(2):.1f} bits"
            words.append(
                f'<span style="background:{tint}" title="{escape(title)}">{escape(token.text)}</span>'
            )
        bits = sum(token.theirs - token.mine for token in sentence) / math.log(2)
        verb = "saves" if bits >= 0 else "loses"
        lines.append(
            f'<p>{" ".join(words)} <span class="small">{mine} {verb} {abs(bits):.1f} bits</span></p>'
        )
    return (
        f'<div class="two">{tables}</div><h3>Token by token</h3><p class="lead">Green: {mine} gives the '
        f"token more probability than {theirs}; red: less. Two sentences with the largest gain per token and "
        f'the one with the largest loss, picked as extremes.</p><div class="paired">{"".join(lines)}</div>'
    )


def _gain_table(rows: Sequence[WordGain], caption: str) -> str:
    body = (
        f'<tr><th scope="row">{escape(gain.text)}</th><td>{gain.count:,}</td>'
        f"<td>{gain.nats / math.log(2):+,.0f}</td><td>{gain.nats / math.log(2) / gain.count:+.2f}</td></tr>"
        for gain in rows
    )
    return table(["token", "times", "bits in all", "bits each"], body, caption=caption)


def count(value: int | None) -> str:
    """1234567 → 1.23 M."""
    if value is None:
        return "–"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return str(value)


def duration(seconds: float | None) -> str:
    """Seconds as 0.8 s, 45 s, 3 m 05 s, 2 h 10 m."""
    if seconds is None:
        return "–"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} m {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} m"


def _bounds(row: Row) -> str:
    low, high = row.interval.low, row.interval.high
    if math.isnan(low):
        return "–"
    return f'<span class="small">[{number(low, row.per)}, {number(high, row.per)}]</span>'


def _against(difference: Difference | None) -> str:
    if difference is None:
        return "–"
    distance, _, bounds = percent(difference.change, difference.interval).partition(" [")
    bounds, _, side = bounds.partition("] ")
    apart = "" if difference.clear else ", not told apart"
    return f'{distance} {side}<br><span class="small">[{bounds}]{apart}</span>' if side else distance


def _unknown(entry: Entry) -> str:
    score = entry.row.score
    share = f"{score.unknown / max(1, score.events):.1%} of events, {score.unknown_share:.1%} of nats"
    return f'{number(score.known_perplexity)} without<br><span class="small">{share}</span>'


def _full_bar(entries: Sequence[Entry]) -> float:
    """The figure of a full bar: twice the middle one, so that a poor model does not flatten the rest."""
    figures = sorted(entry.row.figure for entry in entries if math.isfinite(entry.row.figure))
    highs = [entry.row.interval.high for entry in entries if math.isfinite(entry.row.interval.high)]
    middle = figures[len(figures) // 2] if figures else 0.5
    return min(2 * middle, max([*figures, *highs], default=1.0))


def _bar(entry: Entry, most: float) -> str:
    figure, interval = entry.row.figure, entry.row.interval
    if not math.isfinite(figure):
        return ""
    if figure > most:
        cut = f'<i style="width:100%;background:{colour(entry)}"></i>'
        return f'<span class="bar cut" title="longer than drawn">{cut}</span>'
    whisker = ""
    if math.isfinite(interval.low) and math.isfinite(interval.high):
        left, width = 100 * interval.low / most, 100 * (interval.high - interval.low) / most
        whisker = f'<b style="left:{left:.2f}%;width:{width:.2f}%"></b>'
    fill = f'<i style="width:{100 * figure / most:.2f}%;background:{colour(entry)}"></i>'
    return f'<span class="bar">{fill}{whisker}</span>'
