"""Connections that cannot wear the server out: a request's head comes in time, or they are closed.

uvicorn reads HTTP and runs the server; here is only what it leaves open: clients that connect and say
nothing, or say it a byte at a time (slow loris), and requests that are not HTTP, which are answered in the
same form as all others.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from elman.explore.access import HEAD_BYTES, PROTECTION, Refused

SECONDS_FOR_HEAD = 10.0
MOST_HEADS = 200
"""Connections that still owe a head. When more come, the one that has owed it longest is dropped."""


LENGTH = re.compile(rb"^content-length[ \t]*:[ \t]*(.*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
HEAD_END = re.compile(rb"\n\r?\n")


class _OneLength(h11.Connection):
    """h11 makes one of several Content-Length that say the same; two readers may not, so it is no request."""

    def next_event(self) -> Any:
        if self.their_state is h11.IDLE:
            come = self.trailing_data[0]
            end = HEAD_END.search(come)
            lengths = LENGTH.findall(come, 0, end.start() if end else 0)
            if len(lengths) > 1 or not all(map(bytes.isdigit, lengths)):
                raise h11.RemoteProtocolError("Content-Length is given twice, or is no number")
        return super().next_event()


class Connection(H11Protocol):
    """One connection of a client; each server has a class of its own (`connection_class`).

    owing  those whose next head has not come, the longest first, and what will end them
    """

    owing: ClassVar[dict[Connection, asyncio.TimerHandle]]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = _OneLength(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._owe()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._settle()
        elif self not in self.owing:  # the next request of a kept connection has begun
            self._owe()

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP/1.1, or has a head that is too large for the buffer."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # it has been answered already
            self.transport.close()
            return
        error = Refused(400, "this is no HTTP/1.1 request, or a very large one.")
        body = error.body()
        headers = [*PROTECTION, (b"cache-control", b"no-store"), (b"content-type", b"application/json")]
        headers += [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
        response = h11.Response(status_code=error.status, headers=headers, reason=b"Bad Request")
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _owe(self) -> None:
        if len(self.owing) >= MOST_HEADS:
            longest = next(iter(self.owing))
            longest._settle()
            longest.transport.abort()
        self.owing[self] = self.loop.call_later(SECONDS_FOR_HEAD, self.transport.abort)

    def _settle(self) -> None:
        timer = self.owing.pop(self, None)
        if timer is not None:
            timer.cancel()


def connection_class() -> type[Connection]:
    """For one server, with a count of its own."""

    class Own(Connection):
        owing: ClassVar[dict[Connection, asyncio.TimerHandle]] = {}

    return Own
