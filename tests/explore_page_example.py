"""What the tests of the explore page share: small models, a document, a browser, the API behind a route.

The API is answered in this process by what the server answers with, under the server's own content policy.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

import elman
from elman.explore import access, questions
from elman.explore.answers import Explorer
from elman.explore.export import static_page
from elman.explore.presets import PRESETS
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.text.corpus import encode_string
from elman.text.tokenizers import get_tokenizer
from elman.text.vocabulary import Vocabulary

PAGE = Path(elman.__file__).parent / "explore" / "page"
SITE = "http://127.0.0.1:8123/"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
VIEWS = ("surprisal", "nextword", "heatmap", "conveyor", "cell", "gradients", "memory")
HOSTILE = "</script><img src=x onerror=alert(1)>"


def recurrent(cell: str, tokenizer: str, tokens: list[str], layers: int, size: int) -> RecurrentModel:
    """A model with drawn weights, large enough that gates open and close."""
    config = RecurrentConfig.model_validate(
        {"cell": cell, "embedding_size": 6, "hidden_size": size, "num_layers": layers, "init_scale": 1.2}
    )
    with torch.random.fork_rng():
        torch.manual_seed(len(cell) + size)
        vocabulary = Vocabulary(["<unk>", "</s>", *tokens])
        return RecurrentModel(vocabulary, get_tokenizer(tokenizer), config).eval()


@cache
def explorer() -> Explorer:
    """LSTM 2×11, GRU, RNN and a trigram over words, a GRU over characters: m0 … m4."""
    lines = [line for preset in PRESETS for line in preset["text"].split("\n")]
    words = sorted(
        {word for line in lines for word in line.split()} | {HOSTILE.split()[0], HOSTILE.split()[1]}
    )
    letters = sorted({letter for line in lines for letter in line.replace(" ", "␣")})
    tokenizer, vocabulary = get_tokenizer("words"), Vocabulary(["<unk>", "</s>", *words])
    text = encode_string("\n".join(lines) + "\n", tokenizer, vocabulary)
    return Explorer(
        {
            "LSTM": recurrent("lstm", "words", words, 2, 11),
            "GRU": recurrent("gru", "words", words, 1, 9),
            "RNN": recurrent("rnn", "words", words, 1, 7),
            "trigram": estimate(text, vocabulary, tokenizer, KneserNeySettings(order=3)),
            "letters": recurrent("gru", "characters", letters, 1, 5),
        }
    )


@cache
def document() -> dict[str, Any]:
    """A static page's document: every preset, the four models of words, one answer to a search."""
    found = explorer()
    cards = [card for card in found.cards if card["name"] != "letters"]
    texts = [
        {
            "id": preset["id"],
            "title": preset["title"],
            "text": preset["text"],
            "traces": {card["id"]: found.trace(card["id"], preset["text"].split("\n")) for card in cards},
        }
        for preset in PRESETS
    ]
    return {
        "format": "elman-explore", "version": 1, "models": cards, "presets": list(PRESETS), "texts": texts,
    }  # fmt: skip


@cache
def static() -> str:
    return static_page(document())


def similar(question: dict[str, Any]) -> dict[str, Any]:
    """An answer of the contract's form: what the page does with it is tested, not the search."""
    tokens = ["of", "the", "past", "and", HOSTILE, "of", "the"]
    match = {"score": 0.83, "start": 1203, "end": 1206, "tokens": tokens, "from": 2, "to": 5}
    units = [{"unit": 3, "sign": 1, "mean": 0.71}, {"unit": 5, "sign": -1, "mean": -0.62}]
    kept = {key: question[key] for key in ("layer", "part", "threshold", "first", "last")}
    return kept | {"units": units, "common": 2, "matches": [match, match | {"score": 0.5}]}


@dataclass
class Site:
    """The live page behind Playwright's routes. `fail` answers in place of the API."""

    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    fail: Callable[[str], tuple[int, dict[str, Any]] | None] = lambda kind: None

    def about(self) -> dict[str, Any]:
        limits = {"characters": questions.CHARACTERS, "detail": questions.DETAIL, "top": questions.TOP}
        reference = {"name": "a text", "tokens": 50_000}
        return {
            "models": explorer().cards, "reference": reference, "presets": list(PRESETS), "limits": limits,
        }  # fmt: skip

    def serve(self, route: Any) -> None:
        """The page's files and the API; any other address fails the test that asks for it."""
        request = route.request
        path = request.url.removeprefix(SITE).partition("?")[0].partition("#")[0]
        headers = {name.decode(): value.decode() for name, value in access.PROTECTION}
        if path.startswith("api/"):
            kind = path.removeprefix("api/")
            status, answer = self.fail(kind) or (200, self._answer(kind, request))
            if status == 0:
                route.abort()
                return
            route.fulfill(
                status=status, headers=headers, content_type="application/json", body=json.dumps(answer)
            )
            return
        name = path.removeprefix("page/") or "index.html"
        kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
        body = (PAGE / name).read_bytes()
        route.fulfill(headers=headers, content_type=kinds[name.rpartition(".")[2]], body=body)

    def _answer(self, kind: str, request: Any) -> dict[str, Any]:
        if kind == "models":
            return self.about()
        asked = questions.parse(
            kind, request.post_data_buffer
        )  # a question that the server would refuse raises
        question = {"kind": kind, "lines": asked.lines} | asked.model_dump()
        self.asked.append((kind, question))
        return similar(question) if kind == "similar" else explorer().answer(question)


@contextmanager
def watched(context: Any) -> Iterator[Any]:
    """A page of `context` on which nothing may fail: no error, no warning, no violation of the policy."""
    page = context.new_page()
    told: list[str] = []
    page.on(
        "console", lambda message: told.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: (told.append("a dialog opened"), dialog.dismiss()))
    page.told = told
    yield page
    assert not told, told
    page.close()


FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def ready(page: Any) -> None:
    """Wait until what was asked for has been read and drawn."""
    page.wait_for_selector("#strip:not([aria-busy]) .chosen")
    page.evaluate(FRAMES)  # what a key has changed is drawn in the next frame, and may ask the server first
    page.wait_for_function("() => !document.querySelector('[role=tabpanel]:not([hidden]) .busy')")
    page.evaluate(FRAMES)


def fragment(page: Any) -> dict[str, str]:
    """The state in the URL, once it is written."""
    page.wait_for_function("() => location.hash.slice(1) === Elman.fragment()")
    pairs = page.evaluate("location.hash").removeprefix("#").split("&")
    return dict(pair.split("=", 1) for pair in pairs if pair)


def go(page: Any, state: str) -> None:
    """The live page anew, with a state in its URL."""
    page.goto("about:blank")
    page.goto(f"{SITE}#{state}")
    ready(page)


def trace_of(preset: str, model: str) -> dict[str, Any]:
    """What `model` did on the text of a preset."""
    text = next(each for each in document()["texts"] if each["id"] == preset)
    found: dict[str, Any] = text["traces"][model]
    return found
