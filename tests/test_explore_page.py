"""The explore page in a browser: each view and its numbers, by mouse and keys; links, errors, windows."""

from __future__ import annotations

import math
import re
from typing import Any
from urllib.parse import quote

import pytest

import explore_page_example as made
from elman.memory.state_index import states_over
from elman.memory.units import stays_on
from elman.text.corpus import encode_string
from explore_page_example import VIEWS, Site, fragment, go, ready, trace_of, watched


def shown(page: Any) -> str:
    return str(page.inner_text("[role=tabpanel]:not([hidden])"))


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_draws_says_how_to_read_it_and_has_its_preset(page: Any, view: str) -> None:
    page.click(f"#tab-{view}")
    preset = next(each for each in made.PRESETS if each["view"] == view)
    page.click(f"#panel-{view} .preset")
    ready(page)
    state = fragment(page)
    assert state.get("preset", "scrambled") == preset["id"]
    assert state.get("token", "0") == str(preset["token"])
    panel = page.locator(f"#panel-{view}")
    if view == "memory":
        page.wait_for_selector(".matches li")
    assert panel.locator(".how").inner_text().startswith("How to read this: ")
    assert panel.locator("canvas, svg, .bars").count() > 0
    assert page.inner_text("#text-note").startswith(preset["note"])
    assert page.locator("[role=tab][aria-selected=true]").get_attribute("id") == f"tab-{view}"


def test_words_are_coloured_and_told_by_their_surprisal(page: Any) -> None:
    tokens = trace_of("scrambled", "m0")["tokens"]
    edges = (1, 2, 4, 6, 8, 10, 12, 15)
    words = page.locator("#strip .word")
    assert words.count() == len(tokens)
    for place, token in enumerate(tokens):
        step = sum(token["bits"] >= edge for edge in edges)
        assert f"s{step}" in (words.nth(place).get_attribute("class") or "").split()
    page.locator("#strip .word.chosen").focus()
    page.keyboard.press("Home")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.activeElement === document.querySelectorAll('.word')[4]")
    told = page.inner_text("#readout")
    assert told.startswith("Token 5 of 20: “for” after “together”")
    assert f"LSTM {tokens[4]['bits']:.1f} bits, rank {tokens[4]['rank']}" in told
    assert page.locator(".word.chosen").get_attribute("aria-label") == f"for, {tokens[4]['bits']:.1f} bits"


def test_the_difference_of_two_models_is_signed_and_matches_characters(page: Any) -> None:
    go(page, "preset=not-only&models=m0,m3,m4&model=m0&versus=m4&colour=difference")
    words = made.explorer().trace("m0", [made.PRESETS[1]["text"]])["tokens"]
    letters = made.explorer().trace("m4", [made.PRESETS[1]["text"]])["tokens"]
    edges = (-4, -2, -1, -0.25, 0.25, 1, 2, 4)
    for place, token in enumerate(words):
        inside = [
            each["bits"]
            for each in letters
            if (each["token"] == token["token"] == "</s>")
            or (
                "</s>" not in (each["token"], token["token"])
                and token["start"] <= each["start"] < token["end"]
            )
        ]
        gap = token["bits"] - math.fsum(inside)
        expected = f"d{sum(gap >= edge for edge in edges)}"
        assert expected in (page.locator("#strip .word").nth(place).get_attribute("class") or "").split()
    assert "LSTM is better" in page.inner_text("#legend")
    sums = [row.split("\t") for row in page.locator("#panel-surprisal .two tbody tr").all_inner_texts()]
    total = {row[0]: float(row[1]) for row in sums}
    assert total["LSTM"] == pytest.approx(math.fsum(each["bits"] for each in words), abs=0.06)
    assert total["letters"] == pytest.approx(math.fsum(each["bits"] for each in letters), abs=0.06)
    assert list(total.values()) == sorted(total.values())
    assert "compare the bits in all" in shown(page)


