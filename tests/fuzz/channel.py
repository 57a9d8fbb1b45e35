"""What a process of Elman's own tells another, line by line: understood, passed on, or refused."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

from elman.channel import FINISHED, Answered, Failed, Hello, Misunderstood, Progress, Reading, Ready
from elman.errors import ElmanError
from fuzz.target import Target


def run(data: bytes) -> None:
    """Lines of a child, as they come. What is understood is understood again when it is told again."""
    reading, greeted = Reading(), False
    with redirect_stderr(io.StringIO()) as passed:
        for line in data.splitlines(keepends=True):
            message = reading.message(line)
            assert message is not None or not greeted, "a line of others after the greeting"
            if message is None:
                continue
            assert isinstance(message, Hello) or greeted, "a message before the greeting"
            greeted = True
            again = reading.message(message.model_dump_json().encode())
            assert again == message
            if isinstance(message, Failed):
                assert isinstance(message.again(), ElmanError)
    assert passed.getvalue() == "" or data


def seeds() -> list[bytes]:
    failed = Failed(kind="TextError", cause="a", reason="b\u001b", remedy="é")
    told = (
        Hello(), Progress(doing="training", done=3, total=9, rate=1.5), Ready(facts={"models": [1, None]}),
        Answered(status=200, bytes=17), FINISHED, failed,
    )  # fmt: skip
    lines = [message.model_dump_json().encode() + b"\n" for message in told]
    return [b"a library says\n" + b"".join(lines), *(lines[0] + line for line in lines)]


MARKS = (
    b'"event"', b'"hello"', b'"working"', b'"finished"', b'"interrupted"', b'"ready"', b'"answer"',
    b'"error"', b'"done"', b'"total"', b'"rate"', b"NaN", b"1e999",
    b"\\ud800", b"\n", b"\r", b"\x1b[2J", b"{", b"}",
)  # fmt: skip

MESSAGE = Target(run, seeds, MARKS, largest=1024, answers=(Misunderstood,), json=True)
