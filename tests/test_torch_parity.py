"""What torch.nn's modules can do here, Elman's can: one table of checks, each run on torch.nn first.

A check takes the namespace (torch.nn or elman) and the name of a class, and gives tensors on which both must
agree. Where torch.nn fails, there is nothing to be equal to, and the check is skipped with torch's own error.
Slow ones are in test_torch_compilers.py.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import elman
from tolerance import error, tolerance

T, B, D, H = 11, 3, 4, 5
NAMES = ("RNN", "LSTM", "GRU")
Check = Callable[[Any, str], Any]
CHECKS: dict[str, Check] = {}

EXCEPTIONS = {
    "quantize_dynamic": "torch.ao goes by the exact class, in its table, its configuration and from_float: "
    "an Elman module stays in float32; with `m.__class__ = torch.nn.LSTM` before, it is quantized",
}
"""Checks that torch.nn passes and Elman does not, and why."""


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def made(home: Any, name: str, *, seed: int = 1, **options: Any) -> Any:
    torch.manual_seed(seed)
    return getattr(home, name)(D, H, 2, **options)


def drawn(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*(shape or (T, B, D)), generator=torch.Generator().manual_seed(seed))


def flat(result: Any) -> list[Tensor]:
    """Every tensor of nested tuples, lists and dictionaries."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, int | float):
        return [torch.tensor(float(result))]
    inside = result.values() if isinstance(result, dict) else result
    return [tensor for part in inside for tensor in flat(part)]


@pytest.fixture(autouse=True)
def _torch_may_warn() -> Iterator[None]:
    """Of what it deprecates: jit, its quantization."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def outcome(home: Any, check: Check, name: str) -> list[Tensor] | Exception:
    try:
        return flat(check(home, name))
    except (Exception, pytest.skip.Exception) as refused:
        if isinstance(refused, pytest.skip.Exception):
            raise
        return refused


def agree(check: Check, name: str) -> None:
    theirs = outcome(nn, check, name)
    if isinstance(theirs, Exception):
        pytest.skip(f"torch.nn does not pass: {str(theirs).splitlines()[:1]}")
    assert theirs, "a check that compares nothing"
    ours = outcome(elman, check, name)
    if isinstance(ours, Exception):
        raise ours
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        assert error(a, b) <= tolerance(torch.float32, 2 * T, 2, 4 * H), f"{a} is not {b}"


class First(nn.Module):
    """The output alone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)[0]


# Traced


@check
def traced_at_another_length(home: Any, name: str) -> Any:
    torch.manual_seed(1)
    module = getattr(home, name)(4, 64)
    return torch.jit.trace(module, drawn(2000, 1, 4))(drawn(10, 1, 4))


@check
def traced_at_a_shorter_length(home: Any, name: str) -> Any:
    module, hx = made(home, name), drawn(2, B, H)
    traced = torch.jit.trace(module, (drawn(6, B, D), (hx, hx) if name == "LSTM" else hx))
    return traced(drawn(11, B, D), (hx, hx) if name == "LSTM" else hx)


@check
def scripted(home: Any, name: str) -> Any:
    module = First(made(home, name, batch_first=True))
    script = torch.jit.script(module)
    assert isinstance(script.inner, torch.jit.ScriptModule)
    return script(drawn(B, T, D)), script(drawn(B, 5, D)), module(drawn(B, T, D))


@check
def symbolically_traced(home: Any, name: str) -> Any:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = made(home, name)
            self.outer = nn.Linear(H, 2)

        def forward(self, x: Tensor, h: Tensor) -> Tensor:
            first, _ = self.inner(x)
            return self.outer(first) if name == "LSTM" else self.outer(self.inner(x, h)[0])  # type: ignore[no-any-return]

    graph = torch.fx.symbolic_trace(Model())
    assert "call_module" in {node.op for node in graph.graph.nodes if node.target == "inner"}
    return graph(drawn(), drawn(2, B, H)), graph(drawn(12, 2, D), drawn(2, 2, H))


@check
def make_fx(home: Any, name: str) -> Any:
    from torch.fx.experimental.proxy_tensor import make_fx

    module = made(home, name)
    return make_fx(lambda x: module(x)[0])(drawn(seed=9))(drawn())


