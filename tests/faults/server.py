"""Trials in forked children of one process that has torch loaded: a fifth of a second each, not three."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
FAIL, SHORT, KILL = range(3)
KINDS = {
    "ENOSPC": (FAIL, errno.ENOSPC),
    "EIO": (FAIL, errno.EIO),
    "EDQUOT": (FAIL, errno.EDQUOT),
    "short write": (SHORT, errno.ENOSPC),
    "SIGKILL": (KILL, 0),
}


def preload() -> None:
    """Run this program again with inject.cpp, compiled here, before libc."""
    if "inject" in os.environ.get("LD_PRELOAD", ""):
        return
    library = Path(tempfile.mkdtemp(prefix="elman-inject-")) / "inject.so"
    source = str(HERE / "inject.cpp")
    subprocess.run(["g++", "-O1", "-shared", "-fPIC", "-o", str(library), source, "-ldl"], check=True)
    environment = os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def prepare() -> None:
    """Load what every trial needs, once."""
    sys.dont_write_bytecode = True
    import torch

    torch.set_num_threads(1)
    from elman.cli import VERBS

    for verb in VERBS:
        __import__(f"elman.cli.{verb}")
    for late in ("checkpoint", "train", "compare.contest", "compare.candidates", "report", "explore.export"):
        __import__(f"elman.{late}")
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401


@dataclass(frozen=True)
class Trial:
    """How a run of a verb ended.

    status  of exit; None where it was killed
    calls   that write, and the one that was made to fail ("" where none was reached)
    """

    status: int | None
    told: str
    calls: int
    failed: str
    seconds: float


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    library.fault_count.restype = ctypes.c_long
    library.fault_name.restype = ctypes.c_char_p
    library.fault_arm.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_int)
    return library


def trial(
    arguments: tuple[str, ...],
    folder: Path,
    *,
    at: int = 0,
    kind: str = "EIO",
    kill_after: float | None = None,
) -> Trial:
    """Run a verb in `folder`; its `at`th writing call fails, or it is killed after so many seconds."""
    library = _library()
    began = time.monotonic()
    said = folder.with_name(folder.name + ".said")
    child = os.fork()
    if child == 0:
        _run(arguments, folder, said, library, at, kind)
    if kill_after is not None:
        while time.monotonic() - began < kill_after:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            time.sleep(0.0005)
        else:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
    else:
        _, status = os.waitpid(child, 0)
    library.fault_disarm()  # the memory is shared: it would be our turn
    code = None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    told = said.read_text("utf-8", "replace") if said.exists() else ""
    said.unlink(missing_ok=True)
    return Trial(code, told, library.fault_count(), library.fault_name().decode(), time.monotonic() - began)


def _run(
    arguments: tuple[str, ...], folder: Path, said: Path, library: ctypes.CDLL, at: int, kind: str
) -> None:
    code = 99
    try:
        os.chdir(folder)
        os.environ["ELMAN_CACHE"] = str(folder / "cache")
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        from elman.cli.app import main

        how, number = KINDS[kind]
        library.fault_arm(at, how, number)
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:  # noqa: BLE001  what would be a traceback
            import traceback

            os.write(2, traceback.format_exc().encode("utf-8", "replace"))
            code = 98
        sys.stderr.flush()
    finally:
        os._exit(code)
