"""The options of `elman compare`, and what is refused before anything takes time."""

from __future__ import annotations

import datetime
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Interval
from cyclopts import Parameter

from elman import __version__
from elman.cli.models_and_text import Split
from elman.cli.ranges import Seed
from elman.errors import OptionError
from elman.text.building import TextSettings

if TYPE_CHECKING:
    from elman.compare.assembly import Counting
    from elman.compare.comparison import Repeat

REPORT = "elman-report.html"


@Parameter(name="*")
@dataclass(frozen=True)
class CompareOptions:
    """Options of `elman compare`.

    Attributes
    ----------
    text
        Text on which saved models are compared: a file, - or a corpus (its test part).
    split
        Which part of --text is scored: of a corpus test, of a file the whole; but of a file that a model
        was trained from, the test part that was cut off it.
    preset
        How much is trained: quick takes about a minute, full takes hours.
    models
        Only these of the line-up, separated by commas: kn5,lstm,lstm-kn5.
    save
        Folder for models and numbers; a second run takes what is finished there and goes on.
    report
        Where the page is written. Default: elman-report.html, here or in --save.
    no_report
        Write no page.
    seed
        Of weights, dropout, samples and the bootstrap.
    unknown
        word: an unknown word counts like any other. skip: it is left out of the count.
    per
        What nats are divided by. Default: tokens, or bytes where models cut the text differently.
    baseline
        The model that all are measured against. Default: kn5, else the best n-gram.
    bootstrap
        How often the sentences are drawn again for the intervals.
    scores
        NAME=FILE: per-token scores of another program, checked token by token; KenLM's too.
    log_base
        Of the logarithms in --scores files without a header. Default: e.
    device
        Where models are trained.
    jobs
        Neural models trained at a time. Default: one per thread, at most 4; 1 on a GPU.
    """

    text: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    split: Split | None = None
    preset: Literal["quick", "default", "full"] = "default"
    models: str | None = None
    save: Path | None = None
    report: Path | None = None
    no_report: Annotated[bool, Parameter(negative="", show_default=False)] = False
    seed: Seed = 1
    unknown: Literal["word", "skip"] = "word"
    per: Literal["token", "word", "byte"] | None = None
    baseline: str | None = None
    bootstrap: Annotated[int, Interval(ge=20, le=1_000_000)] = 1000
    scores: Annotated[list[str], Parameter(negative="", show_default=False)] = field(default_factory=list)
    log_base: Literal["e", "2", "10"] | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    jobs: Annotated[int, Interval(ge=1, le=64)] | None = None


def require_sense(what: Sequence[str], options: CompareOptions, tokens: TextSettings) -> None:
    """Refuse what cannot work before anything takes time."""
    from elman.compare.bootstrap import Resampling

    Resampling(samples=options.bootstrap)
    if options.jobs is not None and options.jobs < 1:
        raise OptionError(
            f"--jobs {options.jobs}: at least one model is trained at a time.", remedy="--jobs 1"
        )
    if options.seed < 0:
        raise OptionError(f"--seed {options.seed} is negative.", remedy="give 0 or more.")
    if options.text is not None:
        if not what:
            raise OptionError("--text is given, but no model.", remedy="elman compare MODEL… --text FILE")
        for name, given in (("--models", options.models), ("--save", options.save)):
            if given is not None:
                raise OptionError(
                    f"{name} belongs to training, --text to saved models.",
                    remedy=f"leave out one of {name} and --text.",
                )
        for name, value in asdict(tokens).items():
            if value != getattr(TextSettings(), name):
                raise OptionError(
                    f"--{name.replace('_', '-')} belongs to training: saved models have tokens of their own.",
                    remedy="leave it out.",
                )
        _require_place(report_path(options))
        return
    if options.split is not None:
        raise OptionError(
            "--split is of a text for saved models; the line-up is trained and scored on all three parts.",
            remedy="leave it out, or give models and --text.",
        )
    models = [name for name in what if _is_model(name.partition("=")[2] or name)]
    if models:
        raise OptionError(
            f"{models[0]} is a saved model, but no text is given.",
            remedy=f"elman compare {' '.join(what)} --text FILE (or a corpus: its test part)",
        )
    if len(what) > 1:
        raise OptionError(
            f"{len(what)} corpora are given: {', '.join(what)}.",
            reason="the line-up is trained on one corpus; saved models need --text.",
            remedy="name one corpus, or models with --text FILE.",
        )
    if options.save is not None:
        try:
            options.save.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OptionError(
                f"--save {options.save} cannot be made: {error.strerror or error}.",
                remedy="give another folder.",
            ) from error
    _require_place(report_path(options))


def _is_model(name: str) -> bool:
    from elman.ngram.arpa_lines import arpa_stem

    path = Path(name)
    return arpa_stem(path.name) is not None or any(
        (path / inside).exists() for inside in ("config.json", "latest", "best")
    )


def report_path(options: CompareOptions) -> Path | None:
    if options.no_report:
        return None
    return options.report or (options.save or Path()) / REPORT


def _require_place(report: Path | None) -> None:
    if report is None:
        return
    if report.is_dir():
        raise OptionError(f"--report {report} is a folder.", remedy=f"--report {report / REPORT}")
    if not os.access(report.parent, os.W_OK):
        raise OptionError(
            f"the report cannot be written to {report}: no such folder, or not yours to write in.",
            remedy="give --report FILE in a folder that exists, or --no-report.",
        )


def counting(options: CompareOptions) -> Counting:
    from elman.compare.assembly import Counting
    from elman.compare.bootstrap import Resampling

    return Counting(options.baseline, options.per, Resampling(samples=options.bootstrap, seed=options.seed))


def repeat(options: CompareOptions, begin: float) -> Repeat:
    from elman.compare.assembly import machine
    from elman.compare.comparison import Repeat

    return Repeat(
        command=shlex.join(["elman", *sys.argv[1:]]) if sys.argv[1:2] == ["compare"] else "elman compare",
        version=__version__,
        seed=options.seed,
        machine=machine(),
        date=datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%d"),
        seconds=time.perf_counter() - begin,
    )


def counting_alone(options: CompareOptions) -> Counting:
    """As the options say, without a baseline."""
    return replace(counting(options), baseline=None)
