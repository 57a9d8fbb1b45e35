"""What `elman gradients` prints: tables of the sweep and of trained models.

Not here: the command (gradients.py), pictures (gradients_figures.py), the measurement (gradients/).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elman.gradients.flow import GradientFlow
    from elman.gradients.resampling import Estimate
    from elman.gradients.sweep import Growth, SweepOptions

NAMES = {"rnn_tanh": "rnn", "rnn_relu": "rnn-relu", "gru": "gru", "lstm": "lstm"}
"""Of the cells, as options and tables have them."""

ALL_PARAMETERS = "all"

Rows = list[tuple[str, ...]]


def print_sweep(o: SweepOptions, first: Sequence[Growth], points: Sequence[Growth]) -> None:
    """The demonstration: at initialization, the radius swept, one step clipped."""
    _tell(
        f"Gradients of {o.hidden_size} units followed through {o.lags} steps, {o.sequences} sequences.",
        "Growth is that of the norm from one step to the one before, in nats: below 0 it vanishes,",
        "above 0 it explodes.",
    )
    print("\nAt initialization: every weight and bias from U(-0.1, 0.1), the input noise of that size")
    rows = [("cell", "radius of U", "norm of U", "growth a step", "95 %", "half-life", "theory")]
    rows += [
        (
            started(p),
            f"{p.radius:.2f}",
            f"{p.norm:.2f}",
            _nats(p.rate.slope.value),
            _range(p.rate.slope, "+.3f"),
            _steps(p.rate.half_life.value),
            _nats(p.theory),
        )
        for p in first
    ]
    print_table(rows)
    print()
    _tell(
        "The spectral radius of U swept (in gated cells of each gate's U): growth a step. Theory is the",
        "logarithm of the radius of the state's Jacobian at rest, which is that of U in the tanh RNN.",
    )
    inputs = list(dict.fromkeys(p.inputs for p in points))
    table: Rows = [
        ("cell", "radius of U", "theory", *("at rest" if not x else f"input {x:g}" for x in inputs))
    ]
    for cell, radius in dict.fromkeys((p.cell, p.radius) for p in points):
        here = [p for p in points if (p.cell, p.radius) == (cell, radius)]
        growth = [_nats(p.rate.slope.value) for p in here]
        table.append((NAMES[cell], f"{radius:g}", _nats(here[0].theory), *growth))
    print_table(table)
    _print_clipping(o, points)


def started(p: Growth) -> str:
    """A cell's name with the bias of the gate that keeps its old state, where there is one."""
    return NAMES[p.cell] + (f", gate bias {p.gate_bias:g}" if p.gate_bias else "")


def _print_clipping(o: SweepOptions, points: Sequence[Growth]) -> None:
    moving = [p for p in points if p.inputs]
    if not moving:
        return
    scale = min(p.inputs for p in moving)
    print()
    _tell(
        f"One gradient of all parameters at input {scale:g}, losses at every step: the length of a step of",
        f"SGD at rate 1 without clipping, with the norm clipped to {o.clip:g}, with every entry clipped to",
        f"{o.clip_value:g}.",
    )
    rows = [("cell", "radius of U", "clipping off", "by norm", "by value", "entries moved", "cosine")]
    rows += [
        (
            NAMES[p.cell],
            f"{p.radius:g}",
            _length(p.by_norm.before),
            _length(p.by_norm.after),
            _length(p.by_value.after),
            f"{100 * p.by_value.moved:.1f} %",
            f"{p.by_value.cosine:.3f}",
        )
        for p in moving
        if p.inputs == scale
    ]
    print_table(rows)


