"""Who is there to be measured against: torch always, the others where they are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from elman.errors import OptionError


@dataclass(frozen=True)
class Peer:
    """name as on the command line; the packages it needs; where it takes part."""

    name: str
    title: str
    packages: tuple[str, ...]
    works: tuple[str, ...]
    install: str


PEERS: tuple[Peer, ...] = (
    Peer("compile", "torch.compile", (), ("train",), "a C++ compiler (Debian: apt install g++)"),
    Peer("jax", "JAX", ("jax", "jaxlib"), ("train",), "pip install jax jaxlib"),
    Peer(
        "onnx",
        "ONNX Runtime",
        ("onnx", "onnxruntime"),
        ("score", "stream"),
        "pip install onnx onnxruntime",
    ),
    Peer("kenlm", "KenLM's Python module", ("kenlm",), ("ngram",), "pip install ufal-kenlm"),
)

PYPI = {"kenlm": "ufal-kenlm"}
"""Packages that are called otherwise where they are installed from."""


def choose_peers(names: Sequence[str] | None = None) -> tuple[Peer, ...]:
    """The peers of these names, all for None; torch is always there and may be named."""
    known = {peer.name: peer for peer in PEERS}
    for name in names or ():
        if name not in known and name != "torch":
            raise OptionError(
                f"there is no peer {name!r}.", remedy=f"choose among torch, {', '.join(known)}."
            )
    return PEERS if names is None else tuple(peer for peer in PEERS if peer.name in names)


def installed(peer: Peer) -> bool:
    """Whether its packages can be found; nothing is imported."""
    return all(importlib.util.find_spec(package) is not None for package in peer.packages)


def versions(peers: Sequence[Peer]) -> dict[str, str]:
    """Package → version, torch's too."""
    found = {}
    for package in ("torch", *(PYPI.get(package, package) for peer in peers for package in peer.packages)):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
