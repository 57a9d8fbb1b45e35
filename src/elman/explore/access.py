"""Who may ask the local page's server, and what: host, origin, token, cookie, headers, the form of a request.

Pure functions of a request's head. Not here: bodies and answers (gate.py), what a question may be
(questions.py).

The server listens on the loopback interface only, but every page that a browser has open can send requests
there, and a name of somebody's can be made to mean 127.0.0.1 (DNS rebinding). So a request must name this
host and this port, come from this page or from nowhere, and carry a secret that only the start URL gave:
the token, kept as a cookie that scripts cannot read and other sites cannot send. What is not known to be
right is refused.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case and values, as they came."""

HEAD_BYTES = 16 << 10
"""The most that request line and headers may hold."""
BODY_BYTES = 64 << 10
TOKEN_BYTES = 32

POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
PROTECTION: Headers = (
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
"""On every answer, refusals included. There is no Access-Control header: no other origin is ever let in."""

ONCE = frozenset(
    b"host origin cookie sec-fetch-site content-length content-type content-encoding "
    b"transfer-encoding".split()
)
"""Headers that decide something, and that two readers must not read differently."""

PATH = re.compile(rb"/|(/[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)+")
"""Words between slashes, single dots within them: no `..`, no `//`, no escape, backslash or colon."""


class Refused(Exception):
    """A request that is answered with `status` and an error; cause, reason and remedy as in ElmanError."""

    def __init__(
        self, status: int, cause: str, reason: str = "", remedy: str = "", headers: Headers = ()
    ) -> None:
        self.status, self.cause, self.reason, self.remedy, self.headers = (
            status,
            cause,
            reason,
            remedy,
            headers,
        )
        super().__init__(cause)

    def body(self) -> bytes:
        error = {"cause": self.cause, "reason": self.reason, "remedy": self.remedy}
        return json.dumps({"error": error}).encode()


def new_token() -> str:
    """256 random bits, as text for a URL."""
    return secrets.token_urlsafe(TOKEN_BYTES)


@dataclass(frozen=True)
class Request:
    """The head of a request that is well-formed, names this host and comes from this page or from nowhere.

    headers  those of ONCE that it has
    """

    method: str
    path: str
    query: bytes
    port: int
    headers: Mapping[bytes, bytes]


def read_head(scope: Mapping[str, Any]) -> Request:
    """An ASGI scope → the request; raises Refused (400, 403, 404, 405, 415, 431)."""
    _measure(scope)
    headers = _single(scope["headers"])
    port = int(scope["server"][1])
    _require_origin(scope["method"], headers, _require_host(headers, port))
    _require_form(scope, headers)
    if not PATH.fullmatch(scope["raw_path"]):
        raise Refused(404, "there is nothing at this address.")
    return Request(scope["method"], scope["path"], scope["query_string"], port, headers)


def is_entry(request: Request, token: str) -> bool:
    """Whether this opens the start URL, `/?token=…`; raises Refused (400, 401)."""
    if request.method != "GET" or request.path != "/":
        return False
    try:
        query = parse_qs(request.query.decode("ascii"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise Refused(400, "the part of the address after `?` is not understood.") from None
    given = query.get("token")
    if given is None:
        return False
    if len(given) > 1 or not _same(given[0], token):
        raise _unknown("the token in this address is not the one of this server.")
    return True


def set_cookie(request: Request, token: str) -> bytes:
    """The Set-Cookie header: for this host, this session, no script and no other site."""
    return f"{_cookie(request.port)}={token}; Path=/; HttpOnly; SameSite=Strict".encode()


def require_cookie(request: Request, token: str) -> None:
    """Raises Refused (401) unless a cookie of ours has the token.

    Cookies do not know ports, so another server on this machine could add one of the same name: any
    right one counts.
    """
    pairs = request.headers.get(b"cookie", b"").decode("latin-1").split(";")
    found = [
        value
        for name, _, value in (pair.strip().partition("=") for pair in pairs)
        if name == _cookie(request.port)
    ]
    if not any(_same(value, token) for value in found):
        raise _unknown("this browser has not opened the start address of this server.")


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _cookie(port: int) -> str:
    return f"elman-{port}"


def _unknown(cause: str) -> Refused:
    reason = "the server was started anew, or the address was copied without its token."
    return Refused(401, cause, reason, "open the address that `elman explore` printed in the terminal.")


def _measure(scope: Mapping[str, Any]) -> None:
    size = len(scope["raw_path"]) + len(scope["query_string"])
    size += sum(len(name) + len(value) + 4 for name, value in scope["headers"])  # colon, blank, line end
    if size > HEAD_BYTES:
        raise Refused(431, f"the headers of a request hold at most {HEAD_BYTES >> 10} KiB.")


def _single(headers: Headers) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in ONCE:
            if name in found:
                raise Refused(400, f"the header {name.decode()} stands there twice.")
            found[name] = value
    return found


def _require_host(headers: Mapping[bytes, bytes], port: int) -> str:
    """The Host header, one of three spellings of this machine with this port."""
    names = ["localhost", "127.0.0.1", "[::1]"]
    allowed = [f"{name}:{port}" for name in names] + (names if port == 80 else [])
    host = headers.get(b"host", b"").decode("latin-1")
    if host not in allowed:
        raise Refused(403, "the address names another host or port.", remedy=f"use http://127.0.0.1:{port}/")
    return host


def _require_origin(method: str, headers: Mapping[bytes, bytes], host: str) -> None:
    """Browsers say where a request comes from: Origin with every POST, Sec-Fetch-Site with all since 2023."""
    origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site", b"none")
    foreign = origin not in ((None,) if method != "POST" else ()) and origin != f"http://{host}".encode()
    if foreign or site not in (b"none", b"same-origin"):
        reason = "a link or a script of another site, or a program that does not send Origin with a POST."
        raise Refused(
            403, "the request does not come from this page.", reason, "type the address into the browser."
        )


def _require_form(scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> None:
    method = scope["method"]
    upgrade = any(name == b"upgrade" for name, _ in scope["headers"])
    if upgrade or scope["http_version"] not in ("1.0", "1.1"):
        raise Refused(400, "this server speaks HTTP/1.1 only: no upgrade, no WebSocket.")
    if method not in ("GET", "POST"):
        raise Refused(405, "only GET and POST are answered.", headers=((b"allow", b"GET, POST"),))
    length, chunked = headers.get(b"content-length"), b"transfer-encoding" in headers
    if length is not None and (chunked or not length.isdigit()):
        raise Refused(400, "the length of the body is given in two ways, or is no number.")
    if method == "GET" and (chunked or int(length or 0)):
        raise Refused(400, "a GET has no body.")
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if method == "POST" and (kind != b"application/json" or b"content-encoding" in headers):
        raise Refused(415, "a question is plain JSON.", remedy="Content-Type: application/json")
