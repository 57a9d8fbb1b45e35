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
import datetime
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fuzz.minimise import minimise
from fuzz.target import TARGETS, check, find

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".fuzz"
RECORD = ROOT / "results" / "fuzz.json"
COUNTED = re.compile(r"^(?:stat::number_of_executed_units:\s*|#)(\d+)")


def hunt(name: str, seconds: int) -> dict[str, Any]:
    """One target for so many seconds, started anew where its process died: {executions, seconds, crashes}."""
    grown, crashes = KEPT / "corpus" / name, KEPT / "crashes" / name
    grown.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    found, executions, began = set(crashes.iterdir()), 0, time.monotonic()
    while (left := round(began + seconds - time.monotonic())) > 0:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:
            executions += _process(name, grown, crashes, left, scratch)
    took = time.monotonic() - began
    new = sorted(set(crashes.iterdir()) - found)
    rate = f"{executions:>11,} inputs in {took:.0f} s, {executions / took:,.0f} a second"
    print(f"{name:12} {rate}, {len(new)} crashes", flush=True)
    for path in new:
        print(f"    PYTHONPATH=tests {sys.executable} -m fuzz --replay {name} {path}", flush=True)
    return {"executions": executions, "seconds": round(took), "crashes": len(new)}


def _process(name: str, grown: Path, crashes: Path, seconds: int, scratch: str) -> int:
    """Inputs that one process ran."""
    environment = os.environ | {"ELMAN_FUZZ_SCRATCH": scratch}
    environment |= {"ELMAN_CACHE": f"{scratch}/cache", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fuzz.hunt", name, str(grown), str(crashes), str(seconds)]
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
            elif line.startswith(("CRASH", "      ")):
                print(f"{name:12} {line}", end="", flush=True)
    if process.returncode:
        print(f"{name}: its process ended with {process.returncode}\n{''.join(last)}", flush=True)
        if not executed:
            sys.exit(1)
    return executed


def record(found: dict[str, dict[str, Any]]) -> None:
    """Add a run to results/fuzz.json."""
    document = json.loads(RECORD.read_text("utf-8")) if RECORD.is_file() else {"runs": []}
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    document["runs"].append(
        {
            "date": datetime.date.today().isoformat(),
            "commit": head.stdout.strip(),
            "processor": names[0].split(":", 1)[1].strip() if names else platform.processor(),
            "machine": f"{platform.system()}, {len(names)} cores, Python {platform.python_version()}",
            "targets": found,
        }
    )
    totals: dict[str, dict[str, int]] = {}
    for run in document["runs"]:
        for name, row in run["targets"].items():
            total = totals.setdefault(name, {"executions": 0, "seconds": 0, "crashes": 0})
            for what in total:
                total[what] += row[what]
    document = {
        "command": "make fuzz TIME=…",
        "what": "inputs that a target was given, seconds, and kinds of failure first seen in that run",
        "executions": sum(total["executions"] for total in totals.values()),
        "seconds": sum(total["seconds"] for total in totals.values()),
        "crashes": sum(total["crashes"] for total in totals.values()),
        "targets": dict(sorted(totals.items())),
        "runs": document["runs"],
    }
    RECORD.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"{document['executions']:,} inputs in all ({RECORD.relative_to(ROOT)})")


def main() -> None:
    """Hunt, replay or minimise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--time", type=int, default=60, help="seconds for each target")
    parser.add_argument("--target", choices=TARGETS, help="this one only")
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "FILE"))
    parser.add_argument("--minimise", action="store_true")
    options = parser.parse_args()
    if options.replay:
        target = find(options.replay[0])
        target.run(target.seeds()[0])  # what loads late is loaded now: memory is counted afterwards
        check(target, Path(options.replay[1]).read_bytes())
        print("It is answered or refused as it should be.")
        return
    names = [options.target] if options.target else list(TARGETS)
    if options.minimise:
        for name in names:
            kept = Path(__file__).parent / "corpus" / name
            added = minimise(find(name), KEPT / "corpus" / name, kept)
            size = sum(path.stat().st_size for path in kept.iterdir())
            print(f"{name:12} {added} inputs added, {size:,} bytes")
    elif importlib.util.find_spec("atheris") is None:
        sys.exit("Fuzzing needs atheris: pip install 'elman[fuzz]'. Its tests, which replay, do not.")
    else:
        record({name: hunt(name, options.time) for name in names})


if __name__ == "__main__":
    main()
