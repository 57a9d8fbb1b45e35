"""Kneser-Ney and scoring beside KenLM: first the same numbers, then how long each takes.

    python benchmarks/ngram_speed.py TEXT --kenlm FOLDER [--heldout FILE] [--name NAME]

FOLDER holds KenLM's programs lmplz, build_binary and query (NOTES.md says how to build them). Rounds are
interleaved, each program in a process of its own, timed by the kernel; the table has medians.

    train   Elman: TEXT → ids → model in memory (`usable`) → ARPA file (`arpa`); start of Python and imports
            apart (`start`). lmplz: TEXT → ARPA file.
    score   Elman: events of encoded text in memory, `event_nats` (`score`), and from the file with encoding
            (`file`); the index made before apart (`index`), as is what query and loop load. query: HELDOUT
            through standard input, less a run on an empty text. loop: a Python loop
            over full_scores of KenLM's module, text already split. A pass of Elman is shorter than a turn
            that the system gives a process, so each is done PASSES times; `…_cpu` is processor time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

BEGIN = time.perf_counter()

from record import RESULTS, commit, machine  # noqa: E402 - imports torch, which `start` counts

PASSES = 9
"""Times that Elman scores the text in one round; the median counts."""
HELD_OUT = 50_000
"""Lines scored where no held-out text is given: the first ones of TEXT."""


def worker(text: Path, heldout: Path, arpa: Path, order: int, cores: int) -> None:
    """What Elman does in one round; prints JSON."""
    import numpy as np
    import torch

    from elman.event_nats import event_nats
    from elman.ngram.arpa_writing import write_arpa
    from elman.ngram.kneser_ney import KneserNeySettings, estimate
    from elman.text.corpus import Text, encode_text
    from elman.text.encoding import Encoder, encode_all
    from elman.text.reading import open_blocks
    from elman.text.tokenizers import Words
    from elman.text.vocabulary import Vocabulary

    torch.set_num_threads(cores)
    marks = [("start", time.perf_counter() - BEGIN)]

    def mark(name: str, since: float) -> None:
        marks.append((name, time.perf_counter() - since))

    now, before = time.perf_counter(), time.process_time()
    with tempfile.TemporaryFile() as sink:
        encoder = Encoder(Words(), None, sink)
        encode_all(encoder, open_blocks(text))
        sink.flush()
        sink.seek(0)
        raw = np.fromfile(sink, dtype="<i4")
    tokens, words = encoder.tokens(), np.zeros(0, dtype=np.int32)
    counts = np.bincount(raw, minlength=len(tokens)).tolist()
    vocabulary = Vocabulary.build(dict(zip(tokens, counts, strict=True)), sentences=counts[1])
    ids = vocabulary.ids(tokens)[raw]
    del raw, encoder, tokens
    mark("read", now)
    model = estimate(Text(ids, words, words), vocabulary, Words(), KneserNeySettings(order=order))
    mark("usable", now)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    write_arpa(model, arpa)
    mark("arpa", now)
    marks.append(("cpu", time.process_time() - before))
    now = time.perf_counter()
    index = model.prepare()
    mark("index", now)
    passes: dict[str, list[float]] = {"score": [], "score_cpu": [], "file": [], "file_cpu": []}
    for _ in range(PASSES):
        wall, cpu = time.perf_counter(), time.process_time()
        held_out = encode_text(heldout, Words(), vocabulary)
        encoded, encoded_cpu = time.perf_counter(), time.process_time()
        nats = np.concatenate(list(event_nats(model, held_out)))
        end, end_cpu = time.perf_counter(), time.process_time()
        for name, value in zip(
            passes, (end - encoded, end_cpu - encoded_cpu, end - wall, end_cpu - cpu), strict=True
        ):
            passes[name].append(value)
    marks += [(name, median(values)) for name, values in passes.items()]
    stream = torch.from_numpy(held_out.stream().astype(np.int64))[:, None]
    np.savez(
        arpa.with_suffix(".npz"),
        log10=nats / -math.log(10),
        matched=model.matched_lengths(stream, model.start(1))[:, 0].numpy(),
    )
    sizes = [len(table.keys) for table in model.tables]
    found = {**dict(marks), "peak_mib": peak, "tokens": len(ids), "events": len(nats), "ngrams": sizes}
    found["index_mib"] = index / 2**20
    found["index_peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found))


def run(
    command: list[str], cores: int, source: Path | None = None, sink: Path | None = None
) -> dict[str, Any]:
    """Wall and processor seconds and peak memory of a program on the first `cores` cores."""
    with open(source or os.devnull, "rb") as stdin, open(sink or os.devnull, "wb") as stdout:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores]),
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024}


def python_loop(binary: Path, heldout: Path) -> tuple[float, float]:
    """Events per second of `full_scores` called from Python, by wall and by processor time."""
    import kenlm  # PyPI: ufal-kenlm

    model = kenlm.Model(str(binary))
    lines = heldout.read_text("utf-8").splitlines()[:5000]
    begin, cpu, events = time.perf_counter(), time.process_time(), 0
    for line in lines:
        for _score, _length, _unknown in model.full_scores(line):
            events += 1
    return events / (time.perf_counter() - begin), events / (time.process_time() - cpu)


def prove(query: Path, binary: dict[str, Path], heldout: Path, ours: Path, log: dict[str, Any]) -> None:
    """Scores are those of `query` on our file; matched lengths also on that of lmplz. Exits if not."""
    import numpy as np

    found = np.load(ours)
    for name, path in binary.items():
        with open(heldout, "rb") as text:
            rows = subprocess.run([query, "-v", "word", path], stdin=text, capture_output=True, check=True)
        fields = [
            field.split("Total:")[0].split()
            for line in rows.stdout.decode().splitlines()
            for field in line.split("\t")
            if "=" in field and len(field.split("Total:")[0].split()) == 3
        ]
        lengths = np.array([int(field[1]) for field in fields])
        difference = np.abs(np.array([float(field[2]) for field in fields]) - found["log10"])
        log[f"largest_difference_{name}"] = float(difference.max())
        log[f"mean_difference_{name}"] = float(difference.mean())
        if not np.array_equal(lengths, found["matched"]):
            sys.exit(f"matched lengths differ from those of {name}")
    if log["largest_difference_elman_arpa"] > 1e-5 or log["mean_difference_lmplz_arpa"] > 1e-3:
        sys.exit(f"scores differ: {log}")
    log["matched_lengths"] = "equal"


def header(path: Path) -> list[int]:
    """The number of n-grams of each order that an ARPA file announces."""
    with path.open(encoding="utf-8") as file:
        lines = [line for line, _ in zip(file, range(12), strict=False)]
    return [int(line.split("=")[1]) for line in lines if line.startswith("ngram ")]


def main() -> None:
    """Prove, time, print, write results/NAME.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--kenlm", type=Path, required=True)
    parser.add_argument("--heldout", type=Path)
    parser.add_argument("--order", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--memory", nargs="+", default=["80%", "4G"], help="-S of lmplz, its default first")
    parser.add_argument("--note", default="")
    parser.add_argument("--name", default="")
    options = parser.parse_args()
    for name in ("lmplz", "query", "build_binary"):
        if not (options.kenlm / name).is_file():
            sys.exit(f"{options.kenlm / name} is not there. NOTES.md says how to build it.")
    with tempfile.TemporaryDirectory() as folder:
        record = compare(options, Path(folder))
    print(json.dumps(record, indent=1))
    if options.name:
        (RESULTS / f"{options.name}.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The record of all rounds."""
    text, heldout = folder / "train.txt", folder / "heldout.txt"
    for source, copy in ((options.text, text), (options.heldout or options.text, heldout)):
        lines = source.read_bytes().replace(b"<unk>", b"unk!").splitlines(keepends=True)  # lmplz wants none
        copy.write_bytes(b"".join(lines[:HELD_OUT] if copy == heldout else lines))
    (folder / "empty.txt").write_text("")
    ours, theirs = folder / "elman.arpa", folder / "lmplz.arpa"
    binary = {"elman_arpa": folder / "elman.bin", "lmplz_arpa": folder / "lmplz.bin"}
    estimate = [str(options.kenlm / "lmplz"), "-o", str(options.order), "-T", str(folder)]
    query = options.kenlm / "query"
    own = [sys.executable, __file__, "worker", *map(str, (text, heldout, ours, options.order))]
    agreement: dict[str, Any] = {}
    rows: dict[str, Any] = {}
    for cores in options.cores:
        rounds: list[dict[str, Any]] = []
        for _ in range(options.rounds):
            row: dict[str, Any] = {"elman": run([*own, str(cores)], cores, sink=folder / "o.json")}
            row["elman"] |= {"process_" + key: row["elman"].pop(key) for key in ("wall", "cpu", "peak_mib")}
            row["elman"] |= json.loads((folder / "o.json").read_text())
            for memory in options.memory:
                row[f"lmplz -S {memory}"] = run([*estimate, "-S", memory], cores, text, theirs)
            if not agreement:
                for arpa, to in zip((ours, theirs), binary.values(), strict=True):
                    subprocess.run(
                        [options.kenlm / "build_binary", arpa, to], check=True, capture_output=True
                    )
                prove(query, binary, heldout, ours.with_suffix(".npz"), agreement)
                agreement["ngrams"] = header(ours)
                if header(ours) != header(theirs):
                    sys.exit(f"n-grams: {header(ours)}, lmplz has {header(theirs)}")
            ask = [str(query), "-v", "summary", str(binary["lmplz_arpa"])]
            events = row["elman"]["events"]
            nothing, whole = run(ask, cores, folder / "empty.txt"), run(ask, cores, heldout)
            loop = python_loop(binary["lmplz_arpa"], heldout)
            row["per_second"] = {
                "elman": events / row["elman"]["score"],
                "elman from file": events / row["elman"]["file"],
                "query": events / (whole["wall"] - nothing["wall"]),
                "loop": loop[0],
            }
            row["per_cpu_second"] = {
                "elman": events / row["elman"]["score_cpu"],
                "elman from file": events / row["elman"]["file_cpu"],
                "query": events / (whole["cpu"] - nothing["cpu"]),
                "loop": loop[1],
            }
            rounds.append(row)
        rows[f"{cores} cores"] = {
            part: {
                key: round(median(row[part][key] for row in rounds), 3)
                for key, value in rounds[0][part].items()
                if not isinstance(value, list)
            }
            for part in rounds[0]
        }
        table = rows[f"{cores} cores"]
        table["ratios"] = ratios(table, options.memory)
    names = {str(options.kenlm): "KENLM", str(options.text): "TEXT", str(options.heldout): "HELDOUT"}
    return {
        "command": shlex.join(["python", *(names.get(word, word) for word in sys.argv)]),
        "commit": commit(),
        "machine": machine(),
        "note": options.note,
        "rounds": options.rounds,
        "agreement": agreement,
        **rows,
    }


def ratios(table: dict[str, Any], memories: list[str]) -> dict[str, float]:
    """Above 1: Elman is that many times faster (memory: smaller)."""
    own, found = table["elman"], {}
    for memory in memories:
        other = table[f"lmplz -S {memory}"]
        found |= {f"{mark}, lmplz -S {memory}": other["wall"] / own[mark] for mark in ("usable", "arpa")}
        found[f"memory, lmplz -S {memory}"] = other["peak_mib"] / own["peak_mib"]
        if "cpu" in own:
            found[f"processor time to arpa, lmplz -S {memory}"] = other["cpu"] / own["cpu"]
    for unit, speed in (("", table["per_second"]), (", processor time", table["per_cpu_second"])):
        found |= {f"score, {name}{unit}": speed["elman"] / speed[name] for name in ("query", "loop")}
        found[f"score from file, query{unit}"] = speed["elman from file"] / speed["query"]
    return {name: round(value, 2) for name, value in found.items()}


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(*map(Path, sys.argv[2:5]), *map(int, sys.argv[5:7]))
    else:
        main()
