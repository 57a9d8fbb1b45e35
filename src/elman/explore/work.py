"""The queue before the process that computes: one question at a time, and a time limit that ends it.

A computation cannot be interrupted from within, so it has a process of its own (worker.py), which is killed
when a question takes too long; another is started at once and finds on disk what took long to prepare. Not
here: HTTP (server.py).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from elman.channel import (
    LINE_BYTES,
    SILENCE,
    Answered,
    Failed,
    Hello,
    Message,
    Misunderstood,
    Progress,
    Reading,
    Ready,
)
from elman.errors import ElmanError
from elman.explore.access import Refused

SECONDS = 30.0
WAITING = 32
PROMPT = 0.5
"""Seconds between a question's arrival and its computing up to which nothing was in its way."""
COMMAND = (sys.executable, "-P", "-m", "elman.explore.worker")

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Answer:
    """What the page gets: a status and JSON."""

    status: int
    body: bytes


@dataclass(eq=False)
class _Job:
    """A question, where its answer goes, and since when (of the loop's clock) it is computed."""

    question: bytes
    answer: asyncio.Future[Answer]
    began: float | None = None

    def fail(self, refusal: Refused) -> None:
        if not self.answer.done():
            self.answer.set_exception(refusal)


class Work:
    """`async with Work(order) as work`: the process runs inside and is gone afterwards.

    order    JSON: what the process loads (answers.py)
    seconds  from a question's arrival to its answer, waiting included; and of computing, after which the
             process is killed: a question that waited long must not cost the others theirs
    waiting  how many questions may wait while one is answered
    silence  seconds without a sign of life while it loads, after which it is given up
    facts    what the process told when it was ready
    Raises the ElmanError that loading met.
    """

    def __init__(
        self,
        order: dict[str, Any],
        *,
        command: Sequence[str] = COMMAND,
        seconds: float = SECONDS,
        waiting: int = WAITING,
        progress: Report | None = None,
        silence: float = SILENCE,
    ) -> None:
        self.command, self.order, self.seconds, self.limit = command, order, seconds, waiting
        self.silence, self._reading = silence, Reading()
        self.facts: dict[str, Any] = {}
        self._progress = progress or (lambda doing, done, total: None)
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: deque[_Job] = deque()
        self._come = asyncio.Event()
        self._current: _Job | None = None
        self._closed = False

    async def __aenter__(self) -> Work:
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        self._consumer = asyncio.create_task(self._consume())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def pid(self) -> int | None:
        """Of the process that computes, while there is one."""
        return self._process.pid if self._process else None

    @property
    def queued(self) -> int:
        """How many questions wait."""
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether a question is being answered."""
        return self._current is not None and self._current.began is not None

    async def ask(self, question: dict[str, Any]) -> Answer:
        """The answer; raises Refused: 429 too many wait, 504 too late, 500 the process died, 503 closing.

        When this call is cancelled, the question leaves the queue; one being computed goes on to its end.
        """
        if self._closed:
            raise _closing()
        if len(self._waiting) >= self.limit:
            cause = f"{self.limit} questions are waiting already."
            raise Refused(429, cause, remedy="ask again in a moment.", headers=((b"retry-after", b"1"),))
        loop = asyncio.get_running_loop()
        job = _Job(json.dumps(question).encode() + b"\n", loop.create_future())
        self._waiting.append(job)
        self._come.set()
        timer = loop.call_later(self.seconds, self._expire, job)
        try:
            return await job.answer
        finally:
            timer.cancel()
            if job in self._waiting:
                self._waiting.remove(job)

    async def close(self) -> None:
        """No more questions; those that wait are refused; the process is ended."""
        self._closed = True
        self._consumer.cancel()
        await asyncio.wait([self._consumer])
        for job in (*self._waiting, self._current):
            if job is not None:
                job.fail(_closing())
        await self._end()

    def _expire(self, job: _Job) -> None:
        """By the clock; but one that has been computed all the time is answered when its process is gone."""
        now = asyncio.get_running_loop().time()
        if job.began is None or now - job.began < self.seconds - PROMPT or self._consumer.done():
            job.fail(self._late())

    def _late(self) -> Refused:
        cause = f"the answer took longer than {self.seconds:g} seconds, and was given up."
        return Refused(504, cause, "a large model, a long text, or many questions at once.", "ask for less.")

    async def _consume(self) -> None:
        while True:
            # after a time-out or a crash; if it fails, the next question tries again and is told
            with suppress(ElmanError):
                await self._start()
            self._current = job = await self._next()
            try:
                await self._start()
                if not job.answer.done():
                    await self._answer(job)
            except ElmanError as error:
                job.fail(Refused(500, error.cause, error.reason, error.remedy))
            except Exception:
                logging.getLogger(__name__).exception("the process that computes is not understood")
                await self._end()
                job.fail(Refused(500, "the request could not be answered: a defect of Elman's."))
            self._current = None

    async def _next(self) -> _Job:
        while not self._waiting:
            self._come.clear()
            await self._come.wait()
        return self._waiting.popleft()

    async def _answer(self, job: _Job) -> None:
        job.began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self.seconds):
                answer = await self._exchange(job.question)
        except TimeoutError:
            await self._end()
            job.fail(self._late())
        except (OSError, EOFError, ValueError):
            await self._end()
            reason = "it was killed, perhaps for want of memory; or see the terminal."
            remedy = "ask again: another is started."
            job.fail(Refused(500, "the process that computes has ended.", reason, remedy))
        else:
            if not job.answer.done():
                job.answer.set_result(answer)

    async def _exchange(self, question: bytes) -> Answer:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(question)
        await self._process.stdin.drain()
        while isinstance(head := await self._told(), Hello):  # the last sign of life while it loaded
            pass
        if not isinstance(head, Answered):
            raise Misunderstood
        return Answer(head.status, await self._process.stdout.readexactly(head.bytes))

    async def _start(self) -> None:
        """A process that has said it is ready; raises the ElmanError that it met."""
        if self._process is not None:
            return
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LINE_BYTES,
                start_new_session=True,  # Ctrl-C in the terminal reaches us alone
            )
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(self.order).encode() + b"\n")
            await self._process.stdin.drain()
            self._reading = Reading()
            while isinstance(told := await self._sign_of_life(), Hello | Progress):
                if isinstance(told, Progress):
                    self._progress(told.doing, told.done, told.total)
            if not isinstance(told, Ready | Failed):
                raise Misunderstood
        except TimeoutError:
            silent = f"it gave no sign of life for {self.silence:g} seconds: it was stopped, or hangs."
            raise await self._not_loaded(silent) from None
        except (OSError, EOFError, ValueError):
            killed = "it was killed, perhaps for want of memory; or see its message above."
            raise await self._not_loaded(killed) from None
        if isinstance(told, Failed):
            await self._end()
            raise told.again()
        self.facts = told.facts

    async def _not_loaded(self, reason: str) -> ElmanError:
        await self._end()
        cause = "the process that computes ended while it was loading."
        return ElmanError(cause, reason=reason, remedy="explore fewer or smaller models at once.")

    async def _sign_of_life(self) -> Message:
        async with asyncio.timeout(self.silence):
            return await self._told()

    async def _told(self) -> Message:
        """The next message; raises EOFError, and ValueError for what is none."""
        assert self._process is not None
        assert self._process.stdout is not None
        while True:
            line = await self._process.stdout.readline()
            if not line.endswith(b"\n"):
                raise EOFError
            if (message := self._reading.message(line)) is not None:
                return message

    async def _end(self) -> None:
        """Kill the process and what it has started, if there is one, and see it gone."""
        if self._process is None:
            return
        # not Process.kill: it looks first whether the process has ended, and then asyncio cannot any more
        with suppress(ProcessLookupError):  # it has, and all it started
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        await self._process.communicate()  # drains an answer that nobody reads any more; closes the pipes
        self._process = None


def _closing() -> Refused:
    return Refused(503, "the server is being stopped.")
