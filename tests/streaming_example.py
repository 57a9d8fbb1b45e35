"""A small recurrent model with odd sizes, and what the streaming kernels are given of it."""

from __future__ import annotations

import torch

from elman.kernels.streaming import StreamSource
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.neural.streaming import StreamingModel
from neural_oracle import WORDS, drawn, vocabulary

V, E, H = 203, 33, 37


def make(cell: str = "lstm", **options) -> RecurrentModel:
    sizes = {"embedding_size": H if options.get("tied") else E, "hidden_size": H}
    config = RecurrentConfig(cell=cell, **(sizes | options))
    model = drawn(RecurrentModel(vocabulary(V), WORDS, config)).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)  # a recurrence that forgets: no rounding error grows over many steps
    return model


def source_of(model: RecurrentModel, weights: str) -> StreamSource:
    """What a StreamingModel hands to the kernels, or the model's own weights."""
    if weights == "in_place":
        found = model._stream_source()
        assert found is not None
        return found
    return StreamingModel(model, weights)._source()
