"""elman.RNN, LSTM and GRU equal torch.nn's in every option, on every backend."""

from __future__ import annotations

import copy
import inspect
import itertools
import typing

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

import elman
import oracle
from agreement import CELLS, LAYOUTS, Case, disagreement, outcome, product, torchs
from strategies import QUICK, cases
from tolerance import error

BACKENDS = ("torch", "reference")
NAMES = ("RNN", "LSTM", "GRU")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cell", CELLS)
def test_outputs_states_and_every_gradient_are_torchs(cell: str, layout: str) -> None:
    for case in product(cell, layout):
        assert case.tolerance(torch.float64) < 1e-10
        reference = torchs(case)
        for backend, dtype in itertools.product(BACKENDS, (torch.float64, torch.float32)):
            found = disagreement(case, backend, dtype, reference)
            assert max(found.values()) <= 1, f"{case} {backend} {dtype}: {found}"


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layout", ["time first", "batch first", "packed unsorted"])
def test_dropout_between_layers_draws_as_torch_does(cell: str, layout: str) -> None:
    for training in (True, False):
        case = Case(cell, layout, layers=3, bidirectional=True, dropout=0.4, training=training)
        reference = torchs(case)
        for backend in BACKENDS:
            found = disagreement(case, backend, reference=reference)
            assert max(found.values()) <= 1, f"{case} {backend}: {found}"


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_the_oracles(cell: str, bias: bool) -> None:
    """Against NumPy from the papers and complex steps: nothing shared, not even a derivation."""
    case = Case(cell, "packed unsorted", 2, bias, bidirectional=True, T=4, B=2, D=5, H=3)
    module = case.module(elman, torch.float64)
    found = outcome(module, case)
    module.backend = "reference"
    module.zero_grad()
    slow = outcome(module, case)
    random = torch.Generator().manual_seed(7)  # the draws of `outcome`, again
    draw = lambda *shape: torch.randn(*shape, generator=random).double().numpy()  # noqa: E731
    arrays = {"x": draw(case.T, case.B, case.D)}
    parts = "hc" if cell == "lstm" else "h"
    arrays |= {part: draw(4, case.B, case.H) for part in parts}
    arrays |= {name: p.detach().numpy() for name, p in module.named_parameters()}
    upstream = [draw(*found["output"].shape)] + [draw(4, case.B, case.H) for _ in parts]
    packed = case.input(torch.zeros(case.T, case.B, case.D))
    assert isinstance(packed, PackedSequence)

    def run(a: oracle.Weights) -> list[oracle.Array]:
        outputs, lasts = [], []
        for b, length in enumerate(case.lengths().tolist()):
            state = [a[part][:, b] for part in parts]
            output, last = oracle.sequence(cell, a, a["x"][:length, b], state, layers=2, bidirectional=True)
            outputs.append(output)
            lasts.append(last)
        rows = [
            outputs[b][t]
            for t, size in enumerate(packed.batch_sizes.tolist())
            for b in packed.sorted_indices.tolist()[:size]
        ]
        return [np.array(rows), *(np.stack(s, axis=1) for s in zip(*lasts, strict=True))]

    names = ["output", *(f"last {part}" for part in parts)]
    expected = dict(zip(names, run(arrays), strict=True))
    gradients = oracle.complex_step(
        lambda a: sum((u * r).sum() for u, r in zip(upstream, run(a), strict=True)), arrays
    )
    expected |= {("dstate " if name in "hc" else "d") + name: g for name, g in gradients.items()}
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        for backend in (found, slow):
            assert error(backend[name], torch.from_numpy(value)) <= case.tolerance(torch.float64), name


@QUICK
@given(case=cases())
def test_random_shapes_and_options_agree_with_torch(case: Case) -> None:
    weights, expected = torchs(case)
    for backend in BACKENDS:
        module = case.module(elman, torch.float64, backend=backend)
        module.load_state_dict(weights)
        actual = outcome(module, case)
        for name, value in expected.items():
            assert error(actual[name], value) <= case.tolerance(torch.float64), (backend, name)


