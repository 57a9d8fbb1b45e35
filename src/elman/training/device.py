"""Where training runs, what makes it repeatable there, and the random state that dropout draws from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from elman.errors import FormatError, OptionError
from elman.kernels.draws import drawing_from


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
    """The random state of a training: on a CPU a generator of its own, on a GPU the device's too.

    torch draws from one generator for the whole device; there the run's state is put aside while somebody
    else runs. Between `leave` and `enter` whoever consumes the events may draw numbers without changing
    the run, and the run does not change theirs.
    """

    def __init__(self, device: torch.device, seed: int) -> None:
        self._device = device
        self._generator = torch.Generator().manual_seed(seed)
        self._drawing = ExitStack()
        self._outside = self._of_device()
        if self._outside is not None:
            torch.manual_seed(seed)
            self._inside = self._of_device()
            self._set(self._outside)

    def state(self) -> dict[str, Tensor]:
        """Generator → its state, uint8, on the CPU."""
        found = {"cpu": self._generator.get_state()}
        there = self._of_device()
        return found if there is None else found | {self._device.type: there}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a saved state; generators this device does not have are passed over."""
        try:
            self._generator.set_state(state["cpu"])
            if self._device.type in state and self._device.type != "cpu":
                self._set(state[self._device.type])
        except (KeyError, RuntimeError, TypeError) as error:
            raise FormatError(f"the saved random state does not fit this torch: {error}.") from error

    def enter(self) -> None:
        """Training goes on."""
        self._drawing.enter_context(drawing_from(self._generator))
        self._outside = self._of_device()
        if self._outside is not None and self._inside is not None:
            self._set(self._inside)

    def leave(self) -> None:
        """Somebody else runs."""
        self._drawing.close()
        self._inside = self._of_device()
        if self._outside is not None:
            self._set(self._outside)

    def _of_device(self) -> Tensor | None:
        if self._device.type == "cuda":
            return torch.cuda.get_rng_state(self._device)
        return torch.mps.get_rng_state() if self._device.type == "mps" else None

    def _set(self, state: Tensor) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state, self._device)
        elif self._device.type == "mps":
            torch.mps.set_rng_state(state)