def print_flows(found: dict[str, GradientFlow], source: str) -> None:
    """Trained models on a text: decay by lag, truncation bias, Jacobian spectra."""
    shape = next(iter(found.values())).norms.states[0].shape
    N, _, P, lags = shape
    _tell(
        f"Gradients of {N * P:,} losses of {source}, in {N} passages, followed {lags - 1} tokens back.",
        "The norm of ∂L_t/∂h_{t-k} and ∂L_t/∂c_{t-k}: growth a step in nats, fitted over ranges of the",
        "lag k; R² is 1 for an exponential decay.",
    )
    print()
    rows = [("model", "layer", "state", "lags", "growth a step", "95 %", "factor", "half-life", "R²")]
    rows += [
        (
            name,
            str(layer + 1),
            "hc"[part],
            f"{line.first}-{line.last}",
            f"{line.slope.value:+.4f}",
            _range(line.slope, "+.4f"),
            f"{line.factor.value:.4f}",
            f"{_steps(line.half_life.value)} tokens",
            f"{line.straightness:.3f}",
        )
        for name, flow in found.items()
        for layer, part in flow.parts
        for line in flow.decays(layer, part)
    ]
    print_table(rows, left=4)
    _print_left(found)
    _print_truncation(found, lags - 1)
    _print_spectra(found)


def _print_left(found: dict[str, GradientFlow]) -> None:
    print("\nWhat is left of the norm at lag 0 of the last layer's h (geometric mean)")
    curves = {
        f"{name} {'hc'[part]}" + (f"{layer + 1}" if flow.parts[-1][0] else ""): flow.curve(layer, part)
        for name, flow in found.items()
        for layer, part in flow.parts
    }
    from elman.language_model import exponential

    K = len(next(iter(curves.values()))) - 1
    shown = [k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500) if k < K] + [K]
    rows: Rows = [("lag", *curves)]
    rows += [(f"{k}", *(f"{100 * exponential(curve[k]):.2g} %" for curve in curves.values())) for k in shown]
    print_table(rows)


def _print_truncation(found: dict[str, GradientFlow], full: int) -> None:
    print()
    _tell(
        f"Truncated BPTT, windows of k steps, beside BPTT over {full}: cosine and ratio of norms of the mean",
        "gradient of the recurrence's parameters.",
    )
    rows: Rows = [("k", *(f"{name} {what}" for name in found for what in ("cosine", "norm")))]
    steps = list(dict.fromkeys(bias.steps for flow in found.values() for bias in flow.biases))
    for k in steps:
        cells = []
        for flow in found.values():
            bias = next(b for b in flow.biases if (b.steps, b.parameter) == (k, ALL_PARAMETERS))
            cells += [
                f"{bias.cosine.value:.3f} ({_range(bias.cosine, '.3f')})",
                f"{bias.ratio.value:.2f} ({_range(bias.ratio, '.2f')})",
            ]
        rows.append((f"{k}", *cells))
    print_table(rows)


def _print_spectra(found: dict[str, GradientFlow]) -> None:
    some = {name: flow for name, flow in found.items() if flow.spectra}
    if not some:
        return
    print()
    _tell(
        "The product of the state's Jacobians over k steps: its largest singular value, in how many",
        "directions a gradient is carried (stable rank), and the bound a step from the gates of the text.",
    )
    rows: Rows = [
        ("k", *(f"{name} {what}" for name in some for what in ("norm", "directions", "bound a step")))
    ]
    for place, first in enumerate(next(iter(some.values())).spectra):
        cells = []
        for flow in some.values():
            each = flow.spectra[place]
            bound = f"{each.bound.value:.2f}" if math.isfinite(each.bound.value) else "-"
            cells += [_length(each.norm.value), f"{each.directions.value:.1f}", bound]
        rows.append((f"{first.lag}", *cells))
    print_table(rows)
    radii = ", ".join(f"{name} {flow.radius.value:.2f}" for name, flow in some.items())
    print(f"Spectral radius of one step's Jacobian: {radii}")


def _tell(*sentences: str) -> None:
    print(fill(" ".join(sentences), 100, break_on_hyphens=False))


def print_table(rows: Sequence[tuple[str, ...]], left: int = 1) -> None:
    """Aligned columns, the first `left` to the left; no colour, so that a pipe reads the same."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())


def _nats(value: float) -> str:
    return f"{value:+.3f}" if math.isfinite(value) else "-"


def _range(found: Estimate, how: str) -> str:
    return f"{found.low:{how}} to {found.high:{how}}" if math.isfinite(found.low) else "-"


def _steps(half_life: float) -> str:
    return "-" if math.isnan(half_life) else "never" if math.isinf(half_life) else f"{half_life:.1f}"


def _length(value: float) -> str:
    return f"{value:.3g}" if 1e-3 <= value < 1e4 or not value else f"{value:.1e}"
