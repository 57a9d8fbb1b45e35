"""Who takes part in a row, each proven equal before anybody is timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
import torch

from elman.bench import equality, ngram, reading, training
from elman.bench.equality import UnequalError, require_equal
from elman.bench.jax_step import JaxStep, jax_runner
from elman.bench.peers import Peer, installed
from elman.bench.rounds import Contender
from elman.bench.rows import BF16, KENLM, ONNX, TORCH, Row
from elman.kernels import native


@dataclass
class LineUp:
    """contenders, Elman's first; proofs: name → what `require_equal` found; notes: who is left out, why."""

    contenders: list[Contender] = field(default_factory=list)
    proofs: dict[str, dict[str, object]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tokens: int | None = None  # predictions of one run, where the row does not know them

    def admit(
        self,
        name: str,
        prove: Callable[[], tuple[Mapping[str, float], Callable[[], object]]],
        allowed: float,
        ours: bool = False,
    ) -> None:
        """`prove` → (errors, run). A peer that fails or is unequal is left out with a note; Elman never."""
        try:
            found, run = prove()
            proof = require_equal(name, found, allowed)
        except UnequalError as error:
            if ours:
                raise
            self.notes.append(f"{name} is left out: {error.cause}")
            return
        except Exception as error:  # a peer's failure of whatever kind is the peer's
            if ours:
                raise
            first = str(error).strip().partition("\n")[0][:200]
            self.notes.append(f"{name} is left out: {type(error).__name__}: {first}")
            return
        self.proofs[name] = proof
        self.contenders.append(Contender(name, run))


def line_up(row: Row, peers: Sequence[Peer], threads: int, bf16: bool = True) -> LineUp:
    """Everybody who takes part in `row` and is installed. UnequalError where Elman is not equal."""
    present = {peer.name for peer in peers if row.work in peer.works and installed(peer)}
    if row.work == "ngram":
        return _ngram(present)
    if row.work == "train":
        return _training(row, present, threads, bf16)
    return _reading(row, present, threads)


def _training(row: Row, peers: set[str], threads: int, bf16: bool) -> LineUp:
    task = training.make_task(row)
    expected = training.prove(training.TorchStep(task, dtype=torch.float64), task)
    slacks = training.rounding_of_changes(task, expected)
    line = LineUp()

    def proven(
        build: Callable[[], Any], runner: Callable[..., Callable[[], None]] = training.runner
    ) -> Callable[[], tuple[Mapping[str, float], Callable[[], object]]]:
        def prove() -> tuple[Mapping[str, float], Callable[[], object]]:
            def run_proof() -> tuple[Mapping[str, float], Callable[[], object]]:
                step = build()
                found = equality.errors(training.prove(step, task), expected, slacks)
                return found, runner(step, task)

            return training.quiet(run_proof)  # type: ignore[no-any-return]

        return prove

    exact = equality.float32_tolerance(row)
    line.admit("elman fp32", proven(lambda: training.ElmanStep(task)), exact, ours=True)
    line.admit(TORCH, proven(lambda: training.TorchStep(task)), exact)
    if bf16:
        rounded = proven(lambda: training.TorchStep(task, autocast=True))()
        allowed = exact + equality.bfloat16_tolerance(rounded[0])
        line.admit("elman bf16", proven(lambda: training.ElmanStep(task, "bf16")), allowed, ours=True)
        line.admit(BF16, lambda: rounded, allowed)
        if native.available() and not native.require().bf16_is_faster():
            line.notes.append(
                "elman bf16: bfloat16 is no faster than float32 on this processor; the kernels keep float32."
            )
    if "compile" in peers:
        line.admit("torch.compile fp32", proven(lambda: training.TorchStep(task, compiled=True)), exact)
    if "jax" in peers:
        line.admit("JAX fp32", proven(lambda: JaxStep(task, threads), jax_runner), exact)
    return line


def _reading(row: Row, peers: set[str], threads: int) -> LineUp:
    task = reading.reading_task(row)
    line = LineUp()
    exact, rounded = equality.float32_tolerance(row), equality.rounded_tolerance(row)
    expected = reading.said(reading.torch_reader(task, task.weights, torch.float64))

    def own(weights: Any) -> tuple[Mapping[str, float], Callable[[], object]]:
        reader = reading.elman_reader(task, weights)
        reference = reading.said(reading.torch_reader(task, reader.reference, torch.float64))
        return equality.errors(reading.said(reader.read), reference), reader.read

    def theirs(build: Callable[[], reading.Read]) -> tuple[Mapping[str, float], Callable[[], object]]:
        read = build()
        return equality.errors(reading.said(read), expected), read

    line.admit("elman fp32", lambda: own(None), exact, ours=True)
    line.admit("elman bfloat16", lambda: own("bfloat16"), rounded, ours=True)
    line.admit("elman int8", lambda: own("int8"), rounded, ours=True)
    line.admit(TORCH, lambda: theirs(lambda: reading.torch_reader(task, task.weights)), exact)
    if "onnx" in peers:
        line.admit(ONNX, lambda: theirs(lambda: reading.onnx_reader(task, threads)), exact)
    return line


def _ngram(peers: set[str]) -> LineUp:
    task = ngram.ngram_task()
    ours = ngram.elman_scores(task)
    nats = ours()
    line = LineUp(tokens=len(nats))
    # there is no torch here: whoever is right, Elman and KenLM must say the same
    line.admit(
        "elman",
        lambda: ({"perplexity is a number": 0.0 if np.isfinite(nats).all() else inf}, ours),
        0.0,
        True,
    )
    if "kenlm" in peers:
        theirs = ngram.kenlm_scores(task)
        found = equality.errors({"nats": torch.from_numpy(theirs())}, {"nats": torch.from_numpy(nats)})
        line.admit(KENLM, lambda: (found, theirs), ngram.ngram_tolerance(), ours=True)
    return line
