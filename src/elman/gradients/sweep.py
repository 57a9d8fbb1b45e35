"""The spectral sweep: recurrent weights scaled to one spectral radius after another, gradients measured.

At rest (no input, no bias, state 0) a recurrence is its linear part, and the gradient grows by the spectral
radius of its Jacobian: for tanh that of U, so 1 is the border between vanishing and exploding. Away from
rest the slopes of the nonlinearity take their share: of weights drawn at random log ρ + ½ log mean σ'² is
left (mean field: Chen, Pennington & Schoenholz 2018). In gated cells each gate's block of U is scaled.

Drawn models only; a trained one is not scaled but read (reading.py, lag.py).
T steps, B sequences, H units and inputs, K largest lag. Logarithms in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from elman.cells.functions import Cell
from elman.errors import OptionError
from elman.gradients.bptt import bptt
from elman.gradients.clipping import Clipped, clip_by_norm, clip_by_value, observe
from elman.gradients.jacobians import spectral_radius, step_jacobian
from elman.gradients.lag import Decay, decay, mean_log
from elman.gradients.resampling import Floats
from elman.gradients.unrolling import Unrolled, backward, unroll

Progress = Callable[[int, int], None]

RADII = tuple(round(0.5 + 0.1 * k, 1) for k in range(11))
REST = 0.0
"""The scale of no input at all."""


@dataclass(frozen=True)
class SweepOptions:
    """cells       rnn_tanh, rnn_relu, gru, lstm
    hidden_size  H, of the input too
    lags         K: losses go back so far
    radii        of each gate's block of U
    inputs       standard deviations of the input: 0 is rest
    gate_bias    of the LSTM's forget gate and the GRU's update gate, which keep what was there
    clip, clip_value  thresholds: of the norm of all gradients, of each entry
    sequences, seed   how many are averaged over, and of the draws
    """

    cells: tuple[Cell, ...] = ("rnn_tanh", "gru", "lstm")
    hidden_size: int = 200
    lags: int = 200
    radii: tuple[float, ...] = RADII
    inputs: tuple[float, ...] = (REST, 0.1, 1.0)
    gate_bias: float = 0.0
    clip: float = 5.0
    clip_value: float = 0.1
    sequences: int = 8
    seed: int = 1

    def __post_init__(self) -> None:
        if self.hidden_size < 2 or self.lags < 10 or self.sequences < 1:
            raise OptionError(
                f"{self.hidden_size} units, {self.lags} lags, {self.sequences} sequences: too few.",
                remedy="give 2 units, 10 lags and 1 sequence at least.",
            )
        if not all(0 < radius <= 10 for radius in self.radii) or not all(0 <= x <= 100 for x in self.inputs):
            raise OptionError(
                f"radii {list(self.radii)} or inputs {list(self.inputs)} are out of range.",
                remedy="give radii above 0 up to 10, inputs from 0 to 100.",
            )


@dataclass(frozen=True)
class Growth:
    """cell, radius, inputs, gate_bias  what was drawn; radius: the largest of the gates' blocks of U
    norm    of U, the largest spectral norm of a gate's block: Pascanu's bound on a simple RNN's growth
    curve   [K+1] mean logarithm of |∂L/∂h_{T-k}| over that at lag 0
    rate    the line through it, without the first tenth: nats a step
    theory  logarithm of the spectral radius of the Jacobian at rest (relu: of U, all units on)
    mean_field  log ρ + ½ log mean σ'² of a simple RNN at the slopes that were met; else NaN
    by_norm, by_value  one gradient of all parameters, clipped; losses at every step, summed over time
    """

    cell: Cell
    radius: float
    inputs: float
    gate_bias: float
    norm: float
    curve: Floats
    rate: Decay
    theory: float
    mean_field: float
    by_norm: Clipped
    by_value: Clipped

    def as_json(self) -> dict[str, object]:
        """The fields by name, the curve at a few lags."""
        K = len(self.curve) - 1
        shown = [k for k in (0, 1, 2, 5, 10, 20, 30, 50, 70, 100, 150, 200, 300, 500) if k < K] + [K]
        curve = [[k, float(self.curve[k])] for k in shown]
        named = {"curve": curve, "rate": self.rate.as_json()}
        clipped = {"by_norm": dict(vars(self.by_norm)), "by_value": dict(vars(self.by_value))}
        return {**vars(self), **named, **clipped}


def sweep(options: SweepOptions | None = None, progress: Progress | None = None) -> Iterator[Growth]:
    """Every cell at every radius with every input, as they are measured.

    One draw of U serves all radii. `progress` is called with (points done, points in all). OptionError for
    an unknown cell.
    """
    o = options or SweepOptions()
    work, done = len(o.cells) * len(o.radii) * len(o.inputs), 0
    for cell in o.cells:
        drawn = _drawn(cell, o)
        for radius in o.radii:
            module = scaled(drawn, radius)
            theory = _theory(cell, module)
            for inputs in o.inputs:
                yield replace(measure(cell, module, inputs, o, theory), radius=radius)
                done += 1
                if progress is not None:
                    progress(done, work)


def at_initialization(
    options: SweepOptions | None = None, gate_biases: Sequence[float] = (), scale: float = 0.1
) -> Iterator[Growth]:
    """Every cell as a language model begins: each parameter, biases too, from U(-scale, scale) (Zaremba et
    al. 2014), not rescaled, and noise as large as an embedding from it; gated cells with every gate bias
    (none: that of the options) added, as Gers et al. (2000) and Jozefowicz et al. (2015) do.
    """
    o = options or SweepOptions()
    for cell in o.cells:
        gated = cell in ("gru", "lstm")
        for bias in (gate_biases or (o.gate_bias,)) if gated else (0.0,):
            module, random = _module(cell, o), torch.Generator().manual_seed(o.seed)
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.uniform_(-scale, scale, generator=random)
                _open(module, bias)
            found = measure(cell, module, scale / math.sqrt(3), o, _theory(cell, module))
            yield replace(found, gate_bias=bias)


def measure(cell: Cell, module: nn.RNNBase, inputs: float, o: SweepOptions, theory: float) -> Growth:
    """Gradients through one recurrence that reads Gaussian noise of the standard deviation `inputs`.

    Before the steps that are measured it reads half as many, so that the zeros it starts from are forgotten.
    """
    random = torch.Generator().manual_seed(o.seed + 1)
    steps, shape = o.lags + 1, (o.sequences, o.hidden_size)
    before, x, errors = (
        torch.randn(count, *shape, generator=random, dtype=torch.float64)
        for count in (o.lags // 2, steps, steps)
    )
    with torch.no_grad():
        _, state = module(before * inputs)
    unrolled = unroll(module, x * inputs, state if isinstance(state, tuple) else (state,))
    errors = errors / errors.norm(dim=2, keepdim=True)
    norms = last_step_norms(unrolled, errors[-1])
    curve = mean_log(norms)
    gradients = list(bptt(unrolled, errors / o.sequences).named().values())
    return Growth(
        cell=cell,
        radius=max(_blocks(module, spectral_radius)),
        inputs=inputs,
        gate_bias=o.gate_bias if cell in ("gru", "lstm") else 0.0,
        norm=max(_blocks(module, lambda u: float(torch.linalg.matrix_norm(u, 2)))),
        curve=curve - curve[0],
        rate=decay(norms, max(1, o.lags // 10), o.lags),
        theory=theory,
        mean_field=_mean_field(unrolled),
        by_norm=observe(_with(gradients), lambda p: clip_by_norm(p, o.clip)),
        by_value=observe(_with(gradients), lambda p: clip_by_value(p, o.clip_value)),
    )


def last_step_norms(unrolled: Unrolled, dlast: Tensor) -> Tensor:
    """dlast [B, H], the gradient of the last layer's last h → [B, 1, T] |∂L/∂h_{T-1-k}| of that layer."""
    doutput = torch.zeros_like(unrolled.output)
    doutput[-1] = dlast
    norms = [back.dstate[-1][0].norm(dim=1) for _, back in backward(unrolled, doutput)]
    return torch.stack(norms, dim=1)[:, None]


