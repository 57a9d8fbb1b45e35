"""NaN and infinity in any input come out where torch.nn has them: every kernel, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import elman
from agreement import CELLS
from elman.cells import Parameters, rnn
from elman.kernels import Pass, fused, native
from elman.kernels.output import expect_gradient, linear_nats
from elman.kernels.streaming import Drawing, Matrix, Stream
from neural_oracle import ids_for
from streaming_example import make, source_of
from tolerance import error, tolerance

pytestmark = pytest.mark.skipif(not native.available(), reason="the compiled kernels are not installed")
SETS = native.instruction_sets()
NAN, INFINITY = float("nan"), float("inf")
VALUES = (NAN, INFINITY, -INFINITY)
T, B, D, H = 4, 3, 5, 7


def pattern(tensor: Tensor) -> Tensor:
    """Of each number: 0 finite, 1 infinity, 2 -infinity, 3 NaN."""
    return tensor.isnan() * 3 + (tensor == INFINITY) * 1 + (tensor == -INFINITY) * 2


def same(ours: Tensor, theirs: Tensor, allowed: float) -> bool:
    """NaN and infinities at the same places, and what is finite equal."""
    if not torch.equal(pattern(ours), pattern(theirs)):
        return False
    return error(*(t.nan_to_num(0.0, 0.0, 0.0) for t in (ours, theirs))) <= allowed


def differing(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], dtype: torch.dtype = torch.float32
) -> list[str]:
    assert ours.keys() == theirs.keys()
    allowed = tolerance(dtype, 4 * T, 2 * 37)
    return [name for name in theirs if not same(ours[name], theirs[name], allowed)]


def spoil(tensor: Tensor, value: float, generator: torch.Generator) -> None:
    place = tuple(int(torch.randint(size, (1,), generator=generator)) for size in tensor.shape)
    tensor.data[place] = value


@pytest.fixture(params=SETS)
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    with native.instruction_set(request.param):
        yield request.param


def recurrence(
    home: Any, cell: str, where: str, value: float, seed: int, **options: Any
) -> dict[str, Tensor]:
    """Outputs and gradients of a module of two layers, or of two directions, with one number spoilt."""
    kind = "RNN" if cell.startswith("rnn") else cell.upper()
    if kind == "RNN":
        options["nonlinearity"] = cell.removeprefix("rnn_")
    both = bool(seed % 2)
    module = getattr(home, kind)(D, H, 1 if both else 2, bidirectional=both, **options)
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator) * 0.6  # noqa: E731
    for parameter in module.parameters():
        parameter.data.copy_(draw(*parameter.shape))
    x, parts = draw(T, B, D), "hc" if cell == "lstm" else "h"
    state = {f"first {part}": draw(2, B, H) for part in parts}
    upstream = {
        "doutput": draw(T, B, 2 * H if both else H),
        **{f"dlast {part}": draw(2, B, H) for part in parts},
    }
    weights = dict(module.named_parameters())
    spoil((weights | {"x": x} | state | upstream)[where], value, generator)
    leaves = {"x": x.requires_grad_(), **{k: s.requires_grad_() for k, s in state.items()}, **weights}
    hx = tuple(state.values())
    output, last = module(x, hx if cell == "lstm" else hx[0])
    results = [output, *(last if cell == "lstm" else [last])]
    gradients = torch.autograd.grad(results, list(leaves.values()), list(upstream.values()))
    named = dict(zip(["output", *(f"last {part}" for part in parts)], results, strict=True))
    return {k: v.detach() for k, v in named.items()} | dict(
        zip((f"d {name}" for name in leaves), gradients, strict=True)
    )


PLACES = ("x", "first h", "first c", "doutput", "dlast h", "dlast c",
          "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")  # fmt: skip


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("cell", CELLS)
def test_the_recurrence_has_them_where_torch_has(cell: str, where: str) -> None:
    if where.endswith(" c") and cell != "lstm":
        return
    for seed in range(4):
        for value in VALUES:
            theirs = recurrence(nn, cell, where, value, seed)
            assert not differing(recurrence(elman, cell, where, value, seed, backend="reference"), theirs)
            for name in SETS:
                with native.instruction_set(name):
                    ours = recurrence(elman, cell, where, value, seed, backend="fused")
                assert not differing(ours, theirs), (name, seed, value)


@pytest.mark.parametrize("cell", CELLS)
def test_bfloat16_has_them_where_torch_has(
    cell: str, instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two k share a word, and 7 units leave half of one to a unit that is not there."""
    monkeypatch.setattr(native, "rounds_to_bf16", lambda: True)
    for where in ("x", "first h", "weight_ih_l0", "weight_hh_l0"):
        for seed in range(4):
            for value in VALUES:
                theirs = recurrence(nn, cell, where, value, seed)
                ours = recurrence(elman, cell, where, value, seed, backend="fused")
                assert not differing(ours, theirs, torch.bfloat16), (where, seed, value)


