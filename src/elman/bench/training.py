"""The full training step, as Elman's loop does it and as a good PyTorch user writes it.

Every step works on the same weights, ids and first state, carries its state from window to window, and can
prove itself: `prove` runs two updates and hands out loss, gradients, states and the change of the weights.

V vocabulary size, T steps, B streams.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from elman.bench.equality import FACTOR, Outcome
from elman.bench.rows import Row
from elman.language_model import State
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.text.tokenizers import get_tokenizer
from elman.text.vocabulary import Vocabulary
from elman.text.windows import Window
from elman.training.config import TrainConfig
from elman.training.optimizer import build_optimizer
from elman.training.update import clip_gradients, window_loss

LR, CLIP = 1.0, 0.05
"""The norm is so small that every step is clipped, in the proof as in the timing."""
WINDOWS = 4
"""Windows that take turns."""


@dataclass(frozen=True)
class Task:
    """What every contender of a training row begins with: float32 weights, windows [T+1, B], first state."""

    row: Row
    weights: dict[str, Tensor]
    windows: tuple[Tensor, ...]
    state: State


class Step(Protocol):
    """One training step in two halves, so that the gradients can be seen between them."""

    def gradients(self, ids: Tensor) -> Tensor:
        """ids [T+1, B] → loss; gradients in place."""
        ...

    def update(self) -> None:
        """Clip and step."""
        ...

    def outcome(self) -> dict[str, Tensor]:
        """The parameters by the names of the task's weights, d<name> their gradients, the state."""
        ...


def vocabulary(size: int) -> Vocabulary:
    """`size` tokens that mean nothing."""
    return Vocabulary(["<unk>", "</s>", *(f"w{number}" for number in range(size - 2))], [1] * size)


def draw_ids(row: Row, streams: int, seed: int) -> Tensor:
    """ids [T+1, streams] with the frequencies of words in a text: the k-th by 1 / (k + 2.7) (Mandelbrot)."""
    random = torch.Generator().manual_seed(seed)
    frequency = 1 / (torch.arange(row.vocabulary) + 2.7)
    return torch.multinomial(frequency, (row.steps + 1) * streams, replacement=True, generator=random).view(
        row.steps + 1, streams
    )


def elman_model(row: Row) -> RecurrentModel:
    """Elman's model of a row with new weights, fast backend, in evaluation mode."""
    sizes = {"num_layers": row.layers, "hidden_size": row.hidden, "embedding_size": row.hidden}
    options: dict[str, Any] = sizes | {"cell": row.cell}
    config = RecurrentConfig(**options)
    return RecurrentModel(vocabulary(row.vocabulary), get_tokenizer("words"), config).eval()


def make_task(row: Row, seed: int = 1) -> Task:
    """Weights, ids and a first state that is not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = elman_model(row)
        state = tuple(torch.rand_like(part) - 0.5 for part in model.start(row.batch))
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    return Task(row, weights, tuple(draw_ids(row, row.batch, seed + n) for n in range(WINDOWS)), state)


class ElmanStep:
    """The pieces of `elman.train` in their order."""

    def __init__(self, task: Task, precision: Any = "fp32") -> None:
        self.model = elman_model(task.row).train()
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(task.weights[name])
        options: dict[str, Any] = {"optimizer": "sgd", "loss": "mean", "lr": LR, "clip": CLIP}
        self.config = TrainConfig(**options, precision=precision, bptt=task.row.steps)
        self.parameters = list(self.model.parameters())
        self.optimizer = build_optimizer(self.model, self.config)
        self.state = task.state

    def gradients(self, ids: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        window = Window(ids, len(ids) - 1, len(ids) - 1)
        loss, _, self.state = window_loss(self.model, window, self.state, self.config)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def update(self) -> None:
        _, clipped = clip_gradients(self.parameters, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = LR * clipped
        self.optimizer.step()

    def outcome(self) -> dict[str, Tensor]:
        return _outcome(self.model, self.state)


class PlainModel(nn.Module):
    """nn.Embedding, nn.LSTM (GRU, RNN), nn.Linear."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        kind = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[row.cell]
        self.embedding = nn.Embedding(row.vocabulary, row.hidden)
        self.recurrence = kind(row.hidden, row.hidden, row.layers)
        self.output = nn.Linear(row.hidden, row.vocabulary)

    def forward(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        """ids [T, B] → logits [T, B, V], state after them."""
        hidden, state = self.recurrence(self.embedding(ids), state)
        return self.output(hidden), state


class TorchStep:
    """What the PyTorch examples do; in float64 it is the reference."""

    def __init__(
        self,
        task: Task,
        *,
        dtype: torch.dtype = torch.float32,
        autocast: bool = False,
        compiled: bool = False,
    ) -> None:
        self.model = PlainModel(task.row).to(dtype)
        self.model.load_state_dict(task.weights, strict=True)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LR)
        state = tuple(part.to(dtype) for part in task.state)
        self.state: Any = state if task.row.cell == "lstm" else state[0]
        self.autocast = autocast
        self.criterion = nn.CrossEntropyLoss()
        self.loss: Callable[..., Any] = torch.compile(self._loss) if compiled else self._loss

    def _loss(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits, state = self.model(ids[:-1], state)
        return self.criterion(logits.flatten(0, 1), ids[1:].flatten()), state

    def gradients(self, ids: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if self.autocast else nullcontext():
            loss, state = self.loss(ids, self.state)
        self.state = tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
        loss.backward()
        return loss.detach()  # type: ignore[no-any-return]

    def update(self) -> None:
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()

    def outcome(self) -> dict[str, Tensor]:
        return _outcome(self.model, self.state if isinstance(self.state, tuple) else (self.state,))


def _outcome(model: nn.Module, state: State) -> dict[str, Tensor]:
    found = {f"state {number}": part.detach().clone() for number, part in enumerate(state)}
    for name, parameter in model.named_parameters():
        found[name] = parameter.detach().clone()
        if parameter.grad is not None:
            found[f"d{name}"] = parameter.grad.detach().to_dense().clone()
    return found


def prove(step: Step, task: Task) -> Outcome:
    """Two updates: loss, gradients and state of each window, and how the first update moved the weights."""
    first = {"loss": step.gradients(task.windows[0])} | step.outcome()
    step.update()
    found = {name: value for name, value in first.items() if name not in task.weights}
    for name, value in step.outcome().items():
        if name in task.weights:
            found[f"change of {name}"] = value.double() - task.weights[name].double()
    second = {"loss": step.gradients(task.windows[1])} | step.outcome()
    step.update()
    return found | {f"{name}, second": value for name, value in second.items() if name not in task.weights}


def rounding_of_changes(task: Task, expected: Outcome) -> dict[str, float]:
    """What may move a weight's change, absolute: its storage in float32, by half a unit in the last place,
    and the norm that clips, a float32 sum over all the parameters."""
    eps = torch.finfo(torch.float32).eps
    count = sum(weight.numel() for weight in task.weights.values())
    of_norm = FACTOR * eps * math.sqrt(count)
    return {
        f"change of {name}": eps * float(w.abs().max())
        + of_norm * float(expected[f"change of {name}"].abs().max())
        for name, w in task.weights.items()
    }


def runner(step: Step, task: Task) -> Callable[[], None]:
    """One full step on the next window."""
    turn = 0

    def run() -> None:
        nonlocal turn
        loss = step.gradients(task.windows[turn % WINDOWS])
        loss.item()  # as every loop does that prints it
        step.update()
        turn += 1

    return run


def quiet(build: Callable[[], Any]) -> Any:
    """torch.compile and JAX warn of what is none of the user's business here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build()
