"""Exporters and compilers that take seconds, compared as in test_torch_parity: ONNX, Inductor, DDP."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import nn

import elman
from test_torch_parity import B, D, First, H, T, _torch_may_warn, agree, drawn, made  # noqa: F401

pytestmark = pytest.mark.slow
compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler here")


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_onnx(name: str, dynamo: bool) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime (extra dev) is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript (extra dev) is not installed")

    def exported(home: Any, name: str) -> Any:
        module = First(made(home, name)).eval()
        file = io.BytesIO()
        if dynamo:
            torch.onnx.export(module, (drawn(seed=9),), dynamo=True, verbose=False).save(file)
        else:
            torch.onnx.export(module, (drawn(seed=9),), file, dynamo=False, input_names=["x"])
        session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {session.get_inputs()[0].name: drawn().numpy()})
        return torch.from_numpy(found), module(drawn())

    agree(exported, name)


@compiler
def test_inductor() -> None:
    def compiled(home: Any, name: str) -> Any:
        module = made(home, name)
        with torch._dynamo.config.patch(allow_rnn=True):
            output = torch.compile(module, fullgraph=True, dynamic=False)(drawn())[0]
        output.sum().backward()
        return output, [p.grad for p in module.parameters()]

    agree(compiled, "GRU")
    torch._dynamo.reset()


@compiler
def test_aot_inductor(tmp_path: Path) -> None:
    def packaged(home: Any, name: str) -> Any:
        with torch.no_grad():
            program = torch.export.export(made(home, name), (drawn(seed=9),))
            path = tmp_path / f"{home.__name__}.pt2"
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
            return torch._inductor.aoti_load_package(str(path))(drawn())

    agree(packaged, "LSTM")


def in_one_of_two(rank: int, home: str, name: str, where: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{where}/meeting", rank=rank, world_size=2
    )
    module = made(nn if home == "torch.nn" else elman, name)
    parallel = nn.parallel.DistributedDataParallel(module)
    parallel(drawn(T, B, D, seed=rank))[0].square().sum().backward()
    if rank == 0:
        gradients = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
        Path(where, "gradients").write_bytes(gradients.numpy().tobytes())
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without processes")
def test_two_processes_share_gradients(tmp_path: Path) -> None:
    def together(home: Any, name: str) -> Any:
        where = tmp_path / home.__name__
        where.mkdir()
        given = (home.__name__, name, str(where))
        torch.multiprocessing.spawn(in_one_of_two, args=given, nprocs=2)
        return torch.frombuffer(bytearray((where / "gradients").read_bytes()), dtype=torch.float32)

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    agree(together, "LSTM")


def test_the_sizes_are_unlike() -> None:
    assert len({T, B, D, H}) == 4