@QUICK
@given(case=cases(), backend=st.sampled_from(BACKENDS))
def test_no_state_is_zeros(case: Case, backend: str) -> None:
    module = case.module(elman, torch.float64, backend=backend)
    x = case.input(torch.randn(case.T, case.B, case.D, dtype=torch.float64))
    zero = torch.zeros(case.layers * (1 + case.bidirectional), case.B, case.H, dtype=torch.float64)
    zero = zero[:, 0] if case.layout == "unbatched" else zero
    absent, zeros = module(x), module(x, (zero, zero.clone()) if case.cell == "lstm" else zero)
    for a, b in zip(flat(absent), flat(zeros), strict=True):
        assert torch.equal(a, b)


@QUICK
@given(case=cases(layouts=("time first",), bidirectional=False), data=st.data())
def test_one_unroll_is_two_joined(case: Case, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, case.T))
    for backend in BACKENDS:
        module = case.module(elman, torch.float64, backend=backend)
        x = torch.randn(case.T + 1, case.B, case.D, dtype=torch.float64)
        whole, last = module(x)
        first, middle = module(x[:cut])
        second, end = module(x[cut:], middle)
        for a, b in zip(flat((torch.cat([first, second]), end)), flat((whole, last)), strict=True):
            assert error(a, b) <= case.tolerance(torch.float64)


@QUICK
@given(case=cases(layouts=("time first", "packed unsorted")))
def test_a_batch_is_its_sequences_one_by_one(case: Case) -> None:
    packed = case.layout == "packed unsorted"
    lengths = case.lengths().tolist() if packed else [case.T] * case.B
    sequences = [torch.randn(length, case.D, dtype=torch.float64) for length in lengths]
    for backend in BACKENDS:
        module = case.module(elman, torch.float64, backend=backend)
        module.batch_first = False
        together = pack_sequence(sequences, enforce_sorted=False) if packed else torch.stack(sequences, dim=1)
        output, last = module(together)
        output = pad_packed_sequence(output)[0] if packed else output
        for b, sequence in enumerate(sequences):
            alone, state = module(sequence)
            assert error(output[: len(sequence), b], alone) <= case.tolerance(torch.float64)
            for part, one in zip(flat((last,)), flat((state,)), strict=True):
                assert error(part[:, b], one) <= case.tolerance(torch.float64)


def flat(result: object) -> list[torch.Tensor]:
    """The tensors of (output, last state)."""
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, PackedSequence):
        return [result.data]
    return [tensor for part in result for tensor in flat(part)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_state_dicts_load_both_ways(name: str, backend: str) -> None:
    options = {"num_layers": 2, "bidirectional": True}
    theirs = getattr(nn, name)(3, 5, **options)
    ours = getattr(elman, name)(3, 5, **options, backend=backend)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict(), strict=True)
    fresh = getattr(nn, name)(3, 5, **options)
    fresh.load_state_dict(ours.state_dict(), strict=True)
    for a, b in zip(fresh.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_the_constructor_is_torchs(name: str) -> None:
    theirs = inspect.signature(typing.get_overloads(getattr(nn, name).__init__)[0]).parameters
    ours = dict(inspect.signature(getattr(elman, name).__init__).parameters)
    assert ours.pop("backend").default == "auto"
    assert ours.pop("unknown").kind == inspect.Parameter.VAR_KEYWORD  # torch.nn says what is wrong with it
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]
    for attribute in ("bias", "batch_first", "dropout", "bidirectional"):
        odd = 0.5 if attribute == "dropout" else attribute != "bias"
        assert getattr(getattr(elman, name)(3, 5, 2, **{attribute: odd}), attribute) == odd
    assert isinstance(getattr(elman, name)(3, 5), getattr(nn, name))


def test_positional_options_land_where_torchs_do() -> None:
    assert elman.RNN(3, 5, 2, "relu", False, True, 0.5, True).__dict__.items() >= {
        "mode": "RNN_RELU", "bias": False, "batch_first": True, "dropout": 0.5, "bidirectional": True
    }.items()  # fmt: skip
    assert elman.LSTM(3, 5, 2, False, True, 0.5, True, 4).proj_size == 4
    gru = elman.GRU(3, 5, 2, False, True, 0.5, True, "meta", torch.float64)
    assert gru.bidirectional
    assert gru.weight_ih_l0.device.type == "meta"
    assert gru.weight_ih_l0.dtype == torch.float64


