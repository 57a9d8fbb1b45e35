"""Backpropagation through time by hand: every gradient against autograd's in float64, full and truncated."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import elman
from agreement import CELLS, Case
from elman.errors import OptionError
from elman.gradients import bptt as home
from elman.gradients.bptt import SequenceGradients, Window, bptt, truncated_bptt, windows
from elman.gradients.unrolling import Unrolled, unroll
from elman.text.corpus import Text
from elman.text.windows import carried_windows
from strategies import QUICK, shapes
from test_vanishing import EXACT, B, H, T, by_autograd, drawn, stack

Found = dict[str, Tensor]


def flat(found: SequenceGradients) -> Found:
    parts = {f"dstate {name}": part for name, part in zip("hc", found.dstate, strict=False)}
    return found.named() | {"dx": found.dx} | parts


def torchs(
    module: nn.RNNBase,
    x: Tensor,
    state: tuple[Tensor, ...],
    masks: Tensor,
    doutput: Tensor,
    over: list[Window],
    dlast: list[tuple[Tensor, ...]],
) -> Found:
    """Each window's loss by autograd, from the carried state cut from the graph: summed over windows."""
    with torch.no_grad():
        _, carried = by_autograd(module, x, state, masks)
    x = x.clone().requires_grad_()
    leaves = dict(module.named_parameters()) | {"dx": x}
    sums = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    sums |= {f"dstate {name}": torch.zeros_like(p) for name, p in zip("hc", state, strict=False)}
    for begin, scored, end in over:
        before = tuple(
            torch.stack([each[begin][part] for each in carried]).detach().requires_grad_()
            for part in range(len(state))
        )
        output, kept = by_autograd(module, x[begin:end], before, masks[:, begin:end])
        loss = (output[scored - begin :] * doutput[scored:end]).sum()
        if end == len(x):
            loss = loss + sum(
                (p * d).sum()
                for e, ds in zip(kept, dlast, strict=True)
                for p, d in zip(e[-1], ds, strict=True)
            )
        named = leaves | {f"dstate {name}": part for name, part in zip("hc", before, strict=False)}
        for name, gradient in zip(named, torch.autograd.grad(loss, list(named.values())), strict=True):
            if begin == 0 or not name.startswith("dstate"):
                sums[name] += gradient
    return sums


def example(cell: str, layers: int, **options: object) -> tuple[nn.RNNBase, tuple, Unrolled, Tensor, list]:
    module = stack(cell, layers, **options)
    x, state, masks = drawn(cell, layers, B)
    doutput = torch.randn(T, B, H, dtype=torch.float64)
    dlast = [tuple(torch.randn(B, H, dtype=torch.float64) for _ in state) for _ in range(layers)]
    return module, (x, state, masks), unroll(module, x, state, masks), doutput, dlast


def disagreement(
    cell: str,
    layers: int,
    k1: int,
    k2: int,
    ours: Callable[..., SequenceGradients] = truncated_bptt,
) -> float:
    """The largest difference from autograd over all gradients."""
    module, given, unrolled, doutput, dlast = example(cell, layers)
    mine = flat(ours(unrolled, doutput, k1, k2, dlast))
    theirs = torchs(module, *given, doutput, windows(T, k1, k2), dlast)
    assert mine.keys() == theirs.keys()
    return max(float((mine[name] - theirs[name]).abs().max()) for name in theirs)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_full_is_autograds(cell: str, layers: int) -> None:
    module, given, unrolled, doutput, dlast = example(cell, layers)
    mine = flat(bptt(unrolled, doutput, dlast))
    theirs = torchs(module, *given, doutput, [Window(0, 0, T)], dlast)
    assert mine.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert torch.allclose(mine[name], gradient, rtol=0, atol=EXACT), name
        assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (2, 2), (4, 4), (2, 5), (1, 3), (4, 6)])
@pytest.mark.parametrize("cell", CELLS)
def test_truncated_is_autograds_with_the_state_detached(cell: str, k1: int, k2: int) -> None:
    assert disagreement(cell, 2, k1, k2) < EXACT