def test_a_click_on_a_word_opens_what_each_model_expected(page: Any) -> None:
    page.click("#strip .word >> nth=5")
    page.wait_for_selector("#panel-nextword:not([hidden])")
    assert page.locator(".distribution").count() == 4
    for model, name in (("m0", "LSTM"), ("m3", "trigram")):
        token = trace_of("scrambled", model)["tokens"][5]
        box = page.locator(".distribution", has=page.locator(f"h3:text-is('{name}')"))
        rows = box.locator(".bars li:not(.more)")
        names = rows.locator(".name").all_inner_texts()
        assert names[:10] == [word.replace("</s>", "⏎") for word, _ in token["top"]]
        actual = box.locator("li.actual")
        assert actual.locator(".name").inner_text() == "peace"
        assert actual.locator(".rank").inner_text() == str(token["rank"])
        assert rows.count() == (10 if token["rank"] <= 10 else 11)
    widest = page.evaluate(
        "Math.max(...[...document.querySelectorAll('.fill')].map((e) => parseFloat(e.style.width)))"
    )
    assert widest == 100
    page.click("#word-after")
    page.wait_for_function("() => document.querySelector('.context mark').textContent === 'and'")


def test_the_strip_by_keys(page: Any) -> None:
    page.locator("#strip .word.chosen").focus()
    press = page.keyboard.press
    press("Home")
    press("ArrowRight")
    press("ArrowRight")
    assert fragment(page)["token"] == "2"
    press("Shift+ArrowRight")
    press("Shift+ArrowRight")
    state = fragment(page)
    assert (state["from"], state["to"], state["token"]) == ("2", "4", "4")
    assert page.locator("#strip [aria-selected=true]").count() == 3
    press("Shift+ArrowLeft")
    assert fragment(page)["to"] == "3"
    press("Escape")
    assert "from" not in fragment(page)
    press("ArrowDown")
    assert int(fragment(page)["token"]) >= 10
    press("End")
    assert fragment(page)["token"] == "19"
    press("Enter")
    assert fragment(page)["view"] == "nextword"
    assert page.locator("#strip [tabindex='0']").count() == 1


def test_keys_of_the_page(page: Any) -> None:
    press = page.keyboard.press
    for place, view in enumerate(VIEWS, start=1):
        press(str(place))
        assert fragment(page).get("view", "surprisal") == view
    press("5")
    ready(page)
    press(".")
    assert fragment(page)["step"] == "1"
    press(",")
    assert "step" not in fragment(page)
    press("]")
    first = int(fragment(page)["unit"])
    press("]")
    assert int(fragment(page)["unit"]) == (first + 1) % 11
    press("[")
    assert int(fragment(page)["unit"]) == first
    press("m")
    assert fragment(page)["model"] == "m1"
    press("?")
    assert page.locator("dialog[open] dt").count() >= 10
    press("1")
    assert fragment(page)["view"] == "cell"
    page.uncheck("dialog input[type=checkbox]")
    press("Escape")
    press("1")
    assert fragment(page)["view"] == "cell", "single keys can be switched off"
    page.focus("#tab-cell")
    press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-gradients"
    press("End")
    press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-surprisal"


def test_a_drag_chooses_a_range_and_the_units_that_stay_on(page: Any, site: Site) -> None:
    words = page.locator("#strip .word")
    words.nth(2).hover()
    page.mouse.down()
    words.nth(4).hover()
    words.nth(5).hover()
    page.mouse.up()
    state = fragment(page)
    assert (state["from"], state["to"]) == ("2", "5")
    page.keyboard.press("7")
    page.wait_for_selector(".matches li")
    kind, question = site.asked[-1]
    assert kind == "similar"
    assert (question["first"], question["last"], question["layer"], question["part"]) == (2, 6, 1, "h")
    assert page.locator("#panel-memory input[type=number]").nth(0).input_value() == "3"
    assert page.locator("#panel-memory input[type=number]").nth(1).input_value() == "6"
    assert page.locator(".matches mark").first.inner_text() == f"past and {made.HOSTILE}".replace(
        "img ", "img␣"
    ).replace("x ", "x␣")
    assert page.locator(".chips button").all_inner_texts() == ["3 +0.71", "5 −0.62"]
    assert "2 places in a text (50,000 tokens)" in shown(page)
    page.click(".chips button >> nth=1")
    assert fragment(page)["unit"] == "5"


