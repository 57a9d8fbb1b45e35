"""Fuzzing as a habit: every target for some seconds, coverage-guided, and a record of it.

    make fuzz TIME=60                 every target for a minute
    make fuzz TIME=600 TARGET=arpa    one of them
    PYTHONPATH=tests python -m fuzz --replay TARGET FILE     run one input, as a crash's message says
    PYTHONPATH=tests python -m fuzz --minimise               grown corpora → tests/fuzz/corpus/

What hunts find is kept in .fuzz/ and taken up again by the next: corpus/TARGET/ grows, crashes/TARGET/ holds
what failed. results/fuzz.json counts runs, seconds, inputs and crashes. A crash becomes a test: its file goes
to tests/fuzz/corpus/TARGET/, which tests/test_fuzz.py replays. --minimise takes over what adds coverage only.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fuzz.minimise import minimise
from fuzz.record import ROOT, Run
from fuzz.target import TARGETS, check, find

KEPT = ROOT / ".fuzz"
NATIVE = ("native-words", "native-tables", "native-counts")
"""Of native/fuzz_text.cpp, under the address and undefined-behaviour sanitizers."""
COUNTED = re.compile(r"^(?:stat::number_of_executed_units:\s*|#)(\d+)")


def hunt(name: str, seconds: int, program: Path | None) -> dict[str, int]:
    """One target for so many seconds, started anew where its process died: executions, seconds, crashes."""
    grown, crashes = KEPT / "corpus" / name, KEPT / "crashes" / name
    grown.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    found, executions, began = set(crashes.iterdir()), 0, time.monotonic()
    while (left := round(began + seconds - time.monotonic())) > 0:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:
            command = _command(name, [grown, crashes], left, program)
            executions += _process(name, command, scratch)
    took = time.monotonic() - began
    new = sorted(set(crashes.iterdir()) - found)
    rate = f"{executions:>11,} inputs in {took:.0f} s, {executions / took:,.0f} a second"
    print(f"{name:14} {rate}, {len(new)} crashes", flush=True)
    for path in new:
        print(f"    PYTHONPATH=tests {sys.executable} -m fuzz --replay {name} {path}", flush=True)
    return {"executions": executions, "seconds": round(took), "crashes": len(new)}


def _command(name: str, folders: list[Path], seconds: int, program: Path | None) -> list[str]:
    places = list(map(str, folders))
    if program is not None:
        return [str(program), name.removeprefix("native-"), str(seconds), *places]
    return [sys.executable, "-m", "fuzz.hunt", name, *places, str(seconds)]


def _process(name: str, command: list[str], scratch: str) -> int:
    """Inputs that one process ran."""
    environment = os.environ | {"ELMAN_FUZZ_SCRATCH": scratch}
    environment |= {"ELMAN_CACHE": f"{scratch}/cache", "OMP_NUM_THREADS": "1"}
    executed, last = 0, []
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            last = [*last[-30:], line]
            if counted := COUNTED.match(line):
                executed = max(executed, int(counted[1]))
            elif line.startswith(("CRASH", "WRONG", "      ")):
                print(f"{name:14} {line}", end="", flush=True)
    if process.returncode:
        print(f"{name}: its process ended with {process.returncode}\n{''.join(last)}", flush=True)
        if not executed:
            sys.exit(1)
    return executed


def native_program() -> Path | None:
    """native/fuzz, built anew where its sources changed; None, with the reason told, where it cannot be."""
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        print("native-*: left out, as building them needs cmake and a C++ compiler.", flush=True)
        return None
    folder = ROOT / "build" / "fuzz"
    options = ["-DELMAN_FUZZ=ON", "-DELMAN_MODULE=OFF"]
    for command in (
        ["-S", str(ROOT), "-B", str(folder), *options],
        ["--build", str(folder), "--target", "fuzz"],
    ):
        built = subprocess.run(["cmake", *command], capture_output=True, text=True)
        if built.returncode:
            print(f"native-*: left out, as they could not be built.\n{built.stderr[-3000:]}", flush=True)
            return None
    return folder / "fuzz"


def replay(name: str, file: str) -> None:
    """One input; ends with the error that it met."""
    if name in NATIVE:
        sys.exit(subprocess.run([str(native_program()), name.removeprefix("native-"), file]).returncode)
    target = find(name)
    target.run(target.seeds()[0])  # what loads late is loaded now: memory is counted afterwards
    check(target, Path(file).read_bytes())
    print("It is answered or refused as it should be.")


def main() -> None:
    """Hunt, replay or minimise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--time", type=int, default=60, help="seconds for each target")
    parser.add_argument("--target", choices=[*TARGETS, *NATIVE], help="this one only")
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "FILE"))
    parser.add_argument("--minimise", action="store_true")
    options = parser.parse_args()
    if options.replay:
        replay(*options.replay)
    elif options.minimise:
        for name in [options.target] if options.target else TARGETS:
            kept = Path(__file__).parent / "corpus" / name
            added = minimise(find(name), KEPT / "corpus" / name, kept)
            size = sum(path.stat().st_size for path in kept.iterdir())
            print(f"{name:14} {added} inputs added, {size:,} bytes")
    else:
        names = [options.target] if options.target else [*TARGETS, *NATIVE]
        if importlib.util.find_spec("atheris") is None:
            print("The targets in Python are left out: they need atheris (pip install 'elman[fuzz]').")
            names = [name for name in names if name in NATIVE]
        program = native_program() if {*names} & {*NATIVE} else None
        run = Run()
        for name in names:
            if name in TARGETS or program is not None:
                run.add(name, hunt(name, options.time, program if name in NATIVE else None))


if __name__ == "__main__":
    main()
