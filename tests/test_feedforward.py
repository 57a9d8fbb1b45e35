"""Bengio's model against a loop over contexts in NumPy float64; contract, dropout, storage, mutants."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elman.errors import FormatError
from elman.neural.feedforward import FeedforwardConfig, FeedforwardModel
from neural_oracle import (
    WORDS,
    assert_contract,
    assert_gradients,
    busy_state,
    drawn,
    feedforward_nats,
    ids_for,
    parameters_of,
    vocabulary,
)
from tolerance import tolerance

V, E, H = 31, 3, 7
PRODUCT = [
    {"window": window, "direct": direct, "dropout": dropout, "softmax": softmax}
    for window, direct, dropout, softmax in itertools.product(
        (1, 2, 5), (False, True), (0.0, 0.3), ("full", "adaptive")
    )
]


def make(cls: type[FeedforwardModel] = FeedforwardModel, **options) -> FeedforwardModel:
    return cls(vocabulary(V), WORDS, FeedforwardConfig(**({"embedding_size": E, "hidden_size": H} | options)))


@pytest.mark.parametrize("options", PRODUCT, ids=lambda options: "-".join(map(str, options.values())))
def test_contract(options) -> None:
    assert_contract(drawn(make(**options)))


def test_contract_in_float32() -> None:
    torch.manual_seed(1)
    assert_contract(make(direct=True).eval(), dtype=torch.float32)


def assert_agrees(model: FeedforwardModel) -> None:
    """Nats and the derivative by every parameter against the oracle, from a state that is not the start."""
    drawn(model)
    steps, batch = 6, 3
    ids, start = ids_for(model, steps, batch), busy_state(model, batch)
    window = start[0].numpy()
    weights = torch.linspace(-1, 2, steps * batch, dtype=torch.float64).view(steps, batch)
    nats, after = model.token_nats(ids, start)
    expected = feedforward_nats(parameters_of(model), model, ids.numpy(), window)
    allowed = tolerance(torch.float64, H, V)
    np.testing.assert_allclose(nats.detach().numpy(), expected, rtol=allowed, atol=allowed)
    seen = np.concatenate([window, ids[:-1].T.numpy()], axis=1)
    assert np.array_equal(after[0].numpy(), seen[:, -model.config.window :])

    def oracle(p):
        return (feedforward_nats(p, model, ids.numpy(), window) * weights.numpy()).sum()

    assert_gradients(model, (nats * weights).sum(), oracle, steps * batch * V)


@pytest.mark.parametrize("options", PRODUCT[::2], ids=lambda options: "-".join(map(str, options.values())))
def test_agrees_with_the_oracle(options) -> None:
    assert_agrees(make(**options | {"dropout": 0.0}))


class WindowReversed(FeedforwardModel):
    def _features(self, stream):
        width = self.config.window
        windows = torch.stack([stream[t : t + width].flip(0) for t in range(len(stream) - width + 1)])
        x = self.embedding(windows).transpose(1, 2).flatten(2)
        return torch.tanh(self.hidden(x))


class WindowOneTooEarly(FeedforwardModel):
    def token_nats(self, ids, state):
        stream = torch.cat((state[0].T, ids[:-1]))
        seen = self._features(stream[:-1])
        nats = self.output.token_nats(seen.flatten(0, 1), ids[1:].flatten()).view(ids[1:].shape)
        return nats, (stream[-self.config.window :].T,)


class StateOneTokenTooFar(FeedforwardModel):
    def token_nats(self, ids, state):
        nats, _ = super().token_nats(ids, state)
        return nats, (torch.cat((state[0].T, ids))[-self.config.window :].T,)


class ReluForTanh(FeedforwardModel):
    def _features(self, stream):
        width = self.config.window
        steps = len(stream) - width + 1
        embedded = self.embedding(stream)
        x = torch.cat([embedded[place : place + steps] for place in range(width)], dim=-1)
        return torch.relu(self.hidden(x))


@pytest.mark.parametrize(
    "mutant",
    [WindowReversed, WindowOneTooEarly, StateOneTokenTooFar, ReluForTanh],
    ids=lambda cls: cls.__name__,
)
def test_known_wrong_models_fail(mutant) -> None:
    with pytest.raises(AssertionError):
        assert_agrees(make(mutant, window=3))


@given(st.integers(1, 6), st.integers(1, 12), st.data())
@settings(max_examples=40, deadline=None)
def test_a_prediction_depends_on_its_window_alone(width, steps, data) -> None:
    model = drawn(make(window=width, direct=True))
    ids = ids_for(model, steps, 1)
    place = data.draw(st.integers(0, steps - 1))
    changed = ids.clone()
    changed[place] = (ids[place] + 1 + data.draw(st.integers(0, V - 2))) % V
    with torch.no_grad():
        before = model.token_nats(ids, model.start(1))[0]
        after = model.token_nats(changed, model.start(1))[0]
    # nats[t] predicts ids[t+1] from ids[t-width+1 .. t]: it may change at its target and within the window
    same = before[:, 0] == after[:, 0]
    for t in range(steps):
        touched = t == place - 1 or place <= t < place + width
        assert bool(same[t]) != touched


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(1, 7))
@settings(max_examples=25, deadline=None)
def test_any_cut_into_windows_gives_the_same_nats(cuts, width) -> None:
    model = drawn(make(window=width))
    ids = ids_for(model, sum(cuts), 2)
    with torch.no_grad():
        whole, end = model.token_nats(ids, model.start(2))
        state, first, parts = model.start(2), 0, []
        for cut in cuts:
            nats, state = model.token_nats(ids[first : first + cut + 1], state)
            parts.append(nats)
            first += cut
    allowed = tolerance(torch.float64, H, V)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=allowed, atol=allowed)
    assert torch.equal(state[0], end[0])


def test_starts_with_sentence_ends() -> None:
    assert torch.equal(make(window=4).start(2)[0], torch.full((2, 4), 1))


def test_dropout_is_off_in_evaluation_and_random_in_training() -> None:
    model = drawn(make(dropout=0.5, direct=True))
    ids, start = ids_for(model, 5, 2), model.start(2)
    with torch.no_grad():
        quiet = model.token_nats(ids, start)[0]
        assert torch.equal(quiet, model.token_nats(ids, start)[0])
        model.train()
        torch.manual_seed(3)
        noisy = model.token_nats(ids, start)[0]
        other = model.token_nats(ids, start)[0]
        torch.manual_seed(3)
        assert torch.equal(noisy, model.token_nats(ids, start)[0])
    assert not torch.equal(noisy, other)
    assert not torch.allclose(noisy, quiet)


@pytest.mark.parametrize("init", ["uniform", "orthogonal"])
def test_initialization(init) -> None:
    torch.manual_seed(2)
    model = make(init=init, init_scale=0.2, hidden_size=11)
    for name, parameter in model.named_parameters():
        if init == "uniform" or not name.startswith("hidden"):
            assert 0.2 / 3**0.5 / 2 < float(parameter.detach().std()) < 0.2
    if init == "orthogonal":
        weight = model.hidden.weight.detach()  # [11, 15]: orthonormal rows
        torch.testing.assert_close(
            weight @ weight.T, torch.eye(11), rtol=0, atol=tolerance(torch.float32, 15)
        )


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("softmax", ["full", "adaptive"])
def test_bfloat16_autocast(direct, softmax) -> None:
    torch.manual_seed(2)
    model = make(direct=direct, softmax=softmax, init_scale=0.5, dropout=0.2)
    ids = ids_for(model, 6, 3)
    with torch.autocast("cpu", torch.bfloat16):
        nats, state = model.token_nats(ids, model.start(3))
        log_probs = model.advance(state, ids[0])[1]
    nats.sum().backward()
    assert nats.dtype == log_probs.dtype == torch.float32
    np.testing.assert_allclose(log_probs.detach().double().exp().sum(dim=1), 1.0, atol=1e-6, rtol=0)


@pytest.mark.parametrize("options", PRODUCT, ids=lambda options: "-".join(map(str, options.values())))
def test_storage_keeps_every_bit(options) -> None:
    model = make(init_scale=0.3, **options).eval()
    arrays = model.arrays()
    shapes = {name: (tuple(array.shape), array.dtype) for name, array in arrays.items()}
    assert shapes == FeedforwardModel.expected_shapes(model.config_json(), V)
    assert sum(array.numel() for array in arrays.values()) == model.parameter_count
    again = FeedforwardModel.from_parts(model.config_json(), arrays, model.vocabulary, WORDS)
    ids = ids_for(model, 5, 2)
    assert torch.equal(model.token_nats(ids, model.start(2))[0], again.token_nats(ids, again.start(2))[0])


@pytest.mark.parametrize("config", [{"window": 0}, {"window": 257}, {"order": 5}, {"tied": True}])
def test_damaged_configurations_are_refused(config) -> None:
    with pytest.raises(FormatError, match="feedforward model's configuration"):
        FeedforwardModel.expected_shapes(config, V)
