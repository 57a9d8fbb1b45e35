"""Whatever comes through the pipe of a child process, or does not: told in time, and nothing is left running.

Garbage, silence, death, half a message, a huge one, a closed pipe: once for the processes of a comparison,
once for the one that computes for the page.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elman.channel import Answered, Done, Failed, Hello, Misunderstood, Progress, Reading, Ready
from elman.compare import contest, side_by_side
from elman.compare.events import Settings
from elman.errors import ElmanError, OptionError
from elman.explore.work import Work
from test_side_by_side import LINEUP, corpus, finished, one_thread  # noqa: F401  # two are fixtures

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes and signals of POSIX")

PATIENCE = 60.0
HELLO = """
import os, sys, time, signal
def say(text):
    os.write(1, text.encode())
say('{"event": "hello"}\\n')
"""
LAST = "signal.pause()\n"
WORKING = '{"event": "working", "doing": "a", "done": 1, "total": 2, "rate": null}'

FAULTS = {
    "garbage": "say('loading the model\\n')\n" + LAST,
    "bytes that are no text": "os.write(1, bytes(range(128, 256)) + b'\\n')\n" + LAST,
    "json that is no message": "say('[1, 2]\\n')\n" + LAST,
    "an unknown message": 'say(\'{"event": "dance"}\\n\')\n' + LAST,
    "a message without its parts": 'say(\'{"event": "working"}\\n\')\n' + LAST,
    "a number as text": "say('" + WORKING.replace("1,", '"1",') + "\\n')\n" + LAST,
    "deep json": "say('[' * 100_000 + '\\n')\n" + LAST,
    "huge": "say('x' * 3_000_000)\n" + LAST,
    "two messages in a line": "say('" + WORKING * 2 + "\\n')\n" + LAST,
}
SILENT = {
    "silence": LAST,
    "half a message": 'say(\'{"event": "wor\')\n' + LAST,
    "it was stopped": "os.kill(os.getpid(), signal.SIGSTOP)\n",
}
ENDED = {
    "death": "os._exit(3)\n",
    "half a message and death": 'say(\'{"event": "fini\')\nos._exit(0)\n',
    "killed": "os.kill(os.getpid(), signal.SIGKILL)\n",
    "a traceback": "1 / 0\n",
    "it closes the pipe and lives": "os.close(1)\n" + LAST,
    "a child of its own holds the pipe": "os.fork() or signal.pause()\nos._exit(0)\n",
}


def child(code: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", HELLO + "open(sys.argv[1], 'w').write(str(os.getpid()))\n" + code)


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@pytest.fixture(autouse=True)
def no_group_is_left(tmp_path: Path) -> Any:
    yield
    for place in tmp_path.glob("pid*"):
        with suppress(ProcessLookupError):
            os.killpg(int(place.read_text()), signal.SIGKILL)


def compare(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: tuple[Any, str]) -> str:
    """What the comparison says of a process that does this; afterwards the process is gone."""
    monkeypatch.setattr(side_by_side, "COMMAND", (*child(code), str(tmp_path / "pid")))
    monkeypatch.setattr(side_by_side, "SILENCE", 1.0)
    monkeypatch.setattr(side_by_side, "SECONDS_TO_SAVE", 1.0)
    begin = time.monotonic()
    with pytest.raises(ElmanError) as caught:
        list(contest.run(source[0], LINEUP[1:3], Settings(jobs=2, source=source[1])))
    assert time.monotonic() - begin < PATIENCE
    assert not is_alive(int((tmp_path / "pid").read_text()))
    return str(caught.value)


@pytest.mark.parametrize("fault", FAULTS)
def test_compare_hears_what_is_no_message(fault: str, tmp_path: Path, monkeypatch, corpus) -> None:  # noqa: F811
    assert "told what is no message" in compare(FAULTS[fault], tmp_path, monkeypatch, corpus)


@pytest.mark.parametrize("fault", SILENT)
def test_compare_gives_up_who_is_silent(fault: str, tmp_path: Path, monkeypatch, corpus) -> None:  # noqa: F811
    assert "no sign of life for 1 seconds" in compare(SILENT[fault], tmp_path, monkeypatch, corpus)


@pytest.mark.parametrize("fault", ENDED)
def test_compare_hears_who_has_ended(fault: str, tmp_path: Path, monkeypatch, corpus) -> None:  # noqa: F811
    told = compare(ENDED[fault], tmp_path, monkeypatch, corpus)
    assert "ended without a word" in told
    assert ("it was killed (Killed)" in told) == (fault == "killed")


NOISY = """
import os, sys
print("a banner"); sys.stdout.flush(); os.write(1, b"and half a line")
from elman.compare import contest, worker
run = contest.run
def noisy(*arguments):
    for event in run(*arguments):
        print("what a library says"); os.write(1, b"and what C code says"); os.system("echo a program")
        assert sys.stdin.read() == ""
        yield event