@pytest.mark.parametrize(("first", "last"), [(0, 2), (3, 5), (17, 19)])
def test_the_page_finds_the_units_that_the_library_finds(
    page: Any, site: Site, first: int, last: int
) -> None:
    """Without an answer of the search; 20 tokens, of which nothing reads the last."""
    site.fail = lambda kind: (404, {"error": {"cause": "no reference"}}) if kind == "similar" else None
    model, text = made.explorer().models["m0"], made.PRESETS[0]["text"]
    ids = encode_string(text + "\n", model.tokenizer, model.vocabulary).ids
    expected = stays_on(states_over(model, ids, 2, "h"), first, last, 0.1)
    assert expected
    go(page, f"preset=scrambled&view=memory&model=m0&layer=2&part=h&threshold=0.1&from={first}&to={last - 1}")
    page.wait_for_function("() => document.querySelector('#panel-memory').innerText.includes('no reference')")
    chips = [text.replace("−", "-").split() for text in page.locator(".chips button").all_inner_texts()]
    # the page has three decimals, so that units of one size may change places
    assert sorted(int(unit) for unit, _ in chips) == sorted(each.unit for each in expected)
    means = {each.unit: each.mean for each in expected}
    assert all(float(mean) == pytest.approx(means[int(unit)], abs=0.006) for unit, mean in chips)
    assert [told for told in page.told if "404" not in told] == []
    page.told.clear()


def test_models_of_one_cell_have_colours_of_their_own(page: Any) -> None:
    """The five models hold two GRUs; what is left of the seven colours is enough for the second."""
    tints = page.evaluate("[...Elman.data.cards.values()].map(Elman.tint)")
    assert len(tints) == len(set(tints)) == 5
    assert (tints[0], tints[1], tints[3]) == ("c-lstm", "c-gru", "c-ngram")
    colours = page.evaluate("(all) => all.map((one) => Elman.css('--' + one))", tints)
    assert len(set(colours)) == 5


def test_links_with_values_that_nothing_knows_open(page: Any) -> None:
    """`watched` fails on any error of the page."""
    for view, more in (
        ("gradients", "norm=c&models=m1&model=m1"),
        ("conveyor", "beside=toString&model=m0"),
        ("heatmap", "sort=constructor&token=1.5&model=m0"),
        ("surprisal", "colour=x&state=neither&scale=__proto__"),
    ):
        go(page, f"preset=scrambled&view={view}&{more}")
        assert page.locator(f"#panel-{view} canvas, #panel-{view} svg").count() > 0
    assert page.evaluate("[Elman.state.norm, Elman.state.beside, Elman.state.sort, Elman.state.token]") == [
        "memory",
        "vary",
        "index",
        0,
    ]


def test_a_range_longer_than_the_window_is_asked_for_once_and_told(page: Any, site: Site) -> None:
    text = "\n".join([made.PRESETS[0]["text"]] * 12)  # 240 tokens
    go(page, f"text={quote(text)}&view=memory&model=m0&models=m0&token=5&from=0&to=219")
    page.wait_for_function(
        "() => document.querySelector('#panel-memory').innerText.includes('longer than the window')"
    )
    asked = sum(kind == "trace" for kind, _ in site.asked)
    page.wait_for_timeout(500)
    assert sum(kind == "trace" for kind, _ in site.asked) == asked <= 2
    go(page, f"text={quote(text)}&view=memory&model=m0&models=m0&token=110&from=109&to=111")
    page.wait_for_selector(".matches li")


def test_a_change_of_the_state_policy_is_drawn(page: Any) -> None:
    """A heatmap is painted anew only where its key changes; reset begins the second line from nothing."""
    go(page, "preset=scrambled&view=heatmap&model=m0&models=m0&part=h")
    before = page.evaluate("document.querySelector('#panel-heatmap canvas[role=application]').toDataURL()")
    go(page, "preset=scrambled&view=heatmap&model=m0&models=m0&part=h&state=reset")
    fresh = page.evaluate("document.querySelector('#panel-heatmap canvas[role=application]').toDataURL()")
    assert fresh != before
    page.evaluate("Elman.set({ state: 'carry' })")
    ready(page)
    page.wait_for_function(
        "(old) => document.querySelector('#panel-heatmap canvas[role=application]').toDataURL() === old",
        arg=before,
    )


