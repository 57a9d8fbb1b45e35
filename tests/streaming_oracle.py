"""A streaming model of any sizes beside what it stands for in float64, and the distance between the two."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from elman.kernels import native
from elman.kernels.streaming import Drawing, Matrix, Stream, StreamLayer, StreamSource
from elman.neural.quantization import dequantize, quantize
from int8_oracle import int8_step
from neural_oracle import log_softmax, recurrent_nats
from tolerance import error, tolerance

KINDS = ("in_place", "float32", "bfloat16", "int8")
STREAM_CELLS = {"rnn": "rnn_tanh", "rnn-relu": "rnn_relu", "lstm": "lstm", "gru": "gru"}


@dataclass
class Streaming:
    """A model of the given sizes as the kernels have it, and in float64 as they stand for it."""

    cell: str
    kind: str
    V: int
    E: int
    H: int
    layers: int = 1
    seed: int = 1

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        dtype = "float32" if self.kind == "in_place" else self.kind
        rows = {"lstm": 4, "gru": 3}.get(self.cell, 1) * self.H
        self.p: dict[str, np.ndarray] = {}

        def matrix(name: str, *shape: int) -> Matrix:
            drawn = torch.randn(*shape, generator=generator) * min(0.4, 0.7 / shape[1] ** 0.5)
            made = quantize(drawn, dtype)  # type: ignore[arg-type]
            self.p[name] = dequantize(made).double().numpy()
            return made

        def bias(name: str, length: int) -> Tensor:
            made = torch.randn(length, generator=generator) * 0.4
            self.p[name] = made.double().numpy()
            return made

        embedding = matrix("embedding.weight", self.V, self.E)
        levels = tuple(
            StreamLayer(
                matrix(f"recurrence.weight_ih_l{k}", rows, self.H if k else self.E),
                matrix(f"recurrence.weight_hh_l{k}", rows, self.H),
                bias(f"recurrence.bias_ih_l{k}", rows),
                bias(f"recurrence.bias_hh_l{k}", rows),
            )
            for k in range(self.layers)
        )
        output = matrix("output.weight", self.V, self.H)
        source = StreamSource(STREAM_CELLS[self.cell], embedding, levels, output, bias("output.bias", self.V))
        self.stream = Stream(source, in_place=self.kind == "in_place")
        config = {"cell": self.cell, "num_layers": self.layers, "tied": False, "softmax": "full"}
        self.model = SimpleNamespace(config=SimpleNamespace(**config))

    def state(self, batch: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(self.seed + 1)
        shape = (self.layers, batch, self.H)
        return tuple(torch.randn(shape, generator=generator) * 0.5 for _ in range(1 + (self.cell == "lstm")))

    def allowed(self, steps: int, rows: int) -> float:
        rounds = self.kind == "bfloat16" and native.require().bf16_is_faster()
        many = rows >= native.require().boundaries(native.require().instruction_set())["MANY"]
        dtype = torch.bfloat16 if rounds and many else torch.float32
        return tolerance(dtype, min(steps, 8), max(self.E, self.H, 16), 16)

    def far(self, T: int, B: int) -> float:
        """The largest error of a window and of a step, in units of the tolerance; choices are checked too."""
        ids = torch.randint(self.V, (T + 1, B), generator=torch.Generator().manual_seed(self.seed + 2))
        state, errors = self.state(B), [0.0]
        after, logs = self.stream.advance(state, ids[0])
        if self.kind == "int8":
            layers, wanted = int8_step(self.model, self.p, ids[0].numpy(), state, after)
            for part, tensor in enumerate(after):
                right = np.stack([layer[part] for layer in layers])
                errors.append(error(tensor, torch.from_numpy(right)) / self.allowed(1, B))
            own, right = self.stream.token_nats(ids, state)[0][0], -wanted[np.arange(B), ids[1].numpy()]
            errors.append(error(own, torch.from_numpy(right)) / self.allowed(1, B))
        else:
            wide = [t.double().numpy() for t in state]
            nats, ended = self.stream.token_nats(ids, state)
            right_nats, right_state = recurrent_nats(self.p, self.model, ids.numpy(), wide)  # type: ignore[arg-type]
            for ours, theirs in zip((nats, *ended), (right_nats, *right_state), strict=True):
                errors.append(error(ours, torch.from_numpy(theirs)) / self.allowed(T, T * B))
            _, stepped = recurrent_nats(self.p, self.model, ids[:2].numpy(), wide)  # type: ignore[arg-type]
            for ours, theirs in zip(after, stepped, strict=True):
                errors.append(error(ours, torch.from_numpy(theirs)) / self.allowed(1, B))
            wanted = log_softmax(stepped[0][-1] @ self.p["output.weight"].T + self.p["output.bias"])
        errors.append(error(logs, torch.from_numpy(wanted)) / self.allowed(1, B))
        self.choices(state, ids[0], logs)
        return max(errors)

    def choices(self, state: tuple[Tensor, ...], token: Tensor, logs: Tensor) -> None:
        """What is drawn and listed is what the log-probabilities say."""
        order = logs.sort(dim=1, descending=True, stable=True)
        for k in {1, min(7, self.V), self.V}:
            _, tokens, values = self.stream.best(state, token, k)
            assert torch.equal(logs.gather(1, tokens), order.values[:, :k])
            torch.testing.assert_close(values, order.values[:, :k], rtol=1e-5, atol=1e-5)
        uniform = torch.rand(len(token), generator=torch.Generator().manual_seed(self.seed)).double()
        for how in (Drawing(0.0), Drawing(), Drawing(0.8, 0, 0.95), Drawing(3.0, 0, 0.999), Drawing(2.0, 5)):
            _, tokens, nats = self.stream.draw(state, token, how, uniform)
            torch.testing.assert_close(nats, -logs.gather(1, tokens[:, None])[:, 0], rtol=1e-5, atol=1e-5)
            chances = chances_of(logs.double(), how)
            below = (chances.cumsum(1) - chances).gather(1, tokens[:, None])[:, 0]
            above = chances.cumsum(1).gather(1, tokens[:, None])[:, 0]
            if how.temperature:
                assert bool(((below - 1e-5 <= uniform) & (uniform <= above + 1e-5)).all())
            else:
                assert torch.equal(tokens, order.indices[:, 0])


def chances_of(logs: Tensor, how: Drawing) -> Tensor:
    """log-probabilities [B, V] → the probabilities that `how` draws by, ids rising."""
    p = (logs / (how.temperature or 1.0)).softmax(1)
    order = p.sort(dim=1, descending=True, stable=True)
    keep = torch.ones_like(p, dtype=torch.bool)
    if how.top_k:
        keep[:, how.top_k :] = False
    if how.top_p < 1:
        kept = order.values * keep
        keep &= (kept.cumsum(1) - kept) / kept.sum(1, keepdim=True) < how.top_p
    p = p * torch.zeros_like(keep).scatter(1, order.indices, keep)
    return p / p.sum(1, keepdim=True)
