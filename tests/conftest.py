"""What every test shares: one thread (the suite runs on several processes) and a private cache."""

from __future__ import annotations

import signal

import pytest
import torch

torch.set_num_threads(1)
# a shell ignores SIGINT for what it runs in the background, and the tests of Ctrl-C would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests never read or write the user's cache."""
    monkeypatch.setenv("ELMAN_CACHE", str(tmp_path_factory.getbasetemp() / "elman-cache"))
