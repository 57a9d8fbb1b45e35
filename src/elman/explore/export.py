"""The page of `elman explore` as one static HTML file, for a teacher's site: traces inside, nothing loaded.

It is made of the files that the server sends (page/): index.html with its style sheets and scripts put in
place of their links. A content policy in the page forbids every request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from elman.explore.answers import Explorer
from elman.language_model import StatePolicy
from elman.report.page import POLICY, embedded

_STYLE = re.compile(r'<link rel="stylesheet" href="page/([\w.-]+)">')
_SCRIPT = re.compile(r'<script src="page/([\w.-]+)"></script>')


def static_document(
    explorer: Explorer,
    texts: Sequence[tuple[str, str]],
    state: StatePolicy,
    *,
    presets: Sequence[Mapping[str, Any]] = (),
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """(title, text) of each text → the document of `static_page`, every model's trace of every text inside.

    `progress` is called with how many texts have been traced.
    """
    traced = []
    for place, (title, text) in enumerate(texts):
        traces = {key: explorer.full_trace(key, text.split("\n"), state) for key in explorer.models}
        traced.append({"id": f"t{place}", "title": title, "text": text, "traces": traces})
        progress(place + 1)
    head = {"format": "elman-explore", "version": 1, "models": explorer.cards}
    return head | {"presets": list(presets), "texts": traced}


def static_page(document: Mapping[str, Any], *, title: str = "elman explore") -> str:
    """The page that shows `document` and can be opened from a folder or any web host.

    document  {"format": "elman-explore", "version": 1, "models": [card with its "id"], "presets": [...],
              "texts": [{"id", "title", "text", "traces": {model id: trace}, "similar": {model id: [answers of
              /api/similar]} or nothing}]}; a preset belongs to the text that it equals
    """
    folder = files("elman.explore") / "page"

    def text(name: str) -> str:
        return (folder / name).read_text("utf-8")

    page = text("index.html")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    page = page.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n{policy}', 1)
    page = page.replace("<title>elman explore</title>", f"<title>{escape(title)}</title>", 1)
    page = _STYLE.sub(lambda found: f"<style>\n{text(found[1])}</style>", page)
    data = f'<script type="application/json" id="explore-data">{embedded(document)}</script>\n'
    first = _SCRIPT.search(page)
    assert first is not None
    page = page[: first.start()] + data + page[first.start() :]
    return _SCRIPT.sub(lambda found: f"<script>\n{text(found[1])}</script>", page)
