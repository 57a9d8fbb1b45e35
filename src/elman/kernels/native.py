"""The compiled kernels, where this installation has them: the only importer of `elman._native`.

Everything else asks here whether they are there (`available`) and can be used now (`takes`), gets them or an
error with the remedy (`require`), and hands over tensors as addresses and shapes (`given`). Without a
compiler at installation there is no module and everything runs on torch; ELMAN_KERNELS=torch in the
environment asks for just that.
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
from torch.autograd import forward_ad

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


def plain() -> bool:
    """Whether operators are simply carried out here: nothing traces, compiles, transforms or replaces them.

    Where something does (jit.trace, torch.compile, export, torch.func, forward-mode gradients, FLOP counters,
    FakeTensorMode, selective checkpointing) torch's own operators compute, which all of them know.
    """
    return not (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )


def takes(*tensors: Tensor | None) -> bool:
    """Whether the kernels are there and can compute on these, now: plain float32 tensors on the CPU."""
    return _module is not None and plain() and all(t is None or is_float32(t) for t in tensors)


def is_batch_of_gradients(tensor: Tensor | None) -> bool:
    """Whether torch.autograd.grad made it of is_grads_batched=True: many gradients that look like one."""
    return tensor is not None and torch._C._functorch.is_legacy_batchedtensor(tensor)


def is_float32(tensor: Tensor) -> bool:
    """Whether it is a plain one (no subclass) of float32 on the CPU."""
    return type(tensor) in _PLAIN and tensor.dtype == torch.float32 and tensor.is_cpu


_PLAIN = (Tensor, torch.nn.Parameter)


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
        return torch.empty(tuple(shape), dtype=torch.float32, device="cpu")
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
    count = require().distinct(given(ids, torch.int64), fresh(tokens), fresh(rows), size)
    return tokens[:count], rows


def gather(tokens: Tensor, weight: Tensor) -> Tensor:
    """tokens [U] int64, weight [V, E] → these rows [U, E]; contiguous, not differentiable. IndexError."""
    x = memory((tokens.numel(), weight.shape[-1]))
    require().gather(given(tokens, torch.int64), given(weight), fresh(x), torch.get_num_threads())
    return x


def embedding_gradient(doutput: Tensor, tokens: Tensor, vocabulary_size: int) -> Tensor:
    """doutput [..., E], tokens [...] int64 → dweight [V, E]. IndexError for a token outside 0..V-1."""
    doutput, tokens = contiguous(doutput), tokens.contiguous()
    dweight = memory((vocabulary_size, doutput.shape[-1]))
    addresses = given(tokens, torch.int64), given(doutput), fresh(dweight)
    require().embedding_gradient(*addresses, torch.get_num_threads())
    return dweight


Given = tuple[int, Sequence[int]]
"""What the kernels get of a tensor, and check the sizes of: where its numbers lie, and its shape."""
NOTHING: Given = (0, ())


def given(tensor: Tensor | None, dtype: torch.dtype = torch.float32) -> Given:
    """Where the numbers of a contiguous tensor on the CPU lie, and its shape; ValueError for any other."""
    if tensor is None:
        return NOTHING
    if tensor.dtype != dtype or not tensor.is_cpu:
        raise ValueError(f"a kernel was given {tensor.dtype} on {tensor.device}, not {dtype} on the CPU")
    if not tensor.is_contiguous():
        raise ValueError("a kernel was given a tensor that is not contiguous")
    if tensor.untyped_storage().nbytes() < tensor.storage_offset() * tensor.itemsize + tensor.nbytes:
        raise ValueError("a kernel was given a tensor whose memory has been taken away")
    return tensor.data_ptr(), tensor.shape


def fresh(tensor: Tensor) -> Given:
    """`given` for a tensor that was made here, by `memory` or torch.empty, and so needs no check."""
    return tensor.data_ptr(), tensor.shape


def contiguous(tensor: Tensor) -> Tensor:
    """Itself, or a copy where its numbers do not lie one after the other as they are."""
    return tensor.resolve_neg().contiguous()


def address(tensor: Tensor | None) -> int:
    """Where the numbers of a contiguous tensor lie, of any dtype; 0 for None. ValueError, see `given`."""
    return 0 if tensor is None else given(tensor, tensor.dtype)[0]


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
