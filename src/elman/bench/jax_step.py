"""The training step in JAX: lax.scan over time, one jitted function, weights donated to it.

JAX is installed by the user (`pip install jax jaxlib`) and imported here only.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from elman.bench.rows import Row
from elman.bench.training import CLIP, LR, Task


class JaxStep:
    """Keeps `Step` for the proof; `run_whole` is the jitted step that is timed. Input products of all
    time steps are one product ahead of the scan, as cuDNN does it and as is fastest here too."""

    def __init__(self, task: Task, threads: int) -> None:
        with _cores(threads):
            jax = importlib.import_module("jax")
            jax.devices("cpu")  # starts its thread pool
        self.jax, self.np = jax, importlib.import_module("jax.numpy")
        self.weights = {name: self.np.asarray(value.numpy()) for name, value in task.weights.items()}
        self.state = tuple(self.np.asarray(part.numpy()) for part in task.state)
        self.gradient: dict[str, Any] = {}
        loss = _loss(jax, task.row)
        both = jax.value_and_grad(loss, has_aux=True)

        def updated(weights: dict[str, Any], gradient: dict[str, Any]) -> dict[str, Any]:
            norm = self.np.sqrt(sum((g * g).sum() for g in gradient.values()))
            scale = LR * self.np.minimum(1.0, CLIP / (norm + 1e-6))
            return {name: weights[name] - scale * gradient[name] for name in weights}

        def whole(weights: dict[str, Any], state: Any, ids: Any) -> Any:
            (value, after), gradient = both(weights, state, ids)
            return value, after, updated(weights, gradient)

        self._both, self._updated = jax.jit(both), jax.jit(updated)
        self._whole = jax.jit(whole, donate_argnums=(0, 1))

    def gradients(self, ids: Tensor) -> Tensor:
        (value, self.state), self.gradient = self._both(self.weights, self.state, ids.numpy())
        return torch.tensor(float(value))

    def update(self) -> None:
        self.weights = self._updated(self.weights, self.gradient)

    def outcome(self) -> dict[str, Tensor]:
        found = {f"state {number}": _tensor(part) for number, part in enumerate(self.state)}
        found |= {name: _tensor(value) for name, value in self.weights.items()}
        return found | {f"d{name}": _tensor(value) for name, value in self.gradient.items()}

    def run_whole(self, ids: Tensor) -> float:
        """One step; the loss."""
        value, self.state, self.weights = self._whole(self.weights, self.state, ids.numpy())
        self.jax.block_until_ready(self.weights)
        return float(value)


def jax_runner(step: JaxStep, task: Task) -> Callable[[], None]:
    """One full step on the next window."""
    turn = 0

    def run() -> None:
        nonlocal turn
        step.run_whole(task.windows[turn % len(task.windows)])
        turn += 1

    return run


def _loss(jax: Any, row: Row) -> Callable[..., Any]:
    np, H = jax.numpy, row.hidden

    def lstm(xs: Any, hidden: Any, state: Any) -> Any:
        i, f, g, o = np.split(xs + hidden, 4, axis=-1)
        c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * np.tanh(g)
        return jax.nn.sigmoid(o) * np.tanh(c), c

    def gru(xs: Any, hidden: Any, state: Any) -> Any:
        gates = jax.nn.sigmoid(xs[:, : 2 * H] + hidden[:, : 2 * H])
        r, z = np.split(gates, 2, axis=-1)
        n = np.tanh(xs[:, 2 * H :] + r * hidden[:, 2 * H :])
        return ((1 - z) * n + z * state[0],)

    def rnn(xs: Any, hidden: Any, state: Any) -> Any:
        return (np.tanh(xs + hidden),)

    cell = {"lstm": lstm, "gru": gru, "rnn": rnn}[row.cell]

    def loss(weights: dict[str, Any], state: Any, ids: Any) -> Any:
        x = weights["embedding.weight"][ids[:-1]]  # [T, B, H]
        after = []
        for level in range(row.layers):
            w_ih, w_hh, b_ih, b_hh = (
                weights[f"recurrence.{part}_l{level}"]
                for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )

            def step(own: Any, xs: Any, w: Any = w_hh, b: Any = b_hh) -> Any:
                new = cell(xs, own[0] @ w.T + b, own)
                return new, new[0]

            last, x = jax.lax.scan(step, tuple(part[level] for part in state), x @ w_ih.T + b_ih)
            after.append(last)
        logits = x @ weights["output.weight"].T + weights["output.bias"]
        chosen = np.take_along_axis(logits, ids[1:, :, None], axis=-1)[..., 0]
        nats = jax.nn.logsumexp(logits, axis=-1) - chosen
        return nats.mean(), tuple(np.stack(parts) for parts in zip(*after, strict=True))

    return loss


def _tensor(array: Any) -> Tensor:
    numpy = importlib.import_module("numpy")
    return torch.from_numpy(numpy.array(array))


@contextmanager
def _cores(count: int) -> Iterator[None]:
    """JAX has as many threads as its process may use cores when it starts; afterwards all cores again."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if count < len(before):
        os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        if count < len(before):
            os.sched_setaffinity(0, before)