@torch.no_grad()
def scaled(module: nn.RNNBase, radius: float) -> nn.RNNBase:
    """The same module, each gate's block of every layer's U rescaled in place to that spectral radius."""
    for name, parameter in module.named_parameters():
        if name.startswith("weight_hh"):
            for block in _gates(parameter, module):
                block.mul_(radius / spectral_radius(block))
    return module


def radius_at_rest(module: nn.RNNBase) -> float:
    """Spectral radius of the state's Jacobian where inputs and state are zero, and biases what they are."""
    rest = unroll(module, torch.zeros(1, 1, module.input_size))
    return spectral_radius(step_jacobian(rest, 0))


def _theory(cell: Cell, module: nn.RNNBase) -> float:
    """At rest a relu has no slope; what it can grow by at most is what it would with every unit on."""
    relu = cell == "rnn_relu"
    return math.log(max(_blocks(module, spectral_radius)) if relu else radius_at_rest(module))


def _drawn(cell: Cell, o: SweepOptions) -> nn.RNNBase:
    """W and U from N(0, 1/H), so that input and state of a unit length move every sum alike; biases 0."""
    module, random = _module(cell, o), torch.Generator().manual_seed(o.seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.zero_()
            else:
                parameter.normal_(0, 1 / math.sqrt(o.hidden_size), generator=random)
        _open(module, o.gate_bias)
    return module


def _module(cell: Cell, o: SweepOptions) -> nn.RNNBase:
    made: dict[str, Callable[..., nn.RNNBase]] = {
        "rnn_tanh": nn.RNN,
        "rnn_relu": lambda *sizes, dtype: nn.RNN(*sizes, nonlinearity="relu", dtype=dtype),
        "gru": nn.GRU,
        "lstm": nn.LSTM,
    }
    if cell not in made:
        raise OptionError(f"there is no cell {cell!r}.", remedy=f"give one of {', '.join(made)}.")
    return made[cell](o.hidden_size, o.hidden_size, dtype=torch.float64)


def _open(module: nn.RNNBase, gate_bias: float) -> None:
    """Adds to the gate that keeps the old state: f, the second of i, f, g, o; z, the second of r, z, n."""
    if module.mode in ("LSTM", "GRU"):
        _gates(module.get_parameter("bias_hh_l0"), module)[1].add_(gate_bias)


def _gates(parameter: Tensor, module: nn.RNNBase) -> tuple[Tensor, ...]:
    """Views of each gate's rows."""
    return parameter.chunk(len(parameter) // module.hidden_size)


def _blocks(module: nn.RNNBase, figure: Callable[[Tensor], float]) -> list[float]:
    return [figure(block.detach()) for block in _gates(module.get_parameter("weight_hh_l0"), module)]


def _mean_field(unrolled: Unrolled) -> float:
    if not unrolled.cell.startswith("rnn"):
        return math.nan
    h, U = unrolled.output, unrolled.parameters[0].weight_hh
    slopes = (1 - h * h) if unrolled.cell == "rnn_tanh" else (h > 0).double()
    share = float((slopes * slopes).mean())
    return math.log(spectral_radius(U)) + 0.5 * math.log(share) if share > 0 else math.nan


def _with(gradients: list[Tensor]) -> list[Tensor]:
    """Parameters that hold these gradients, to be clipped."""
    parameters = [nn.Parameter(torch.empty_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    return list(parameters)
