"""Float64 oracles of the neural models, written from the papers in NumPy, and the contract as a check.

Everything is analytic in the parameters, so complex numbers pass through: the derivative along a
direction d is Im f(p + i·1e-30·d) / 1e-30, exact to rounding (complex-step differentiation).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch

from elman.language_model import State
from elman.neural.feedforward import FeedforwardModel
from elman.neural.recurrent import RecurrentModel
from elman.text.tokenizers import get_tokenizer
from elman.text.vocabulary import Vocabulary
from tolerance import tolerance

Arrays = Mapping[str, np.ndarray]
Model = TypeVar("Model", RecurrentModel, FeedforwardModel)
WORDS = get_tokenizer("words")


def vocabulary(size: int) -> Vocabulary:
    """`size` tokens with falling counts."""
    tokens = ["<unk>", "</s>", *(f"w{number:03d}" for number in range(size - 2))]
    return Vocabulary(tokens, [7, 50, *(40 * size // (number + 1) for number in range(size - 2))])


def drawn(model: Model, seed: int = 3) -> Model:
    """The model in float64 and evaluation mode with every parameter drawn anew, none near zero on purpose."""
    generator = torch.Generator().manual_seed(seed)
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4)
    return model.eval()


def ids_for(model: Any, steps: int, batch: int, seed: int = 5) -> torch.Tensor:
    """ids [steps+1, batch]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(len(model.vocabulary), (steps + 1, batch), generator=generator)


def busy_state(model: Any, batch: int) -> State:
    """A state that is not the start: what the model remembers after four random tokens."""
    with torch.no_grad():
        state: State = model.token_nats(ids_for(model, 4, batch, seed=9), model.start(batch))[1]
    return state


def parameters_of(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in model.named_parameters()}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.real.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def adaptive_log_probs(p: Arrays, h: np.ndarray, cutoffs: tuple[int, ...]) -> np.ndarray:
    """Grave et al. 2017, written out densely: log-probabilities [N, V]."""
    head = log_softmax(h @ p["output.layer.head.weight"].T + p["output.layer.head.bias"])
    parts = [head[:, : cutoffs[0]]]
    for tail in range(len(cutoffs)):
        projected = h @ p[f"output.layer.tail.{tail}.0.weight"].T
        inside = log_softmax(projected @ p[f"output.layer.tail.{tail}.1.weight"].T)
        parts.append(head[:, cutoffs[0] + tail, None] + inside)
    return np.concatenate(parts, axis=1)


def output_log_probs(p: Arrays, h: np.ndarray, model: RecurrentModel | FeedforwardModel) -> np.ndarray:
    if model.config.softmax == "adaptive":
        assert model.config.cutoffs is not None
        return adaptive_log_probs(p, h, model.config.cutoffs)
    tied = getattr(model.config, "tied", False)
    return log_softmax(h @ p["embedding.weight" if tied else "output.weight"].T + p["output.bias"])


def cell_step(cell: str, p: Arrays, layer: int, x: np.ndarray, state: list[np.ndarray]) -> list[np.ndarray]:
    """One step of one layer: x [B, D], state [h] or [h, c] → the new state."""
    a = x @ p[f"recurrence.weight_ih_l{layer}"].T + p[f"recurrence.bias_ih_l{layer}"]
    b = state[0] @ p[f"recurrence.weight_hh_l{layer}"].T + p[f"recurrence.bias_hh_l{layer}"]
    if cell == "lstm":
        i, f, g, o = np.split(a + b, 4, axis=1)
        c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
        return [sigmoid(o) * np.tanh(c), c]
    if cell == "gru":
        (ar, az, an), (br, bz, bn) = np.split(a, 3, axis=1), np.split(b, 3, axis=1)
        z = sigmoid(az + bz)
        return [(1 - z) * np.tanh(an + sigmoid(ar + br) * bn) + z * state[0]]
    if cell == "rnn":
        return [np.tanh(a + b)]
    return [np.where((a + b).real > 0, a + b, 0)]


