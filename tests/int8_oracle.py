"""What int8 computes, in float64: activations rounded as the kernel rounds them, everything else exact."""

from __future__ import annotations

from typing import Any

import numpy as np

from elman.language_model import State
from neural_oracle import cell_step, log_softmax


def rounded(x: np.ndarray) -> np.ndarray:
    """x [B, K] float32 → what int8 makes of it, in float64: scale · round(x / scale) in float32, by row."""
    most = np.abs(x).max(axis=1, keepdims=True)
    inverse = np.where(most > 0, np.float32(127) / np.where(most > 0, most, np.float32(1)), np.float32(0))
    return np.rint(x * inverse).astype(np.float64) * (most / np.float32(127)).astype(np.float64)


def int8_step(model: Any, p: dict, token: np.ndarray, state: State, after: State) -> tuple:
    """One step in float64 with rounded activations; a layer's input is what the kernel computed below it."""
    x = p["embedding.weight"][token].astype(np.float32)
    wanted = []
    for layer in range(model.config.num_layers):
        old = [tensor[layer].numpy() for tensor in state]
        new = rounded_cell_step(model.config.cell, p, layer, rounded(x), [rounded(old[0]), *old[1:]], old[0])
        wanted.append(new)
        x = after[0][layer].numpy()
    weight = p["embedding.weight" if model.config.tied else "output.weight"]
    return wanted, log_softmax(rounded(x) @ weight.T + p["output.bias"])


def rounded_cell_step(
    cell: str, p: dict, layer: int, x: np.ndarray, state: list[np.ndarray], h: np.ndarray
) -> list[np.ndarray]:
    if cell != "gru":
        return cell_step(cell, p, layer, x, state)
    # only the product sees the rounded h; the new state mixes in h itself
    new, rounded_h = cell_step(cell, p, layer, x, state)[0], state[0]
    H = h.shape[1]
    rows = np.s_[H : 2 * H]
    a = x @ p[f"recurrence.weight_ih_l{layer}"][rows].T + p[f"recurrence.bias_ih_l{layer}"][rows]
    b = rounded_h @ p[f"recurrence.weight_hh_l{layer}"][rows].T + p[f"recurrence.bias_hh_l{layer}"][rows]
    return [new + (h - rounded_h) / (1 + np.exp(-(a + b)))]
