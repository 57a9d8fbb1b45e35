"""One step on the explore page, in a browser: the word read and the word predicted, in strip and views.

Row t of a trace has read token t − 1 and predicts token t. Checked against the trace's numbers. Not here: the
other views and links (test_explore_page.py).
"""

from __future__ import annotations

import math
from typing import Any

import pytest

import explore_page_example as made
from explore_page_example import Site, fragment, go, ready, trace_of, watched


def colours(page: Any) -> list[str]:
    """The step of the scale that each word has."""
    names = page.evaluate("[...document.querySelectorAll('#strip .word')].map((one) => one.className)")
    known = {"none", *(f"{scale}{step}" for scale in "sdg" for step in range(9))}
    return [next(name for name in each.split() if name in known) for each in names]


def half_up(value: float) -> int:
    """As JavaScript rounds."""
    return math.floor(value + 0.5)


@pytest.mark.parametrize(("part", "what"), [("h", "states"), ("c", "states"), ("f", "gates")])
def test_a_word_has_the_colour_of_the_unit_after_it_was_read(page: Any, part: str, what: str) -> None:
    go(page, f"preset=again&model=m0&layer=1&unit=8&part={part}&colour=unit&token=9")
    values = [row[8] for row in trace_of("again", "m0")["layers"][1][what][part]]
    most = max(1.0, *map(abs, values))
    after = values[1:]  # row k + 1 has read token k; nothing has read the last
    expected = [
        f"g{half_up(8 * value)}" if part == "f" else f"d{half_up(4 + 4 * value / most)}" for value in after
    ]
    assert len(set(expected)) > 2
    assert colours(page) == [*expected, "none"]
    assert f"unit 8 of {part}, layer 2, after reading it" in page.inner_text("#legend")


@pytest.mark.parametrize("token", [0, 1, 9, 28])
def test_a_word_has_the_colour_of_the_gradient_that_comes_back_to_it(page: Any, token: int) -> None:
    go(page, f"preset=again&model=m0&layer=1&norm=h&colour=gradient&token={token}")
    trace = trace_of("again", "m0")
    row = trace["gradients"]["layers"][1]["h"][token]
    assert len(row) == token + 1
    expected = []
    for norm in row[1:]:
        step = 8 + math.ceil(math.log2(norm / max(row)) - 0.5) if norm > 0 else 0
        expected.append(f"s{min(max(step, 0), 8)}")
    assert colours(page) == expected + ["none"] * (len(trace["tokens"]) - token)
    assert "gradient after reading it" in page.inner_text("#legend")


@pytest.mark.parametrize("view", ["heatmap", "conveyor", "cell"])
def test_the_word_read_by_the_step_is_marked_and_told(page: Any, view: str) -> None:
    go(page, f"preset=again&model=m1&view={view}&token=9")
    tokens = trace_of("again", "m1")["tokens"]
    assert (tokens[9]["input"], tokens[9]["token"]) == ("we", "need")
    marked = "[...document.querySelectorAll('#strip .word')].map((one, k) => one.matches('.read') ? k : -1)"
    assert [place for place in page.evaluate(marked) if place >= 0] == [8]
    sentence = "The step shown reads we (dashed) and predicts need (framed)."
    assert sentence in page.inner_text(f"#panel-{view}")
    words = page.locator("#strip .word")
    assert words.nth(8).get_attribute("aria-label").endswith("bits, read by the step shown")
    assert words.nth(9).get_attribute("aria-label").endswith("bits, predicted by the step shown")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelectorAll('#strip .word')[9].matches('.read:not(.chosen)')")
    assert words.nth(8).get_attribute("aria-label") is None
    page.keyboard.press("Home")
    page.wait_for_function("() => !document.querySelector('#strip .read')")
    assert "reads the start of the text ⏎ and predicts we (framed)." in page.inner_text(f"#panel-{view}")
    go(page, "preset=again&model=m1&view=surprisal&token=9")
    assert page.locator("#strip .read").count() == 0


