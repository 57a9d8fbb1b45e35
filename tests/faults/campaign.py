"""`make faults`: kills, failing calls and resumed runs; results/faults.json. A share of it runs in the tests.

PYTHONPATH=tests python -m faults.campaign [--share 1.0] [--seed 1] [--record results/faults.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from faults.server import KINDS, preload, prepare, trial

KILLS, RESUMES = 1100, 1100


class Tally:
    """Counts by what was done, and what went wrong."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.began = self.told = time.monotonic()

    def note(self, what: str, wrong: list[str]) -> None:
        self.counts[what] += 1
        self.wrong += [f"{what}: {each}" for each in wrong]
        for each in wrong:
            print(f"WRONG {what}: {each}", flush=True)
        if time.monotonic() - self.told > 20:
            self.told = time.monotonic()
            print(f"{self.told - self.began:6.0f} s  {self.counts.total():,} trials", flush=True)


def failing_calls(
    place: Path, share: float, draw: random.Random, tally: Tally, every_kind: bool
) -> dict[str, int]:
    """Each writing call of each verb fails, the ways in turn or each way; `share` of them."""
    from faults.scenes import SCENES, content, faults, fresh

    old_place, calls, names = place / "template", {}, Counter[str]()
    for scene in SCENES:
        folder = fresh(old_place, place / "clean")
        old = content(folder, scene)
        clean = trial(scene.arguments, folder)
        assert clean.status == 0, f"{scene.name}: {clean.told}"
        new, calls[scene.name] = content(folder, scene), clean.calls
        kinds = [kind for kind in KINDS if kind != "SIGKILL"]
        for at in range(1, clean.calls + 1):
            first = (at + len(calls)) % len(kinds)
            for kind in kinds if every_kind else kinds[first : first + 1]:
                if draw.random() >= share:
                    continue
                folder = fresh(old_place, place / "trial")
                done = trial(scene.arguments, folder, at=at, kind=kind)
                names[done.failed] += 1
                where = f"{scene.name}, {kind} at call {at} ({done.failed})"
                tally.note(
                    f"failing calls: {kind}", [f"{where}: {w}" for w in faults(scene, folder, done, old, new)]
                )
    return calls | {f"failed {name or 'nothing'}": count for name, count in sorted(names.items())}


