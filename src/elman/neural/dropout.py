"""Dropout (Srivastava et al. 2014) whose random numbers cost little on a CPU.

torch draws one random number for each entry, 25 ns; here one draw of 64 bits serves four entries, a seventh
of that. The share that is dropped is then a multiple of 2^-16, at most 8e-6 from p.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from elman.kernels.draws import own

_LEVELS = 1 << 16


class Dropout(nn.Dropout):
    """y = mask · x / (1 - p), mask 0 with probability p, in training; y = x otherwise. As torch.nn.Dropout.

    On a CPU p is rounded to a multiple of 2^-16 (at least one of them where p > 0), the numbers come
    from the training's generator, else torch's; elsewhere it is torch's own.
    """

    def forward(self, input: Tensor) -> Tensor:
        """x [...] → y [...], of its dtype."""
        if not self.training or not self.p:
            return input
        if self.p == 1.0 or self.inplace or input.device.type != "cpu":
            return super().forward(input)
        dropped = min(max(round(self.p * _LEVELS), 1), _LEVELS - 1)
        count = input.numel()
        draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(
            -(2**63), None, generator=own(input)
        )  # all 64 bits
        uniform = draws.view(torch.int16)[:count].view(input.shape)  # -2^15 … 2^15 - 1
        mask = (uniform >= dropped - _LEVELS // 2).to(input.dtype)
        return input * mask.mul_(1 / (1 - self.p))
