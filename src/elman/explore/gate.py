"""The gate of the page's server: a request passes it or is refused; an answer leaves with its headers.

An ASGI application around another. Only the page's files may be kept by the browser, which asks for them
anew each time: they say nothing of models or texts. What passes has been checked (access.py), holds the
cookie, and has its whole body: an application behind it never waits for a slow client. Not here: heads that
do not arrive (connections.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from elman.explore import access
from elman.explore.access import BODY_BYTES, PROTECTION, Headers, Refused

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

SECONDS_FOR_BODY = 10.0
DRAINED_BYTES = 1 << 20
"""How much of a body that is too large is read before the refusal: a browser shows it only then."""


class Gate:
    """Lets a request through to `application`, or answers it."""

    def __init__(self, application: Application, token: str) -> None:
        self.application, self.token = application, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # no lifespan, no WebSocket
            return

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = scope["path"].startswith("/page/") and message["status"] == 200
                caching = (b"cache-control", b"no-cache" if kept else b"no-store")
                message["headers"] = [*message.get("headers", []), *PROTECTION, caching]
            await send(message)

        try:
            request = access.read_head(scope)
            if access.is_entry(request, self.token):
                cookie = access.set_cookie(request, self.token)
                return await _answer(protected, 303, b"", ((b"location", b"/"), (b"set-cookie", cookie)))
            access.require_cookie(request, self.token)
            body = await self._body(request, receive)
        except Refused as refusal:
            closing = (*refusal.headers, (b"connection", b"close"), (b"content-type", b"application/json"))
            return await _answer(protected, refusal.status, refusal.body(), closing)
        await self.application(scope, _held(body, receive), protected)

    async def _body(self, request: access.Request, receive: Receive) -> bytes:
        """All of it, whatever its announced length; raises Refused (400, 408, 413)."""
        if int(request.headers.get(b"content-length", 0)) > DRAINED_BYTES:  # nothing to wait for
            raise _too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(SECONDS_FOR_BODY):
                more = request.method == "POST"
                while more and len(body) <= DRAINED_BYTES:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(400, "the request ended before its body did.")
                    body += message["body"]
                    more = message["more_body"]
        except TimeoutError:
            if len(body) <= BODY_BYTES:
                raise Refused(408, "the body of the request did not arrive in time.") from None
        if len(body) > BODY_BYTES:
            raise _too_large()
        return bytes(body)


def _too_large() -> Refused:
    return Refused(413, f"the body of a request holds at most {BODY_BYTES >> 10} KiB.")


def _held(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body at once, and then waits for the client to leave."""
    given = False

    async def receive_held() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_held


async def _answer(send: Send, status: int, body: bytes, headers: Headers) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
