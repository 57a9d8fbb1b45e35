"""How fast the explore page draws: an LSTM 2×200 with 10,000 words, drawn at random, in headless Chromium.

python benchmarks/explore_page.py [--chromium PATH] [--rounds N]      # writes results/explore-page.json

draw    a text of 200 tokens with all gates and gradients: from the choice of a view to the frame after it is
        drawn, each view for the first time (`first`) and with another word chosen (`again`); milliseconds
hover   2,000 tokens of surprisal: the longest time between two frames while the pointer runs over the words
        and over the bars, a move each 4 ms or as fast as the browser takes them; milliseconds
start   from the address to the drawn page of 200 tokens
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch
from playwright.sync_api import sync_playwright

from elman.explore.answers import Explorer
from elman.explore.export import static_page
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.text.tokenizers import get_tokenizer
from elman.text.vocabulary import Vocabulary
from record import RESULTS, commit, machine

VIEWS = ("surprisal", "nextword", "heatmap", "conveyor", "cell", "gradients", "memory")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FRAMES = """() => { window.longest = 0; let last = performance.now(), run = true;
  window.stopFrames = () => { run = false; return window.longest; };
  (function tick() { const now = performance.now(); window.longest = Math.max(window.longest, now - last);
    last = now; if (run) requestAnimationFrame(tick); })(); }"""
CHANGE = """async (patch) => { const begin = performance.now(); Elman.set(patch);
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - begin; }"""


def document() -> dict[str, Any]:
    """Two texts, of 200 and of 2,000 tokens, lines of 25 words."""
    words = [f"word{number}" for number in range(9_998)]
    draw, tokenizer = random.Random(1), get_tokenizer("words")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = RecurrentModel(Vocabulary(["<unk>", "</s>", *words]), tokenizer, RecurrentConfig()).eval()
    explorer = Explorer({"LSTM 2×200": model})
    texts = []
    for name, total in (("short", 200), ("long", 2_000)):
        lines = [" ".join(draw.choices(words, k=24)) for _ in range(total // 25)]
        trace = explorer.trace("m0", lines, gates=total <= 200, gradients=total <= 200)
        assert len(trace["tokens"]) == total
        texts.append({"id": name, "title": name, "text": "\n".join(lines), "traces": {"m0": trace}})
    return {"format": "elman-explore", "version": 1, "models": explorer.cards, "presets": [], "texts": texts}


def ready(page: Any) -> None:
    page.wait_for_selector("#strip:not([aria-busy]) .chosen")


def hover(page: Any, selector: str, steps: int) -> float:
    """The longest frame while the pointer crosses the box of `selector` in rows."""
    box = page.locator(selector).first.bounding_box()
    page.evaluate(FRAMES)
    for step in range(steps):
        across, down = (step % 60) / 60, (step // 60) / (steps / 60)
        page.mouse.move(box["x"] + 4 + across * (box["width"] - 8), box["y"] + 4 + down * (box["height"] - 8))
    return float(page.evaluate("() => window.stopFrames()"))


def one_round(browser: Any, address: str) -> dict[str, float]:
    found: dict[str, float] = {}
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{address}#preset=short")
    ready(page)
    found["start"] = page.evaluate("() => performance.now()")
    for view in VIEWS:
        found[f"first {view}"] = page.evaluate(CHANGE, {"view": view, "from": 3, "to": 6})
        found[f"again {view}"] = page.evaluate(CHANGE, {"token": 40 + VIEWS.index(view)})
    page.goto("about:blank")
    page.goto(f"{address}#preset=long")
    ready(page)
    page.wait_for_timeout(500)  # at rest: what the browser still does after loading is no hovering
    found["hover words"] = hover(page, "#strip", 600)
    found["hover bars"] = hover(page, ".skyline canvas", 600)
    page.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "page.html"
        made = document()
        file.write_text(static_page(made), "utf-8")
        browser = playwright.chromium.launch(executable_path=options.chromium, args=ARGUMENTS)
        rounds = [one_round(browser, file.as_uri()) for _ in range(options.rounds)]
        browser.close()
    size = len(json.dumps(made["texts"][0]["traces"]["m0"], separators=(",", ":")))
    print(f"trace of 200 tokens: {size / 1e6:.2f} MB of JSON")
    print(f"milliseconds, median and largest of {options.rounds}:")
    found = {name: [each[name] for each in rounds] for name in rounds[0]}
    for name, times in found.items():
        print(f"{name:<18} {median(times):7.0f} {max(times):7.0f}")
    record = {
        "command": f"python benchmarks/explore_page.py --rounds {options.rounds}",
        "date": date.today().isoformat(),
        "measured_at_commit": commit(),
        "machine": machine(),
        "trace_megabytes": round(size / 1e6, 2),
        "milliseconds": {
            name: {"median": round(median(times), 1), "largest": round(max(times), 1)}
            for name, times in found.items()
        },
    }
    path = RESULTS / "explore-page.json"
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(path)


if __name__ == "__main__":
    main()