def test_a_sum_that_was_squashed_is_given_as_exactly_as_it_is_known(page: Any) -> None:
    """From an h of three decimals: what the page says of a holds for every a that has that h."""
    sums = [-6, -3.62, -3.58, -3.4, -2.5, -0.5, 0, 0.25, 1.7, 2.2, 2.4, 3.3, 3.45, 3.59, 3.61, 9]
    states = [round(math.tanh(a), 3) for a in sums]
    layer = {"states": {"h": [[h] for h in states]}, "gates": {}}
    told = page.evaluate(
        "([layer, count]) => Array.from({ length: count },"
        " (_, t) => Elman.cells.rnn.values(layer, { h: 0 }, t, 0).a)",
        [layer, len(sums)],
    )
    for a, text in zip(sums, told, strict=True):
        sign, number = text.replace("−", "-").split()
        if sign == "≈":
            digits = len(number.partition(".")[2])
            assert abs(float(number) - a) <= {2: 0.02, 1: 0.2}[digits], (a, text)
        else:
            assert (sign, number) == ((">", "3.5") if a > 0 else ("<", "-3.5"))
            assert abs(a) > 3.5
    assert {"> 3.5", "< −3.5", "≈ −0.50", "≈ 0.00"} <= set(told)
    go(page, "preset=step&view=cell&model=m2&unit=2&token=5")
    h = trace_of("step", "m2")["layers"][0]["states"]["h"][5][2]
    assert "a ≈ " in page.inner_text(".steps") or abs(h) >= 0.9985


def test_arrows_and_enter_work_before_anything_has_the_focus(page: Any) -> None:
    token = int(fragment(page)["token"])
    for keys, expected in (
        ("ArrowLeft", {"token": str(token - 1)}),
        ("Shift+ArrowRight", {"from": str(token), "to": str(token + 1)}),
        ("Enter", {"view": "nextword"}),
    ):
        go(page, "")
        assert page.evaluate("document.activeElement === document.body")
        page.keyboard.press(keys)
        state = fragment(page)
        assert expected.items() <= state.items(), keys
        page.wait_for_function("() => document.activeElement.matches('.word.chosen')")
    go(page, "")
    page.focus("#preset")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert "view" not in fragment(page), "what has the focus keeps its keys"


def test_a_text_that_is_too_long_is_refused_not_cut(page: Any, site: Site) -> None:
    asked = len(site.asked)
    page.fill("#text", "")
    page.focus("#text")
    page.keyboard.insert_text("peace " * 333 + "we 😀")
    assert len(page.input_value("#text").encode("utf-16-le")) // 2 == 2003
    assert page.inner_text("#text-count") == "2,002 of at most 2,000 characters: shorten the text by 2."
    page.click("#ask .primary")
    assert "nothing was read. Shorten the text by 2." in page.inner_text("#text-count")
    assert page.get_attribute("#text", "aria-invalid") == "true"
    assert page.evaluate("document.activeElement.id") == "text"
    assert len(site.asked) == asked
    page.fill("#text", "peace " * 333 + "😀 ")
    assert page.inner_text("#text-count") == "2,000 of at most 2,000 characters."
    page.click("#ask .primary")
    page.wait_for_function("() => document.querySelectorAll('#strip .word').length === 335")
    assert len(site.asked) > asked
    assert page.get_attribute("#text", "aria-invalid") is None
    page.fill("#text", "we need peace")
    assert page.inner_text("#text-count") == ""


@pytest.mark.parametrize(
    ("models", "expected"), [("m2,m1", "m1"), ("m3,m2", "m2"), ("m3", "m3"), ("m2,m3,m0", "m0")]
)
def test_the_first_look_is_into_a_model_with_gates(page: Any, models: str, expected: str) -> None:
    go(page, f"models={models}&preset=again")
    assert fragment(page)["model"] == expected
    go(page, f"models={models}&preset=again&model={models[:2]}")
    assert fragment(page)["model"] == models[:2], "a model that the link names stays"


