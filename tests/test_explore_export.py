"""The page as one static file: complete, offline, strict; and what axe-core says of the page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

import explore_page_example as made
from elman.explore.export import static_page
from elman.explore.presets import PRESETS
from elman.report.page import POLICY
from elman.text.tokenizers import get_tokenizer
from explore_page_example import PAGE, VIEWS, Site, ready, watched

SCRIPTS = re.findall(r'<script src="page/([\w.]+)"', (PAGE / "index.html").read_text("utf-8"))
STYLES = re.findall(r'href="page/([\w.]+)"', (PAGE / "index.html").read_text("utf-8"))


def test_every_file_of_the_page_is_linked_and_small() -> None:
    files = {path.name: path.read_text("utf-8") for path in PAGE.iterdir()}
    assert sorted([*SCRIPTS, *STYLES, "index.html"]) == sorted(files)
    for name, text in files.items():
        assert text.count("\n") <= 300, name
        assert "/*" in text.split("\n\n")[0] or name == "index.html", f"{name} begins with what it is"
        assert "innerHTML" not in text, name
        assert not re.search(r"\beval\(|new Function|insertAdjacentHTML|document\.write", text), name
    assert not re.search(r"<[^>]* (style|on\w+)=|<script>|<style>", files["index.html"]), "inline code"


def test_the_file_holds_all_and_loads_nothing() -> None:
    page = made.static()
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}, "a namespace, not an address that is loaded"
    assert f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">' in page
    data = re.search(r'<script type="application/json" id="explore-data">(.*?)</script>', page, re.DOTALL)
    assert data
    assert json.loads(data[1]) == json.loads(json.dumps(made.document()))
    for name in (*SCRIPTS, *STYLES):
        assert (PAGE / name).read_text("utf-8") in page


def test_no_text_or_title_can_leave_its_place() -> None:
    model = made.document()["models"][0] | {"name": made.HOSTILE}
    page = static_page(made.document() | {"models": [model]}, title=made.HOSTILE)
    assert page.count("<script") == made.static().count("<script")
    assert "<img" not in page
    title = re.search(r"<title>(.*?)</title>", page)
    assert title
    assert unescape(title[1]) == made.HOSTILE


def test_presets_are_tokens_of_prose_and_point_inside_their_texts() -> None:
    assert {preset["view"] for preset in PRESETS} == set(VIEWS)
    assert len({preset["id"] for preset in PRESETS}) == len(PRESETS)
    prose = get_tokenizer("prose")
    for preset in PRESETS:
        lines = preset["text"].split("\n")
        tokens = [
            line[token.start : token.end]
            for line in lines
            for found in prose.sentences(line)
            for token in found
        ]
        assert tokens == preset["text"].split(), preset["id"]
        total = len(tokens) + len(lines)
        assert 0 <= preset["token"] < total
        first, last = preset.get("range", (0, 1))
        assert 0 <= first < last <= total


@pytest.mark.parametrize(
    ("name", "read", "predicted"), [("again", "need", "schools"), ("belt", ".", "</s>"), ("step", ",", "we")]
)
def test_the_step_of_a_preset_reads_the_word_that_its_note_is_about(
    name: str, read: str, predicted: str
) -> None:
    preset = next(each for each in PRESETS if each["id"] == name)
    tokens = [*preset["text"].replace("\n", " </s> ").split(), "</s>"]
    assert (tokens[preset["token"] - 1], tokens[preset["token"]]) == (read, predicted)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="playwright (extra dev) is not installed")
    if made.CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=made.CHROMIUM, args=made.OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """The static page from the file system with the network cut: any request fails the test."""
    file = tmp_path / "page.html"
    file.write_text(made.static(), "utf-8")
    context = browser.new_context()
    context.set_offline(True)
    requests: list[str] = []
    context.on("request", lambda request: requests.append(request.url))
    with watched(context) as page:
        page.goto(file.as_uri())
        ready(page)
        page.file = file.as_uri()
        yield page
    context.close()
    assert {url.partition("#")[0] for url in requests if not url.startswith("data:")} == {file.as_uri()}


def test_every_view_works_offline(opened: Any) -> None:
    assert opened.locator("#typed").is_hidden()
    assert "texts can be chosen, not typed" in opened.inner_text("#text-note")
    for place, preset in enumerate(PRESETS, start=1):
        opened.select_option("#preset", preset["id"])
        opened.keyboard.press("Escape")
        opened.evaluate("() => document.activeElement.blur()")
        opened.keyboard.press(str(place))
        ready(opened)
        panel = opened.locator(f"#panel-{preset['view']}")
        assert panel.is_visible()
        assert (
            opened.locator("#strip .word").count()
            == len(preset["text"].split()) + preset["text"].count("\n") + 1
        )
        if preset["view"] != "memory":
            assert panel.locator("canvas, svg, .bars").count() > 0
    opened.goto(f"{opened.file}#preset=money&view=memory&from=10&to=12&threshold=0.05")
    opened.reload()
    ready(opened)
    opened.wait_for_selector("#panel-memory svg.chart")
    assert "holds no reference text" in opened.inner_text("#panel-memory")


def test_a_search_that_was_saved_is_shown(browser: Any, tmp_path: Path) -> None:
    question = {"layer": 1, "part": "h", "threshold": 0.5, "first": 10, "last": 13}
    texts = [text | {"similar": {"m0": [made.similar(question)]}} for text in made.document()["texts"]]
    file = tmp_path / "page.html"
    file.write_text(static_page(made.document() | {"texts": texts}), "utf-8")
    context = browser.new_context()
    with watched(context) as page:
        page.goto(f"{file.as_uri()}#preset=money&view=memory&from=10&to=12&model=m0")
        page.wait_for_selector(".matches li")
        assert page.locator(".matches li").count() == 2
    context.close()


def test_a_word_beyond_the_states_that_were_saved(browser: Any, tmp_path: Path) -> None:
    """The file holds the states of 200 tokens of each model; a later word can be chosen in the strip."""
    found, lines = made.explorer(), ["we will keep the peace"] * 40
    text = {
        "id": "t0",
        "title": "long",
        "text": "\n".join(lines),
        "traces": {"m0": found.full_trace("m0", lines, "carry")},
    }
    document = made.document() | {"models": found.cards[:1], "presets": [], "texts": [text]}
    file = tmp_path / "page.html"
    file.write_text(static_page(document), "utf-8")
    context = browser.new_context()
    with watched(context) as page:
        for view in ("heatmap", "conveyor", "cell"):
            page.goto("about:blank")
            page.goto(f"{file.as_uri()}#preset=t0&view={view}&token=230")
            ready(page)
            assert "lies beyond the words whose states" in page.inner_text(f"#panel-{view}")
            page.goto(f"{file.as_uri()}#preset=t0&view={view}&token=199")
            ready(page)
            assert "The step shown reads" in page.inner_text(f"#panel-{view}")
    context.close()


def test_what_a_link_asks_for_and_the_file_lacks_is_an_error(opened: Any) -> None:
    opened.goto("about:blank")
    opened.goto(f"{opened.file}#text=something%20else")
    opened.wait_for_selector("#error .problem")
    assert "run `elman explore` to type your own" in opened.inner_text("#error")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, scheme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing"
    ).Axe()
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)  # axe puts itself into the page
    site = Site()
    context.route("**/*", site.serve)

    def check(page: Any, where: str) -> None:
        violations = axe.run(page).response["violations"]
        bad = [
            (found["id"], [node["html"][:120] for node in found["nodes"]][:3])
            for found in violations
            if found["impact"] in ("serious", "critical")
        ]
        assert not bad, (where, bad)

    with watched(context) as page:
        for preset in PRESETS:
            page.goto("about:blank")
            page.goto(
                f"{made.SITE}#view={preset['view']}&preset={preset['id']}&token={preset['token']}&from=2&to=4&unit=3"
            )
            ready(page)
            for summary in page.locator("[role=tabpanel]:not([hidden]) summary").all():
                summary.click()
            if preset["view"] == "memory":
                page.wait_for_selector(".matches li")
            check(page, preset["view"])
        for colour in ("difference", "unit", "gradient"):
            page.click(f"#colouring [data-value^={colour}]")
            ready(page)
            check(page, colour)
        page.keyboard.press("?")
        check(page, "keys")
        page.keyboard.press("Escape")
        site.fail = lambda kind: (400, {"error": {"cause": "no.", "reason": "no.", "remedy": "yes."}})
        page.fill("#text", "we will")
        page.click("#ask .primary")
        page.wait_for_selector("#error .problem")
        check(page, "error")
        page.told.clear()  # the browser itself logs the failed request
    context.close()
