"""The explore server: heads, questions, and whole connections in memory, as a client may send them."""

from __future__ import annotations

import asyncio
import atexit
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import h11
import uvicorn
from uvicorn.server import ServerState

from elman.explore import access, questions
from elman.explore.access import PROTECTION, Refused, read_head
from elman.explore.connections import Connection, connection_class
from elman.explore.server import Page, make_app
from elman.explore.work import Answer
from fuzz.target import Target

PORT, SECRET = 8765, "s" * 43
STATUSES = {200, 303, 400, 401, 403, 404, 405, 408, 413, 415, 431}
PAGE = Page({"index.html": b"<!doctype html>", "page.css": b"p {}"})


def read(data: bytes) -> None:
    """A head as h11 takes it apart and uvicorn hands it on: refused, or of the form that is promised."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=access.HEAD_BYTES)
    connection.receive_data(data)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return
    if not isinstance(event, h11.Request):
        return
    path, _, query = event.target.partition(b"?")
    scope = {
        "method": event.method.decode("ascii"),
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": query,
        "headers": [(name.lower(), value) for name, value in event.headers],
        "server": ("127.0.0.1", PORT),
        "http_version": event.http_version.decode("ascii"),
    }
    request = read_head(scope)
    names = [name for name, _ in scope["headers"]]
    assert all(names.count(name) <= 1 for name in access.ONCE)
    assert request.method in ("GET", "POST")
    assert request.path.startswith("/")
    assert not any(part in request.path for part in ("..", "//"))
    hosts = [f"{host}:{PORT}" for host in ("localhost", "127.0.0.1", "[::1]")]
    assert request.headers[b"host"].decode() in hosts
    if access.is_entry(request, SECRET):
        assert SECRET.encode() in request.query
    else:
        access.require_cookie(request, SECRET)
        assert SECRET.encode() in request.headers[b"cookie"]


def ask(data: bytes) -> None:
    """First line: the kind; then the body. A question that passes is within its limits, and passes again."""
    kind, _, body = data.partition(b"\n")
    name = kind.decode("latin-1")
    if name not in questions.KINDS:
        return
    question = questions.parse(name, body)
    assert 1 <= len(question.text) <= questions.CHARACTERS
    assert 1 <= len(question.ids()) <= questions.MODELS
    assert all("\n" not in line for line in question.lines)
    document = question.model_dump()
    again = questions.parse(name, json.dumps(document).encode())
    assert again == question
    json.dumps(document, allow_nan=False)


class _Work:
    """Answers every question at once: what the process that computes would say is not tested here."""

    async def ask(self, question: dict[str, Any]) -> Answer:
        return Answer(200, json.dumps({"kind": question["kind"]}).encode())


class _Line(asyncio.Transport):
    """A connection's other end, in memory."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", PORT), "socket": None})
        self.sent, self.closed = b"", False

    def write(self, data: Any) -> None:
        assert not self.closed, "something is sent on a closed connection"
        self.sent += bytes(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


@cache
def _server() -> tuple[asyncio.AbstractEventLoop, Callable[[], Connection]]:
    loop = asyncio.new_event_loop()
    atexit.register(loop.close)
    about = {"models": [{"id": "m0"}, {"id": "m1"}], "reference": None}
    app = make_app(_Work(), PAGE, about, SECRET)  # type: ignore[arg-type]
    kind, state = connection_class(), ServerState()
    config = uvicorn.Config(
        app, http=kind, ws="none", lifespan="off", interface="asgi3", log_config=None, log_level="critical",
        access_log=False, proxy_headers=False, server_header=False,
        h11_max_incomplete_event_size=access.HEAD_BYTES,
    )  # fmt: skip
    config.load()
    return loop, lambda: kind(config, state, {}, loop)


def connect(data: bytes) -> None:
    """First byte: the size of the pieces that arrive; PORT and SECRET in the rest stand for what they are."""
    size = 1 + (data[0] if data else 0) * 8
    raw = data[1:].replace(b"SECRET", SECRET.encode()).replace(b"PORT", str(PORT).encode())
    loop, connection = _server()
    loop.run_until_complete(_talk(connection(), raw, size))


async def _talk(connection: Connection, raw: bytes, size: int) -> None:
    line = _Line()
    connection.connection_made(line)
    for at in range(0, len(raw), size):
        if line.closed:
            break
        connection.data_received(raw[at : at + size])
        await asyncio.sleep(0)
    for _ in range(60):  # an answer takes some turns of the loop
        await asyncio.sleep(0)
        if line.closed or not connection.tasks:
            break
    connection.connection_lost(None)
    for _ in range(60):
        if not connection.tasks:
            break
        await asyncio.sleep(0)
    assert not connection.owing, "a head is awaited of a connection that is gone"
    assert not connection.tasks, "an answer to a connection that is gone goes on"
    _require_answers(line.sent, raw)


def _require_answers(sent: bytes, raw: bytes) -> None:
    """Every answer is whole HTTP, of a status that is meant, with the headers that protect it."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    while sent:
        client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        client.send(h11.EndOfMessage())
        client.receive_data(sent)
        response = client.next_event()
        assert isinstance(response, h11.Response), response
        headers = list(response.headers)
        assert response.status_code in STATUSES, response
        assert all(header in headers for header in PROTECTION), response
        names = [name for name, _ in headers]
        assert not any(names.count(name) > 1 for name in names), response
        assert not any(name.startswith(b"access-control") for name in names)
        if response.status_code == 200:
            assert SECRET.encode() in raw, "answered without the token"
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                return  # it was cut off: the client had gone
            assert isinstance(event, h11.Data), event
            assert b"Traceback" not in event.data
        sent = client.trailing_data[0]
        if client.states[h11.CLIENT] is not h11.DONE or client.states[h11.SERVER] is not h11.DONE:
            assert not sent, "an answer after the last one"
            return
        client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)


_COOKIE = "Cookie: elman-PORT=SECRET\r\n"
_POST = f"POST /api/read HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n{_COOKIE}Origin: http://127.0.0.1:PORT\r\n"
_BODY = '{"text": "a", "models":["m0"]}'
HEADS = (
    "GET /?token=SECRET HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n",
    f"GET /page/page.css HTTP/1.1\r\nHost: localhost:PORT\r\n{_COOKIE}Sec-Fetch-Site: same-origin\r\n\r\n",
    "GET /api/models HTTP/1.0\r\nHost: [::1]:PORT\r\nCookie: a=b; elman-PORT=SECRET\r\n\r\n",
    f"{_POST}Content-Type: application/json\r\nContent-Length: 30\r\n\r\n{_BODY}",
    f"{_POST}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1e\r\n{_BODY}\r\n0\r\n\r\n",
)


def heads() -> list[bytes]:
    return [head.replace("PORT", str(PORT)).replace("SECRET", SECRET).encode() for head in HEADS]


def connections() -> list[bytes]:
    two = HEADS[2].replace("1.0", "1.1") + HEADS[3]
    return [
        bytes([size]) + head.encode()
        for size, head in zip((255, 3, 0, 255, 1, 255), (*HEADS, two), strict=True)
    ]


def asked() -> list[bytes]:
    similar = {"text": "a b", "model": "m", "first": 1, "last": 3, "layer": 1, "part": "c", "threshold": 0.5}
    documents = (
        ("read", {"text": "a\nb", "models": ["m0", "m1"]}),
        ("trace", {"text": "a", "model": "m0", "first": 0, "last": 1, "state": "reset"}),
        ("similar", similar),
    )
    return [kind.encode() + b"\n" + json.dumps(document).encode() for kind, document in documents]


MARKS = (
    b"\r\n", b"\r\n\r\n", b"GET ", b"POST ", b"HEAD ", b" HTTP/1.1", b" HTTP/1.0", b"Host: 127.0.0.1:8765",
    b"Host: 127.0.0.1:PORT",
    b"Cookie: elman-8765=", b"Cookie: elman-PORT=SECRET", b"SECRET", SECRET.encode(), b"Origin: http://127.0.0.1:PORT",
    b"Content-Length: 30", b"Content-Length: ", b"Transfer-Encoding: chunked",
    b"Content-Type: application/json",
    b"Content-Encoding: gzip", b"Expect: 100-continue", b"Connection: close", b"Connection: keep-alive",
    b"Upgrade: websocket",
    b"Sec-Fetch-Site: cross-site", b"/page/", b"/api/", b"..", b"%2e", b"?token=", b"1e\r\n", b"0\r\n\r\n",
    b"\xff", b"\0",
)  # fmt: skip

HEAD = Target(read, heads, MARKS, largest=2048, answers=(Refused,))
QUESTION = Target(
    ask, asked, (b"NaN", b"Infinity", b"\\ud800", b"1e999"), largest=1024, answers=(Refused,), json=True
)
CONNECTION = Target(connect, connections, MARKS, largest=4096)