def test_state_views_name_the_word_that_was_read(page: Any) -> None:
    """Column by column: what is written under them is what the model had read, not what came next."""
    tokens = trace_of("scrambled", "m0")["tokens"]
    read = ["⏎" if token["input"] == "</s>" else token["input"] for token in tokens]
    for view in ("heatmap", "conveyor", "gradients"):
        go(page, f"preset=scrambled&view={view}&model=m0&models=m0&token=3")
        under = page.locator(f"#panel-{view} .words-under").first.locator("text").all_text_contents()
        assert under == [word if len(word) <= 12 else word[:11] + "…" for word in read], view


def test_the_heatmap_by_mouse_and_keys(page: Any) -> None:
    go(page, "view=heatmap&preset=again&model=m0&part=f&layer=1&unit=4&token=9")
    canvas = page.locator("#panel-heatmap canvas[role=application]")
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 2.5 / 29, "y": box["height"] * 7.5 / 11})
    state = fragment(page)
    assert (state["token"], state["unit"]) == ("2", "7")
    canvas.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    state = fragment(page)
    assert (state["token"], state["unit"]) == ("3", "8")
    canvas.hover(position={"x": box["width"] * 5.5 / 29, "y": box["height"] * 1.5 / 11})
    page.wait_for_selector("#tip:not([hidden])")
    value = made.explorer().trace("m0", made.PRESETS[2]["text"].split("\n"))["layers"][1]["gates"]["f"][5][1]
    assert f"f = {value:.3f}" in page.inner_text("#tip")
    page.locator("#panel-heatmap select").nth(2).select_option("mean")
    ready(page)
    canvas.click(position={"x": 5, "y": 2})
    rows = made.explorer().trace("m0", made.PRESETS[2]["text"].split("\n"))["layers"][1]["gates"]["f"]
    means = [sum(column) for column in zip(*rows, strict=True)]
    assert fragment(page)["unit"] == str(means.index(max(means)))


@pytest.mark.parametrize(("model", "keep"), [("m0", "f"), ("m1", "z"), ("m2", None)])
def test_the_conveyor_adds_up(page: Any, model: str, keep: str | None) -> None:
    go(page, f"view=conveyor&preset=belt&model={model}&unit=3&beside=none")
    page.click("#panel-conveyor summary")
    page.wait_for_selector("#panel-conveyor tbody tr")
    rows = page.locator("#panel-conveyor tbody tr").all_inner_texts()
    layer = trace_of("belt", model)["layers"][0]
    part = "c" if model == "m0" else "h"
    for t, row in enumerate(rows):
        _, before, kept, erased, written, after = (cell.replace("−", "-") for cell in row.split("\t"))
        assert float(after) == pytest.approx(layer["states"][part][t][3], abs=0.006)
        assert float(before) + float(erased) + float(written) == pytest.approx(float(after), abs=0.02)
        if keep:
            assert float(kept.rstrip(" %")) == pytest.approx(100 * layer["gates"][keep][t][3], abs=0.6)
    assert len(rows) == 28
    if model == "m2":
        assert "has no belt" in shown(page)


