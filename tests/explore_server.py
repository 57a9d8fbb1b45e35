"""A running explore server for tests, in a thread, and a client that sends bytes as they are."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from elman.explore.access import new_token
from elman.explore.server import Page, make_app, make_server
from elman.explore.work import Work

STAND_IN = (sys.executable, str(Path(__file__).parent / "explore_worker.py"))
ORDER = {"models": ["lstm", "kn5"], "reference": {"name": "a text", "tokens": 9}}
PAGE = Page({"index.html": b"<!doctype html>the page", "page.css": b"p {}", "core.js": b"'use strict'"})
PATIENCE = 60.0
"""Seconds that a test waits for what must come: far above what it takes, for machines under load."""


@dataclass
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """The server; requests of `get` and `post` are those of its own page."""

    port: int
    token: str
    work: Work

    @property
    def cookie(self) -> str:
        return f"elman-{self.port}={self.token}"

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **headers: str) -> Answer:
        return self._ask("GET", path, None, {"Cookie": self.cookie} | headers)

    def post(self, kind: str, question: object) -> Answer:
        body = question if isinstance(question, bytes) else json.dumps(question).encode()
        headers = {"Cookie": self.cookie, "Origin": self.origin, "Content-Type": "application/json"}
        return self._ask("POST", f"/api/{kind}", body, headers)

    def read(self, text: str) -> Answer:
        return self.post("read", {"text": text, "models": ["m0", "m1"]})

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            lowered = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, lowered, response.read())
        finally:
            connection.close()

    def send(self, request: bytes) -> Answer:
        """The bytes as they are; status 0: the connection was closed without an answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            with suppress(ConnectionError):  # it may answer and close before all is sent
                connection.sendall(request)
            response = http.client.HTTPResponse(connection)
            try:
                response.begin()
                lowered = {name.lower(): value for name, value in response.getheaders()}
                return Answer(response.status, lowered, response.read())
            except (ConnectionError, http.client.BadStatusLine):
                return Answer(0)


@contextmanager
def running(
    order: dict[str, Any] | None = None, *, seconds: float = PATIENCE, waiting: int = 32, token: str = ""
) -> Iterator[Running]:
    """A server with the stand-in worker; afterwards server and worker are gone."""
    opened = threading.Event()
    found: list[Running] = []
    servers: list[uvicorn.Server] = []
    token = token or new_token()

    async def main() -> None:
        async with Work(order or ORDER, command=STAND_IN, seconds=seconds, waiting=waiting) as work:

            def listening(port: int) -> None:
                found.append(Running(port, token, work))
                opened.set()

            app = make_app(work, PAGE, work.facts, token)
            servers.append(make_server(app, work, 0, listening))
            await servers[0].serve()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        while thread.is_alive() and not opened.wait(0.05):
            pass
        yield found[0]
    finally:
        for server in servers:
            server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()
