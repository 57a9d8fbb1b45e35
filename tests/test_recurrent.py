"""The recurrent model: contract, oracle, dropout, initialization; each check is also run on wrong models."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from elman.neural.recurrent import GATES, RecurrentConfig, RecurrentModel
from neural_oracle import (
    WORDS,
    assert_contract,
    assert_gradients,
    busy_state,
    cell_step,
    drawn,
    ids_for,
    parameters_of,
    recurrent_nats,
    vocabulary,
)
from tolerance import tolerance

V, E, H = 29, 5, 7
CELLS = list(GATES)


def make(cls: type[RecurrentModel] = RecurrentModel, **options) -> RecurrentModel:
    sizes = {"embedding_size": H if options.get("tied") else E, "hidden_size": H}
    return cls(vocabulary(V), WORDS, RecurrentConfig(**(sizes | options)))


PRODUCT = [
    {"cell": cell, "num_layers": layers, "dropout": dropout, "softmax": softmax, "tied": tied}
    for cell, layers, dropout, (softmax, tied) in itertools.product(
        CELLS, (1, 3), (0.0, 0.4), (("full", False), ("full", True), ("adaptive", False))
    )
]


@pytest.mark.parametrize("options", PRODUCT, ids=lambda options: "-".join(map(str, options.values())))
def test_contract(options) -> None:
    assert_contract(drawn(make(**options)))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_contract_in_float32_and_on_each_backend(cell, backend) -> None:
    torch.manual_seed(1)
    assert_contract(make(cell=cell, backend=backend).eval(), dtype=torch.float32)


def assert_agrees(model: RecurrentModel) -> None:
    """Nats, final state, and the derivative by every parameter, of a loss that holds both, against NumPy."""
    drawn(model)
    steps, batch = 5, 3
    ids, start = ids_for(model, steps, batch), busy_state(model, batch)
    plain = [tensor.numpy() for tensor in start]
    weights = torch.linspace(-1, 2, steps * batch, dtype=torch.float64).view(steps, batch)

    def oracle(p):
        nats, after = recurrent_nats(p, model, ids.numpy(), plain)
        return (nats * weights.numpy()).sum() + sum(float(n + 1) * (t**2).sum() for n, t in enumerate(after))

    nats, after = model.token_nats(ids, start)
    expected, expected_after = recurrent_nats(parameters_of(model), model, ids.numpy(), plain)
    allowed = tolerance(torch.float64, steps, H, V)
    np.testing.assert_allclose(nats.detach().numpy(), expected, rtol=allowed, atol=allowed)
    for tensor, wanted in zip(after, expected_after, strict=True):
        np.testing.assert_allclose(tensor.detach().numpy(), wanted, rtol=allowed, atol=allowed)
    loss = (nats * weights).sum() + sum((n + 1) * (t**2).sum() for n, t in enumerate(after))
    assert_gradients(model, loss, oracle, steps * batch * V)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "options", [{}, {"tied": True}, {"softmax": "adaptive"}], ids=["untied", "tied", "adaptive"]
)
def test_agrees_with_the_oracle(cell, options) -> None:
    assert_agrees(make(cell=cell, num_layers=2, **options))


def assert_dropout(model: RecurrentModel) -> None:
    """Dropout: off in eval(); in train() on the embedding and before the output, never inside the recurrence.

    With one layer, the hidden states follow from the dropped embeddings without any further mask.
    """
    drawn(model)
    batch, steps = 3, 6
    ids, start = ids_for(model, steps, batch), busy_state(model, batch)
    quiet = model.token_nats(ids, start)[0]
    assert torch.equal(quiet, model.token_nats(ids, start)[0])
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []
    handle = model.dropout.register_forward_hook(
        lambda _, given, result: calls.append((given[0].detach(), result.detach()))
    )
    model.train()
    torch.manual_seed(4)
    noisy, after = model.token_nats(ids, start)
    torch.manual_seed(4)
    again = model.token_nats(ids, start)[0]
    other = model.token_nats(ids, start)[0]
    handle.remove()
    model.eval()
    assert torch.equal(noisy, again)
    assert not torch.equal(noisy, other)
    assert not torch.allclose(noisy, quiet)
    p = parameters_of(model)
    (_, embedded), (hidden, dropped) = calls[:2]
    for inside, whole in ((embedded, model.embedding(ids[:-1]).detach()), (dropped, hidden)):
        kept = inside != 0
        assert 0.2 < float(kept[whole != 0].double().mean()) < 0.9
        torch.testing.assert_close(inside, torch.where(kept, whole / (1 - model.config.dropout), 0.0))
    state = [tensor[0].numpy() for tensor in start]
    allowed = tolerance(torch.float64, steps, H, E)
    for t in range(steps):
        state = cell_step(model.config.cell, p, 0, embedded[t].numpy(), state)
        np.testing.assert_allclose(hidden[t].numpy(), state[0], rtol=allowed, atol=allowed)
    np.testing.assert_allclose(after[0][0].detach().numpy(), state[0], rtol=allowed, atol=allowed)


@pytest.mark.parametrize("cell", CELLS)
def test_dropout_is_non_recurrent(cell) -> None:
    assert_dropout(make(cell=cell, num_layers=1, dropout=0.4))


def test_dropout_stands_between_layers_too() -> None:
    model = drawn(make(num_layers=3, dropout=0.4))
    assert model.recurrence.dropout == 0.4
    model.dropout.p = 0.0  # only what is between layers is left
    ids, start = ids_for(model, 4, 2), model.start(2)
    quiet = model.token_nats(ids, start)[0]
    assert not torch.allclose(quiet, model.train().token_nats(ids, start)[0])


def assert_initialization(cls: type[RecurrentModel]) -> None:
    """Uniform draws everything, biases too; the forget bias is added once to the same draw."""
    torch.manual_seed(11)
    plain = make(cls, init_scale=0.25)
    torch.manual_seed(11)
    biased = make(cls, init_scale=0.25, forget_bias=1.5)
    for name, parameter in plain.named_parameters():
        assert float(parameter.detach().abs().max()) <= 0.25
        assert float(parameter.detach().std()) > 0.25 / 3**0.5 / 2, name
    for layer in range(2):
        names = [f"recurrence.bias_ih_l{layer}", f"recurrence.bias_hh_l{layer}"]
        before, after = (sum(model.state_dict()[name] for name in names) for model in (plain, biased))
        added = (after - before).view(4, H)
        torch.testing.assert_close(added, torch.tensor([[0.0], [1.5], [0.0], [0.0]]).expand(4, H))
    changed = {
        name
        for name, value in plain.state_dict().items()
        if not torch.equal(value, biased.state_dict()[name])
    }
    assert changed == {"recurrence.bias_ih_l0", "recurrence.bias_ih_l1"}


def test_uniform_initialization_and_forget_bias() -> None:
    assert_initialization(RecurrentModel)


@pytest.mark.parametrize("cell", CELLS)
def test_orthogonal_initialization(cell) -> None:
    model = make(cell=cell, init="orthogonal", forget_bias=1.0 if cell == "lstm" else 0.0)
    for layer in range(2):
        weights = model.state_dict()
        for gate in weights[f"recurrence.weight_hh_l{layer}"].chunk(GATES[cell]):
            allowed = tolerance(torch.float32, H)
            torch.testing.assert_close(gate @ gate.T, torch.eye(H), rtol=0, atol=allowed)
        total = weights[f"recurrence.bias_ih_l{layer}"] + weights[f"recurrence.bias_hh_l{layer}"]
        wanted = torch.zeros(GATES[cell], H)
        if cell == "lstm":
            wanted[1] = 1.0
        assert torch.equal(total.view(GATES[cell], H), wanted)
        assert float(weights[f"recurrence.weight_ih_l{layer}"].abs().max()) > 0


def assert_tied(model: RecurrentModel) -> None:
    """One parameter, one gradient from both uses; still one after a step and after storage."""
    names = dict(model.named_parameters())
    assert "output.weight" not in names
    stored = RecurrentModel.from_parts(model.config_json(), model.arrays(), model.vocabulary, WORDS)
    for each in (model, stored):
        ids = ids_for(each, 4, 2)
        each.token_nats(ids, each.start(2))[0].sum().backward()
        with torch.no_grad():
            for parameter in each.parameters():
                parameter -= 0.1 * parameter.grad
        assert torch.equal(each.output.weight, each.embedding.weight)
        assert each.output.weight is each.embedding.weight
        # a token that is never an input gets its gradient from the output side
        unseen = next(token for token in range(V) if token not in ids)
        assert float(each.embedding.weight.grad[unseen].abs().sum()) > 0


def test_tying_shares_the_weight() -> None:
    assert_tied(make(tied=True))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("softmax", ["full", "adaptive"])
@pytest.mark.parametrize("training", [False, True])
def test_bfloat16_autocast(cell, softmax, training) -> None:
    torch.manual_seed(2)
    model = make(cell=cell, softmax=softmax, init_scale=0.5).train(training)
    ids = ids_for(model, 6, 3)
    exact = model.token_nats(ids, model.start(3))[0].detach()
    with torch.autocast("cpu", torch.bfloat16):
        nats, state = model.token_nats(ids, model.start(3))
        nats, state = model.token_nats(ids, model.start(3))
        log_probs = model.advance(state, ids[0])[1]
    nats.sum().backward()
    assert {tensor.dtype for tensor in (nats, log_probs, *state)} == {torch.float32}
    np.testing.assert_allclose(log_probs.detach().double().exp().sum(dim=1), 1.0, atol=1e-6, rtol=0)
    allowed = tolerance(torch.bfloat16, 6)
    torch.testing.assert_close(nats.detach(), exact, rtol=allowed, atol=allowed)


def test_a_few_steps_of_training_learn() -> None:
    torch.manual_seed(6)
    model = make(dropout=0.1, init_scale=0.1, tied=True)
    ids = ids_for(model, 10, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = model.token_nats(ids, model.start(4))[0].mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        losses.append(loss.item())
    assert abs(losses[0] - np.log(V)) < 0.1
    assert losses[-1] < losses[0] - 0.3