@pytest.mark.parametrize(("model", "steps"), [("m0", 5), ("m1", 4), ("m2", 2)])
def test_the_cell_is_stepped_with_its_numbers(page: Any, model: str, steps: int) -> None:
    go(page, f"view=cell&preset=step&model={model}&unit=2&token=5")
    layer = trace_of("step", model)["layers"][0]
    assert page.locator(".steps li").count() == steps
    for step in range(steps):
        assert page.locator(".steps [aria-current=step]").count() == 1
        assert page.locator(".steps .result").count() == step + 1
        if step < steps - 1:
            page.click("#step-after")
            page.wait_for_function(f"() => document.querySelectorAll('.steps .result').length === {step + 2}")
    h = f"{layer['states']['h'][5][2]:.3f}".replace("-", "−")
    assert page.locator(".steps .result").last.inner_text().endswith(h)
    for name, rows in layer["gates"].items():
        assert f"{name} = {rows[5][2]:.3f}".replace("-", "−") in page.inner_text(".steps")
    sums = [text.replace("−", "-") for text in page.locator(".steps .result").all_inner_texts()]
    for text in sums:  # "c = -0.284 + (0.120) = -0.163", "h = 0.254 · (-0.152) = -0.039"
        for operation, join in ((r" \+ ", float.__add__), (" · ", float.__mul__)):
            number = r"\(?(-?[\d.]+)\)?"
            found = re.search(f"{number}{operation}{number} = {number}", text)
            if found:
                one, other, both = map(float, found.groups())
                assert join(one, other) == pytest.approx(both, abs=0.0025)
    assert model == "m2" or any(" + " in text for text in sums)
    page.click("#step-after")  # past the last step: the next word
    state = fragment(page)
    assert state["token"] == "6"
    assert "step" not in state


def test_gradients_of_three_cells_side_by_side(page: Any) -> None:
    go(page, "view=gradients&preset=far&token=40")
    assert page.locator("#panel-gradients .matrix").count() == 3
    assert page.locator("#panel-gradients .triangles h3").all_inner_texts() == [
        "LSTM |∂L/∂c|", "GRU |∂L/∂h|", "RNN |∂L/∂h|",
    ]  # fmt: skip
    page.click("#panel-gradients summary")
    page.wait_for_selector("#panel-gradients details tbody tr")
    rows = [row.split("\t") for row in page.locator("#panel-gradients details tbody tr").all_inner_texts()]
    for column, (model, part) in enumerate((("m0", "c"), ("m1", "h"), ("m2", "h")), start=1):
        triangle = trace_of("far", model)["gradients"]["layers"][0][part]
        values = sorted(line[len(line) - 1 - 3] for line in triangle[3:])
        half = len(values) // 2
        median = values[half] if len(values) % 2 else math.sqrt(values[half - 1] * values[half])
        assert float(rows[3][column]) == pytest.approx(median, rel=0.01)
    canvas = page.locator("#panel-gradients canvas[role=application]").first
    box = canvas.bounding_box()
    canvas.click(position={"x": 3, "y": box["height"] * 20.5 / 66})
    assert fragment(page)["token"] == "20"
    canvas.focus()
    page.keyboard.press("ArrowDown")
    assert fragment(page)["token"] == "21"


def test_a_model_without_a_recurrence_says_why_it_has_nothing_to_show(page: Any) -> None:
    for view in ("heatmap", "conveyor", "cell", "gradients", "memory"):
        go(page, f"view={view}&models=m3&preset=not-only")
        assert "trigram counts word sequences: it looks its last few words up in a table" in shown(page)
    go(page, "view=heatmap&models=m3,m1&model=m3&preset=not-only")
    assert "Choose GRU above." in shown(page)


def test_a_typed_text_is_read_and_stands_in_the_link(page: Any, site: Site, browser: Any) -> None:
    page.fill("#text", "we need peace\nwe will , if")
    page.click("#ask .primary")
    page.wait_for_function("() => document.querySelectorAll('#strip .word').length === 9")
    page.select_option("#policy", "reset")
    page.uncheck("#models input[value=m2]")
    page.locator("#strip .word >> nth=2").click()
    page.keyboard.press("4")
    state = fragment(page)
    assert state["text"] == "we%20need%20peace%0Awe%20will%20%2C%20if"
    assert (state["state"], state["models"]) == ("reset", "m0%2Cm1%2Cm3")
    assert site.asked[-1][1]["state"] == "reset"
    page.reload()
    ready(page)
    assert fragment(page) == state
    assert page.input_value("#text") == "we need peace\nwe will , if"
    assert page.locator("#strip .word").nth(2).get_attribute("aria-current") == "true"


def test_damaged_links_do_no_harm(page: Any) -> None:
    for state in (
        "view=none&token=99999&unit=-5",
        "models=m77,,m0&layer=1e9&token=%E0%A4",
        "token=NaN&from=9&to=2&x",
        "unit=999999&view=heatmap&part=zz&layer=7",
        "from=3&to=4000&view=memory",
    ):
        go(page, state)
        assert page.locator("#strip .word").count() == 20


