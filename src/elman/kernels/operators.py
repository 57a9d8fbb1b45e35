"""What torch knows of an operator of Elman's: what it takes and gives, without data too, and in batches.

An operator can be called like torch's own, `torch.ops.elman.recurrence`, with anything: it answers or raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_library: Any = torch.library.Library("elman", "FRAGMENT")  # type: ignore[no-untyped-call]


def define(schema: str, compute: Callable[..., Any], shapes: Callable[..., Any]) -> None:
    """Register `compute` for tensors on the CPU, `shapes` for those without data, and both for torch.vmap."""
    name = schema.partition("(")[0]
    _library.define(schema)
    _library.impl(name, compute, "CPU")
    torch.library.register_fake(f"elman::{name}", shapes)
    torch.library.register_vmap(f"elman::{name}", _one_by_one(name))


def _one_by_one(name: str) -> Callable[..., Any]:
    def batched(info: Any, in_dims: Any, *given: Any) -> Any:
        """A call for each member of the batch: one call of the compiled code is already a batch."""
        operator = getattr(torch.ops.elman, name)

        def member(number: int) -> Any:
            take = lambda one, dim: one.select(dim, number) if dim is not None else one  # noqa: E731
            return operator(*pytree.tree_map(take, given, in_dims))

        found = [member(number) for number in range(info.batch_size)]
        stacked = pytree.tree_map(lambda *parts: torch.stack(parts), *found)
        return stacked, pytree.tree_map_only(Tensor, lambda _: 0, stacked)

    return batched
