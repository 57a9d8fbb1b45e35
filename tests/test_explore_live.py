"""`elman explore` as people use it: the program, its server and worker, and a browser at its address."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

import explore_page_example as made
from elman.checkpoint import save_model
from elman.explore.presets import PRESETS
from explore_page_example import ready, watched
from test_cli_explore import PATIENCE, address, started

sync = pytest.importorskip("playwright.sync_api", reason="playwright (extra dev) is not installed")
if made.CHROMIUM is None:
    pytest.skip("no chromium on this machine: apt-get install chromium", allow_module_level=True)


def test_from_the_printed_address_to_the_end_of_the_program(tmp_path: Path) -> None:
    models = made.explorer().models
    folders = [tmp_path / name for name in ("lstm", "gru", "trigram")]
    for folder, key in zip(folders, ("m0", "m1", "m3"), strict=True):
        save_model(models[key], folder)
    text = tmp_path / "speeches.txt"
    text.write_text("\n".join(preset["text"] for preset in PRESETS) + "\n")
    tell: list[str] = []
    with (
        started(tmp_path, *folders, "--reference", text, "--state", "reset", "--no-browser") as process,
        sync.sync_playwright() as playwright,
    ):
        port, token = address(process)
        browser = playwright.chromium.launch(executable_path=made.CHROMIUM, args=made.OPTIONS)
        context = browser.new_context()
        with watched(context) as page:
            page.goto(f"http://127.0.0.1:{port}/?token={token}")
            ready(page)
            assert token not in page.url
            assert page.input_value("#policy") == "reset"
            page.fill("#text", "we need peace\nwe will keep the peace")
            page.click("#ask .primary")
            page.wait_for_function("() => document.querySelectorAll('#strip .word').length === 10")
            for view in range(1, 7):
                page.keyboard.press(str(view))
                ready(page)
            page.goto(page.url.partition("#")[0] + "#preset=money&view=memory&from=10&to=12&threshold=0.05")
            page.wait_for_selector(".matches li mark")
            assert "in speeches.txt" in page.inner_text("#panel-memory [role=status]")
            assert searched(page)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE)
            page.fill("#text", "we will")
            page.click("#ask .primary")
            page.wait_for_selector("#error .problem")
            assert "The server cannot be reached." in page.inner_text("#error")
            tell += page.told
            page.told.clear()
        browser.close()
    assert all("ERR_CONNECTION_REFUSED" in line for line in tell), tell
    assert process.returncode == 130


def searched(page: Any) -> bool:
    """The first match is the selection itself: the reference text holds the same words."""
    return bool(page.locator(".matches li").first.locator(".score").inner_text() == "1.00")
