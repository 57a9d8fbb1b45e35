"""The queue and the process behind the explore server: limits, time-outs that end the work, crashes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("litestar")
from elman.errors import ElmanError, OptionError
from elman.explore.access import Refused
from elman.explore.work import Work
from explore_server import ORDER, PATIENCE, STAND_IN, Answer, Running, running


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_too_late_is_504_and_the_process_is_gone(tmp_path: Path) -> None:
    with running(seconds=0.5) as server:
        first = server.work.pid
        assert first is not None
        answer = server.read("spin")
        assert answer.status == 504
        assert answer.json["error"]["cause"] == "the answer took longer than 0.5 seconds, and was given up."
        assert not is_alive(first)
        server.work.seconds = PATIENCE
        assert server.read("and now").json["text"] == "and now"
        assert server.work.pid not in (None, first)


def test_a_long_computation_holds_up_no_page(tmp_path: Path) -> None:
    with running() as server, ThreadPoolExecutor(2) as pool:
        slow = pool.submit(server.read, f"until {tmp_path / 'go'}")
        for _ in range(20):
            assert server.get("/").status == 200
            assert server.get("/api/models").status == 200
            assert server.post("read", {}).status == 400
        waiting = pool.submit(server.read, "waits")
        wait_until(lambda: server.work.queued == 1)
        assert not slow.done()
        assert not waiting.done()
        (tmp_path / "go").touch()
        assert (slow.result().status, waiting.result().status) == (200, 200)


def fill(server: Running, pool: ThreadPoolExecutor, gate: Path) -> list[Future[Answer]]:
    """One question that runs until `gate` is there, and as many as may wait."""
    asked = [pool.submit(server.read, f"until {gate}")]
    pid = server.work.pid
    wait_until(lambda: server.work.queued == 0 and server.work.busy)
    asked += [pool.submit(server.read, f"waits {k}") for k in range(server.work.limit)]
    wait_until(lambda: server.work.queued == server.work.limit)
    assert server.work.pid == pid
    return asked


def test_a_full_queue_is_429_and_empties(tmp_path: Path) -> None:
    with running() as server, ThreadPoolExecutor(40) as pool:
        assert server.work.limit == 32
        asked = fill(server, pool, tmp_path / "go")
        for _ in range(3):
            refused = server.read("one too many")
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert "32 questions are waiting" in refused.json["error"]["cause"]
        assert server.get("/").status == 200
        (tmp_path / "go").touch()
        answers = [each.result() for each in asked]
        assert [each.status for each in answers] == [200] * 33
        assert [each.json["text"] for each in answers[1:]] == [f"waits {k}" for k in range(32)]
        assert server.read("room again").status == 200


def test_who_leaves_makes_room(tmp_path: Path) -> None:
    import http.client

    with running(waiting=1) as server, ThreadPoolExecutor(4) as pool:
        slow = pool.submit(server.read, f"until {tmp_path / 'go'}")
        wait_until(lambda: server.work.busy)
        leaving = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        headers = {"Cookie": server.cookie, "Origin": server.origin, "Content-Type": "application/json"}
        leaving.request("POST", "/api/read", json.dumps({"text": "die", "models": ["m0"]}), headers)
        wait_until(lambda: server.work.queued == 1)
        assert server.read("no room").status == 429
        leaving.close()
        wait_until(lambda: server.work.queued == 0)
        staying = pool.submit(server.read, "stays")
        wait_until(lambda: server.work.queued == 1)
        (tmp_path / "go").touch()
        assert slow.result().status == 200
        assert staying.result().status == 200


def test_who_leaves_while_it_is_computed_disturbs_nobody(tmp_path: Path) -> None:
    import http.client

    with running() as server:
        pid = server.work.pid
        leaving = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        headers = {"Cookie": server.cookie, "Origin": server.origin, "Content-Type": "application/json"}
        body = json.dumps({"text": f"until {tmp_path / 'go'}", "models": ["m0"]})
        leaving.request("POST", "/api/read", body, headers)
        wait_until(lambda: server.work.busy)
        leaving.close()
        (tmp_path / "go").touch()
        assert server.read("next").json["text"] == "next"
        assert server.work.pid == pid


def test_time_that_passes_while_waiting_counts_and_kills_nothing(tmp_path: Path) -> None:
    with running() as server, ThreadPoolExecutor(1) as pool:
        pid = server.work.pid
        slow = pool.submit(server.read, f"until {tmp_path / 'go'}")
        wait_until(lambda: server.work.busy)
        server.work.seconds = 0.1
        assert server.read("waits too long").status == 504
        server.work.seconds = PATIENCE
        (tmp_path / "go").touch()
        assert slow.result().status == 200
        assert server.read("as before").status == 200
        assert server.work.pid == pid


def test_a_question_that_waited_is_late_alone_and_the_process_goes_on(tmp_path: Path) -> None:
    """Computing has a clock of its own: who waited long must not cost the others their process."""
    with running() as server, ThreadPoolExecutor(2) as pool:
        pid = server.work.pid
        first = pool.submit(server.read, f"until {tmp_path / 'one'}")
        wait_until(lambda: server.work.busy)
        server.work.seconds = 1.5
        second = pool.submit(server.read, f"until {tmp_path / 'two'}")
        wait_until(lambda: server.work.queued == 1)
        server.work.seconds = PATIENCE
        (tmp_path / "one").touch()
        assert first.result().status == 200
        assert second.result().status == 504  # while it is computed
        (tmp_path / "two").touch()
        assert server.read("as before").status == 200
        assert server.work.pid == pid


def test_an_answer_that_is_not_understood_ends_the_process_not_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(question: bytes) -> Answer:
        raise KeyError("status")

    with running() as server:
        pid = server.work.pid
        with monkeypatch.context() as patch:
            patch.setattr(server.work, "_exchange", broken)
            assert server.read("a head without a status").status == 500
        assert server.read("as before").status == 200
        assert server.work.pid != pid


def test_a_process_that_dies_is_replaced() -> None:
    with running() as server:
        pid = server.work.pid
        assert server.read("die").status == 500
        assert server.read("lives").json["text"] == "lives"
        assert server.work.pid != pid


def test_answers_of_every_kind_and_size(capfd: pytest.CaptureFixture[str]) -> None:
    with running() as server:
        assert server.read("print").json["text"] == "print"  # what is printed is no answer
        assert server.read("we 🙂 \x00\x1b\r\n\r\n \u2028 </script>").json["lines"] == [
            "we 🙂 \x00\x1b",
            "",
            " \u2028 </script>",
        ]
        for size in (1, 65_534, 65_535, 65_536, 20_000_000):
            assert len(server.read(f"large {size}").body) == size + 2
        mistake = server.read("mistake")
        assert (mistake.status, mistake.json) == (
            400,
            {"error": {"cause": "not so.", "reason": "", "remedy": "so."}},
        )
        for defect in ("defect", "nan"):
            answer = server.read(defect)
            assert answer.status == 500
            assert b"shadow" not in answer.body
            assert b"Error" not in answer.body
        assert "ZeroDivisionError: a secret path" in capfd.readouterr().err  # the user's own terminal


@pytest.mark.parametrize(("length", "status"), [(1999, 200), (2000, 200), (2001, 400)])
@pytest.mark.parametrize("letter", ["a", "é", "🙂"])
def test_characters_of_a_text(server: Running, letter: str, length: int, status: int) -> None:
    answer = server.read(letter * length)
    assert answer.status == status
    assert status != 400 or "2,000 characters" in answer.json["error"]["remedy"]


@pytest.mark.parametrize(("tokens", "status"), [(199, 200), (200, 200), (201, 400)])
def test_tokens_of_a_trace(server: Running, tokens: int, status: int) -> None:
    question = {"text": "a", "model": "m1", "first": 7, "last": 7 + tokens, "state": "reset"}
    answer = server.post("trace", question)
    assert answer.status == status
    assert status != 200 or question.items() <= answer.json.items()


@pytest.fixture(scope="module")
def server():
    with running() as found:
        yield found


def test_what_loading_meets_is_told() -> None:
    async def enter(**order: object) -> None:
        async with Work(ORDER | order, command=STAND_IN):
            raise AssertionError

    with pytest.raises(OptionError, match="no such model") as caught:
        asyncio.run(enter(fails=True))
    assert (caught.value.reason, caught.value.remedy) == ("it was never trained.", "train it.")
    with pytest.raises(ElmanError, match="ended while it was loading"):
        asyncio.run(enter(dies=True))


def test_a_process_that_cannot_be_replaced_is_told_and_tried_again() -> None:
    async def main() -> None:
        async with Work(dict(ORDER), command=STAND_IN) as work:
            work.order["fails"] = True
            with pytest.raises(Refused, match="has ended"):
                await work.ask({"text": "die"})
            for _ in range(2):
                with pytest.raises(Refused, match="no such model") as caught:
                    await work.ask({"text": "a"})
                assert caught.value.status == 500
            del work.order["fails"]
            assert (await work.ask({"text": "a"})).status == 200

    asyncio.run(main())


def test_progress_and_facts() -> None:
    told: list[tuple[str, int, int]] = []

    async def main() -> None:
        async with Work(ORDER, command=STAND_IN, progress=lambda *what: told.append(what)) as work:
            assert work.facts["reference"] == ORDER["reference"]

    asyncio.run(main())
    assert told == [("starting", 1, 2)]


def test_closing_refuses_who_waits_and_ends_the_process() -> None:
    async def main() -> int:
        async with Work(ORDER, command=STAND_IN) as work:
            asked = [asyncio.create_task(work.ask({"text": "spin"})) for _ in range(3)]
            while not work.busy:
                await asyncio.sleep(0.01)
            pid = work.pid
            assert pid is not None
            await work.close()
            for each in asked:
                with pytest.raises(Refused) as caught:
                    await each
                assert caught.value.status == 503
            with pytest.raises(Refused, match="is being stopped"):
                await work.ask({"text": "a"})
        return pid

    assert not is_alive(asyncio.run(main()))


def test_stopping_the_server_leaves_nobody_waiting() -> None:
    with ThreadPoolExecutor(3) as pool:
        with running() as server:
            asked = [pool.submit(server.read, "spin") for _ in range(3)]
            wait_until(lambda: server.work.busy and server.work.queued == 2)
            pid = server.work.pid
        assert [each.result().status for each in asked] == [503] * 3
    assert pid is not None
    assert not is_alive(pid)


def test_the_process_ends_when_the_server_is_gone() -> None:
    """Also while it computes: kill -9 of the server leaves nothing behind."""
    with subprocess.Popen(STAND_IN, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(ORDER).encode() + b'\n{"text": "spin"}\n')
        process.stdin.flush()
        assert process.stdout.readline() == b"\n"
        assert json.loads(process.stdout.readline())["event"] == "hello"
        assert json.loads(process.stdout.readline())["event"] == "working"
        assert json.loads(process.stdout.readline())["event"] == "ready"
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
