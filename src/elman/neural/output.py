"""From hidden states to the probability of the next token: full and adaptive softmax, and their loss.

Both layers answer two questions: the nats of given targets (`token_nats`) and the log-probabilities of
all tokens (`log_probs`). Without gradients `token_nats` works through the rows in blocks, so that its
memory does not grow with the number of rows times V. With gradients it is one matrix product and torch's
own cross-entropy: block-wise variants with a hand-written backward were measured and are not faster
(the three matrix products take nearly all the time).

Not here: dropout and hidden layers; they are the model's.

N rows (time × batch), H hidden size, V vocabulary size. Nats throughout, float32 at least.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elman.errors import OptionError
from elman.kernels import native
from elman.kernels.output import expect_gradient, expected_rows, linear_nats

Softmax = Literal["full", "adaptive"]

BLOCK_ELEMENTS = 1 << 21
"""Logits held at a time when no gradient is asked for: 8 MB in float32, within a last-level cache."""


class SoftmaxOutput(nn.Module):
    """log P = log softmax(h Wᵀ + b), W [V, H], b [V].

    `weight`: a parameter [V, H] to share (weight tying, Press & Wolf 2017; Inan et al. 2017);
    without it the layer has its own. `backend`: see `fuses`.
    """

    def __init__(
        self,
        hidden_size: int,
        vocabulary_size: int,
        weight: nn.Parameter | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.weight = (
            weight if weight is not None else nn.Parameter(torch.empty(vocabulary_size, hidden_size))
        )
        self.bias = nn.Parameter(torch.zeros(vocabulary_size))
        self.backend = backend

    def log_probs(self, hidden: Tensor) -> Tensor:
        """hidden [N, H] → log-probabilities [N, V]."""
        return F.log_softmax(self._logits(hidden), dim=-1)

    def token_nats(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """hidden [..., H], targets [...] int64 → -log P(target) [...]."""
        if fuses(self.backend, hidden, self.weight, self.bias):
            return linear_nats(hidden, self.weight, self.bias, targets)
        return _in_blocks(self._token_nats, hidden, targets, width=len(self.bias))

    def _token_nats(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self._logits(hidden), targets, reduction="none")

    def _logits(self, hidden: Tensor) -> Tensor:
        # under autocast the product is bfloat16; the normalization is always at least float32
        return _at_least_float32(F.linear(hidden, self.weight, self.bias))


class AdaptiveOutput(nn.Module):
    """Adaptive softmax (Grave et al. 2017): frequent tokens in a head, the rest in two cheaper tails.

    P(token) = P_head(token) for the frequent ones, P_head(tail) · P_tail(token) for the others, where tail
    i sees h through a projection that is 4 (16) times smaller. Ids must fall in frequency, as a
    `Vocabulary`'s do. The head has a bias, the tails have none.

    cutoffs: the first id of each tail; None chooses (`default_cutoffs`). `backend`: see `fuses`.
    """

    def __init__(
        self,
        hidden_size: int,
        vocabulary_size: int,
        cutoffs: Sequence[int] | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        chosen = check_cutoffs(cutoffs, vocabulary_size)
        self.layer = nn.AdaptiveLogSoftmaxWithLoss(
            hidden_size,
            vocabulary_size,
            list(chosen),
            div_value=division(hidden_size, len(chosen)),
            head_bias=True,
        )
        self.backend = backend

    def log_probs(self, hidden: Tensor) -> Tensor:
        """hidden [N, H] → log-probabilities [N, V]."""
        with torch.autocast(hidden.device.type, enabled=False):
            logs: Tensor = self.layer.log_prob(hidden.to(self.layer.head.weight.dtype))
        return logs

    def token_nats(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """hidden [..., H], targets [...] int64 → -log P(target) [...]."""
        if fuses(self.backend, hidden, self.layer.head.weight):
            return self._fused_nats(hidden.float().flatten(0, -2), targets.flatten()).view(targets.shape)
        return _in_blocks(self._token_nats, hidden, targets, width=self.layer.n_classes)

    def _fused_nats(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """-log P_head of every row, plus -log P_tail of the rows whose target is in a tail."""
        layer, cutoffs = self.layer, self.layer.cutoffs  # the last cutoff is V
        first = cutoffs[0]
        bounds = torch.tensor(cutoffs, device=targets.device)
        which = torch.bucketize(targets, bounds, right=True)  # 0: frequent; i: tail i - 1
        in_head = torch.where(which == 0, targets, first - 1 + which)
        nats = linear_nats(hidden, layer.head.weight, layer.head.bias, in_head)
        for tail, cutoff in enumerate(cutoffs[:-1]):
            rows = (which == tail + 1).nonzero()[:, 0]
            if len(rows):
                weights = dict(layer.tail[tail].named_parameters())
                projected = F.linear(hidden.index_select(0, rows), weights["0.weight"])
                with expect_gradient(expected_rows(rows)):
                    more = linear_nats(projected, weights["1.weight"], None, targets[rows] - cutoff)
                nats = nats.index_add(0, rows, more)
        return nats

    def _token_nats(self, hidden: Tensor, targets: Tensor) -> Tensor:
        # torch's layer copies rows between dtypes that autocast would make unequal, so it is off here
        with torch.autocast(hidden.device.type, enabled=False):
            logs: Tensor = self.layer(hidden.to(self.layer.head.weight.dtype), targets).output
        return -logs


Output = SoftmaxOutput | AdaptiveOutput


def fuses(backend: str, hidden: Tensor, *weights: Tensor) -> bool:
    """Whether the fused kernels compute this loss: where they are there, and it is in float32 on the CPU.

    auto: if they can; fused: they must (OptionError); torch, reference: never.
    """
    if backend not in ("auto", "fused"):
        return False
    fits = hidden.dtype in (torch.float32, torch.bfloat16) and native.takes(*weights)
    if backend == "fused" and not fits:
        native.require()
        raise OptionError(
            f"the fused kernels compute in float32 on the CPU, not in {weights[0].dtype} on {hidden.device}.",
            remedy="use backend='auto' or 'torch'.",
        )
    return fits


def default_cutoffs(vocabulary_size: int) -> tuple[int, ...]:
    """A tenth of the vocabulary in the head (about four fifths of running English), three tenths after it."""
    wanted = (vocabulary_size // 10, vocabulary_size * 2 // 5)
    chosen = tuple(sorted({cut for cut in wanted if 0 < cut < vocabulary_size}))
    return chosen or (1,)


def check_cutoffs(cutoffs: Sequence[int] | None, vocabulary_size: int) -> tuple[int, ...]:
    """The cutoffs to use. OptionError unless they rise strictly within 1..V-1."""
    if vocabulary_size < 2:
        raise OptionError(
            f"adaptive softmax needs a vocabulary of at least 2 tokens, not {vocabulary_size}.",
            remedy="use --softmax full.",
        )
    chosen = tuple(cutoffs) if cutoffs is not None else default_cutoffs(vocabulary_size)
    rising = all(left < right for left, right in pairwise(chosen))
    if not chosen or not rising or chosen[0] < 1 or chosen[-1] >= vocabulary_size:
        raise OptionError(
            f"adaptive softmax cutoffs {list(chosen)} do not fit a vocabulary of {vocabulary_size} tokens.",
            remedy=f"give rising cutoffs between 1 and {vocabulary_size - 1}, or none.",
        )
    return chosen


def division(hidden_size: int, tails: int) -> float:
    """How many times smaller each next projection is: 4, or less where one would be left without a unit."""
    return next(divisor for divisor in (4.0, 2.0, 1.0) if divisor == 1 or hidden_size >= divisor**tails)


def output_shapes(
    softmax: Softmax, hidden_size: int, vocabulary_size: int, cutoffs: Sequence[int] | None = None
) -> dict[str, tuple[int, ...]]:
    """Parameter names and shapes of an output layer, without allocating it."""
    if softmax == "full":
        return {"weight": (vocabulary_size, hidden_size), "bias": (vocabulary_size,)}
    chosen = check_cutoffs(cutoffs, vocabulary_size)
    head = chosen[0] + len(chosen)
    shapes: dict[str, tuple[int, ...]] = {
        "layer.head.weight": (head, hidden_size),
        "layer.head.bias": (head,),
    }
    for tail, (first, last) in enumerate(zip(chosen, (*chosen[1:], vocabulary_size), strict=True)):
        projected = int(hidden_size // division(hidden_size, len(chosen)) ** (tail + 1))
        shapes[f"layer.tail.{tail}.0.weight"] = (projected, hidden_size)
        shapes[f"layer.tail.{tail}.1.weight"] = (last - first, projected)
    return shapes


def _in_blocks(
    nats: Callable[[Tensor, Tensor], Tensor], hidden: Tensor, targets: Tensor, *, width: int
) -> Tensor:
    every, flat = hidden.flatten(0, -2), targets.flatten()
    rows = max(1, BLOCK_ELEMENTS // width)
    if torch.is_grad_enabled() or len(flat) <= rows:
        return nats(every, flat).view(targets.shape)
    blocks = zip(torch.split(every, rows), torch.split(flat, rows), strict=True)
    return torch.cat([nats(block, block_targets) for block, block_targets in blocks]).view(targets.shape)


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
