"""The compiled kernels, where this installation has them: the only importer of `elman._native`.

Everything else asks here whether they are there (`available`), gets them or an error with the remedy
(`require`), and hands over tensors as addresses (`address`). Without a compiler at installation there is no
module and everything runs on torch; ELMAN_KERNELS=torch in the environment asks for just that.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elman.errors import OptionError
from elman.text import encoding

ENVIRONMENT = "ELMAN_KERNELS"
"""best (default), torch, or one of the instruction sets: avx512_bf16, avx512, avx2, portable."""

_LARGE = 1 << 16
"""Floats; a smaller tensor comes from the heap, whose pages stay."""


def _load() -> tuple[ModuleType | None, str]:
    wanted = os.environ.get(ENVIRONMENT) or "best"  # empty: as if it were not there
    if wanted == "torch":
        return None, f"{ENVIRONMENT}=torch in the environment switches them off."
    try:
        module = import_module("elman._native")  # after torch, whose thread pool it borrows
    except ImportError as error:
        return None, f"they are not in this installation ({error})."
    if not module.use(wanted):
        raise OptionError(
            f"{ENVIRONMENT}={wanted} is not among the kernels that run here.",
            remedy=f"choose one of best, torch, {', '.join(module.instruction_sets())}.",
        )
    return module, ""


_module, _absent = _load()


def available() -> bool:
    """Whether the compiled kernels can be used."""
    return _module is not None


def require() -> ModuleType:
    """The module; OptionError where there is none."""
    if _module is None:
        raise OptionError(
            "the fused kernels are not there.",
            reason=_absent,
            remedy="use backend='auto' or 'torch'; or install a C++20 compiler (Debian: apt install g++) and "
            "Elman anew.",
        )
    return _module


def running() -> str:
    """What computes here: the instruction set of the kernels, or torch where there are none."""
    return "torch" if _module is None else str(_module.instruction_set())


def instruction_sets() -> tuple[str, ...]:
    """The instruction sets that this processor and this build can run, best first; () without kernels."""
    return tuple(_module.instruction_sets()) if _module is not None else ()


@contextmanager
def instruction_set(name: str) -> Iterator[None]:
    """Run the kernels of one instruction set for a while, for tests. OptionError if unknown."""
    module = require()
    before = module.instruction_set()
    if not module.use(name):
        raise OptionError(
            f"no kernels for {name!r} here.",
            remedy=f"choose one of best, {', '.join(instruction_sets())}.",
        )
    try:
        yield
    finally:
        module.use(before)


def takes(*tensors: Tensor | None) -> bool:
    """Whether the kernels are there and can compute on these: float32 on the CPU."""
    return _module is not None and all(t is None or (t.dtype == torch.float32 and t.is_cpu) for t in tensors)


def rounds_to_bf16() -> bool:
    """Whether products should be in bfloat16 here: under autocast, where that is faster than float32."""
    return (
        _module is not None
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and bool(_module.bf16_is_faster())
    )


def memory(shape: Sequence[int]) -> Tensor:
    """An uninitialised float32 tensor; a large one in memory that the kernels get back when it dies."""
    count = math.prod(shape)
    if _module is None or count < _LARGE:
        return torch.empty(tuple(shape), dtype=torch.float32)
    taken: Tensor = _module.memory(shape)
    return taken


def sum_of_squares(tensors: Sequence[Tensor]) -> float:
    """Over all entries of contiguous float32 tensors on the CPU; the same for any number of threads."""
    arrays = [(tensor.data_ptr(), tensor.numel()) for tensor in tensors]
    return float(require().sum_of_squares(arrays, torch.get_num_threads()))


def distinct(ids: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """ids [...] int64 on the CPU → (tokens [U], rows [...]): the distinct ids, rising; tokens[rows] = ids.

    As torch.unique with return_inverse, which sorts. IndexError for an id outside 0..size-1.
    """
    ids, tokens = ids.contiguous(), ids.new_empty(ids.numel())
    rows = torch.empty_like(ids)
    addresses = [address(t) for t in (ids, tokens, rows)]
    return tokens[: require().distinct(addresses, ids.numel(), size)], rows


def gather(tokens: Tensor, weight: Tensor) -> Tensor:
    """tokens [U], known to be rows of weight [V, E] → these rows [U, E]; contiguous, not differentiable."""
    x = memory((len(tokens), weight.shape[1]))
    require().gather([address(t) for t in (tokens, weight, x)], *x.shape, torch.get_num_threads())
    return x


def embedding_gradient(doutput: Tensor, tokens: Tensor, vocabulary_size: int) -> Tensor:
    """doutput [..., E], tokens [...] → dweight [V, E]; the tokens are known to be in the vocabulary."""
    doutput, tokens = doutput.contiguous(), tokens.contiguous()
    dweight = memory((vocabulary_size, doutput.shape[-1]))
    addresses = [address(t) for t in (tokens, doutput, dweight)]
    require().embedding_gradient(
        addresses, tokens.numel(), dweight.shape[1], vocabulary_size, torch.get_num_threads()
    )
    return dweight


def address(tensor: Tensor | None) -> int:
    """Where the numbers of a contiguous tensor lie; 0 for None."""
    if tensor is None:
        return 0
    if not tensor.is_contiguous():
        raise ValueError("a kernel was given a tensor that is not contiguous")
    return tensor.data_ptr()


class WordTable:
    """Words and their numbers, for text/encoding.py, which uses it from the moment this module is loaded."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._kernel = require().WordTable()
        self._kernel.add("".join(f"{token}\n" for token in tokens).encode())

    def __len__(self) -> int:
        return len(self._kernel)

    def tokens(self) -> list[str]:
        found: str = self._kernel.tokens().decode()
        return found.split("\n")[:-1]

    def encode(
        self, block: bytes, grow: bool
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]] | None:
        """See `encoding.WordTable`. The block ends with LF, is UTF-8 without NUL: reading.py has checked."""
        if not block.endswith(b"\n"):
            raise ValueError("a block of lines ends with a line end")
        ids, lines = np.empty(len(block), dtype=np.int32), block.count(b"\n")
        words, sizes = np.empty(lines, dtype=np.int32), np.empty(lines, dtype=np.int32)
        count = self._kernel.encode(block, grow, (ids.ctypes.data, words.ctypes.data, sizes.ctypes.data))
        return None if count < 0 else (ids[:count], words, sizes)


if available():
    encoding.compiled = WordTable