@check
def functionalized(home: Any, name: str) -> Any:
    module = made(home, name)
    return torch.func.functionalize(lambda x: module(x)[0])(drawn())


# Without data


@check
def fake_tensors(home: Any, name: str) -> Any:
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        output, last = made(home, name)(torch.randn(T, B, D))
    return [torch.tensor(t.shape) for t in flat((output, last))]


@check
def meta_device(home: Any, name: str) -> Any:
    output, last = made(home, name, device="meta")(torch.randn(T, B, D, device="meta"))
    assert output.device.type == "meta"
    return [torch.tensor(t.shape) for t in flat((output, last))]


# torch.func


def loss_of(home: Any, name: str) -> tuple[Any, dict[str, Tensor]]:
    module = made(home, name)
    parameters = {key: p.detach() for key, p in module.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        output, _ = torch.func.functional_call(module, parameters, (x,))
        return output.square().sum()  # type: ignore[no-any-return]

    return loss, parameters


@check
def func_grad(home: Any, name: str) -> Any:
    loss, parameters = loss_of(home, name)
    return torch.func.grad(loss)(parameters, drawn())


@check
def func_vjp(home: Any, name: str) -> Any:
    module = made(home, name)
    output, back = torch.func.vjp(lambda x: module(x)[0], drawn())
    return output, back(drawn(T, B, H, seed=3))


@check
def func_jvp(home: Any, name: str) -> Any:
    module = made(home, name)
    return torch.func.jvp(lambda x: module(x)[0], (drawn(),), (drawn(seed=3),))


@check
def func_linearize(home: Any, name: str) -> Any:
    module = made(home, name)
    output, forward = torch.func.linearize(lambda x: module(x)[0], drawn())
    return output, forward(drawn(seed=3))


@check
def func_jacrev(home: Any, name: str) -> Any:
    module = made(home, name)
    return torch.func.jacrev(lambda x: module(x)[0].sum(0))(drawn())


@check
def func_jacfwd(home: Any, name: str) -> Any:
    module = made(home, name)
    return torch.func.jacfwd(lambda x: module(x)[0].sum(0))(drawn())


@check
def func_hessian(home: Any, name: str) -> Any:
    module = made(home, name)
    return torch.func.hessian(lambda x: module(x)[0].square().sum())(drawn(9, 1, D))


@check
def per_sample_gradients(home: Any, name: str) -> Any:
    loss, parameters = loss_of(home, name)
    return torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, drawn(4, T, B, D))


@check
def an_ensemble(home: Any, name: str) -> Any:
    modules = [made(home, name, seed=seed) for seed in range(3)]
    parameters, buffers = torch.func.stack_module_state(modules)

    def one(p: Any, b: Any, x: Tensor) -> Any:
        return torch.func.functional_call(modules[0], (p, b), (x,))[0]

    return torch.vmap(one, in_dims=(0, 0, None))(parameters, buffers, drawn())


@check
def other_weights(home: Any, name: str) -> Any:
    module = made(home, name)
    doubled = {key: 2 * p for key, p in module.named_parameters()}
    output, _ = torch.func.functional_call(module, doubled, (drawn(),))
    output.sum().backward()
    return output, [p.grad for p in module.parameters()]


# Autograd


@check
def a_batch_of_gradients(home: Any, name: str) -> Any:
    module, x = made(home, name), drawn().requires_grad_()
    several = drawn(6, T, B, H, seed=3)
    return torch.autograd.grad(module(x)[0], (x, *module.parameters()), several, is_grads_batched=True)


@check
def a_vectorized_jacobian(home: Any, name: str) -> Any:
    module = made(home, name)
    return torch.autograd.functional.jacobian(lambda x: module(x)[0].sum(0), drawn(), vectorize=True)


@check
def forward_mode(home: Any, name: str) -> Any:
    module = made(home, name)
    with torch.autograd.forward_ad.dual_level():
        x = torch.autograd.forward_ad.make_dual(drawn(), drawn(seed=3))
        return torch.autograd.forward_ad.unpack_dual(module(x)[0])


