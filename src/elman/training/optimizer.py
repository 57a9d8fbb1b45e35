"""torch's optimizers with one rule for weight decay, and their state as named tensors.

Weight decay falls on matrices (embedding, recurrent, output weights) and never on biases: a bias
does not multiply anything, so shrinking it regularizes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from elman.errors import FormatError
from elman.training.config import TrainConfig

SLOTS = {"sgd": ("momentum_buffer",), "adam": ("step", "exp_avg", "exp_avg_sq")}
SLOTS["adamw"] = SLOTS["adam"]


def is_linear(config: TrainConfig) -> bool:
    """Whether the update is the gradient times a number: SGD without momentum and weight decay."""
    return config.optimizer == "sgd" and not config.momentum and not config.weight_decay


def build_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW over the trainable parameters; a tied weight is one parameter."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    looked_up = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding) and is_linear(config)}
    rest = [p for p in parameters if id(p) not in looked_up]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        # their gradients may be sparse (`sparse_gradients`), which the fused update does not take
        {"params": [p for p in parameters if id(p) in looked_up], "weight_decay": 0.0, "fused": False},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=not config.momentum)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.lr, fused=True)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """ "parameter/slot" → tensor: all that the optimizer remembers."""
    return {
        f"{name}/{slot}": value
        for name, parameter in module.named_parameters()
        for slot, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_optimizer(
    module: nn.Module, optimizer: torch.optim.Optimizer, kind: str, tensors: Mapping[str, Tensor]
) -> None:
    """Put the remembered tensors back. FormatError unless they are exactly those of this model."""
    names = dict(module.named_parameters())
    for key, tensor in tensors.items():
        name, _, slot = key.rpartition("/")
        parameter = names.get(name)
        if parameter is None or slot not in SLOTS[kind]:
            raise FormatError(f"the optimizer's state holds an unknown {key[:80]!r}.")
        shape = torch.Size(()) if slot == "step" else parameter.shape
        if tensor.shape != shape or tensor.dtype != (torch.float32 if slot == "step" else parameter.dtype):
            raise FormatError(
                f"the optimizer's {key} is {tensor.dtype} {list(tensor.shape)}, not {list(shape)}."
            )
        optimizer.state[parameter][slot] = tensor.to(parameter.device, copy=True)
    for name, parameter in names.items():
        lacking = set(SLOTS[kind]) - set(optimizer.state.get(parameter, ()))
        if tensors and lacking:
            raise FormatError(f"the optimizer's state lacks {name}/{min(lacking)}.")
