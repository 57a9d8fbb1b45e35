"""`elman bench` on every row, kept: results/speed-NAME.json with the command, the commit and the day.

    python benchmarks/speed.py laptop                      # everything, nine rounds: about half an hour
    python benchmarks/speed.py laptop --quick              # any option of `elman bench`

Measure on a machine that does nothing else; the record says how far its rounds disagree.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from datetime import date
from pathlib import Path

from elman.cli import app, bench
from record import RESULTS, commit


def main() -> None:
    """Write results/speed-NAME.json; `elman bench` prints its tables on the way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name")
    chosen, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "speed.json"
        try:
            app.main([bench.bench.__name__, *options, "--save", str(saved)])
        except SystemExit as ended:
            if ended.code:
                raise
        measured = json.loads(saved.read_text("utf-8"))
    record = {
        "command": shlex.join(["elman", "bench", *options]),
        "measured_at_commit": commit(),
        "date": date.today().isoformat(),
    } | measured
    path = RESULTS / f"speed-{chosen.name}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(path, file=sys.stderr)


if __name__ == "__main__":
    main()
