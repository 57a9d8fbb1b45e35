"""Every gate, candidate and state of a recurrent model over a text, in float64 NumPy, a token at a time."""

from __future__ import annotations

import numpy as np

import oracle
from elman.language_model import StatePolicy
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from neural_oracle import WORDS, drawn, parameters_of, vocabulary
from table_model import random_text

TEXT = random_text(17, (3, 0, 21, 1, 6, 40, 2, 9), seed=5)
NAMES = {"lstm": "lstm", "gru": "gru", "rnn": "rnn_tanh", "rnn-relu": "rnn_relu"}
LAYERS = 2


def recurrent(cell: str, seed: int = 3) -> RecurrentModel:
    config = RecurrentConfig(cell=cell, embedding_size=5, hidden_size=7, num_layers=LAYERS, dropout=0.4)
    return drawn(RecurrentModel(vocabulary(17), WORDS, config), seed)


def expected(
    model: RecurrentModel, state: StatePolicy, ids: np.ndarray = TEXT.ids
) -> dict[tuple[int, str], np.ndarray]:
    """(layer, gate or part of the state) → [N, H], by the oracle's step and the papers' gates.

    Row by row that from which a token of ids [N] is predicted.
    """
    name, p = NAMES[model.config.cell], parameters_of(model)
    weights = {key.removeprefix("recurrence."): value for key, value in p.items()}
    steps = [oracle.cell(name, weights, f"l{layer}") for layer in range(LAYERS)]
    parts = "hc" if name == "lstm" else "h"
    rows: dict[tuple[int, str], list[np.ndarray]] = {}
    zeros = [[np.zeros(7) for _ in parts] for _ in range(LAYERS)]
    now, before = zeros, 1
    for token in ids:
        if before == 1 and state == "reset":
            now = zeros
        x = p["embedding.weight"][before]
        for layer, step in enumerate(steps):
            for gate, value in gates(name, weights, layer, x, now[layer][0]).items():
                rows.setdefault((layer, gate), []).append(value)
            now = [*now[:layer], step(x, now[layer]), *now[layer + 1 :]]
            x = now[layer][0]
            for part, value in zip(parts, now[layer], strict=True):
                rows.setdefault((layer, part), []).append(value)
        before = int(token)
    return {key: np.array(values) for key, values in rows.items()}


def gates(name: str, weights: oracle.Weights, layer: int, x: np.ndarray, h: np.ndarray) -> oracle.Weights:
    letters = oracle.GATES[name]
    W, U, b, c = (
        np.split(weights[f"{kind}_l{layer}"], len(letters))
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    one, two = ({g: m[k] @ v + a[k] for k, g in enumerate(letters)} for m, v, a in ((W, x, b), (U, h, c)))
    if name == "gru":
        r, z = (oracle.sigmoid(one[g] + two[g]) for g in "rz")
        return {"r": r, "z": z, "n": np.tanh(one["n"] + r * two["n"])}
    if name == "lstm":
        squash = {"g": np.tanh}
        return {g: squash.get(g, oracle.sigmoid)(one[g] + two[g]) for g in letters}
    return {}