def test_a_link_that_is_gone_to_is_adopted_not_overwritten(page: Any) -> None:
    page.evaluate("() => { Elman.set({ token: 3 }); location.hash = '#token=7'; Elman.writeLink(); }")
    page.wait_for_function("() => document.querySelectorAll('.word')[7].matches('.chosen')")
    assert fragment(page)["token"] == "7"


def test_a_long_text_is_traced_in_windows_that_follow_the_word(page: Any, site: Site) -> None:
    page.fill("#text", "\n".join(["we will keep the peace"] * 60))
    page.click("#ask .primary")
    page.wait_for_function("() => document.querySelectorAll('#strip .word').length === 360")
    page.keyboard.press("3")
    ready(page)
    assert "Tokens 1 to 200 of 360" in shown(page)
    go(page, fragment_text(page) + "&token=300")
    assert "Tokens 161 to 360 of 360" in shown(page)
    assert all(
        question["last"] - question["first"] <= 200 for kind, question in site.asked if kind == "trace"
    )


def fragment_text(page: Any) -> str:
    return "&".join(f"{name}={value}" for name, value in fragment(page).items() if name != "token")


def test_a_hostile_text_stays_text(page: Any) -> None:
    page.fill("#text", made.HOSTILE)
    page.click("#ask .primary")
    page.wait_for_function("() => document.querySelectorAll('#strip .word').length < 9")
    for view in range(1, 8):
        page.keyboard.press(str(view))
        ready(page)
    assert page.locator("main img").count() == 0


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (400, {"cause": "the text is empty.", "reason": "it is.", "remedy": "type."}, "Remedy: type."),
        (401, {}, "Open the link that `elman explore` printed"),
        (413, {}, "Shorten it."),
        (429, {}, "Wait a few seconds"),
        (504, {}, "fewer models"),
        (500, {}, "The server answered with status 500."),
        (0, {}, "The server cannot be reached."),
    ],
)
def test_errors_are_shown_with_their_remedy(
    page: Any, site: Site, status: int, error: Any, expected: str
) -> None:
    site.fail = lambda kind: (status, {"error": error} if error else {})
    page.fill("#text", "we will")
    page.click("#ask .primary")
    page.wait_for_selector("#error .problem")
    assert expected in page.inner_text("[role=alert]")
    assert page.locator("#strip .word").count() == 20, "what was read before stays"
    page.told.clear()  # the browser itself logs the failed request
    site.fail = lambda kind: None
    page.click("#ask .primary")
    page.wait_for_function("() => document.querySelectorAll('#strip .word').length === 3")
    assert page.inner_text("#error") == ""


@pytest.mark.parametrize("width", [320, 400])
def test_a_small_window_needs_no_sideways_scrolling(browser: Any, site: Site, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, has_touch=True, is_mobile=False)
    context.route("**/*", site.serve)
    with watched(context) as page:
        for preset in made.PRESETS:
            go(page, f"view={preset['view']}&preset={preset['id']}&token={preset['token']}&from=2&to=3")
            assert page.evaluate("document.documentElement.scrollWidth") == width, preset["view"]
            assert page.locator(f"#tab-{preset['view']}").is_visible()
    context.close()


def test_reduced_motion_and_print(browser: Any, site: Site) -> None:
    context = browser.new_context(reduced_motion="reduce")
    context.route("**/*", site.serve)
    with watched(context) as page:
        go(page, "view=cell&preset=step")
        assert page.locator("button:text-is('Play')").is_hidden()
        assert page.evaluate("getComputedStyle(document.querySelector('.wire.on')).animationName") == "none"
        page.emulate_media(media="print", color_scheme="dark")
        ready(page)
        assert [tab.inner_text() for tab in page.locator("[role=tab]").all() if tab.is_visible()] == [
            "5Inside the cell"
        ]
        assert page.locator("#ask").is_hidden()
        assert page.locator("#panel-cell svg.cell").is_visible()
    context.close()
