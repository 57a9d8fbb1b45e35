"""Hostile requests to the explore server: each refused as designed, a normal one answered afterwards."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

pytest.importorskip("litestar")
from elman.explore import connections, gate
from elman.explore.access import BODY_BYTES, HEAD_BYTES, PROTECTION
from explore_server import PAGE, PATIENCE, Running, running

QUESTION = {"text": "we the people", "models": ["m0", "m1"]}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as found:
        yield found


def request(
    server: Running,
    line: str,
    *headers: str,
    body: bytes = b"",
    host: str = "127.0.0.1:PORT",
    cookie: str = "COOKIE",
) -> bytes:
    """A request as bytes; PORT, OTHER (a wrong port), TOKEN, COOKIE stand for the server's. host "": none."""
    lines = [line, *([f"Host: {host}"] if host else []), *([f"Cookie: {cookie}"] if cookie else []), *headers]
    head = "\r\n".join(lines) + "\r\n\r\n"
    for name, value in (
        ("COOKIE", server.cookie),
        ("TOKEN", server.token),
        ("PORT", str(server.port)),
        ("OTHER", str(server.port ^ 1)),
    ):
        head = head.replace(name, value)
    return head.encode("utf-8", "surrogateescape") + body


def post(server: Running, body: object, *headers: str, kind: str = "read", **options: str) -> bytes:
    """A POST of the page, with its Origin and Content-Type unless `headers` bring others."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {header.partition(":")[0].lower() for header in headers}
    usual = {
        "origin": "Origin: http://127.0.0.1:PORT",
        "content-type": "Content-Type: application/json",
        "content-length": f"Content-Length: {len(data)}",
    }
    if "transfer-encoding" in given:
        del usual["content-length"]
    kept = [header for name, header in usual.items() if name not in given]
    return request(server, f"POST /api/{kind} HTTP/1.1", *kept, *headers, body=data, **options)


def require_refusal(server: Running, sent: bytes, status: int | tuple[int, ...]) -> None:
    answer = server.send(sent)
    assert answer.status in (status if isinstance(status, tuple) else (status,)), answer
    assert set(answer.json["error"]) == {"cause", "reason", "remedy"}
    assert b"Traceback" not in answer.body
    assert b"site-packages" not in answer.body
    for name, value in PROTECTION:
        assert answer.headers[name.decode()] == value.decode()
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "server" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"
    assert server.read("we the people").status == 200


HOSTS = [
    "evil.example",
    "evil.example:PORT",  # a name that was made to mean 127.0.0.1
    "127.0.0.1.evil.example:PORT",
    "127.0.0.1",
    "127.0.0.1:OTHER",
    "localhost",
    "LOCALHOST:PORT",
    "localhost.:PORT",
    "127.0.0.1:0PORT",
    "127.0.0.1:PORT:PORT",
    "user@127.0.0.1:PORT",
    "127.0.0.1:PORT@evil.example",
    "127.1:PORT",
    "2130706433:PORT",
    "0x7f.0.0.1:PORT",
    "0.0.0.0:PORT",
    "[::]:PORT",
    "[::ffff:127.0.0.1]:PORT",
    "::1:PORT",
    "127.0.0.1:PORT, evil.example",
]


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_that_is_not_ours(server: Running, host: str) -> None:
    require_refusal(server, request(server, "GET /api/models HTTP/1.1", host=host), 403)
    require_refusal(server, request(server, "GET /?token=TOKEN HTTP/1.1", host=host, cookie=""), 403)


@pytest.mark.parametrize("host", ["localhost:PORT", "127.0.0.1:PORT", "[::1]:PORT"])
def test_the_three_hosts_that_are_ours(server: Running, host: str) -> None:
    assert server.send(request(server, "GET /api/models HTTP/1.1", host=host)).status == 200
    assert server.send(post(server, QUESTION, f"Origin: http://{host}", host=host)).status == 200


@pytest.mark.parametrize(
    ("headers", "host"),
    [
        ((), ""),
        (("Host: evil.example",), "127.0.0.1:PORT"),
        (("Host: 127.0.0.1:PORT",), "127.0.0.1:PORT"),
        (("X-Forwarded-Host: 127.0.0.1:PORT",), ""),
    ],
    ids=str,
)
def test_no_host_or_two(server: Running, headers: tuple[str, ...], host: str) -> None:
    require_refusal(server, request(server, "GET /api/models HTTP/1.1", *headers, host=host), 400)


@pytest.mark.parametrize("host", ["", "evil.example"])
def test_http_1_0_is_no_way_round(server: Running, host: str) -> None:
    require_refusal(server, request(server, "GET /api/models HTTP/1.0", host=host), 403)


@pytest.mark.parametrize(
    "headers",
    [
        ("Origin: http://evil.example",),
        ("Origin: null",),
        ("Origin: http://127.0.0.1:OTHER",),
        ("Origin: https://127.0.0.1:PORT",),
        ("Origin: http://localhost:PORT",),  # another origin than the host that was asked
        ("Origin: http://127.0.0.1:PORT.evil.example",),
        ("Origin: ",),
        ("Sec-Fetch-Site: cross-site",),
        ("Sec-Fetch-Site: same-site",),  # another port of this machine
        ("Sec-Fetch-Site: nonsense",),
        ("Origin: http://127.0.0.1:PORT", "Sec-Fetch-Site: cross-site"),
    ],
    ids=str,
)
def test_an_origin_that_is_not_ours(server: Running, headers: tuple[str, ...]) -> None:
    require_refusal(server, request(server, "GET /api/models HTTP/1.1", *headers), 403)
    require_refusal(server, request(server, "GET /?token=TOKEN HTTP/1.1", *headers, cookie=""), 403)
    require_refusal(server, request(server, "GET /page/core.js HTTP/1.1", *headers), 403)
    require_refusal(server, post(server, QUESTION, *headers), 403)
    require_refusal(server, request(server, "OPTIONS /api/read HTTP/1.1", *headers), 403)


def test_a_post_says_where_it_comes_from(server: Running) -> None:
    sent = request(
        server, "POST /api/read HTTP/1.1", "Content-Type: application/json", "Content-Length: 2", body=b"{}"
    )
    require_refusal(server, sent, 403)
    require_refusal(
        server, post(server, QUESTION, "Origin: http://127.0.0.1:PORT", "Origin: http://evil.example"), 400
    )


@pytest.mark.parametrize(
    "cookie",
    [
        "",
        "elman-PORT=",
        "elman-PORT=null",
        "elman-PORT=TOKENx",
        "elman-PORT=" + "A" * 43,
        "elman-PORT=TOKE",
        'elman-PORT="TOKEN"',
        "elman-OTHER=TOKEN",
        "elman=TOKEN",
        "Elman-PORT=TOKEN",
        "TOKEN",
        "elman-PORT TOKEN",
        "elman-PORT=\udcff\udcfe",
        "elman-PORT=" + "A" * 12000,
    ],
    ids=lambda cookie: cookie[:24],
)
def test_a_forged_cookie(server: Running, cookie: str) -> None:
    cookie = cookie.replace("TOKE", server.token[:-1], 1) if cookie.endswith("=TOKE") else cookie
    require_refusal(server, request(server, "GET / HTTP/1.1", cookie=cookie), 401)
    require_refusal(server, request(server, "GET /page/core.js HTTP/1.1", cookie=cookie), 401)
    require_refusal(server, request(server, "GET /nothing HTTP/1.1", cookie=cookie), 401)
    require_refusal(server, post(server, QUESTION, cookie=cookie), 401)


def test_a_cookie_that_another_port_added_does_not_lock_us_out(server: Running) -> None:
    for cookie in ("elman-PORT=x; COOKIE", "COOKIE; elman-PORT=x", "a=b; COOKIE; c"):
        assert server.send(request(server, "GET / HTTP/1.1", cookie=cookie)).status == 200
    require_refusal(server, request(server, "GET / HTTP/1.1", "Cookie: COOKIE"), 400)


@pytest.mark.parametrize(
    "query",
    ["token=", "token=x", "token=TOKENx", "token=TOKEN&token=TOKEN", "token=TOKEN%00", "token", "%74oken=x"],
)
def test_a_wrong_token(server: Running, query: str) -> None:
    require_refusal(server, request(server, f"GET /?{query} HTTP/1.1", cookie=""), 401)
    require_refusal(server, request(server, f"GET /?{query} HTTP/1.1"), 401)


def test_the_token_is_for_the_start_alone(server: Running) -> None:
    require_refusal(server, request(server, "GET /api/models?token=TOKEN HTTP/1.1", cookie=""), 401)
    require_refusal(server, post(server, QUESTION, kind="read?token=TOKEN", cookie=""), 401)
    require_refusal(server, request(server, "GET /?" + "a=b&" * 200 + " HTTP/1.1"), 400)


TRAVERSALS = [
    "/page/../server.py",
    "/page/..%2fserver.py",
    "/page/%2e%2e/server.py",
    "/page/%252e%252e/server.py",
    "/page/..\\server.py",
    "/page/..%5cserver.py",
    "/page/core.js%00",
    "/page/core.js%00.html",
    "/page//etc/passwd",
    "/page/%2fetc%2fpasswd",
    "/../../../../etc/passwd",
    "/etc/passwd",
    "//etc/passwd",
    "/page/C:/Windows/win.ini",
    "/page/%5c%5cevil.example%5cshare",
    "/page/%5cWindows%5cwin.ini",
    "/page/./core.js",
    "/page/core.js/",
    "/page/core.js/.",
    "/page/CORE.JS",
    "/page/core.js;x",
    "/page/",
    "/page",
    "/page/%",
    "/page/%c0%ae%c0%ae/server.py",
    "/page/__init__.py",
    "/%61pi/models",
    "/api/models/",
    "http://evil.example/",
    "http://127.0.0.1:PORT/api/models",
    "*",
    "/schema",
    "/schema/openapi.json",
    "/docs",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_a_path_that_leads_elsewhere(server: Running, path: str) -> None:
    require_refusal(server, request(server, f"GET {path} HTTP/1.1"), 404)


@pytest.mark.parametrize("kind", ["openapi", "reads", "read/", "read/x", "..", "%72ead", "trace%00"])
def test_a_question_that_is_not_known(server: Running, kind: str) -> None:
    require_refusal(server, post(server, QUESTION, kind=kind), 404)


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        ("PUT / HTTP/1.1", (), 405),
        ("OPTIONS / HTTP/1.1", (), 405),
        ("DELETE /api/models HTTP/1.1", (), 405),
        ("TRACE / HTTP/1.1", (), 405),
        ("CONNECT 127.0.0.1:1 HTTP/1.1", (), 405),
        ("get / HTTP/1.1", (), 405),
        ("GETT / HTTP/1.1", (), 405),
        ("GET /api/read HTTP/1.1", (), 405),
        ("GET / HTTP/2.0", (), 400),
        ("GET / HTTP/9.9", (), 400),
        ("GET /", (), 400),
        ("GET  / HTTP/1.1", (), 400),
        ("GET / x HTTP/1.1", (), 400),
        ("GET /page/\udcff HTTP/1.1", (), 400),
        ("PRI * HTTP/2.0", (), 400),
        ("GET / HTTP/1.1", ("X-Method: a\rb",), 400),
        ("GET / HTTP/1.1", ("X: a\0b",), 400),
        ("GET / HTTP/1.1", ("X : a",), 400),
        ("GET / HTTP/1.1", ("no colon",), 400),
        ("GET / HTTP/1.1", ("Content-Length: 5",), 400),
        ("GET / HTTP/1.1", ("Transfer-Encoding: chunked",), 400),
        ("GET / HTTP/1.1", ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"), 400),
        (
            "GET /api/read HTTP/1.1",
            ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: eA=="),
            400,
        ),
        (
            "GET / HTTP/1.1",
            ("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AA"),
            400,
        ),
        ("POST / HTTP/1.1", ("Origin: http://127.0.0.1:PORT", "Content-Type: application/json"), 405),
        (
            "POST /api/models HTTP/1.1",
            ("Origin: http://127.0.0.1:PORT", "Content-Type: application/json"),
            405,
        ),
    ],
    ids=str,
)
def test_what_is_no_plain_request(server: Running, line: str, headers: tuple[str, ...], status: int) -> None:
    require_refusal(server, request(server, line, *headers), status)


def test_a_method_override_does_nothing(server: Running) -> None:
    line, header = "GET /api/read HTTP/1.1", "X-HTTP-Method-Override: POST"
    require_refusal(server, request(server, line, header), 405)


def test_head_is_refused_without_a_body(server: Running) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        client.sendall(request(server, "HEAD / HTTP/1.1"))
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 405 ")


CHUNKED = "Transfer-Encoding: chunked"


def chunks(data: bytes) -> bytes:
    pieces = [data[k : k + 8000] for k in range(0, len(data), 8000)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


SMUGGLED = b"0\r\n\r\nGET /api/models HTTP/1.1\r\nHost: evil.example\r\n\r\n"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ((CHUNKED, "Content-Length: 5"), SMUGGLED),
        (("Content-Length: 4", "Content-Length: 5"), SMUGGLED),
        (("Content-Length: +5",), b"12345"),
        (("Content-Length: -1",), b""),
        (("Content-Length: 5, 6",), b"12345"),
        (("Content-Length: 0x5",), b"12345"),
        (("Transfer-Encoding: gzip",), b""),
        (("Transfer-Encoding: chunked, identity",), SMUGGLED),
        ((CHUNKED, CHUNKED), SMUGGLED),
        (("Transfer-Encoding: xchunked",), SMUGGLED),
        ((CHUNKED,), b"zz\r\nab\r\n0\r\n\r\n"),
        ((CHUNKED,), b"-1\r\nab\r\n0\r\n\r\n"),
        ((CHUNKED,), b"2\r\nabcd\r\n0\r\n\r\n"),
    ],
    ids=str,
)
def test_a_body_of_two_lengths(server: Running, headers: tuple[str, ...], body: bytes) -> None:
    require_refusal(server, post(server, body, *headers), (400, 501))


@pytest.mark.parametrize("second", ["Content-Length: SIZE", "content-length:SIZE", "CONTENT-LENGTH : SIZE"])
def test_one_length_that_stands_there_twice(server: Running, second: str) -> None:
    body = json.dumps(QUESTION).encode()
    lengths = (f"Content-Length: {len(body)}", second.replace("SIZE", str(len(body))))
    require_refusal(server, post(server, body, *lengths), 400)
    require_refusal(server, post(server, body, f"Content-Length: {len(body)}, {len(body)}"), 400)
    assert server.send(post(server, body, "X-Content-Length: 3")).status == 200


def test_a_second_length_in_a_later_request_of_a_connection(server: Running) -> None:
    """Whether the head comes at once, byte by byte, or with the request before it."""
    body = json.dumps(QUESTION).encode()
    length = f"Content-Length: {len(body)}"
    good, wrong = post(server, body), post(server, body, length, length)
    for sent in ([good + wrong], [good, wrong], [bytes([byte]) for byte in good + wrong]):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for each in sent:
                client.sendall(each)
            answers = client.makefile("rb").read()
        assert answers.count(b"HTTP/1.1 200") == 1
        assert answers.count(b"HTTP/1.1 400") == 1


def test_what_follows_a_refused_request_is_not_answered(server: Running) -> None:
    smuggler = post(server, SMUGGLED, CHUNKED, "Content-Length: 5")
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        client.sendall(smuggler + request(server, "GET /api/models HTTP/1.1") * 3)
        assert client.makefile("rb").read().count(b"HTTP/1.1 ") == 1


def test_bodies_up_to_the_limit_and_over_it(server: Running) -> None:
    body = json.dumps(QUESTION).encode()
    for size in (BODY_BYTES - 1, BODY_BYTES):
        padded = body + b" " * (size - len(body))
        assert server.send(post(server, padded)).status == 200
        assert server.send(post(server, chunks(padded), CHUNKED)).status == 200
    for size in (BODY_BYTES + 1, 2 * BODY_BYTES, 900_000):
        padded = body + b" " * (size - len(body))
        require_refusal(server, post(server, padded), 413)
        require_refusal(server, post(server, chunks(padded), CHUNKED), 413)


def test_a_body_without_end_is_cut_off(server: Running) -> None:
    require_refusal(server, post(server, chunks(b" " * (3 << 20)), CHUNKED), 413)
    require_refusal(server, post(server, b" " * (3 << 20), "Content-Length: 99999999999999"), 413)
    # at once, not when time is up
    require_refusal(server, post(server, b"", "Content-Length: 1000000000"), 413)


def test_a_body_shorter_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "SECONDS_FOR_BODY", 0.3)
    with running() as server:
        require_refusal(server, post(server, b"{", "Content-Length: 60000"), 408)
        require_refusal(server, post(server, b"ff\r\n{", CHUNKED), 408)
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
            client.sendall(post(server, b"{", "Content-Length: 60000"))
        assert server.read("after it left").status == 200


def test_a_body_longer_than_it_says(server: Running) -> None:
    body = json.dumps(QUESTION).encode()
    answer = server.send(post(server, body + b"GET / HTTP/1.1\r\n\r\n", f"Content-Length: {len(body)}"))
    assert answer.status == 200  # of the question; what follows is another request, without a host
    require_refusal(server, post(server, body, "Content-Length: 9"), 400)


def test_headers_up_to_the_limit_and_over_it(server: Running) -> None:
    bare = request(server, "GET / HTTP/1.1", "X: ")
    counted = len(bare) - len("GET  HTTP/1.1\r\n") - 2
    for size, status in ((HEAD_BYTES - 1, 200), (HEAD_BYTES, 200), (HEAD_BYTES + 1, 431)):
        sent = request(server, "GET / HTTP/1.1", "X: " + "a" * (size - counted))
        answer = server.send(sent)
        assert answer.status in (status, 400 if status == 431 else status)  # 400: it came in pieces
        assert server.read("a").status == 200
    many = [f"X-{k}: {k}" for k in range(5000)]
    for sent in (
        request(server, "GET / HTTP/1.1", *many),
        request(server, f"GET /?{'a' * 70_000} HTTP/1.1"),
        request(server, "GET / HTTP/1.1", "X: " + "a" * 500_000),
    ):
        require_refusal(server, sent, (400, 431))


DEEP = b'{"text": ' + b"[" * 20_000 + b"]" * 20_000 + b"}"


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("read", b"", 400),
        ("read", b"{", 400),
        ("read", b"[]", 400),
        ("read", b"null", 400),
        ("read", b"\xff\xfe{\x00}\x00", 400),
        ("read", b'\xef\xbb\xbf{"text": "a", "models": ["m0"]}', 400),
        ("read", DEEP, 400),
        ("read", b'{"a":' * 9000 + b"1" + b"}" * 9000, 400),
        ("read", b'{"text": "a", "models": ["m0"], "text": "b"}', 400),
        ("read", b'{"text": "a", "models": ["m0"], "state": NaN}', 400),
        ("read", b'{"text": "\\ud800", "models": ["m0"]}', 400),
        ("read", b'{"text": "a\\udfff b", "models": ["m0"]}', 400),
        ("read", b'{"text": "\xed\xa0\x80", "models": ["m0"]}', 400),
        ("read", {"text": "a"}, 400),
        ("read", {"models": ["m0"]}, 400),
        ("read", {"text": "", "models": ["m0"]}, 400),
        ("read", {"text": ["a"], "models": ["m0"]}, 400),
        ("read", {"text": 1, "models": ["m0"]}, 400),
        ("read", {"text": None, "models": ["m0"]}, 400),
        ("read", {"text": "a", "models": "m0"}, 400),
        ("read", {"text": "a", "models": []}, 400),
        ("read", {"text": "a", "models": ["m0"] * 2}, 400),
        ("read", {"text": "a", "models": [f"m{k}" for k in range(17)]}, 400),
        ("read", {"text": "a", "models": [["m0"]]}, 400),
        ("read", {"text": "a", "models": [0]}, 400),
        ("read", {"text": "a", "models": ["m0"], "state": "keep"}, 400),
        ("read", {"text": "a", "models": ["m0"], "path": "/etc/passwd"}, 400),
        ("read", {"text": "a", "models": ["m0"], "__class__": "x"}, 400),
        ("read", {"text": "a", "models": ["m2"]}, 404),
        ("read", {"text": "a", "models": ["m0", "M1"]}, 404),
        ("read", {"text": "a", "models": ["m00"]}, 404),
        ("read", {"text": "a", "models": ["m\u0661"]}, 404),
        ("read", {"text": "a", "models": ["../../a"]}, 404),
        ("read", {"text": "a", "models": ["runs/lstm"]}, 400),
        ("trace", {"text": "a", "model": "m0"}, 400),
        ("trace", {"text": "a", "model": "m0", "first": 0, "last": 0}, 400),
        ("trace", {"text": "a", "model": "m0", "first": 2, "last": 1}, 400),
        ("trace", {"text": "a", "model": "m0", "first": -1, "last": 1}, 400),
        ("trace", {"text": "a", "model": "m0", "first": 0, "last": 1.0}, 400),
        ("trace", {"text": "a", "model": "m0", "first": False, "last": True}, 400),
        ("trace", {"text": "a", "model": "m0", "first": "0", "last": "1"}, 400),
        ("trace", {"text": "a", "model": "m0", "first": 10**30, "last": 10**30 + 1}, 400),
        ("trace", b'{"text": "a", "model": "m0", "first": 0, "last": ' + b"9" * 5000 + b"}", 400),
        ("trace", {"text": "a", "model": "m9", "first": 0, "last": 1}, 404),
        ("similar", {"text": "a", "model": "m0", "first": 0, "last": 1}, 400),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_question_that_is_wrong(server: Running, kind: str, body: object, status: int) -> None:
    require_refusal(server, post(server, body, kind=kind), status)


SIMILAR = {"text": "a", "model": "m0", "first": 0, "last": 1, "layer": 1, "part": "h", "threshold": 0.3}


@pytest.mark.parametrize(
    ("change", "status"),
    [({"layer": 0}, 400), ({"layer": 10**9}, 400), ({"part": "x"}, 400), ({"part": "__class__"}, 400)]
    + [({"threshold": value}, 400) for value in (-0.1, 0, 65505, "0.3", True, [])],
    ids=str,
)
def test_a_search_that_is_wrong(server: Running, change: dict[str, object], status: int) -> None:
    assert server.post("similar", SIMILAR).status == 200
    require_refusal(server, post(server, SIMILAR | change, kind="similar"), status)
    body = json.dumps(SIMILAR).replace("0.3", "1e999").encode()
    require_refusal(server, post(server, body, kind="similar"), 400)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (("Content-Type: text/plain",), 415),
        (("Content-Type: application/x-www-form-urlencoded",), 415),
        (("Content-Type: multipart/form-data; boundary=x",), 415),
        (("Content-Type: text/plain; application/json",), 415),
        (("Content-Type: ",), 415),
        (("Content-Type: application/json", "Content-Encoding: gzip"), 415),
        (("Content-Type: application/json", "Content-Type: text/plain"), 400),
    ],
    ids=str,
)
def test_only_json_is_a_question(server: Running, headers: tuple[str, ...], status: int) -> None:
    require_refusal(server, post(server, QUESTION, *headers), status)


def test_what_is_not_http_at_all(server: Running) -> None:
    for sent in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"\r\n" * 40 + b"hello\r\n\r\n",
    ):
        require_refusal(server, sent + b"\r\n\r\n", 400)


def test_a_broken_chunk_after_the_refusal_is_no_crash(
    server: Running, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The request is refused at its head; the bytes that follow are no chunk."""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client,
        suppress(ConnectionError),
    ):
        client.sendall(post(server, b"", CHUNKED, cookie="") + b"5\r\nabc")
        time.sleep(0.05)
        client.sendall(b"zzzzzz\r\n\r\n" * 10)
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 401 ")
    assert server.read("a").status == 200
    assert capfd.readouterr().err == ""
    assert not caplog.records