def test_the_next_model_is_one_that_the_view_can_show(page: Any) -> None:
    go(page, "models=m0,m3,m1&model=m0&preset=again&view=heatmap")
    for expected in ("m1", "m0"):
        page.keyboard.press("m")
        assert fragment(page)["model"] == expected
    page.keyboard.press("1")
    page.keyboard.press("m")
    assert fragment(page)["model"] == "m3"
    go(page, "models=m3&model=m3&preset=again&view=cell")
    page.keyboard.press("m")
    assert fragment(page)["model"] == "m3"


def test_places_with_the_same_words_can_be_hidden(page: Any, site: Site) -> None:
    places = [
        (["of", "we", "need", "schools", "and"], 1, 4),
        (["of", "we", "need", "schools", "and"], 0, 5),
        (["we", "need", "peace"], 0, 2),
        (["we", "need", "peace"], 0, 3),
        (["schools", "need", "we"], 0, 3),
    ]

    def answer(kind: str) -> tuple[int, dict[str, Any]] | None:
        if kind != "similar":
            return None
        question = {"layer": 1, "part": "h", "threshold": 0.5, "first": 8, "last": 11}
        matches = [
            {"score": 1, "start": 9 * k, "end": 9 * k + 2, "tokens": tokens, "from": low, "to": high}
            for k, (tokens, low, high) in enumerate(places)
        ]
        return 200, made.similar(question) | {"matches": matches}

    site.fail = answer
    go(page, "preset=again&model=m0&view=memory&from=8&to=10")
    page.wait_for_selector(".matches li")
    assert page.locator(".matches li").count() == 5
    assert "Highlighted in each place is the stretch" in page.inner_text("#panel-memory")
    page.check("#hide-same")
    page.wait_for_function("() => document.querySelectorAll('.matches li').length === 2")
    assert page.locator(".matches mark").all_inner_texts() == ["we need peace", "schools need we"]
    assert "3 of them with the same words are hidden" in page.inner_text("#panel-memory [role=status]")
    assert fragment(page)["hide"] == "1"
    page.reload()
    ready(page)
    page.wait_for_selector(".matches li")
    assert page.locator(".matches li").count() == 2


@pytest.mark.parametrize(("preset", "count"), [("again", 29), ("far", 66)])
def test_lines_of_a_triangle_are_named_by_the_words_predicted(page: Any, preset: str, count: int) -> None:
    go(page, f"preset={preset}&view=gradients&models=m0&model=m0&token=20")
    names = page.locator("#panel-gradients .beside text").all_text_contents()
    shown = ["⏎" if each["token"] == "</s>" else each["token"] for each in trace_of(preset, "m0")["tokens"]]
    every = math.ceil(13 / ((460 - 62) / count))
    rows = [row for row in range(count) if row == 20 or (row % every == 0 and abs(row - 20) >= every)]
    assert names == [shown[row] if len(shown[row]) <= 9 else shown[row][:8] + "…" for row in rows]
    assert page.locator("#panel-gradients .beside .chosen").text_content() == shown[20]


def test_a_word_that_the_tokenizer_changed_is_told(page: Any, site: Site) -> None:
    answer = {"traces": {"m0": made.explorer().trace("m0", ["we need peace"], gates=False, gradients=False)}}
    answer["traces"]["m0"]["tokens"][1].update(text="30", token="N", unknown=False)
    site.fail = lambda kind: (200, answer) if kind == "read" else None
    go(page, "models=m0&text=we%2030%20peace&token=1")
    assert page.inner_text("#readout").endswith(" read as N.")
    page.hover("#strip .word >> nth=1")
    page.wait_for_selector("#tip:not([hidden])")
    assert "read as N" in page.inner_text("#tip")
    page.hover("#strip .word >> nth=2")
    page.wait_for_function("() => !document.querySelector('#tip').innerText.includes('read as')")


