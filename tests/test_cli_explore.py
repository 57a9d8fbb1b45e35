"""`elman explore` as a program: the address, the ways it ends, mistakes, the page as one file."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

pytest.importorskip("litestar")
from elman.checkpoint import load_model, save_model
from elman.cli import app
from elman.cli import explore as explore
from elman.explore.presets import PRESETS
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.trace import TraceOptions, trace
from neural_oracle import WORDS, vocabulary

ENTRY = (sys.executable, "-c", "from elman.cli import main; main()", "explore")
PATIENCE = 120.0
KINDS_OF_END = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    torch.manual_seed(1)
    for cell in ("lstm", "gru"):
        config = RecurrentConfig(cell=cell, embedding_size=3, hidden_size=5, num_layers=1)
        save_model(RecurrentModel(vocabulary(13), WORDS, config), path / cell)
    (path / "text.txt").write_text("w001 w002\nw003 w001\n")
    return path


@contextmanager
def started(tmp: Path, *arguments: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The program, its temporary files under `tmp`; killed if it is still there."""
    given = {**os.environ, "TMPDIR": str(tmp), **environment}
    process = subprocess.Popen(
        [*ENTRY, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=given
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def address(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Port and token, once it is ready."""
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=([\w-]{43})\n", line)
    assert found, (line, process.communicate(timeout=PATIENCE))
    return int(found[1]), found[2]


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def require_gone(process: subprocess.Popen[str], workers: list[int], tmp: Path, port: int) -> str:
    """Nothing is left: no process, no file, no port; what was said on stderr."""
    _, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert not list(tmp.glob("elman-explore-*"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    return err


@pytest.mark.parametrize(("number", "code"), KINDS_OF_END)
def test_it_serves_until_it_is_told_to_stop(folder: Path, tmp_path: Path, number: int, code: int) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > "{opened}.part"\nmv "{opened}.part" "{opened}"\n')
    browser.chmod(0o700)
    environment = {"BROWSER": f"{browser} %s", "DISPLAY": ":99"}
    reference = ("--reference", folder / "text.txt", "--state", "reset")
    with started(tmp_path, folder / "lstm", folder / "gru", *reference, **environment) as process:
        port, token = address(process)
        wait_until(opened.exists)
        assert opened.read_text() == f"http://127.0.0.1:{port}/?token={token}"
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        client.request("GET", f"/?token={token}")
        entry = client.getresponse()
        entry.read()
        cookie = (entry.getheader("Set-Cookie") or "").partition(";")[0]
        client.request("GET", "/api/models", headers={"Cookie": cookie})
        about = json.load(client.getresponse())
        assert [card["name"] for card in about["models"]] == ["lstm", "gru"]
        assert about["reference"] == {"name": "text.txt", "tokens": 6}
        assert about["state"] == "reset"
        assert about["limits"] == {"characters": 2000, "detail": 200, "top": 10}
        assert [preset["id"] for preset in about["presets"]] == [preset["id"] for preset in PRESETS]
        question = {"text": "w001 w002", "model": "m1", "first": 0, "last": 3}
        headers = {"Cookie": cookie, "Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json"}
        client.request("POST", "/api/trace", json.dumps(question), headers)
        answer = json.load(client.getresponse())
        assert answer == trace(load_model(folder / "gru"), ["w001 w002"], name="gru").as_json(decimals=3)
        workers = children(process.pid)
        assert sys.platform != "linux" or len(workers) == 1
        process.send_signal(number)  # the client's connection is still open
        err = require_gone(process, workers, tmp_path, port)
        assert process.returncode == code
        assert err.splitlines()[0] == "Open this address in your browser. Ctrl-C ends it."
        assert token not in err
        client.close()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the other process in /proc")
@pytest.mark.parametrize(("number", "code"), KINDS_OF_END[:1])
def test_it_stops_while_it_is_loading(folder: Path, tmp_path: Path, number: int, code: int) -> None:
    with started(tmp_path, folder / "lstm", "--no-browser") as process:
        wait_until(lambda: bool(children(process.pid)) or process.poll() is not None)
        workers = children(process.pid)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == code
        assert "Traceback" not in err
        assert not out
        wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
        assert not list(tmp_path.glob("elman-explore-*"))


def test_without_a_display_no_browser_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not explore._has_display()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert explore._has_display()


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        app.main(["explore", *map(str, arguments)])
    shown = capsys.readouterr()
    return int(caught.value.code or 0), shown.out, shown.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "explore needs a model"),
        (("MODEL", "--port", "65536"), "--port 65536 is out of range"),
        (("MODEL", "--port", "-1"), "--port -1 is out of range"),
        (("MODEL", "--port", "x"), "x"),
        (("MODEL", "--state", "keep"), "keep"),
        (("MODEL", "--text", "TEXT"), "--text belongs to --export"),
        (("MODEL", "--reference", "nowhere.txt"), "nowhere.txt does not exist"),
        (("MODEL", "--export", "OUT", "--text", "nowhere.txt"), "nowhere.txt does not exist"),
        (("nowhere", "--no-browser"), "nowhere does not exist"),
    ],
    ids=str,
)
def test_mistakes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    places = {"MODEL": folder / "lstm", "TEXT": folder / "text.txt", "OUT": tmp_path / "page.html"}
    code, out, err = run(capsys, *(places.get(each, each) for each in arguments))
    assert (code, out) == (2, "")
    assert says in err
    assert "Remedy: " in err


def test_a_port_that_is_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = run(capsys, folder / "lstm", "--port", port, "--no-browser")
    assert (code, out) == (2, "")
    assert f"port {port} of this machine cannot be used" in err
    assert "Remedy: give another --port" in err


def test_without_the_extra(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "litestar", None)
    code, _, err = run(capsys, folder / "lstm")
    assert code == 2
    assert "the page needs litestar: not installed" in err
    assert "Remedy: pip install 'elman[web]'" in err


def test_the_command_line_loads_no_server_and_the_server_no_torch() -> None:
    script = (
        "import sys, elman.cli.explore\n"
        "assert not {'litestar', 'uvicorn', 'torch'} & set(sys.modules)\n"
        "import elman.explore.server\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE)


def test_the_page_as_one_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    code, _, err = run(
        capsys,
        folder / "lstm",
        folder / "gru",
        "--export",
        page,
        "--text",
        folder / "text.txt",
        "--state",
        "reset",
    )
    assert code == 0
    assert f"{page}: " in err
    html = page.read_text("utf-8")
    found = re.search(r'<script type="application/json" id="explore-data">(.*?)</script>', html, re.S)
    assert found
    document = json.loads(found[1])
    assert (document["format"], document["version"]) == ("elman-explore", 1)
    assert [(card["id"], card["name"]) for card in document["models"]] == [("m0", "lstm"), ("m1", "gru")]
    assert [each["text"] for each in document["texts"]] == [
        "w001 w002\nw003 w001",
        *(preset["text"] for preset in PRESETS),
    ]
    assert len({each["id"] for each in document["texts"]}) == len(PRESETS) + 1
    lines = ["w001 w002", "w003 w001"]
    expected = trace(load_model(folder / "gru"), lines, name="gru", options=TraceOptions(state="reset"))
    assert document["texts"][0]["traces"]["m1"] == expected.as_json(decimals=3)


@pytest.mark.parametrize("characters", [0, 2001])
def test_a_text_that_does_not_fit(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], characters: int
) -> None:
    (tmp_path / "text.txt").write_text("w" * characters)
    page = tmp_path / "page.html"
    code, _, err = run(capsys, folder / "lstm", "--export", page, "--text", tmp_path / "text.txt")
    assert code == 2
    assert f"text.txt has {characters:,} characters" in err
    assert not page.exists()
