"""The language model as an ONNX graph in ONNX Runtime: its own LSTM operator, all layers, one session.

Both packages are installed by the user (`pip install onnx onnxruntime`) and imported here only.

T steps, one stream, H hidden size, V vocabulary size.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from elman.bench.rows import Row

OPSET, IR = 17, 8


class OnnxModel:
    """ids [T, 1], state h and c [L, 1, H] → log-probabilities [T, V] (with targets nats [T]); new state."""

    def __init__(self, row: Row, weights: dict[str, Tensor], threads: int, *, nats: bool) -> None:
        runtime = importlib.import_module("onnxruntime")
        self.row, self.nats = row, nats
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # its threads spin while it works and sleep when it has done, so that they hinder nobody else
        options.add_session_config_entry("session.force_spinning_stop", "1")
        model = graph(row, weights, nats=nats).SerializeToString()
        self.session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self.session.get_outputs()]

    def __call__(self, ids: Any, state: dict[str, Any], targets: Any = None) -> tuple[Any, dict[str, Any]]:
        """NumPy in, NumPy out; the state is a dict that goes back in as it came out."""
        feeds = {"ids": ids} | state | ({"targets": targets} if self.nats else {})
        result, *after = self.session.run(self.outputs, feeds)
        return result, dict(zip(state, after, strict=True))

    def state(self, tensors: tuple[Tensor, ...]) -> dict[str, Any]:
        """(h, c) each [L, 1, H] as the session takes it."""
        h, c = tensors
        return {
            f"{part}{level}": tensor[level : level + 1].numpy()
            for level in range(self.row.layers)
            for part, tensor in (("h", h), ("c", c))
        }


def graph(row: Row, weights: dict[str, Tensor], *, nats: bool) -> Any:
    """The ONNX ModelProto of an LSTM language model."""
    onnx = importlib.import_module("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    floats, longs = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    H = row.hidden
    constants: list[Any] = []

    def constant(name: str, tensor: Tensor) -> str:
        constants.append(numpy_helper.from_array(tensor.contiguous().numpy(), name))
        return name

    def iofc(name: str) -> Tensor:  # ONNX orders the gates i, o, f, c; torch i, f, g, o
        i, f, g, o = weights[f"recurrence.{name}"].chunk(4)
        return torch.cat([i, o, f, g])

    nodes = [helper.make_node("Gather", [constant("E", weights["embedding.weight"]), "ids"], ["x"])]
    inputs = [helper.make_tensor_value_info("ids", longs, ["T", 1])]
    after = []
    squeezed, x = constant("axis", torch.tensor([1])), "x"
    for level in range(row.layers):
        parts = [constant(f"W{level}", iofc(f"weight_ih_l{level}")[None])]
        parts.append(constant(f"R{level}", iofc(f"weight_hh_l{level}")[None]))
        biases = torch.cat([iofc(f"bias_ih_l{level}"), iofc(f"bias_hh_l{level}")])
        parts.append(constant(f"B{level}", biases[None]))
        inputs += [helper.make_tensor_value_info(f"{s}{level}", floats, [1, 1, H]) for s in "hc"]
        outs = [f"y{level}", f"h{level}_after", f"c{level}_after"]
        taken = [x, *parts, "", f"h{level}", f"c{level}"]
        nodes.append(helper.make_node("LSTM", taken, outs, hidden_size=H))
        nodes.append(helper.make_node("Squeeze", [outs[0], squeezed], [f"x{level}"]))  # [T, 1, H]
        after += [helper.make_tensor_value_info(name, floats, [1, 1, H]) for name in outs[1:]]
        x = f"x{level}"
    flat = constant("flat", torch.tensor([-1, H]))
    nodes.append(helper.make_node("Reshape", [x, flat], ["rows"]))
    output = [constant("V", weights["output.weight"].T), constant("b", weights["output.bias"])]
    nodes.append(helper.make_node("Gemm", ["rows", *output], ["logits"]))
    nodes.append(helper.make_node("LogSoftmax", ["logits"], ["log_probs"], axis=-1))
    result = helper.make_tensor_value_info("log_probs", floats, ["T", row.vocabulary])
    if nats:
        inputs.append(helper.make_tensor_value_info("targets", longs, ["T", 1]))
        nodes.append(helper.make_node("GatherElements", ["log_probs", "targets"], ["chosen"], axis=1))
        nodes.append(helper.make_node("Neg", ["chosen"], ["nats"]))
        result = helper.make_tensor_value_info("nats", floats, ["T", 1])
    made = helper.make_graph(nodes, row.name, inputs, [result, *after], constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