@pytest.mark.parametrize("cell", CELLS)
def test_what_is_looked_up_has_them_where_torch_has(cell: str, instructions: str) -> None:
    """x = table[rows], each row of the table in several places; the row spoilt is read, then it is not.

    The gradient of W sums over the places of a row before it is multiplied by it: beside a place that
    counts, one that counts nothing, 0 times infinity, makes no NaN.
    """
    generator = torch.Generator().manual_seed(4)
    gates = {"lstm": 4, "gru": 3}.get(cell, 1)
    draw = lambda *shape: torch.randn(*shape, generator=generator) * 0.6  # noqa: E731
    rows = torch.randint(5, (T, B), generator=generator)
    for row in (int(rows[1, 1]), 5):
        for value in VALUES:
            table, state = draw(6, D), tuple(draw(1, B, H) for _ in range(2 if cell == "lstm" else 1))
            table[row, 2] = value
            p = [draw(gates * H, D), draw(gates * H, H), draw(gates * H), draw(gates * H)]
            leaves, upstream = [table, *state, *p], draw(T, B, H)
            for leaf in leaves:
                leaf.requires_grad_()
            hx: Any = state if cell == "lstm" else state[0]
            expected = getattr(torch, cell)(table[rows], hx, p, True, 1, 0.0, True, False, False)
            theirs = [expected[0], *torch.autograd.grad(expected[0], leaves, upstream)]
            output, _ = fused.layers(
                Pass(cell, [B] * T, False, rows),
                [Parameters(*p)],
                table,
                state,  # type: ignore[arg-type]
            )
            ours = [output, *torch.autograd.grad(output, leaves, upstream)]
            of_weight = 2 + len(state)
            for k, (a, e) in enumerate(zip(ours, theirs, strict=True)):
                kind = torch.isfinite if k == of_weight else pattern
                assert torch.equal(kind(a), kind(e)), (row, value, k)


