"""A model in use: a long text scored as one stream, or one token in and the next one's distribution out.

Every contender reads the same ids with the same weights from the same state, and proves itself by what it
says of them. In bfloat16 and int8 the reference is torch in float64 on the weights so rounded.

T steps, one stream, V vocabulary size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from elman.bench.equality import Outcome
from elman.bench.onnx_session import OnnxModel
from elman.bench.rows import Row
from elman.bench.training import PlainModel, Task, draw_ids, elman_model, make_task
from elman.kernels.streaming import Weights
from elman.neural.recurrent import RecurrentModel
from elman.neural.streaming import StreamingModel

GAIN = 1.5
"""Standard deviation of a product's sums where its inputs have 1. New weights are so small that a model
hardly knows where it stands and predicts every token alike: there would be nothing to prove."""

Read = Callable[[], Any]
"""Reads all T tokens from the first state: nats [T], or log-probabilities [V] of the last step."""


@dataclass(frozen=True)
class Reader:
    """One contender; `reference` is the float64 model of the weights it has."""

    read: Read
    reference: dict[str, Tensor]


def reading_task(row: Row, seed: int = 1) -> Task:
    """As in training, with weights that make the model's words depend on what it has read."""
    task = make_task(row, seed)
    weights = dict(task.weights)
    for name, weight in weights.items():
        if weight.dim() > 1:
            size = 1.0 if name == "embedding.weight" else GAIN / math.sqrt(weight.shape[1])
            weights[name] = weight * (size / float(weight.std()))
    weights["output.weight"] = weights["output.weight"] * GAIN  # states are below 1
    return replace(task, weights=weights, windows=(draw_ids(row, 1, seed),))


def elman_reader(task: Task, weights: Weights | None = None) -> Reader:
    """The trained model as it is (None), or made a `StreamingModel`."""
    plain = elman_model(task.row)
    plain.load_state_dict(_named(plain, task.weights))
    if weights is None:
        return Reader(_elman(task, plain), task.weights)
    model = StreamingModel(plain, weights)
    rounded = {name: p.detach() for name, p in model.dequantized().named_parameters()}
    return Reader(_elman(task, model), rounded)


def _named(model: RecurrentModel, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: weights[name] for name in model.state_dict()}


def _elman(task: Task, model: Any) -> Read:
    ids = task.windows[0]
    tokens = list(ids[:-1])  # T tensors [1]

    @torch.no_grad()
    def score() -> Tensor:
        nats: Tensor = model.token_nats(ids, task.state)[0]
        return nats[:, 0]

    @torch.no_grad()
    def stream() -> Tensor:
        state = task.state
        for token in tokens:
            state, log_probs = model.advance(state, token)
        return log_probs[0]  # type: ignore[no-any-return]

    return score if task.row.work == "score" else stream


def torch_reader(task: Task, weights: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Read:
    """torch.nn in inference mode."""
    model = PlainModel(task.row).to(dtype).eval()
    model.load_state_dict(weights)
    ids = task.windows[0]
    tokens = [token[None] for token in ids[:-1]]  # T tensors [1, 1]
    parts = tuple(part.to(dtype) for part in task.state)
    first: Any = parts if task.row.cell == "lstm" else parts[0]

    @torch.inference_mode()
    def score() -> Tensor:
        logits, _ = model(ids[:-1], first)
        return torch.nn.functional.cross_entropy(logits[:, 0], ids[1:, 0], reduction="none")

    @torch.inference_mode()
    def stream() -> Tensor:
        state = first
        for token in tokens:
            logits, state = model(token, state)
            log_probs = logits[0].log_softmax(dim=1)
        return log_probs[0]  # type: ignore[no-any-return]

    return score if task.row.work == "score" else stream


def onnx_reader(task: Task, threads: int) -> Read:
    """ONNX Runtime, float32."""
    score_it = task.row.work == "score"
    model = OnnxModel(task.row, task.weights, threads, nats=score_it)
    ids = task.windows[0].numpy()
    tokens = [ids[t : t + 1] for t in range(task.row.steps)]
    first = model.state((task.state[0], task.state[1]))

    def score() -> Tensor:
        nats, _ = model(ids[:-1], first, ids[1:])
        return torch.from_numpy(nats[:, 0])

    def stream() -> Tensor:
        state = first
        for token in tokens:
            log_probs, state = model(token, state)
        return torch.from_numpy(log_probs[0])

    return score if score_it else stream


def said(read: Read) -> Outcome:
    """What a contender says of the tokens, as deviations from their mean: who knows nothing says 0."""
    result = read().double()
    name = "nats" if result.dim() == 1 else "log-probabilities"
    return {name: result - result.mean()}
