"""Where training runs, what makes it repeatable there, and the random state that dropout draws from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from elman.errors import FormatError, OptionError


def resolve_device(name: str) -> torch.device:
    """auto (cuda, else mps, else cpu), cpu, cuda or mps. OptionError when this machine has no such device.

    Sets CUBLAS_WORKSPACE_CONFIG, which CUDA reads once when it starts, unless it is set.
    """
    if name in ("auto", "cuda"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if has[kind]))
    if not has.get(name, False):
        raise OptionError(
            f"device {name} is not there.",
            reason="torch was installed without it, or the machine has none.",
            remedy=f"--device {'auto' if name in has else 'auto, cpu, cuda or mps'}.",
        )
    return torch.device(name)


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """The same run twice gives the same bits, on CUDA too. The CPU needs no flags."""
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


class PrivateRandom:
    """torch's random state as the training sees it, put aside while somebody else runs.

    Between `leave` and `enter` whoever consumes the events may draw numbers without changing the run,
    and the run does not change theirs.
    """

    def __init__(self, device: torch.device, seed: int) -> None:
        self._device = device
        self._outside = self.state()
        torch.manual_seed(seed)
        self._inside = self.state()
        self.load(self._outside)

    def state(self) -> dict[str, Tensor]:
        """Generator → its state, uint8, on the CPU."""
        found = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            found["cuda"] = torch.cuda.get_rng_state(self._device)
        elif self._device.type == "mps":
            found["mps"] = torch.mps.get_rng_state()
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a saved state; generators this device does not have are passed over."""
        try:
            torch.set_rng_state(state["cpu"])
            if self._device.type == "cuda" and "cuda" in state:
                torch.cuda.set_rng_state(state["cuda"], self._device)
            elif self._device.type == "mps" and "mps" in state:
                torch.mps.set_rng_state(state["mps"])
        except (KeyError, RuntimeError, TypeError) as error:
            raise FormatError(f"the saved random state does not fit this torch: {error}.") from error

    def enter(self) -> None:
        """Training goes on."""
        self._outside = self.state()
        self.load(self._inside)

    def leave(self) -> None:
        """Somebody else runs."""
        self._inside = self.state()
        self.load(self._outside)