def recurrent_nats(
    p: Arrays, model: RecurrentModel, ids: np.ndarray, state: list[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """ids [T+1, B], state of [L, B, H] → nats [T, B] and the state after ids[T-1]; no dropout."""
    layers = [[tensor[layer] for tensor in state] for layer in range(model.config.num_layers)]
    nats = []
    for token, target in pairwise(ids):
        x = p["embedding.weight"][token]
        for layer in range(len(layers)):
            layers[layer] = cell_step(model.config.cell, p, layer, x, layers[layer])
            x = layers[layer][0]
        nats.append(-output_log_probs(p, x, model)[np.arange(len(target)), target])
    return np.stack(nats), [np.stack(tensors) for tensors in zip(*layers, strict=True)]


def feedforward_nats(p: Arrays, model: FeedforwardModel, ids: np.ndarray, window: np.ndarray) -> np.ndarray:
    """ids [T+1, B], window [B, W] → nats [T, B], one context at a time."""
    nats = np.zeros((len(ids) - 1, ids.shape[1]), dtype=np.result_type(*p.values()))
    for lane in range(ids.shape[1]):
        history = list(window[lane])
        for t in range(len(ids) - 1):
            history = [*history[1:], ids[t, lane]]
            x = np.concatenate([p["embedding.weight"][token] for token in history])
            h = np.tanh(p["hidden.bias"] + p["hidden.weight"] @ x)
            seen = np.concatenate([h, x]) if model.config.direct else h
            nats[t, lane] = -output_log_probs(p, seen[None], model)[0, ids[t + 1, lane]]
    return nats


def assert_gradients(
    model: torch.nn.Module, loss: torch.Tensor, oracle: Callable[[Arrays], Any], terms: int
) -> None:
    """Autograd's derivative of `loss` along a random direction of each parameter is the oracle's."""
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    values = parameters_of(model)
    random = np.random.default_rng(8)
    for (name, value), gradient in zip(values.items(), gradients, strict=True):
        direction = random.standard_normal(value.shape)
        direction /= np.linalg.norm(direction)
        expected = oracle(values | {name: value + 1e-30j * direction}).imag / 1e-30
        found = float((gradient * torch.from_numpy(direction)).sum())
        allowed = tolerance(torch.float64, terms, value.size)
        assert abs(found - expected) <= allowed * (1 + abs(expected)), name


def assert_contract(
    model: Any, *, steps: int = 6, batch: int = 3, dtype: torch.dtype = torch.float64
) -> None:
    """advance = token_nats, two windows = one, a batch = its singles, sums are one, T = 0 is nothing."""
    ids, start = ids_for(model, steps, batch), busy_state(model, batch)
    allowed = tolerance(dtype, steps, len(model.vocabulary))
    with torch.no_grad():
        nats, after = model.token_nats(ids, start)
        assert nats.shape == (steps, batch)
        state, stepped = start, []
        for t in range(steps):
            state, log_probs = model.advance(state, ids[t])
            assert log_probs.shape == (batch, len(model.vocabulary))
            total = log_probs.double().exp().sum(dim=1)
            assert torch.allclose(total, torch.ones_like(total), rtol=0, atol=1e-6)
            stepped.append(-log_probs.gather(1, ids[t + 1, :, None])[:, 0])
        close = {"rtol": allowed, "atol": allowed}
        torch.testing.assert_close(nats, torch.stack(stepped), **close)
        torch.testing.assert_close(after, state, **close)
        first, middle = model.token_nats(ids[:3], start)
        second, end = model.token_nats(ids[2:], middle)
        torch.testing.assert_close(nats, torch.cat((first, second)), **close)
        torch.testing.assert_close(after, end, **close)
        for lane in range(batch):
            alone = tuple(tensor[..., lane : lane + 1, :] for tensor in start)
            own, own_after = model.token_nats(ids[:, lane : lane + 1], alone)
            torch.testing.assert_close(nats[:, lane : lane + 1], own, **close)
            kept = tuple(tensor[..., lane : lane + 1, :] for tensor in after)
            torch.testing.assert_close(kept, own_after, **close)
        nothing, same = model.token_nats(ids[:1], start)
        assert nothing.shape == (0, batch)
        assert all(torch.equal(one, other) for one, other in zip(same, start, strict=True))
