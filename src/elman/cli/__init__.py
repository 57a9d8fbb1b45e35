"""The command line: one file per verb group; an argument becomes one call. Nothing imports it."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

VERBS = (
    *("data", "train", "evaluate", "compare", "generate", "mix", "inspect"),
    *("memory", "gates", "connectivity", "units", "trace", "gradients"),
    *("explore", "export", "bench"),
)
"""The verb modules, in the order of the help page; each registers its commands on import."""


def main() -> NoReturn:
    """Entry point of the `elman` command."""
    try:
        from elman.cli import app

        for verb in VERBS:
            importlib.import_module(f"elman.cli.{verb}")
    except KeyboardInterrupt:
        sys.exit(130)
    except (MemoryError, OSError, RuntimeError, ImportError) as error:
        from elman.errors import no_memory, of_memory

        if not of_memory(error):
            raise
        sys.stderr.write(f"elman: {no_memory()}\n")
        sys.exit(1)
    app.main()
