"""The explore server as its own page sees it: the way in, the page's files, the answers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

pytest.importorskip("litestar")
from elman.explore.access import Refused, new_token
from elman.explore.questions import DETAIL, parse
from elman.explore.server import KINDS, Page
from explore_server import ORDER, PAGE, Running, running


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as found:
        yield found


def test_the_start_address_becomes_a_cookie_and_leaves_the_address_bar(server: Running) -> None:
    answer = server.send(
        f"GET /?token={server.token} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        "Sec-Fetch-Site: none\r\n\r\n".encode()
    )
    assert (answer.status, answer.headers["location"], answer.body) == (303, "/", b"")
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert cookie == server.cookie
    assert set(attributes) == {"Path=/", "HttpOnly", "SameSite=Strict"}
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert server.get("/", Cookie=cookie).body == PAGE.files["index.html"]


def test_a_token_has_256_bits_and_is_never_the_same() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", token) for token in tokens)


def test_the_page_and_its_files(server: Running) -> None:
    assert server.get("/").headers["content-type"] == "text/html; charset=utf-8"
    assert server.get("/?view=gates&token_=3&tokens=4").status == 200  # the page's own state
    for name, kind in (("core.js", "text/javascript"), ("page.css", "text/css")):
        answer = server.get(f"/page/{name}")
        assert answer.body == PAGE.files[name]
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["content-type"].count("charset") <= 1
        assert answer.headers["cache-control"] == "no-cache"
    assert server.get("/page/nothing.js").status == 404


def test_the_real_page_is_whole() -> None:
    page = Page.load()
    index = page.files["index.html"].decode()
    links = re.findall(r'(?:src|href)="page/([^"]+)"', index)
    assert len(links) > 3
    assert set(links) <= set(page.files)
    assert not re.search(r"<script(?! src=)|<style| on\w+=| style=|https?:", index)  # what the policy forbids
    assert all(name.rpartition(".")[2] in KINDS for name in page.files)


def test_models_and_questions(server: Running) -> None:
    about = server.get("/api/models").json
    assert [card["id"] for card in about["models"]] == ["m0", "m1"]
    assert about["reference"] == ORDER["reference"]
    told = server.post("similar", {"text": "a\nb\n", "model": "m1", "state": "reset", "first": 1, "last": 3,
                                   "layer": 2, "part": "c", "threshold": 0.5})  # fmt: skip
    assert told.json == {
        "kind": "similar",
        "text": "a\nb\n",
        "lines": ["a", "b"],
        "model": "m1",
        "state": "reset",
        "first": 1,
        "last": 3,
        "layer": 2,
        "part": "c",
        "threshold": 0.5,
    }
    assert server.post("similar", {"text": "a", "model": "m1", "first": 0, "last": 1, "layer": 1,
                                   "part": "h"}).json["threshold"] is None  # fmt: skip


def test_without_a_reference_there_is_nothing_to_search() -> None:
    with running({"models": ["lstm"]}) as server:
        question = {"text": "a", "model": "m0", "first": 0, "last": 1, "layer": 1, "part": "h"}
        answer = server.post("similar", question)
        assert answer.status == 404
        assert "--reference CORPUS" in answer.json["error"]["remedy"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a", ["a"]),
        ("a\n", ["a"]),
        ("a\n\n", ["a", ""]),
        ("\n", [""]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("a\rb", ["a\rb"]),
        ("a\u2028b\x0bc\x85d", ["a\u2028b\x0bc\x85d"]),
    ],
)
def test_lines_are_those_of_a_file(text: str, lines: list[str]) -> None:
    assert parse("read", b'{"models": ["m0"], "text": "%s"}' % _escaped(text)).lines == lines


def _escaped(text: str) -> bytes:
    return "".join(f"\\u{ord(letter):04x}" for letter in text).encode()


@pytest.mark.parametrize(("models", "right"), [(15, True), (16, True), (17, False)])
def test_how_many_models(models: int, right: bool) -> None:
    body = b'{"text": "a", "models": [' + b", ".join(b'"m%d"' % k for k in range(models)) + b"]}"
    if right:
        assert len(parse("read", body).ids()) == models
    else:
        with pytest.raises(Refused, match="at most 16"):
            parse("read", body)


def test_the_limits_are_those_of_the_trace() -> None:
    from elman import trace

    assert DETAIL == trace.DETAIL