@check
def compiled_autograd(home: Any, name: str) -> Any:
    from torch._dynamo import compiled_autograd

    found = []
    for steps in (3, 4):  # 9 rows and 12: Elman's kernels compute both
        module = made(home, name)
        output = module(drawn(steps, B, D))[0]
        with compiled_autograd._enable(torch.compile(backend="eager")):
            output.square().sum().backward()
        found.append([p.grad for p in module.parameters()])
    torch._dynamo.reset()
    return found


def gradients(module: Any, output: Tensor) -> list[Tensor]:
    output.square().sum().backward()
    return [p.grad for p in module.parameters()]


@check
def checkpointed_without_reentry(home: Any, name: str) -> Any:
    module, x = made(home, name), drawn().requires_grad_()
    output = checkpoint(lambda x: module(x)[0], x, use_reentrant=False)
    return output, gradients(module, output), x.grad


@check
def checkpointed_with_reentry(home: Any, name: str) -> Any:
    module, x = made(home, name), drawn().requires_grad_()
    output = checkpoint(lambda x: module(x)[0], x, use_reentrant=True)
    return output, gradients(module, output), x.grad


@check
def checkpointed_selectively(home: Any, name: str) -> Any:
    from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

    def context() -> Any:
        return create_selective_checkpoint_contexts(lambda *_, **__: CheckpointPolicy.PREFER_RECOMPUTE)

    module, x = made(home, name), drawn().requires_grad_()
    output = checkpoint(lambda x: module(x)[0], x, use_reentrant=False, context_fn=context)
    return output, gradients(module, output), x.grad


@check
def saved_elsewhere(home: Any, name: str) -> Any:
    """As NumPy arrays at odd addresses, and read more than once."""

    def back(kept: Any) -> Tensor:
        return torch.from_numpy(kept)

    def keep(t: Tensor) -> Any:
        longer = torch.empty(t.numel() + 1, dtype=t.dtype)[1:]
        return longer.copy_(t.detach().flatten()).view(t.shape).numpy()

    module = made(home, name)
    with torch.autograd.graph.saved_tensors_hooks(keep, back):
        output = module(drawn())[0]
    output.sum().backward(retain_graph=True)
    return gradients(module, output)


@check
def saved_on_the_cpu(home: Any, name: str) -> Any:
    module = made(home, name)
    with torch.autograd.graph.save_on_cpu():
        output = module(drawn())[0]
    return gradients(module, output)


@check
def a_negated_gradient(home: Any, name: str) -> Any:
    """One that is kept as a view with a flag, as the imaginary part of a conjugate is."""
    module = made(home, name)
    output = module(drawn())[0]
    output.backward(torch._neg_view(drawn(T, B, H, seed=3)))
    return [p.grad for p in module.parameters()]


# Modules


@check
def counted_operations(home: Any, name: str) -> Any:
    from torch.utils.flop_counter import FlopCounterMode

    module = made(home, name)
    with FlopCounterMode(display=False) as counter:
        module(drawn())[0].sum().backward()
    assert counter.get_total_flops() > 0
    return counter.get_total_flops()


@check
def parametrized(home: Any, name: str) -> Any:
    module = nn.utils.parametrizations.weight_norm(made(home, name), "weight_hh_l0")
    return gradients(module, module(drawn())[0])


@check
def pruned(home: Any, name: str) -> Any:
    module = torch.nn.utils.prune.l1_unstructured(made(home, name), "weight_hh_l1", amount=0.4)
    return module(drawn())


@check
def copied_and_moved(home: Any, name: str) -> Any:
    module = copy.deepcopy(made(home, name))
    twin = getattr(home, name)(D, H, 2)
    twin.load_state_dict(module.state_dict())
    empty = getattr(home, name)(D, H, 2, device="meta").to_empty(device="cpu")
    empty.load_state_dict(module.state_dict(), assign=True)
    return module(drawn()), twin(drawn()), empty(drawn()), module.double()(drawn().double())[0].float()