@pytest.mark.parametrize("cell", CELLS)
def test_truncation_at_the_whole_length_is_none(cell: str) -> None:
    _, _, unrolled, doutput, dlast = example(cell, 2)
    full = flat(bptt(unrolled, doutput, dlast))
    for k1, k2 in ((T, T), (1, T), (4, T + 3), (T + 2, T + 2)):
        cut = flat(truncated_bptt(unrolled, doutput, k1, k2, dlast))
        for name, gradient in full.items():
            assert torch.allclose(cut[name], gradient, rtol=0, atol=EXACT), (k1, k2, name)
    short = flat(truncated_bptt(unrolled, doutput, 3, dlast=dlast))
    assert not torch.allclose(short["weight_hh_l0"], full["weight_hh_l0"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_a_module_of_torch_without_biases(cell: str) -> None:
    module, (x, state, _), _, doutput, _ = example(cell, 2, home=nn, bias=False)
    ones = torch.ones(1, T, B, H, dtype=torch.float64)
    output, _ = module(x, state if len(state) == 2 else state[0])
    (output * doutput).sum().backward()
    mine = bptt(unroll(module, x, state, ones), doutput).named()
    assert mine.keys() == {name for name, _ in module.named_parameters()}
    for name, parameter in module.named_parameters():
        assert torch.allclose(mine[name], parameter.grad, rtol=0, atol=EXACT), name


def test_the_windows_are_those_of_training() -> None:
    ids = np.arange(2, 14, dtype=np.int32)
    one = np.ones(1, dtype=np.int32)
    for k1, k2 in product((1, 3, 4), (4, 6, 20)):
        starts, scored, begin = [], [], 0
        cut = carried_windows(Text(ids, one, one), batch_size=1, bptt=k2, update_interval=k1)
        for window in (cut[place] for place in range(len(cut))):
            starts.append(begin)
            scored.append(window.scored)
            begin += window.advance
        mine = windows(len(ids), k1, k2)
        assert [w.begin for w in mine] == starts
        assert [w.end - w.scored for w in mine] == scored


def forgets_the_cell(unrolled, doutput, k1, k2, dlast):
    """The carried c's gradient is dropped at every step."""
    right = home.step_back

    def wrong(*args, **kwargs):
        back = right(*args, **kwargs)
        return back._replace(dprev=[(h, *(torch.zeros_like(c) for c in cs)) for h, *cs in back.dprev])

    home.step_back = wrong
    try:
        return truncated_bptt(unrolled, doutput, k1, k2, dlast)
    finally:
        home.step_back = right


def forgets_to_carry(unrolled, doutput, k1, k2, dlast):
    """Every window starts from zeros: the carried state is forgotten."""
    from dataclasses import replace

    states = [part.clone() for part in unrolled.states]
    caches = [list(layer) for layer in unrolled.caches]
    for begin in {w.begin for w in windows(unrolled.steps, k1, k2)} - {0}:
        for layer in range(unrolled.layers):
            states[0][layer, begin] = 0
            caches[layer][begin] = caches[layer][begin]._replace(
                h_prev=torch.zeros_like(caches[layer][begin].h_prev)
            )
    lost = replace(unrolled, states=tuple(states), caches=tuple(tuple(layer) for layer in caches))
    return truncated_bptt(lost, doutput, k1, k2, dlast)


def off_by_one(unrolled, doutput, k1, k2, dlast):
    """Every window goes a step further back than asked."""
    return truncated_bptt(unrolled, doutput, k1, k2 + 1, dlast)


def scores_the_overlap_again(unrolled, doutput, k1, k2, dlast):
    """Losses of all k2 steps go back in every window."""
    over = [Window(w.begin, w.begin, w.end) for w in windows(unrolled.steps, k1, k2)]
    return home.gradients(unrolled, home.deltas(unrolled, doutput, over, dlast))


def drops_the_last_state(unrolled, doutput, k1, k2, dlast):
    return truncated_bptt(unrolled, doutput, k1, k2)


@pytest.mark.parametrize(
    "mutant",
    [forgets_the_cell, forgets_to_carry, off_by_one, scores_the_overlap_again, drops_the_last_state],
    ids=lambda mutant: mutant.__name__,
)
def test_known_wrong_versions_are_caught(mutant: Callable[..., SequenceGradients]) -> None:
    assert disagreement("lstm", 2, 2, 4) < EXACT
    assert disagreement("lstm", 2, 2, 4, mutant) > 1e-4


def test_mistakes() -> None:
    _, _, unrolled, doutput, _ = example("gru", 2)
    for k1, k2 in ((0, 0), (3, 2), (-1, 4)):
        with pytest.raises(OptionError, match="cannot go"):
            truncated_bptt(unrolled, doutput, k1, k2)
    with pytest.raises(OptionError, match="doutput has the shape"):
        bptt(unrolled, doutput[1:])


def test_elmans_own_module_trains_the_same_way() -> None:
    """The backward pass behind elman.LSTM, that of every update, is the pass by hand."""
    module, (x, state, _), _, doutput, _ = example("lstm", 2, home=elman)
    output, _ = module(x, state)
    (output * doutput).sum().backward()
    for name, gradient in bptt(unroll(module, x, state), doutput).named().items():
        assert torch.allclose(gradient, module.get_parameter(name).grad, rtol=0, atol=EXACT), name


@QUICK
@given(
    cell=st.sampled_from(CELLS),
    layers=st.integers(1, 3),
    bias=st.booleans(),
    sizes=shapes(),
    k=st.integers(1, 9),
)
def test_any_module_of_torch_of_any_size(
    cell: str, layers: int, bias: bool, sizes: dict[str, int], k: int
) -> None:
    """Full BPTT is autograd's; windows of k that of a loop that detaches the state it hands on."""
    torch.manual_seed(sum(sizes.values()))
    module = Case(cell, layers=layers, bias=bias, **sizes).module(nn, torch.float64)
    x = torch.randn(sizes["T"], sizes["B"], sizes["D"], dtype=torch.float64)
    doutput = torch.randn(sizes["T"], sizes["B"], sizes["H"], dtype=torch.float64)
    unrolled = unroll(module, x)
    for length, mine in ((sizes["T"], bptt(unrolled, doutput)), (k, truncated_bptt(unrolled, doutput, k))):
        module.zero_grad()
        state = None
        for part, gradient in zip(x.split(length), doutput.split(length), strict=True):
            output, state = module(part, state)
            (output * gradient).sum().backward()
            state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        for name, gradient in mine.named().items():
            assert torch.allclose(gradient, module.get_parameter(name).grad, rtol=0, atol=EXACT), name
