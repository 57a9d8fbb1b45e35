"""One process that hunts in one target, guided by the coverage of the package's Python code (atheris,
libFuzzer).

    python -m fuzz.hunt TARGET GROWN CRASHES SECONDS

GROWN receives each input that reached something new, and is where the next hunt goes on. An input whose
failure is of a new kind is kept in CRASHES, and the hunt goes on; what ends the process (a signal, a hang)
libFuzzer keeps.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from pathlib import Path

import atheris

from fuzz.mutation import mutate


def kind_of(error: BaseException) -> str:
    """The type and the places in the package that the error came through: one fault, one name."""
    frames = [
        f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)
    ]
    return f"{type(error).__name__} {' '.join(frames[-4:])}"


def keep(folder: Path, data: bytes) -> Path:
    """Save an input under its own digest."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha1(data).hexdigest()[:12]
    path.write_bytes(data)
    return path


def main() -> None:
    """Hunt until the time is over."""
    name, grown, crashes, seconds = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    with atheris.instrument_imports(include=["elman"]):
        import torch

        from fuzz.target import check, find

        target = find(name)
        for seed in target.seeds():
            target.run(seed)  # a seed is valid; and what loads late is loaded now
    torch.set_num_threads(1)
    for seed in target.seeds():
        keep(grown, seed)
    marks = grown.parent / f"{name}.marks"
    escaped = ("".join(map("\\x{:02x}".format, mark)) for mark in target.marks)
    marks.write_text("".join(f'"{mark}"\n' for mark in escaped))
    known: set[str] = set()

    def one(data: bytes) -> None:
        try:
            check(target, data)
        except Exception as error:  # noqa: BLE001  every kind is kept, and the hunt goes on
            if kind_of(error) not in known:
                known.add(kind_of(error))
                print(f"CRASH {keep(crashes, data)} {kind_of(error)}", flush=True)
                print(f"      {type(error).__name__}: {error!s:.300}", flush=True)

    options = {"max_total_time": seconds, "max_len": target.largest, "timeout": 60, "rss_limit_mb": 8192}
    options |= {
        "print_final_stats": 1,
        "artifact_prefix": f"{crashes}/",
        "dict": marks,
        "reload": 0,
        "len_control": 0,
        "close_fd_mask": 0,
    }
    arguments = [sys.argv[0], *(f"-{option}={value}" for option, value in options.items()), str(grown)]
    arguments += [str(folder) for folder in [Path(__file__).parent / "corpus" / name] if folder.is_dir()]
    custom = {}
    if target.json:
        custom["custom_mutator"] = lambda data, largest, seed: mutate(
            bytes(data), largest, seed, lambda given, size: bytes(atheris.Mutate(given, size))
        )
    atheris.Setup(arguments, one, **custom)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
