"""results/fuzz.json: what was run, on which machine, at which commit, and what it found."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "results" / "fuzz.json"
COUNTED = ("executions", "seconds", "crashes")


class Run:
    """One `make fuzz`; written after every target, so that one that is stopped counts as far as it came."""

    def __init__(self) -> None:
        info = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line for line in info if line.startswith("model name")]
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT
        )
        self.targets: dict[str, dict[str, int]] = {}
        self.facts = {
            "date": datetime.date.today().isoformat(),
            "commit": head.stdout.strip(),
            "processor": names[0].split(":", 1)[1].strip() if names else platform.processor(),
            "machine": f"{platform.system()}, {len(names)} cores, Python {platform.python_version()}",
        }

    def add(self, name: str, found: dict[str, int]) -> None:
        """Count a target."""
        runs = json.loads(RECORD.read_text("utf-8"))["runs"] if RECORD.is_file() else []
        if self.targets:
            runs.pop()  # this run, as it was written last
        self.targets[name] = found
        runs.append(self.facts | {"targets": self.targets})
        RECORD.write_text(json.dumps(summed(runs), indent=1, ensure_ascii=False) + "\n", "utf-8")


def summed(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The document of some runs, with totals by target and in all."""
    totals: dict[str, dict[str, int]] = {}
    for run in runs:
        for name, found in run["targets"].items():
            total = totals.setdefault(name, dict.fromkeys(COUNTED, 0))
            for what in COUNTED:
                total[what] += found[what]
    return {
        "command": "make fuzz TIME=…",
        "what": "executions: inputs that a target was given; crashes: kinds of failure that a run met",
        **{what: sum(total[what] for total in totals.values()) for what in COUNTED},
        "targets": dict(sorted(totals.items())),
        "runs": runs,
    }