def killed(place: Path, share: float, draw: random.Random, tally: Tally) -> None:
    """SIGKILL at a random moment or at a writing call; trainings go on until they are done."""
    from elman.checkpoint import load_checkpoint
    from elman.run_folder import is_run
    from faults.scenes import CELLS, SCENES, content, faults, fresh, training
    from training_example import final_state, same

    old_place, wanted = place / "template", int(KILLS * share)
    whole: dict[str, Any] = {}
    lengths: dict[str, tuple[float, int]] = {}
    writing = [scene for scene in SCENES if scene.targets]
    kills = turn = 0
    while kills < wanted:
        turn += 1
        by_call = draw.random() < 0.5
        if turn % 2:
            scene = writing[(turn // 2) % len(writing)]
            if scene.name not in lengths:
                folder = fresh(old_place, place / "clean")
                clean = trial(scene.arguments, folder)
                lengths[scene.name] = clean.seconds, clean.calls
                whole[scene.name] = content(folder, scene)
            folder = fresh(old_place, place / "trial")
            old = content(folder, scene)
            seconds, calls = lengths[scene.name]
            how: dict[str, Any] = {"kill_after": draw.uniform(0, seconds)}
            if by_call:
                how = {"at": draw.randint(1, max(1, calls)), "kind": "SIGKILL"}
            done = trial(scene.arguments, folder, **how)
            if done.status is None:
                kills += 1
                wrong = faults(scene, folder, done, old, whole[scene.name])
                again = trial(scene.arguments, folder)  # what a user does next
                if again.status != 0 and "is not empty" not in again.told:
                    wrong.append(f"afterwards: exit status {again.status}: {again.told[-300:]}")
                tally.note("kills of other verbs", [f"{scene.name}, {how}: {each}" for each in wrong])
            continue
        cell = CELLS[(turn // 2) % len(CELLS)]
        arguments = training(cell, "--epochs=2", "--save-every=2", "--save=killed", "--resume")
        if cell not in whole:
            folder = fresh(old_place, place / "clean")
            clean = trial(arguments, folder)
            assert clean.status == 0, clean.told
            whole[cell], lengths[cell] = final_state(folder / "killed"), (clean.seconds, clean.calls)
        folder = fresh(old_place, place / "trial")
        seconds, calls = lengths[cell]
        reached, wrong = 0, []
        for _ in range(4):
            how = {"kill_after": draw.uniform(0, seconds)}
            if draw.random() < 0.5:
                how = {"at": draw.randint(1, calls), "kind": "SIGKILL"}
            done = trial(arguments, folder, **how)
            if done.status is not None:
                break
            kills += 1
            if is_run(folder / "killed"):
                found = load_checkpoint(folder / "killed")
                if found.notes or found.record["step"] < reached:
                    wrong.append(f"lost work: {found.notes}, {found.record['step']} after {reached}")
                reached = found.record["step"]
            tally.note(f"kills of trainings: {cell}", [])
        done = trial(arguments, folder)
        if done.status != 0:
            wrong.append(f"exit status {done.status}: {done.told[-300:]}")
        elif not same(final_state(folder / "killed"), whole[cell]):
            wrong.append("the resumed run is not the uninterrupted one")
        if list((folder / "killed").glob(".tmp-*")):
            wrong.append("rubbish in the folder of the run")
        tally.note("trainings killed and finished", [f"{cell}: {each}" for each in wrong])


def resumed(place: Path, share: float, draw: random.Random, tally: Tally) -> None:
    """At every step boundary of small runs: every cell, optimizer and way of reading, with dropout."""
    import torch

    from elman.neural.feedforward import FeedforwardConfig, FeedforwardModel
    from elman.neural.recurrent import RecurrentConfig, RecurrentModel
    from elman.train import train
    from training_example import final_state, make_config, make_corpus, same

    corpus, wanted = make_corpus(), int(RESUMES * share)
    optimizers: list[dict[str, Any]] = [
        {"optimizer": "adam"},
        {"optimizer": "sgd", "momentum": 0.9, "lr": 0.1},
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"optimizer": "sgd", "lr": 0.3},
    ]
    readings: list[dict[str, Any]] = [
        {"bptt": 6},
        {"bptt": 6, "independent": True},
        {"bptt": 8, "random_length": True, "precision": "bf16"},
        {"bptt": 9, "update_interval": 4, "schedule": "one-cycle"},
    ]
    kinds = ("rnn", "rnn-relu", "gru", "lstm", "adaptive", "feedforward")

    def model(kind: str, seed: int) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            parts = corpus.vocabulary, corpus.tokenizer
            if kind == "feedforward":
                shape = FeedforwardConfig(window=3, embedding_size=4, hidden_size=5, dropout=0.4)
                return FeedforwardModel(*parts, shape)
            options: dict[str, Any] = {"softmax": "adaptive"} if kind == "adaptive" else {}
            cell: Any = "gru" if kind == "adaptive" else kind
            recurrent = RecurrentConfig(
                cell=cell, embedding_size=6, hidden_size=7, num_layers=2, dropout=0.4, **options
            )
            return RecurrentModel(*parts, recurrent)

    def run(kind: str, seed: int, folder: Path, options: dict[str, Any], **more: Any) -> None:
        config = make_config(**options, **more)
        for _ in train(model(kind, seed), corpus, config, save=folder, resume=True):
            pass

    combinations = [(k, o, r) for o in optimizers for r in readings for k in kinds]
    draw.shuffle(combinations)
    done = 0
    for kind, optimizer, reading in combinations:
        if done >= wanted:
            return
        options = optimizer | reading | {"epochs": 2, "keep": 1}
        shutil.rmtree(place / "whole", ignore_errors=True)
        run(kind, 5, place / "whole", options)
        whole = final_state(place / "whole")
        for step in range(1, whole["progress"]["step"] + 1):
            shutil.rmtree(place / "part", ignore_errors=True)
            run(kind, 5, place / "part", options, max_steps=step)
            run(kind, 99, place / "part", options)
            equal = same(final_state(place / "part"), whole)
            wrong = [] if equal else [f"{kind} {options} resumed at {step} differs"]
            tally.note(f"resume points: {kind}", wrong)
            done += 1
            if done >= wanted:
                return


def machine() -> dict[str, Any]:
    import torch

    from elman.compare.assembly import machine as named

    return {"machine": named(), "python": platform.python_version(), "torch": torch.__version__}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every-kind", action="store_true", help="each call fails in each of four ways")
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    preload()
    prepare()
    from faults.scenes import template

    tally, draw = Tally(), random.Random(options.seed)
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="elman-faults-", dir=where) as name:
        place = Path(name)
        template(place / "template")
        calls = failing_calls(place, options.share, draw, tally, options.every_kind)
        killed(place, options.share, draw, tally)
        resumed(place, options.share, draw, tally)
    counts = dict(sorted(tally.counts.items()))
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout
    record = {
        "command": "make faults",
        "commit": commit.strip(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        **machine(),
        "seed": options.seed,
        "share": options.share,
        "seconds": round(time.monotonic() - tally.began),
        "counts": counts,
        "kills": sum(count for what, count in counts.items() if what.startswith("kills")),
        "failing calls": sum(count for what, count in counts.items() if what.startswith("failing")),
        "resume points": sum(count for what, count in counts.items() if what.startswith("resume")),
        "calls": calls,
        "wrong": tally.wrong,
    }
    if options.record is not None:
        options.record.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(json.dumps(record, ensure_ascii=False))
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