def losses(loss: Any, where: str, value: float, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    V, N = (211, 9) if seed % 2 else (31, 45)
    inputs = {"hidden": draw(N, H), "weight": draw(V, H), "bias": draw(V), "upstream": draw(N)}
    targets = torch.randint(V, (N,), generator=generator)
    spoil(inputs[where], value, generator)
    upstream = inputs.pop("upstream")
    leaves = [tensor.requires_grad_() for tensor in inputs.values()]
    with expect_gradient(upstream):
        nats = loss(*leaves, targets)
    gradients = torch.autograd.grad(nats, leaves, upstream)
    found = {"nats": nats.detach(), **dict(zip(("d " + name for name in inputs), gradients, strict=True))}
    # a target that can never come: its part of d hidden is added on its own, so infinity may be NaN there
    rows = found["d hidden"]
    found["d hidden"] = torch.where(nats.isinf()[:, None] & ~rows.isfinite(), NAN, rows)
    return found


def torchs_losses(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(hidden @ weight.T + bias, targets, reduction="none")


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("where", ["hidden", "weight", "bias", "upstream"])
def test_the_output_layer_has_them_where_torch_has(where: str, threads: int, instructions: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for seed in range(6):
            for value in VALUES:
                theirs = losses(torchs_losses, where, value, seed)
                assert not differing(losses(linear_nats, where, value, seed), theirs), (seed, value)
    finally:
        torch.set_num_threads(before)


def test_an_infinite_gradient_of_a_mean(instructions: str) -> None:
    """One gradient for all rows, which is announced as 1: a common factor, but not of infinity."""
    generator = torch.Generator().manual_seed(2)
    tensors = [torch.randn(*shape, generator=generator) for shape in ((9, H), (31, H), (31,))]
    targets = torch.randint(31, (9,), generator=generator)
    for value in VALUES:
        both = []
        for loss in (linear_nats, torchs_losses):
            leaves = [t.clone().requires_grad_() for t in tensors]
            both.append(torch.autograd.grad(loss(*leaves, targets).sum() * value, leaves))
        assert all(torch.equal(pattern(a), pattern(e)) for a, e in zip(*both, strict=True))


@pytest.mark.parametrize("threads", [1, 3])
def test_words_that_can_never_come(threads: int, instructions: str) -> None:
    """A bias of -infinity for the first 150 words, more than a chunk holds, and for all but one."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for masked in (range(150), range(1, 211)):
            generator = torch.Generator().manual_seed(2)
            hidden, weight = (torch.randn(n, H, generator=generator) for n in (9, 211))
            bias = torch.randn(211, generator=generator)
            bias[list(masked)] = -INFINITY
            targets = torch.full((9,), 0 if masked[0] else 180)
            both = []
            for loss in (linear_nats, torchs_losses):
                leaves = [t.clone().requires_grad_() for t in (hidden, weight, bias)]
                nats = loss(*leaves, targets)
                both.append([nats, *torch.autograd.grad(nats.sum(), leaves)])
            torch.testing.assert_close(*both)
            assert bool(both[0][0].isfinite().all())
    finally:
        torch.set_num_threads(before)


def spoilt(cell: str, where: str, value: float, seed: int) -> tuple[Any, Tensor, Any]:
    """A model of two layers with one number spoilt, ids [T+1, B], a first state."""
    sizes = ({"embedding_size": D, "hidden_size": H}, {"embedding_size": 33, "hidden_size": 37})[seed % 2]
    model = make(cell, num_layers=2, **sizes)
    generator = torch.Generator().manual_seed(seed)
    ids = ids_for(model, 3, B, seed)
    state = tuple(torch.randn(s.shape, generator=generator) for s in model.start(B))
    if where == "embedding.weight":
        model.embedding.weight.data[ids[0, 1], 2] = value
    elif where.startswith("first"):
        spoil(state["hc".index(where[-1])], value, generator)
    else:
        spoil(dict(model.named_parameters())[where], value, generator)
    return model, ids, state


STREAM_PLACES = (
    "embedding.weight", "first h", "first c", "recurrence.weight_ih_l0", "recurrence.weight_hh_l1",
    "recurrence.bias_ih_l1", "recurrence.bias_hh_l0", "output.weight", "output.bias",
)  # fmt: skip


@pytest.mark.parametrize("weights", ["in_place", "float32", "bfloat16"])
@pytest.mark.parametrize("cell", ["rnn", "rnn-relu", "lstm", "gru"])
def test_the_streaming_step_has_them_where_torch_has(cell: str, weights: str, instructions: str) -> None:
    for where in STREAM_PLACES:
        if where == "first c" and cell != "lstm":
            continue
        for seed in range(2):
            for value in VALUES:
                model, ids, state = spoilt(cell, where, value, seed)
                stream = Stream(source_of(model, weights), in_place=weights == "in_place")
                (nats, after), (now, log_probs) = (
                    stream.token_nats(ids, state),
                    stream.advance(state, ids[0]),
                )
                model.double()
                with torch.no_grad():
                    wide = tuple(s.double() for s in state)
                    wanted, wanted_after = model.token_nats(ids, wide)
                    wanted_now, wanted_logs = model.advance(wide, ids[0])
                ours = {"nats": nats, "log_probs": log_probs}
                ours |= {f"after {k}": s for k, s in enumerate((*after, *now))}
                theirs = {"nats": wanted, "log_probs": wanted_logs}
                theirs |= {f"after {k}": s for k, s in enumerate((*wanted_after, *wanted_now))}
                dtype = torch.bfloat16 if weights == "bfloat16" else torch.float32
                assert not differing(ours, theirs, dtype), (where, seed, value)
                drawn = stream.draw(state, ids[0], Drawing(), torch.full((B,), 0.5).double())[1]
                assert (drawn < 0).tolist() == wanted_logs.isnan().any(1).tolist()


@pytest.mark.parametrize("cell", ["rnn", "rnn-relu", "lstm", "gru"])
def test_int8_hides_no_nan(cell: str, instructions: str) -> None:
    for where in ("embedding.weight", "first h", "first c"):
        if where == "first c" and cell != "lstm":
            continue
        model, ids, state = spoilt(cell, where, NAN, 1)
        broken = model.embedding.weight.isnan().any(1)
        model.embedding.weight.data.nan_to_num_()
        source = source_of(model, "int8")
        scale = source.embedding.scale
        assert scale is not None
        source = source.__class__(
            source.cell, Matrix(source.embedding.data, torch.where(broken, NAN, scale)), source.layers,
            source.output, source.output_bias,
        )  # fmt: skip
        nats, after = Stream(source).token_nats(ids, state)
        model.embedding.weight.data[broken] = NAN
        with torch.no_grad():
            wanted, wanted_after = model.double().token_nats(ids, tuple(s.double() for s in state))
        assert torch.equal(nats.isnan(), wanted.isnan())
        assert all(torch.equal(a.isnan(), e.isnan()) for a, e in zip(after, wanted_after, strict=True))


def test_gradients_of_an_embedding_and_norms_have_them_where_torch_has() -> None:
    generator = torch.Generator().manual_seed(6)
    tokens = torch.randint(9, (4, 11), generator=generator)
    for value in VALUES:
        doutput = torch.randn(4, 11, 6, generator=generator)
        doutput[2, 3, 1] = value
        theirs = torch.ops.aten.embedding_dense_backward(doutput, tokens, 9, -1, False)
        assert torch.equal(pattern(native.embedding_gradient(doutput, tokens, 9)), pattern(theirs))
        squares = native.sum_of_squares([doutput])
        assert torch.equal(pattern(torch.tensor(squares)), pattern(doutput.square().sum()))


def flat_at_nan(cache: Any, dstate: Any, nonlinearity: str = "tanh") -> tuple[Tensor, Tensor, Any]:
    da = torch.where(cache.h > 0, dstate[0], 0)
    return da, da, rnn.State(torch.zeros_like(da))


@pytest.mark.parametrize("where", ["weight_ih_l0", "weight_hh_l0"])
def test_a_slope_of_zero_behind_a_nan_is_caught(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rnn, "gates_backward", flat_at_nan)
    theirs = [recurrence(nn, "rnn_relu", where, NAN, seed) for seed in range(4)]
    ours = [recurrence(elman, "rnn_relu", where, NAN, seed, backend="reference") for seed in range(4)]
    assert any(differing(a, e) for a, e in zip(ours, theirs, strict=True))