def test_fifty_slow_clients_stop_nobody(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    head = request(server, "GET / HTTP/1.1")
    body = post(server, b"{", "Content-Length: 1000")
    with ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE))
            for _ in range(50)
        ]
        for k, client in enumerate(slow):
            client.sendall((head[: len(head) // 2], b"", body)[k % 3])
        for k in range(20):
            for client in slow[::3]:
                client.sendall(b"a")
            assert server.read(f"question {k}").json["text"] == f"question {k}"
        for client in slow[::3]:
            client.sendall(b"\r\n\r\n")
        assert all(client.recv(12).startswith(b"HTTP/1.1 4") for client in slow[::3])


def test_a_head_that_does_not_come_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SECONDS_FOR_HEAD", 0.2)
    monkeypatch.setattr(connections, "MOST_HEADS", 5)
    with running() as server, ExitStack() as stack:
        for sent in (b"", b"GET / HT", request(server, "GET /page/core.js HTTP/1.1")):
            client = stack.enter_context(
                socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
            )
            client.sendall(sent)
            if len(sent) > 8:
                answer = http.client.HTTPResponse(client)
                answer.begin()
                assert answer.read() == PAGE.files["core.js"]
                client.sendall(b"GET / HT")  # the next request of a kept connection
            with suppress(ConnectionError):
                assert client.recv(4096) == b""
        for _ in range(30):  # more than may owe a head: the oldest are dropped, the newest is served
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE))
        assert server.read("a").status == 200


def test_eight_clients_of_fifty_requests(server: Running) -> None:
    def client(number: int) -> list[int]:
        found = []
        for k in range(25):
            found.append(server.get(("/", "/page/core.js", "/api/models")[k % 3]).status)
            text = f"client {number} question {k}"
            answer = server.read(text)
            assert answer.json["text"] == text
            found.append(answer.status)
        return found

    with ThreadPoolExecutor(8) as pool:
        statuses = [status for found in pool.map(client, range(8)) for status in found]
    assert statuses == [200] * 400