@check
def of_another_class(home: Any, name: str) -> Any:
    """State and class of a torch.nn module, as those who patch a model in place do."""
    module = made(nn, name)
    fresh = getattr(home, name).__new__(getattr(home, name))
    fresh.__setstate__(module.__getstate__())
    module.__class__ = getattr(home, name)
    assert repr(module).startswith(f"{name}(4, 5, num_layers=2")
    return module(drawn()), fresh(drawn())


@check
def strides(home: Any, name: str) -> Any:
    found = []
    for options in ({}, {"batch_first": True}, {"bidirectional": True}):
        output, last = made(home, name, **options)(drawn())
        found += [torch.tensor([t.is_contiguous(), *t.stride()]) for t in flat((output, last))]
    return found


@check
def seen_by_modes(home: Any, name: str) -> Any:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert not str(function).startswith("elman"), function
            return function(*args, **(kwargs or {}))

    module = made(home, name)
    with Counting():
        return gradients(module, module(drawn())[0])


@check
def quantize_dynamic(home: Any, name: str) -> Any:
    from torch.ao.quantization import quantize_dynamic

    kinds = {getattr(nn, name), getattr(home, name)}
    quantized = quantize_dynamic(nn.Sequential(made(home, name)), kinds, dtype=torch.qint8)
    assert "Quantized" in type(quantized[0]).__name__ or "quantized" in type(quantized[0]).__module__
    return quantized(drawn())


# The compilers of torch, on their cheapest backend; the others are slow


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    yield
    torch._dynamo.reset()


@check
def compiled(home: Any, name: str) -> Any:
    module = made(home, name)
    program = torch.compile(module, backend="aot_eager")
    return program(drawn(3, B, D)), gradients(module, program(drawn(4, B, D))[0])


@check
def compiled_dynamically(home: Any, name: str) -> Any:
    module = made(home, name)
    program = torch.compile(module, backend="aot_eager", dynamic=True)
    return [program(drawn(steps, B, D)) for steps in (3, 4, 6)]


@check
def compiled_whole(home: Any, name: str) -> Any:
    module = made(home, name)
    with torch._dynamo.config.patch(allow_rnn=True):
        program = torch.compile(module, backend="aot_eager", fullgraph=True)
        return gradients(module, program(drawn(3, B, D))[0])


@check
def exported(home: Any, name: str) -> Any:
    program = torch.export.export(made(home, name), (drawn(3, B, D, seed=9),))
    assert not [n for n in program.graph.nodes if "elman" in str(n.target)]
    return program.module()(drawn(3, B, D))


@check
def exported_with_dynamic_shapes(home: Any, name: str) -> Any:
    sizes = {1: torch.export.Dim("batch", min=2, max=64)}  # torch.nn unrolls the steps
    program = torch.export.export(made(home, name), (drawn(3, B, D, seed=9),), dynamic_shapes=(sizes,))
    return [program.module()(drawn(steps, batch, D)) for steps, batch in ((3, B), (3, B + 3))]


@check
def exported_strictly(home: Any, name: str) -> Any:
    with torch._dynamo.config.patch(allow_rnn=True):
        return torch.export.export(made(home, name), (drawn(3, B, D, seed=9),), strict=True).module()(
            drawn(3, B, D)
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("which", [key for key in CHECKS if key not in EXCEPTIONS])
def test_elman_can_what_torch_can(which: str, name: str) -> None:
    agree(CHECKS[which], name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("which", EXCEPTIONS)
def test_an_exception_is_one(which: str, name: str) -> None:
    """Should it pass one day, it must leave the list."""
    if not isinstance(outcome(nn, CHECKS[which], name), Exception):
        assert isinstance(outcome(elman, CHECKS[which], name), Exception)


def test_a_module_is_quantized_as_its_namesake() -> None:
    expected = flat(quantize_dynamic(nn, "LSTM"))
    module = made(elman, "LSTM")
    module.__class__ = nn.LSTM
    quantized = torch.ao.quantization.quantize_dynamic(nn.Sequential(module), {nn.LSTM}, dtype=torch.qint8)
    for ours, theirs in zip(flat(quantized(drawn())), expected, strict=True):
        assert torch.equal(ours, theirs)