def test_a_caption_is_whole_in_a_small_window(browser: Any, site: Site) -> None:
    context = browser.new_context(viewport={"width": 400, "height": 800})
    context.route("**/*", site.serve)
    with watched(context) as page:
        go(page, "preset=far&view=gradients")
        edges = page.evaluate(
            "() => { const all = document.querySelectorAll('#panel-gradients caption span');"
            " return [...all].map((one) => [one.getBoundingClientRect().right,"
            " one.closest('.scroll').getBoundingClientRect().right]); }"
        )
        assert edges
        assert all(right <= room + 0.5 for right, room in edges), edges
    context.close()


@pytest.mark.parametrize(("model", "units"), [("m0", 11), ("m1", 9), ("m2", 7)])
def test_no_single_number_of_the_old_state_flows_into_the_gates(page: Any, model: str, units: int) -> None:
    """U h sums over all units: U and W are drawn, with how many units U sums."""
    go(page, f"view=cell&preset=step&model={model}&unit=2&token=5")
    nodes = page.locator(".cell .node text").all_text_contents()
    assert nodes.count("U") == nodes.count("W") == 1
    told = page.locator(".cell .value").all_text_contents()
    assert f"U sums hₜ₋₁ of all {units} units" in told
    own = [text for text in told if text.startswith("hₜ₋₁ = ")]
    assert len(own) == (1 if model == "m1" else 0), "only the GRU keeps a share of the unit's own h"


def test_all_units_that_stay_on_can_be_listed(page: Any, site: Site) -> None:
    """The sentence counts them all; 32 are listed at first, and a button lists the rest."""
    found = {"units": [{"unit": k, "sign": 1, "mean": 0.9} for k in range(65)], "common": 0, "matches": []}
    site.fail = lambda kind: (200, found) if kind == "similar" else None
    go(page, "view=memory&preset=again&model=m0&from=2&to=3&threshold=0.3")
    page.wait_for_function("() => document.querySelector('#panel-memory').innerText.includes('65 units')")
    listed = page.locator("#panel-memory .chips button")
    assert listed.count() == 33
    assert listed.last.inner_text() == "33 more"
    listed.last.click()
    page.wait_for_function("() => document.querySelectorAll('#panel-memory .chips button').length === 65")


def test_an_old_error_does_not_stand_beside_the_next(page: Any, site: Site) -> None:
    site.fail = lambda kind: (504, {"error": {"cause": "too slow.", "reason": "", "remedy": "less."}})
    page.fill("#text", "we will")
    page.click("#ask .primary")
    page.wait_for_selector("#error .problem")
    page.fill("#text", "we " * 2000)
    page.click("#ask .primary")
    page.wait_for_function(
        "() => document.querySelector('#text-count').textContent.includes('nothing was read')"
    )
    assert page.locator("#error .problem").count() == 0
    page.told.clear()  # the browser itself logs the failed request


def test_every_tab_is_in_sight_in_a_small_window(browser: Any, site: Site) -> None:
    context = browser.new_context(viewport={"width": 400, "height": 800})
    context.route("**/*", site.serve)
    with watched(context) as page:
        go(page, "")
        boxes = [tab.bounding_box() for tab in page.locator("#tabs button").all()]
        assert len(boxes) == len(made.VIEWS)
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= 400 for box in boxes)
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_scale_of_the_triangles_begins_with_the_colour_of_no_gradient(
    browser: Any, site: Site, scheme: str
) -> None:
    """Whether that is the palest or the darkest: what the page says of it holds in both."""
    context = browser.new_context(color_scheme=scheme)
    context.route("**/*", site.serve)
    with watched(context) as page:
        go(page, "view=gradients&preset=again&model=m2&token=9")
        row = page.evaluate(
            "[...document.querySelector('#panel-gradients .ramp').getContext('2d')"
            ".getImageData(0, 0, 256, 1).data]"
        )
        least, most = ("#" + bytes(row[k : k + 3]).hex() for k in (0, 4 * 255))
        assert (least, most) == (page.evaluate("Elman.css('--s0')"), page.evaluate("Elman.css('--s8')"))
        told = page.inner_text("#panel-gradients .how")
        assert "from least, at its left end, to most" in told
        assert "pale" not in told
    context.close()
