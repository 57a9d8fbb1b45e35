"""The pictures of `elman gradients`, three panels each: of the sweep, and of trained models.

Not here: the command (gradients.py) and its tables (gradients_display.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from elman.cli.gradients_display import ALL_PARAMETERS, NAMES, started
from elman.cli.memory import save_figure

if TYPE_CHECKING:
    from elman.gradients.flow import GradientFlow
    from elman.gradients.sweep import Growth, SweepOptions

COLOURS = ("#D55E00", "#009E73", "#0072B2", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which colour-blind readers tell apart."""
STYLES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")


def draw_sweep(o: SweepOptions, first: Sequence[Growth], points: Sequence[Growth], path: Path) -> None:
    """Norm against lag at initialization; growth against spectral radius; one step clipped."""
    import numpy as np

    figure, (lag, growth, clipping) = _panels()
    colour = {cell: COLOURS[place % len(COLOURS)] for place, cell in enumerate(o.cells)}
    biases = sorted({p.gate_bias for p in first})
    for p in first:
        label = f"{started(p)}: {np.exp(p.rate.slope.value):.2f} a step"
        style = STYLES[biases.index(p.gate_bias) % len(STYLES)]
        lag.plot(np.exp(p.curve), style, color=colour[p.cell], label=label)
    lag.set(yscale="log", xlabel="lag k, steps", ylabel="|∂L/∂h at T-k| / |∂L/∂h at T|")
    lag.set_title("Gradient norm at initialization")
    inputs = list(dict.fromkeys(p.inputs for p in points))
    for cell in o.cells:
        mine = [p for p in points if p.cell == cell]
        theory = [(p.radius, p.theory) for p in mine if p.inputs == inputs[0]]
        growth.plot(*zip(*theory, strict=True), color=colour[cell], linewidth=5, alpha=0.25)
        for style, marker, scale in zip(STYLES, "osv^", inputs, strict=False):
            here = [(p.radius, p.rate.slope.value) for p in mine if p.inputs == scale]
            growth.plot(
                *zip(*here, strict=True), style, color=colour[cell], marker=marker, markersize=3, linewidth=1
            )
    growth.axhline(0, color="0.3", linewidth=0.8)
    growth.axvline(1, color="0.3", linewidth=0.8)
    growth.set(xlabel="spectral radius of U", ylabel="growth of the norm a step, nats")
    growth.set_title("Growth against the spectral radius")
    _styles(growth, inputs)
    moving = [p for p in points if p.inputs]
    scale = min((p.inputs for p in moving), default=0.0)
    for cell in o.cells:
        chosen = [p for p in moving if p.cell == cell and p.inputs == scale]
        radii = [p.radius for p in chosen]
        clipping.plot(radii, [p.by_norm.before for p in chosen], color=colour[cell], label=NAMES[cell])
        clipping.plot(radii, [p.by_norm.after for p in chosen], "--", color=colour[cell])
    clipping.set(yscale="log", xlabel="spectral radius of U", ylabel="length of one step of SGD at rate 1")
    clipping.set_title(f"One step, and clipped to {o.clip:g} (dashed)")
    for axes in (lag, clipping):
        axes.legend(fontsize=8)
    save_figure(figure, path)


def _styles(axes: Any, inputs: Sequence[float]) -> None:
    """A legend of line styles alone; colours are the first panel's."""
    from matplotlib.lines import Line2D

    shown = [Line2D([], [], color="0.3", linewidth=5, alpha=0.25, label="theory at rest")]
    for style, marker, scale in zip(STYLES, "osv^", inputs, strict=False):
        name = f"input {scale:g}" if scale else "at rest"
        shown.append(
            Line2D([], [], color="0.3", linestyle=style, marker=marker, markersize=3, linewidth=1, label=name)
        )
    axes.legend(handles=shown, fontsize=8)


def draw_flows(found: dict[str, GradientFlow], path: Path) -> None:
    """Norm against lag in the last layer; truncation bias; largest singular value of Jacobian products."""
    import numpy as np

    figure, panels = _panels(3 if any(flow.spectra for flow in found.values()) else 2)
    lag, cut, spectrum = (*panels, None)[:3]
    for place, (name, flow) in enumerate(found.items()):
        colour = COLOURS[place % len(COLOURS)]
        for part in range(len(flow.norms.states)):
            label = f"{name}, {'hc'[part]}" if len(flow.norms.states) > 1 else name
            lag.plot(np.exp(flow.curve(-1, part)), STYLES[part], color=colour, label=label)
        biases = [bias for bias in flow.biases if bias.parameter == ALL_PARAMETERS]
        k = [bias.steps for bias in biases]
        cut.plot(
            k, [bias.cosine.value for bias in biases], color=colour, marker="o", markersize=3, label=name
        )
        cut.fill_between(
            k, [b.cosine.low for b in biases], [b.cosine.high for b in biases], color=colour, alpha=0.15, lw=0
        )
        cut.plot(k, [bias.ratio.value for bias in biases], "--", color=colour, marker="s", markersize=3)
        if spectrum is not None and flow.spectra:
            steps = [each.lag for each in flow.spectra]
            spectrum.plot(
                steps,
                [s.norm.value for s in flow.spectra],
                color=colour,
                marker="o",
                markersize=3,
                label=name,
            )
            low, high = ([getattr(s.norm, end) for s in flow.spectra] for end in ("low", "high"))
            spectrum.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    lag.set(yscale="log", xlabel="lag k, tokens", ylabel="|∂L_t/∂h_{t-k}| / |∂L_t/∂h_t|, geometric mean")
    lag.set_title("Gradient norm against lag")
    cut.set(
        xscale="log", xlabel="steps a window goes back", ylabel="cosine to the full gradient; norm dashed"
    )
    cut.set_ylim(0, 1.05)
    cut.set_title("Truncated BPTT beside full")
    if spectrum is not None:
        spectrum.set(xscale="log", yscale="log", xlabel="steps k", ylabel="largest singular value")
        spectrum.set_title("Product of k Jacobians")
    for axes in panels:
        axes.legend(fontsize=8)
    for axes in panels[1:]:
        axes.xaxis.set_major_formatter("{x:g}")
    save_figure(figure, path)


def _panels(count: int = 3) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13 * count / 3, 4.2), layout="constrained")
    panels = figure.subplots(1, count)
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.title.set_fontsize(11)
    return figure, panels
