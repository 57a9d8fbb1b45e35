"""What Elman and a process of its own tell each other: one message a line, JSON, over two pipes.

The pipes are the child's standard input and output. Before anything heavy is imported the child takes them
for itself (`Channel`): from then on what libraries print goes to stderr and what they read is empty, and no
process that the child starts holds the pipes open. Its first message is `hello`. Whatever stands before
that line was printed by others and is passed on; whatever stands after it and is no message is an error.
Not here: starting, waiting and ending (compare/side_by_side.py, explore/work.py).
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from elman.errors import ElmanError

END = b"\n"
"""What the child sends first: it ends half a line that others may have printed."""
LINE_BYTES = 1 << 20
"""A message, or a line that others print, holds at most so much."""
BODY_BYTES = 1 << 30
BEAT = 5.0
"""Seconds between two signs of life while a child works."""
SILENCE = 300.0
"""Seconds without any after which a child is given up: it hangs, or it was stopped."""


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Hello(_Message):
    """The child has taken the channel for itself. Repeated as a sign of life."""

    event: Literal["hello"] = "hello"


class Progress(_Message):
    """How far it is: `done` of `total` (0: unknown) of what `doing` says; `rate` per second."""

    event: Literal["working"] = "working"
    doing: str
    done: int
    total: int
    rate: float | None = None


class Done(_Message):
    """The work is finished, or was interrupted and saved; the child ends."""

    event: Literal["finished", "interrupted"]


class Ready(_Message):
    """Questions can come; `facts` is what the parent should know."""

    event: Literal["ready"] = "ready"
    facts: dict[str, Any]


class Answered(_Message):
    """The answer to a question: so many bytes follow the line."""

    event: Literal["answer"] = "answer"
    status: Annotated[int, Field(ge=100, le=599)]
    bytes: Annotated[int, Field(ge=0, le=BODY_BYTES)]


class Failed(_Message):
    """An ElmanError that the child met; the child ends."""

    event: Literal["error"] = "error"
    kind: str
    cause: str
    reason: str
    remedy: str

    @classmethod
    def of(cls, error: ElmanError) -> Failed:
        return cls(kind=type(error).__name__, cause=error.cause, reason=error.reason, remedy=error.remedy)

    def again(self) -> ElmanError:
        """The error, to be raised here."""
        kinds = {each.__name__: each for each in ElmanError.__subclasses__()}
        return kinds.get(self.kind, ElmanError)(self.cause, reason=self.reason, remedy=self.remedy)


FINISHED, INTERRUPTED = Done(event="finished"), Done(event="interrupted")

Message = Hello | Progress | Done | Ready | Answered | Failed
_MESSAGE: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="event")])


class Misunderstood(ValueError):
    """Something came through the channel that is no message."""


class Reading:
    """Lines of one child → messages. The lines come from whoever reads the pipe."""

    def __init__(self) -> None:
        self._greeted = False

    def message(self, line: bytes) -> Message | None:
        """None for a line of others, which is passed on to stderr; raises Misunderstood after `hello`."""
        try:
            message = _MESSAGE.validate_json(line)
        except ValueError as error:  # pydantic's ValidationError is one
            if self._greeted:
                raise Misunderstood from error
            sys.stderr.write("" if line == END else line.decode("utf-8", "replace"))
            return None
        if not self._greeted and not isinstance(message, Hello):
            raise Misunderstood
        self._greeted = True
        return message


class Channel:
    """The child's end. `lost` is called, in a thread, when the parent has gone or closed its end."""

    def __init__(self, lost: Callable[[], object]) -> None:
        sys.stdout.flush()
        self._out = os.fdopen(os.dup(1), "wb")
        self._in = os.fdopen(os.dup(0), "rb")
        os.dup2(2, 1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self._lost, self._left, self._sending = lost, False, threading.Lock()
        self._write(END)
        self.send(Hello())

    def order(self) -> Any:
        """The first line; ends this process where none comes."""
        line = self._in.readline()
        if not line.endswith(b"\n"):
            os._exit(1)
        return json.loads(line)

    def lines(self) -> Iterator[bytes]:
        """The lines that follow, until the parent has gone."""
        while (line := self._in.readline()).endswith(b"\n"):
            yield line
        self._leave()

    def send(self, message: Message, body: bytes = b"") -> None:
        """May be called by several threads."""
        self._write(message.model_dump_json().encode() + b"\n" + body)

    def _write(self, data: bytes) -> None:
        with self._sending:
            try:
                self._out.write(data)
                self._out.flush()
            except BrokenPipeError:  # nobody listens any more; and what is buffered must not fail again
                self._out = open(os.devnull, "wb")  # noqa: SIM115
                self._leave()

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._lost()

    def beat(self) -> threading.Event:
        """Give signs of life from a thread, until the event that is returned is set."""
        enough = threading.Event()

        def beating() -> None:
            while not enough.wait(BEAT):
                self.send(Hello())

        threading.Thread(target=beating, daemon=True).start()
        return enough
