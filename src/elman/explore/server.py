"""The routes of the local page, and the server that runs them on the loopback interface until Ctrl-C.

What comes here has passed the gate (gate.py). The models are in another process (work.py): this one loads
neither them nor torch, and stays responsive whatever is computed. Not here: the page's files, and what the
answers hold.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import uvicorn
from litestar import Litestar, Request, Response, get, post
from litestar.exceptions import HTTPException

from elman.errors import OptionError
from elman.explore import access, questions
from elman.explore.connections import connection_class
from elman.explore.gate import Application, Gate
from elman.explore.work import Answer, Work

HOST = "127.0.0.1"
SECONDS_TO_FINISH = 2
KINDS = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
JSON = "application/json"


@dataclass(frozen=True)
class Page:
    """The page's files by name, read once: a request chooses a key, never a path."""

    files: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def load(cls) -> Page:
        """The files of the folder page/ beside this one."""
        folder = files("elman.explore") / "page"
        return cls({each.name: each.read_bytes() for each in folder.iterdir() if _kind(each.name)})


def _kind(name: str) -> str | None:
    return KINDS.get(name.rpartition(".")[2])


def make_app(work: Work, page: Page, about: Mapping[str, Any], token: str) -> Application:
    """Gate and routes. `about` is the answer to GET /api/models; it has `models` and `reference`."""
    known = {card["id"] for card in about["models"]}

    @get("/")
    async def index() -> Response[bytes]:
        return Response(page.files["index.html"], media_type=KINDS["html"])

    @get("/page/{name:str}")
    async def page_file(request: Request[Any, Any, Any]) -> Response[bytes]:
        name = request.path_params["name"]
        if name not in page.files:
            raise access.Refused(404, "the page has no such file.")
        return Response(page.files[name], media_type=_kind(name))

    @get("/api/models")
    async def models() -> Response[dict[str, Any]]:
        return Response(dict(about), media_type=JSON)

    @post("/api/{kind:str}", status_code=200)
    async def question(request: Request[Any, Any, Any]) -> Response[bytes]:
        kind = request.path_params["kind"]
        if kind not in questions.KINDS:
            raise access.Refused(404, "there is no such question.")
        asked = questions.parse(kind, await request.body())
        for each in asked.ids():
            if each not in known:
                raise access.Refused(404, "there is no model of this id.", remedy="load the page anew.")
        if kind == "similar" and about["reference"] is None:
            remedy = "start `elman explore` with --reference CORPUS."
            raise access.Refused(404, "there is no reference text to search.", remedy=remedy)
        answer = await _unless_left(
            work.ask({"kind": kind, "lines": asked.lines} | asked.model_dump()), request
        )
        return Response(answer.body, status_code=answer.status, media_type=JSON)

    routes = Litestar(
        [index, page_file, models, question],
        debug=False,
        pdb_on_exception=False,
        openapi_config=None,
        logging_config=None,
        request_max_body_size=access.BODY_BYTES,
        exception_handlers={access.Refused: _refused, HTTPException: _unrouted, Exception: _defect},
    )
    return Gate(routes, token)  # type: ignore[arg-type]  # Litestar has narrower types for the same messages


async def _unless_left(asking: Coroutine[Any, Any, Answer], request: Request[Any, Any, Any]) -> Answer:
    """The answer; a question whose client has left makes room for others."""
    answer, left = asyncio.ensure_future(asking), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({answer, left}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise access.Refused(400, "the client has left.")
        return answer.result()
    finally:
        answer.cancel()
        left.cancel()


async def _left(request: Request[Any, Any, Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":  # the body has been read
        pass


def _refused(_: Request[Any, Any, Any], refusal: access.Refused) -> Response[bytes]:
    headers = {name.decode(): value.decode() for name, value in refusal.headers}
    return Response(refusal.body(), status_code=refusal.status, headers=headers, media_type=JSON)


def _unrouted(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    if error.status_code >= 500:
        return _defect(request, error)
    known = {404: "there is nothing at this address.", 405: "this address does not answer this method."}
    cause = known.get(error.status_code, "the request is not understood.")
    return _refused(request, access.Refused(error.status_code, cause))


def _defect(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    logging.getLogger(__name__).error("a request could not be answered", exc_info=error)
    return _refused(request, access.Refused(500, "the request could not be answered: a defect of Elman's."))


class _Server(uvicorn.Server):
    """uvicorn's server; says where it listens, and lets nobody wait for an answer when it is stopped."""

    def __init__(self, config: uvicorn.Config, work: Work, listening: Callable[[int], None]) -> None:
        super().__init__(config)
        self.work, self.listening = work, listening

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listening(self.servers[0].sockets[0].getsockname()[1])

    async def shutdown(self, sockets: Any = None) -> None:
        await self.work.close()
        await super().shutdown(sockets)


def make_server(app: Application, work: Work, port: int, listening: Callable[[int], None]) -> uvicorn.Server:
    """A server of `app` on 127.0.0.1; `listening` is told the port when it is open (port 0: any free one).

    `await server.serve()` returns when its `should_exit` is set; raises KeyboardInterrupt after Ctrl-C.
    """
    config = uvicorn.Config(
        app,
        host=HOST,
        port=port,
        loop="asyncio",
        http=connection_class(),
        ws="none",
        lifespan="off",
        interface="asgi3",
        workers=1,
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=access.HEAD_BYTES,
        timeout_graceful_shutdown=SECONDS_TO_FINISH,
    )
    return _Server(config, work, listening)


async def serve(app: Application, work: Work, port: int, listening: Callable[[int], None]) -> None:
    """Until Ctrl-C. Raises OptionError when the port cannot be had."""
    server = make_server(app, work, port, listening)
    try:
        await server.serve()
    except (
        SystemExit
    ):  # uvicorn's way to say that it could not listen; a signal comes here when it has started
        if server.started:
            raise
        raise _taken(port, "it was taken meanwhile.") from None


async def require_port(port: int) -> None:
    """Raises OptionError when nothing can listen on the port: found before the models are loaded."""
    try:
        probe = await asyncio.get_running_loop().create_server(asyncio.Protocol, HOST, port)
    except OSError as error:
        raise _taken(port, f"{error.strerror or error}.") from None
    probe.close()
    await probe.wait_closed()


def _taken(port: int, reason: str) -> OptionError:
    remedy = "give another --port, or none: a free one is found."
    return OptionError(f"port {port} of this machine cannot be used.", reason=reason, remedy=remedy)
