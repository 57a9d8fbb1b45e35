"""A finished training run → one small JSON in results/: command, machine, curve, scores.

    python benchmarks/record.py NAME RUN CORPUS --command "elman train …"

RUN is the folder that `elman train --save` wrote. The best model in it is scored again on the
validation and test text of CORPUS, so the figures are those of the model that is kept.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from elman import __version__, load_corpus, load_model
from elman.evaluate import evaluate

RESULTS = Path(__file__).parent.parent / "results"


def machine() -> dict[str, object]:
    """What the run depended on, as far as a reader can use it."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": names[0].split(":", 1)[1].strip() if names else platform.processor(),
        "cores": len(names),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "elman": __version__,
    }


def commit() -> str:
    """The commit of this checkout, which scores; the run may have begun at an earlier one."""
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True, cwd=RESULTS
    ).stdout.strip()


def curve(log: Path) -> list[dict[str, Any]]:
    """One row an epoch from log.jsonl."""
    rows = []
    for line in log.read_text("utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "validated":
            rows.append(
                {
                    "epoch": event["epoch"],
                    "lr": event["lr"],
                    "train_perplexity": round(event["train_perplexity"], 2),
                    "valid_perplexity": round(event["valid"]["perplexity"], 2),
                    "seconds": round(event["seconds"]),
                }
            )
    return rows


def main() -> None:
    """Write results/NAME.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("run", type=Path)
    parser.add_argument("corpus")
    parser.add_argument("--command", required=True)
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    corpus = load_corpus(options.corpus)
    model = load_model(options.run)
    record = {
        "command": options.command,
        "scored_at_commit": commit(),
        "machine": machine(),
        "note": options.note,
        "curve": curve(options.run / "log.jsonl"),
        "valid": evaluate(model, corpus.valid).as_json(),
        "test": evaluate(model, corpus.test).as_json(),
    }
    path = RESULTS / f"{options.name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(path, record["valid"]["perplexity"], record["test"]["perplexity"])  # type: ignore[index]


if __name__ == "__main__":
    main()