@pytest.mark.parametrize("name", NAMES)
def test_initial_values_are_torchs(name: str) -> None:
    torch.manual_seed(3)
    theirs = getattr(nn, name)(3, 5, 2)
    torch.manual_seed(3)
    ours = getattr(elman, name)(3, 5, 2, backend="reference")
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_module_can_be_copied_converted_and_called_with_other_weights(name: str, backend: str) -> None:
    module = getattr(elman, name)(3, 5, 2, backend=backend)
    x = torch.randn(4, 2, 3)
    twin = copy.deepcopy(module)
    assert twin.backend == backend
    assert torch.equal(twin(x)[0], module(x)[0])
    with torch.no_grad():
        module.weight_hh_l0.zero_()
    assert not torch.equal(twin(x)[0], module(x)[0])
    assert module.to(torch.float64)(x.double())[0].dtype == torch.float64
    doubled = {name: 2 * p for name, p in twin.named_parameters()}
    expected = copy.deepcopy(twin)
    expected.load_state_dict(doubled)
    assert torch.equal(torch.func.functional_call(twin, doubled, x)[0], expected(x)[0])
    twin.weight_ih_l1 = nn.Parameter(torch.zeros_like(twin.weight_ih_l1))
    assert not torch.equal(twin(x)[0], getattr(elman, name).forward(module.float(), x)[0])


def test_repr_shows_the_backend() -> None:
    assert repr(elman.LSTM(3, 5, 2, bias=False)) == "LSTM(3, 5, num_layers=2, bias=False, backend=auto)"
    assert "backend=reference" in repr(elman.GRU(3, 5, backend="reference"))


def test_projections_are_torchs_and_refused_by_the_reference() -> None:
    options = {"num_layers": 2, "proj_size": 2, "bidirectional": True, "dtype": torch.float64}
    theirs, ours = nn.LSTM(3, 5, **options), elman.LSTM(3, 5, **options)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(4, 7, 3, dtype=torch.float64)
    for a, b in zip(flat(ours(x)), flat(theirs(x)), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(elman.ElmanError, match="proj_size=2"):
        elman.LSTM(3, 5, proj_size=2, backend="reference")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_tensors_of_a_wrong_shape_raise_what_torch_raises(name: str, backend: str) -> None:
    theirs, ours = getattr(nn, name)(3, 5, 2), getattr(elman, name)(3, 5, 2, backend=backend)
    h = torch.zeros(2, 7, 5)
    hx = lambda state: (state, state) if name == "LSTM" else state  # noqa: E731
    packed = pack_sequence([torch.randn(4, 3)])
    wrong = [
        (torch.randn(4, 7, 2), None),  # input size
        (torch.randn(4), None),  # one dimension
        (torch.randn(4, 7, 3).double(), None),  # dtype
        (torch.randn(4, 7, 3), hx(h[:1])),  # layers
        (torch.randn(4, 6, 3), hx(h)),  # batch
        (torch.randn(4, 3), hx(h)),  # a batch of states for one sequence
        (torch.randn(4, 7, 3), hx(h[:, 0])),  # one state for a batch
        (torch.randn(0, 7, 3), None),  # no steps
    ]
    for x, state in wrong:
        with pytest.raises((RuntimeError, ValueError)) as torchs_error:
            theirs(x, state)
        with pytest.raises(torchs_error.type):
            ours(x, state)
    with pytest.raises(RuntimeError, match="Expected hidden"):  # torch's LSTM does not look
        ours(packed, hx(h))


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_batch_gives_an_empty_output(name: str) -> None:
    for backend in BACKENDS:
        output, _ = getattr(elman, name)(3, 5, 2, backend=backend)(torch.randn(4, 0, 3))
        assert output.shape == (4, 0, 5)
