"""The embedding's gradient from the compiled kernels: torch's, to the bit, for any number of threads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from elman.kernels import embedding as kernel
from elman.kernels import native
from elman.kernels.output import linear_nats
from elman.neural.embedding import Embedding
from elman.neural.recurrent import FEW_PLACES
from training_example import make_corpus, make_model

V, E = 37, 11
compiled = pytest.mark.skipif(not native.available(), reason="this installation has no compiled kernels")


def gradient(lookup: Callable[[Tensor, Tensor], Tensor], seed: int = 5) -> Tensor:
    """Of a weighted sum of what `lookup` gives for tokens [9, 7], many of them the same."""
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(V, E, generator=random).requires_grad_()
    tokens = torch.randint(0, 13, (9, 7), generator=random) * 3 % V
    (lookup(tokens, weight) * torch.randn(9, 7, E, generator=random)).sum().backward()
    assert weight.grad is not None
    return weight.grad


@compiled
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_gradient_equals_torch(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = gradient(kernel.lookup)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found, gradient(torch.nn.functional.embedding))
    assert (found == 0).all(1).any()


@compiled
def test_wrong_sums_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def every_token_once(doutput: Tensor, tokens: Tensor, size: int) -> Tensor:
        wrong = torch.zeros(size, doutput.shape[-1])
        wrong[tokens] = doutput
        return wrong

    monkeypatch.setattr(torch.ops.elman, "embedding_gradient", every_token_once)
    assert not torch.equal(gradient(kernel.lookup), gradient(torch.nn.functional.embedding))


@compiled
def test_gradient_of_the_gradient() -> None:
    weight = torch.randn(V, E).requires_grad_()
    tokens, upstream = torch.tensor([3, 4, 3]), torch.randn(3, E).requires_grad_()
    (first,) = torch.autograd.grad(
        (kernel.lookup(tokens, weight) * upstream).sum(), weight, create_graph=True
    )
    (second,) = torch.autograd.grad((first**2).sum(), upstream)
    doubled = torch.stack([upstream[0] + upstream[2], upstream[1], upstream[0] + upstream[2]])
    torch.testing.assert_close(second, 2 * doubled)


@pytest.mark.parametrize("backend", ["auto", "fused", "torch", "reference"])
def test_module_is_torch_s(backend: str) -> None:
    module = Embedding(V, E, backend=backend)
    assert list(module.state_dict()) == ["weight"]
    assert torch.equal(
        gradient(lambda t, w: torch.func.functional_call(module, {"weight": w}, t)),
        gradient(torch.nn.functional.embedding),
    )
    with pytest.raises(IndexError):
        module(torch.tensor([V]))


def test_kernel_is_used_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    whole = kernel.lookup

    def counting(tokens: Tensor, weight: Tensor) -> Tensor:
        asked.append(len(tokens))
        return whole(tokens, weight)

    monkeypatch.setattr("elman.neural.embedding.lookup", counting)
    for backend in ("torch", "reference"):
        Embedding(V, E, backend=backend)(torch.tensor([1]))
    assert not asked
    Embedding(V, E)(torch.tensor([1, 2]))
    Embedding(V, E).double()(torch.tensor([1, 2]))  # the kernels compute in float32 alone
    assert asked == ([2] if native.available() else [])


@compiled
def test_tokens_of_32_bits() -> None:
    """torch.nn.Embedding takes them, so they are widened; targets must be int64, as in torch."""
    for sparse in (False, True):
        with kernel.sparse_gradients(sparse):
            narrow = gradient(lambda t, w: kernel.lookup(t.int(), w))
        assert torch.equal(narrow.to_dense(), gradient(torch.nn.functional.embedding))
    model = make_model(make_corpus(), "lstm").eval()
    text = torch.arange(1 + FEW_PLACES).remainder(3)[:, None]
    states = [model.read(ids, model.start(1))[0] for ids in (text, text.int())]
    assert torch.equal(*states)
    with pytest.raises(ValueError, match="int64"):
        linear_nats(torch.ones(2, 3), torch.ones(5, 3), None, torch.tensor([1, 4], dtype=torch.int32))


@compiled
def test_memory_comes_back() -> None:
    """A tensor's memory is taken again once nobody holds the tensor, and never before."""
    shape = (300, 301)
    held = native.memory(shape).fill_(1.0)
    other = native.memory(shape).fill_(2.0)
    where = other.data_ptr()
    assert (held.shape, held.dtype, where % 64) == (shape, torch.float32, 0)
    view = other[3]
    del other
    third = native.memory(shape).fill_(3.0)
    assert float(view.sum()) == 2.0 * 301
    assert third.data_ptr() != where
    del view
    assert native.memory(shape).data_ptr() == where
    assert float(held.sum()) == 300 * 301


@compiled
def test_memory_that_nobody_holds_is_bounded() -> None:
    """Of windows of many sizes no more than half a gigabyte is kept, and it can be given back."""
    native.require().release_workspaces()
    for megabytes in range(40, 90, 2):
        native.memory((megabytes, 1 << 18))
    kept = native.require().release_workspaces()
    assert 1 << 26 < kept <= 1 << 29


@compiled
@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 1000])
def test_distinct_tokens_are_those_of_a_sort(size: int) -> None:
    """As torch.unique: in any layout of the ids, the smallest and the largest among them."""
    random = torch.Generator().manual_seed(size)
    shapes = ((1,), (9, 7), (40, 30), (0,), (3, 2, 5))
    texts = [torch.randint(size, shape, generator=random) for shape in shapes]
    texts += [torch.tensor([size - 1, 0, size - 1]), torch.randperm(size, generator=random)]
    texts += [texts[2].T, texts[2][::3, 1::2], texts[0].expand(5)]
    for ids in texts:
        tokens, rows = native.distinct(ids, size)
        expected = torch.unique(ids, return_inverse=True)
        assert torch.equal(tokens, expected[0])
        assert torch.equal(rows, expected[1])
        assert torch.equal(tokens[rows], ids)
        weight = torch.randn(size, E, generator=random)
        assert torch.equal(native.gather(tokens, weight), weight[tokens])


@compiled
@pytest.mark.parametrize("wrong", [-1, 5, -(2**63), 2**63 - 1])
def test_a_token_outside_the_vocabulary_is_refused(wrong: int) -> None:
    with pytest.raises(IndexError, match="outside a table of 5"):
        native.distinct(torch.tensor([[0, 4], [wrong, 1]]), 5)
    model = make_model(make_corpus(), "lstm")
    text = torch.zeros(1 + FEW_PLACES, 1, dtype=torch.int64)
    text[3] = wrong if wrong != 5 else len(model.vocabulary)
    with pytest.raises(IndexError):
        model.token_nats(text, model.start(1))


@compiled
def test_operators_say_what_they_are() -> None:
    """Schema, shapes without data, no input changed."""
    tokens, doutput = torch.tensor([[3, 1, 3], [0, 1, 1]]), torch.randn(2, 3, E)
    torch.library.opcheck(torch.ops.elman.embedding_gradient.default, (doutput, tokens, 5))
    layer = (torch.randn(3, 4), torch.randn(5, 4), torch.randn(5), torch.tensor([4, 0, 2]))
    for gradient, wanted in ((None, []), (torch.randn(3), [True, False, True])):
        torch.library.opcheck(torch.ops.elman.output_nats.default, (*layer, gradient, wanted, False))
