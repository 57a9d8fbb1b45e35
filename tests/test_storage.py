"""Tensor files: safetensors both ways, and every malformed one refused before anything is allocated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elman import storage
from elman.errors import FormatError


def test_tensor_files_are_safetensors(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 5),
        "b": torch.randn(7).to(torch.bfloat16),
        "c": torch.tensor(2.5, dtype=torch.float64),
        "d": torch.zeros(0, 4),
        "e": torch.arange(6)[::2],
        "rows": (whole := torch.randn(4, 3))[1:3],
        "tied": whole,
        "tied again": whole,
        "ü": torch.tensor([True, False, True]),
    }
    storage.write_tensors(tmp_path / "ours", tensors)
    theirs = safetensors.torch.load_file(tmp_path / "ours")
    safetensors.torch.save_file(
        {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()},
        tmp_path / "theirs",
    )
    ours = storage.read_tensors(tmp_path / "theirs")
    again = storage.read_tensors(tmp_path / "ours")
    assert theirs.keys() == ours.keys() == again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        for other in (theirs, ours, again):
            assert other[name].dtype == tensor.dtype
            assert torch.equal(other[name], tensor)


def test_tensors_are_read_not_mapped(tmp_path: Path) -> None:
    """What happens to the file afterwards does not reach a model in memory."""
    storage.write_tensors(tmp_path / "file", {"a": torch.arange(5000.0)})
    tensor = storage.read_tensors(tmp_path / "file")["a"]
    length = (tmp_path / "file").stat().st_size
    with (tmp_path / "file").open("r+b") as file:
        file.write(bytes(length))
    assert torch.equal(tensor, torch.arange(5000.0))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 200))
def test_no_bytes_make_the_reader_fail_in_another_way(tmp_path_factory: Any, noise: bytes, at: int) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "file"
    storage.write_tensors(path, {"a": torch.arange(5.0), "b": torch.zeros(2, 3)})
    data = path.read_bytes()
    path.write_bytes(data[:at] + noise + data[at + len(noise) :])
    causes = [str(path)]
    try:
        storage.read_tensors(path)
    except FormatError as error:
        causes = [error.cause]
    assert str(path) in causes[0]


def header(document: str, data: bytes = b"") -> bytes:
    encoded = document.encode()
    return len(encoded).to_bytes(8, "little") + encoded + data


ENTRY = '"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}'
EMPTY = ", ".join(f'"t{n}": {{"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}' for n in range(20_000))
MALFORMED: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "a header of 0 bytes in a file of 0"),
    "cut in its length": (b"\x05\0\0", "a header of 5 bytes in a file of 3"),
    "header longer than the file": (
        (1 << 40).to_bytes(8, "little") + b"{}",
        "a header of 1,099,511,627,776 bytes",
    ),
    "header not JSON": (header("{nope"), "header: not JSON"),
    "header not UTF-8": (len(b"\xff\xfe").to_bytes(8, "little") + b"\xff\xfe", "header: not JSON"),
    "header a list": (header("[]"), "header: a list instead of an object"),
    "deeply nested": (header("[" * 100_000), "header: not JSON"),
    "a name twice": (header("{" + ENTRY + ", " + ENTRY + "}", bytes(8)), "a key stands there twice"),
    "twenty thousand tensors": (header("{" + EMPTY + "}"), "20,000 tensors; at most 4,096"),
    "unknown dtype": (header("{" + ENTRY.replace("F32", "F31") + "}", bytes(8)), "unknown variant `F31`"),
    "no shape": (header('{"a": {"dtype": "F32"}}'), "missing field `shape`"),
    "negative size": (
        header("{" + ENTRY.replace("[2]", "[-2]") + "}", bytes(8)),
        "invalid value: integer `-2`",
    ),
    "true as a size": (
        header("{" + ENTRY.replace("[2]", "[true]") + "}", bytes(8)),
        "invalid type: boolean `true`",
    ),
    "sizes that multiply": (
        header("{" + ENTRY.replace("[2]", "[2000000000, 2000000000]") + "}", bytes(8)),
        "overflow computing buffer size",
    ),
    "wrong size": (
        header("{" + ENTRY.replace("[2]", "[3]") + "}", bytes(8)),
        "invalid shape, data type, or offset for tensor",
    ),
    "a dtype of no model": (
        header("{" + ENTRY.replace("F32", "C64").replace("[2]", "[1]") + "}", bytes(8)),
        "'a' has the dtype C64",
    ),
    "no data in endless rows": (
        header("{" + ENTRY.replace("[2]", f"[0, {1 << 62}]").replace("[0, 8]", "[0, 0]") + "}"),
        "sizes of 'a' are not valid",
    ),
    "cut off": (header("{" + ENTRY + "}", bytes(7)), "file not fully covered"),
    "more than described": (header("{" + ENTRY + "}", bytes(9)), "file not fully covered"),
    "a hole": (
        header("{" + ENTRY.replace("[0, 8]", "[4, 12]") + "}", bytes(12)),
        "invalid offset for tensor `a`",
    ),
    "an overlap": (
        header(
            "{" + ENTRY + ", " + ENTRY.replace('"a"', '"b"').replace("[0, 8]", "[4, 12]") + "}", bytes(12)
        ),
        "invalid offset for tensor `b`",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_tensor_files(tmp_path: Path, name: str) -> None:
    data, message = MALFORMED[name]
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(FormatError) as caught:
        storage.read_tensors(tmp_path / "file")
    assert message in caught.value.cause
    assert str(tmp_path / "file") in caught.value.cause
