"""torch's optimizers with one rule for weight decay, and their state as named tensors.

Weight decay falls on matrices (embedding, recurrent, output weights) and never on biases: a bias
does not multiply anything, so shrinking it regularizes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from elman.errors import FormatError
from elman.storage import DAMAGED
from elman.training.config import TrainConfig


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


def slots(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    """What is remembered of each parameter; nothing by plain SGD."""
    if isinstance(optimizer, torch.optim.SGD):
        return ("momentum_buffer",) if optimizer.defaults["momentum"] else ()
    return ("step", "exp_avg", "exp_avg_sq")


def untouched(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Parameters of which it remembers nothing yet: none has had a gradient, as a rare word's tail."""
    if not slots(optimizer):
        return []
    return [name for name, parameter in module.named_parameters() if not optimizer.state.get(parameter)]


def load_optimizer(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    without: Sequence[str],
    updates: int,
) -> None:
    """Put the remembered tensors back. FormatError unless they are exactly those of this model.

    without  the parameters of which nothing was remembered; all of them where there has been no update
    updates  how often it has been called, at least
    """
    parameters, kept = dict(module.named_parameters()), slots(optimizer)
    absent = set(without)
    if updates and kept and absent >= parameters.keys():
        raise FormatError(f"the optimizer's state is empty after {updates:,} updates.", reason=DAMAGED)
    wanted = {f"{name}/{slot}" for name in parameters if name not in absent for slot in kept}
    if tensors.keys() != wanted and (tensors or updates):
        odd = min(tensors.keys() ^ wanted)
        holds = "holds an unknown" if odd in tensors else "lacks"
        raise FormatError(f"the optimizer's state {holds} {odd[:80]!r}.", reason=DAMAGED)
    for key, tensor in tensors.items():
        name, _, slot = key.rpartition("/")
        parameter = parameters[name]
        shape, dtype = parameter.shape, parameter.dtype
        if slot == "step":
            shape, dtype = torch.Size(()), torch.float32
        if tensor.shape != shape or tensor.dtype != dtype:
            raise FormatError(
                f"the optimizer's {key} is {tensor.dtype} {list(tensor.shape)}, not {dtype} {list(shape)}."
            )
        negative = slot in ("step", "exp_avg_sq") and bool((tensor < 0).any())
        if negative or not bool(torch.isfinite(tensor).all()):
            raise FormatError(f"the optimizer's {key} holds numbers that it never has.", reason=DAMAGED)
        optimizer.state[parameter][slot] = tensor.to(parameter.device, copy=True)
