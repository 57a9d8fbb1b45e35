"""What every test shares: one thread (the suite runs on several processes) and a private cache."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch

torch.set_num_threads(1)
# a shell ignores SIGINT for what it runs in the background, and the tests of Ctrl-C would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests never read or write the user's cache."""
    monkeypatch.setenv("ELMAN_CACHE", str(tmp_path_factory.getbasetemp() / "elman-cache"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; tests that want it are skipped where it or Playwright is not installed."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright (extra dev) is not installed")
    from explore_page_example import CHROMIUM, OPTIONS

    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture
def site() -> Any:
    """The explore page's server, answered in this process: `explore_page_example.Site`."""
    from explore_page_example import Site

    return Site()


@pytest.fixture
def page(browser: Any, site: Any) -> Iterator[Any]:
    """The live explore page, 1200 px wide, on its first preset."""
    from explore_page_example import SITE, ready, watched

    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.route("**/*", site.serve)
    with watched(context) as opened:
        opened.goto(SITE)
        ready(opened)
        yield opened
    context.close()
