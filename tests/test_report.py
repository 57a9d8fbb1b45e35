"""The page: well-formed, offline, safe with hostile texts, readable; its figures valid Plotly."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import plotly.graph_objects as go
import pytest

import comparison_example as made
from elman.compare.comparison import Comparison, number, verdicts
from elman.errors import OptionError
from elman.report import embedded, render, write_report
from elman.report.figures import by_bucket, learning_curves

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u2028<b>"
VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """Checks nesting; collects ids, references, scripts and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.tags.append((tag, known))
        if known.get("id"):
            self.ids.append(str(known["id"]))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((known, ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = attributes, text + data
        elif self.open and self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def plain() -> str:
    return render(made.example())


@pytest.fixture(scope="module")
def hostile() -> str:
    return render(made.example(HOSTILE))


def plotly_script() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def test_the_page_is_well_formed_and_complete(plain: str) -> None:
    page = Page(plain)
    assert len(page.ids) == len(set(page.ids))
    anchors = [str(known["href"])[1:] for tag, known in page.tags if tag == "a"]
    assert anchors
    assert set(anchors) <= set(page.ids)
    for wanted in ("LSTM + Kneser-Ney 5 is best on made-up", "95 %", "783,001 events", "Skip to the result"):
        assert wanted in page.text
    assert {"result", "learning", "where", "gains", "samples", "protocol", "repeat"} <= set(page.ids)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("main") == tags.count("header") == tags.count("footer") == tags.count("h1") == 1
    assert tags.count("table") == tags.count("caption")
    for tag, known in page.tags:
        if tag == "th":
            assert known.get("scope") in ("row", "col")
        if "plot" in str(known.get("class", "")).split():
            assert known["role"] == "img"
            assert known["aria-label"]


def test_the_page_says_what_unknown_words_take() -> None:
    example = made.example()
    score = example.entry("lstm").row.score
    assert score.unknown > 50
    text = Page(render(example)).text
    assert f"{number(score.known_perplexity)} without" in text
    assert f"{score.unknown / score.events:.1%} of events, {score.unknown_share:.1%} of nats" in text
    skipped = replace(example, protocol=replace(example.protocol, unknown="skip"))
    assert "of nats" not in Page(render(skipped)).text


def test_the_page_needs_no_network(plain: str) -> None:
    own = plain.replace(plotly_script(), "")
    assert len(own) < len(plain)
    assert plain.count(plotly_script()) == 1
    assert not re.search(r"https?:|//[a-z]+\.|src\s*=|@import|url\(", own)
    assert "default-src 'none'" in own


def test_hostile_texts_stay_texts(plain: str, hostile: str) -> None:
    safe, page = Page(plain), Page(hostile)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in safe.tags]
    assert not [known for _, known in page.tags if any(name.startswith("on") for name in known)]
    assert "alert(1)" in page.text
    for attributes, script in page.scripts:
        if attributes.get("type") == "application/json":
            assert "<" not in script
            json.loads(script)


def test_plotly_reads_no_markup_from_names() -> None:
    figure = learning_curves(made.example("<a href='x'>x</a>"), "epoch")
    assert figure is not None
    names = [trace["name"] for trace in figure["data"]]  # type: ignore[attr-defined]
    assert all("<" not in name for name in names)


def test_the_numbers_inside_are_the_comparison(plain: str) -> None:
    example = made.example()
    inside = next(text for attributes, text in Page(plain).scripts if attributes.get("id") == "comparison")
    document = json.loads(inside)
    assert document["verdicts"] == verdicts(example)
    for entry, stored in zip(example.entries, document["entries"], strict=True):
        assert stored["row"]["figure"] == entry.row.figure
        assert stored["row"]["interval"] == [entry.row.interval.low, entry.row.interval.high]
        assert stored["row"]["score"]["events"] == entry.row.score.events
        assert len(stored["curve"]) == len(entry.curve)
    assert document["repeat"]["command"].startswith("elman compare")


def test_json_inside_a_script_has_no_infinity() -> None:
    text = embedded({"a": math.inf, "b": [math.nan, 1.5], "c": "</script>\u2028"})
    assert json.loads(text) == {"a": None, "b": [None, 1.5], "c": "</script>\u2028"}
    assert "</" not in text


@pytest.mark.parametrize("against", ["epoch", "seconds"])
def test_learning_curves_are_valid_figures(against: str) -> None:
    figure = learning_curves(made.example(), against)
    assert figure is not None
    drawn = go.Figure(coloured(figure))
    assert {trace.name for trace in drawn.data} == {"Unigram", "Kneser-Ney 5", "Feed-forward", "GRU", "LSTM"}
    level = next(trace for trace in drawn.data if trace.name == "Kneser-Ney 5")
    assert len(set(level.y)) == 1
    lstm = next(entry for entry in made.example().entries if entry.name == "lstm")
    points = next(trace for trace in drawn.data if trace.name == "LSTM")
    assert list(points.x) == pytest.approx(
        [point.epoch if against == "epoch" else point.seconds for point in lstm.curve], abs=1e-3
    )


@pytest.mark.parametrize("what", ["frequency", "positions"])
def test_breakdowns_are_valid_figures(what: str) -> None:
    figure = by_bucket(made.example(), what)
    assert figure is not None
    drawn = go.Figure(coloured(figure))
    assert len(drawn.data) == 6
    assert sum(next(trace for trace in drawn.data if trace.name == "LSTM").customdata) == 4262


def coloured(value: object) -> object:
    """As the page's script does it."""
    if isinstance(value, str) and value.startswith("var("):
        return "#123456"
    if isinstance(value, list):
        return [coloured(item) for item in value]
    if isinstance(value, dict):
        return {key: coloured(item) for key, item in value.items()}
    return value


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_read_in_light_and_dark() -> None:
    css = (Path(made.__file__).parent.parent / "src/elman/report/page.css").read_text("utf-8")
    themes = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", part)) for part in css.split("@media", 2)[:2]]
    for theme in themes:
        for text in ("ink", "soft", "accent"):
            for ground in ("paper", "card"):
                assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
        assert contrast(theme["ink"], theme["mark"]) >= 4.5
        assert contrast(theme["soft"], theme["mark"]) >= 4.5
        for name, colour in theme.items():
            if name.startswith("c-"):
                assert contrast(colour, theme["card"]) >= 3, name


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_parts_that_are_missing_leave_a_page(kept: int) -> None:
    example = made.example()
    few = Comparison(
        entries=tuple(
            replace(entry, curve=(), frequency=(), positions=(), samples=(), reset=None, seconds=None)
            for entry in example.entries[:kept]
        ),
        neighbours=(),
        against_baseline=(),
        reset_against_baseline=(),
        baseline=None,
        subject=example.subject,
        protocol=example.protocol,
        repeat=example.repeat,
    )
    page = Page(render(few))
    assert "learning" not in page.ids
    assert "repeat" in page.ids
    if not kept:
        assert "No model was finished." in page.text


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot write the report to"):
        write_report(made.example(), tmp_path / "none" / "page.html")
    assert write_report(made.example(), tmp_path / "page.html").stat().st_size > 1_000_000