contest.run = noisy
worker.main()
"""


def test_what_others_print_disturbs_no_comparison(
    corpus: tuple[Any, str],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    text, source = corpus
    alone = finished(text, Settings())
    monkeypatch.setattr(side_by_side, "COMMAND", (sys.executable, "-c", NOISY))
    together = finished(text, Settings(jobs=2, source=source))
    assert together.keys() == alone.keys()
    for name, one in alone.items():
        assert np.array_equal(one.outcome.test, together[name].outcome.test), name
    told = capfd.readouterr()
    assert told.out == ""
    assert all(
        each in told.err for each in ("a banner", "and half a line", "a library", "C code", "a program")
    )


def test_a_child_whose_parent_is_killed_saves_and_ends(tmp_path: Path, corpus: tuple[Any, str]) -> None:  # noqa: F811
    """kill -9 of `elman compare`: the pipe ends, and so does the training, with its state saved."""
    text, source = corpus
    spec = {"name": "gru", "label": "GRU", "kind": "recurrent", "options": LINEUP[1].options}
    order = {"spec": spec | {"training": {**LINEUP[1].training, "epochs": 10_000}}, "source": source}
    order |= {"digest": text.digest, "seed": 1, "device": "cpu", "save": str(tmp_path), "threads": 1}
    order |= {"text": {}}
    command = [sys.executable, "-P", "-m", "elman.compare.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        reading = Reading()
        while not isinstance(reading.message(process.stdout.readline()), Progress):
            pass
        process.stdout.close()
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
    assert len(list(tmp_path.glob("gru-*/run/step-*"))) >= 1


def load(code: str, tmp_path: Path) -> str:
    """What the page's server says of a process that does this while it loads."""
    caught: list[ElmanError] = []

    async def main() -> None:
        command = (*child(code), str(tmp_path / "pid"))
        with pytest.raises(ElmanError) as told:
            async with asyncio.timeout(PATIENCE), Work({}, command=command, silence=1.0):
                raise AssertionError
        caught.append(told.value)

    asyncio.run(main())
    assert not is_alive(int((tmp_path / "pid").read_text()))
    return str(caught[0])


@pytest.mark.parametrize("fault", FAULTS | SILENT | ENDED)
def test_explore_is_told_while_it_loads(fault: str, tmp_path: Path) -> None:
    told = load((FAULTS | SILENT | ENDED)[fault], tmp_path)
    assert "ended while it was loading" in told
    assert ("no sign of life" in told) == (fault in [*SILENT, "a child of its own holds the pipe"])


@pytest.mark.parametrize("fault", FAULTS | SILENT | ENDED)
def test_explore_answers_after_each_of_them(fault: str, tmp_path: Path) -> None:
    """The question that met it is refused; the next one meets another process."""
    from elman.explore.access import Refused

    code = 'sys.stdin.readline(); say(\'{"event": "ready", "facts": {}}\\n\'); sys.stdin.readline()\n'
    good = 'say(\'{"event": "answer", "status": 200, "bytes": 3}\\nyes\')\n' + LAST
    fault_once = "if os.path.exists(sys.argv[2]):\n  " + good.replace("\n", "\n  ").rstrip() + "\n"
    fault_once += "open(sys.argv[2], 'w')\n"

    async def main() -> None:
        command = (*child(code + fault_once + (FAULTS | SILENT | ENDED)[fault]), str(tmp_path / "pid"))
        async with (
            asyncio.timeout(PATIENCE),
            Work({}, command=(*command, str(tmp_path / "met")), seconds=2.0) as work,
        ):
            with pytest.raises(Refused) as caught:
                await work.ask({"text": "a"})
            assert caught.value.status in (500, 504)
            work.seconds = PATIENCE
            assert (await work.ask({"text": "b"})).body == b"yes"

    asyncio.run(main())


def test_a_process_that_ends_by_itself_is_no_unknown_child(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio warns of an unknown child process when somebody else has seen it end; here it is slow."""
    waitpid = os.waitpid

    def slow(pid: int, options: int) -> tuple[int, int]:
        if not options:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            time.sleep(0.2)
        return waitpid(pid, options)

    monkeypatch.setattr(os, "waitpid", slow)
    code = 'sys.stdin.readline(); say(\'{"event": "ready", "facts": {}}\\n\')\n' + LAST

    async def main() -> None:
        async with Work({}, command=(*child(code), str(tmp_path / "pid"))) as work:
            assert work.pid is not None
            os.kill(work.pid, signal.SIGKILL)
            os.waitid(os.P_PID, work.pid, os.WEXITED | os.WNOWAIT)

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert caplog.messages == []


def test_messages_and_errors_come_back_as_they_were() -> None:
    reading = Reading()
    for message in (
        Hello(),
        Progress(doing="é", done=3, total=0, rate=1.5),
        Done(event="interrupted"),
        Ready(facts={"models": [1, None, {"a": 0.25}]}),
        Answered(status=200, bytes=0),
    ):
        assert reading.message(message.model_dump_json().encode() + b"\n") == message
    for error in (OptionError("a", reason="b", remedy="c"), ElmanError("d")):
        again = Failed.of(error).again()
        assert (type(again), str(again)) == (type(error), str(error))
    assert type(Failed(kind="SystemExit", cause="a", reason="", remedy="").again()) is ElmanError


def test_other_lines_are_passed_on_until_the_child_has_greeted(capsys: pytest.CaptureFixture[str]) -> None:
    reading = Reading()
    assert reading.message("Grüße\n".encode()) is None
    assert reading.message(b"\xff\n") is None
    assert reading.message(b"\n") is None  # the child's own: ends half a line of others
    assert capsys.readouterr().err == "Grüße\n\ufffd\n"
    assert reading.message(b'{"event": "hello"}\n') == Hello()
    with pytest.raises(Misunderstood):
        reading.message(b"Gr\n")
    with pytest.raises(Misunderstood):  # an impostor: nothing comes before the greeting
        Reading().message(b'{"event": "finished"}\n')


def test_a_working_process_gives_signs_of_life(tmp_path: Path) -> None:
    code = "import elman.channel as c, sys, time\nc.BEAT = 0.05\nchannel = c.Channel(lost=lambda: None)\n"
    code += "enough = channel.beat()\ntime.sleep(1)\nenough.set()\nchannel.send(c.FINISHED)\n"
    found = subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True)
    lines = found.stdout.splitlines()
    assert lines[0] == b""  # ends what others had begun
    assert len([line for line in lines if line == b'{"event":"hello"}']) > 5
    assert lines[-1] == b'{"event":"finished"}'
