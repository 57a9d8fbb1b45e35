"""`elman compare`: the line-up trained on a corpus, or saved models on a text; table, verdicts, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from elman.cli.app import Json, app, emit, examples, messages
from elman.cli.compare_options import (
    CompareOptions,
    counting,
    counting_alone,
    repeat,
    report_path,
    require_sense,
)
from elman.cli.models_and_text import ArpaOptions, held_out, load
from elman.errors import ElmanError, OptionError

# cyclopts reads the annotations of a command at run time
from elman.text.building import TextSettings
from elman.training.interrupt import Terminated

if TYPE_CHECKING:
    from elman.compare.assembly import Candidate
    from elman.compare.comparison import Comparison

DEFAULT_CORPUS = "sotu-modern"
NUMBERS = "comparison.json"
EXAMPLES = examples(
    "elman compare --preset quick",
    "elman compare novel.txt --models kn5,lstm,lstm-kn5 --save runs/novel",
    "elman compare novel.txt --tokenizer words --vocabulary-size 20000",
    "elman compare runs/lstm runs/kn5.arpa --text heldout.txt",
    "elman compare runs/lstm --text heldout.txt --scores kenlm=heldout.scores.gz",
)


@app.command(name="compare", help_epilogue=EXAMPLES)
def compare_command(
    *what: str,
    options: CompareOptions | None = None,
    settings: Annotated[TextSettings | None, Parameter(name="*", group="Text")] = None,
    arpa: ArpaOptions | None = None,
    json: Json = False,
) -> None:
    """Compare language models on one text: a table with intervals, and a page that opens offline.

    Without saved models, n-grams, a feed-forward model, an RNN, a GRU, an LSTM and mixtures are
    trained on one corpus and scored on its test part. With --text, saved models are compared.

    Parameters
    ----------
    what
        A corpus (built-in name, folder with train.txt, valid.txt and test.txt, or one text file) or,
        with --text, saved models: folders or ARPA files, also as NAME=PATH. Default: sotu-modern.
    """
    begin = time.perf_counter()
    chosen = options or CompareOptions()
    tokens = settings or TextSettings()
    require_sense(what, chosen, tokens)
    failure: ElmanError | None = None
    if chosen.text is not None:
        comparison = _saved_models(what, chosen.text, chosen, begin, arpa, quiet=json)
    else:
        comparison, failure = _line_up(what[0] if what else DEFAULT_CORPUS, chosen, tokens, begin, quiet=json)
    _finish(comparison, chosen, quiet=json)
    if failure is not None:
        raise failure


def _line_up(
    source: str, options: CompareOptions, tokens: TextSettings, begin: float, *, quiet: bool
) -> tuple[Comparison, ElmanError | None]:
    """Train the line-up; rows are printed as models finish; Ctrl-C keeps those, and so does an error."""
    from elman.cli import ladder
    from elman.compare import contest
    from elman.compare.assembly import assemble, candidate_of, require_some, subject_of
    from elman.compare.candidates import outside_candidates
    from elman.compare.events import Begun, Finished, Settings, Working
    from elman.compare.lineup import choose
    from elman.compare.side_by_side import default_jobs
    from elman.evaluate import protocol_in
    from elman.text.corpus import load_corpus

    specs = choose(
        options.preset, [name.strip() for name in (options.models or "").split(",") if name.strip()]
    )
    if options.baseline and options.baseline not in [spec.name for spec in specs]:
        raise OptionError(
            f"--baseline {options.baseline!r} is not among the models.",
            remedy=f"one of: {', '.join(spec.name for spec in specs)}.",
        )
    with ladder.Bar() as bar:
        corpus = load_corpus(source, tokens, progress=lambda doing, done, total: bar.show(doing, done, total))
    for note in corpus.notes:
        messages.print(note)
    protocol = protocol_in(corpus.tokenizer, unknown=options.unknown)
    subject = subject_of(
        corpus.name, corpus.origin, corpus.digest, corpus.test, corpus.vocabulary, corpus.train.events
    )
    messages.print(f"{corpus.name}: {corpus.origin}; {corpus.train.events:,} events to train on")
    messages.print(corpus.vocabulary_in_words)
    jobs = options.jobs or default_jobs(options.device)
    settings = Settings(options.seed, options.save, options.device, jobs, source, tokens)
    candidates: list[Candidate] = []
    notes: list[str] = []
    failure: ElmanError | None = None
    titles: dict[str, str] = {}

    def row(candidate: Candidate) -> None:
        candidates.append(candidate)
        if not quiet:
            alone = assemble(
                [candidate],
                subject=subject,
                repeat=repeat(options, begin),
                counting=counting_alone(options),
            )
            if len(candidates) == 1:
                ladder.head(alone.entries[0].row.per)
            ladder.row(alone.entries[0])

    with ExitStack() as stack:
        bar = stack.enter_context(ladder.Bar())
        try:
            for event in contest.run(corpus, specs, settings):
                if isinstance(event, Begun):
                    titles[event.spec.name] = f"{event.spec.label} ({event.position} of {event.of})"
                    bar.begin(titles[event.spec.name])
                elif isinstance(event, Working):
                    rate = "" if event.rate is None else f"{event.rate:,.0f} tokens/s"
                    name = event.spec.name
                    bar.show(f"{titles[name]}, {event.doing}", event.done, event.total, rate, name=name)
                elif isinstance(event, Finished):
                    bar.hide()
                    row(candidate_of(event.outcome, corpus, protocol))
                else:
                    notes.append(f"Stopped by Ctrl-C while {event.spec.label} was trained; it is left out.")
        except KeyboardInterrupt as stop:
            if isinstance(stop, Terminated):
                raise
            notes.append("Stopped by Ctrl-C; the models that were not finished are left out.")
        except ElmanError as error:
            if not candidates:
                raise
            failure = error
            notes.append(
                f"Stopped by an error: {error.cause} The models that were not finished are left out."
            )
        if notes and failure is None:
            resume = "; run the same command again to go on" if options.save else ""
            messages.print(f"elman: stopped{resume}")
    require_some(candidates)
    places = [spec.label for spec in specs]
    candidates.sort(key=lambda candidate: places.index(candidate.label))  # they may finish in any order
    for candidate in outside_candidates(options.scores, candidates[0], base=options.log_base):
        row(candidate)
    lost = bool(notes) and options.baseline not in [candidate.name for candidate in candidates]
    how = counting_alone(options) if lost else counting(options)
    said = (*notes, *corpus.notes)
    done = repeat(options, begin)
    return assemble(candidates, subject=subject, repeat=done, counting=how, notes=said), failure


def _saved_models(
    what: Sequence[str],
    source: str,
    options: CompareOptions,
    begin: float,
    arpa: ArpaOptions | None,
    *,
    quiet: bool,
) -> Comparison:
    """Score saved models (and score files) on one text."""
    from elman.cli import ladder
    from elman.compare.assembly import assemble, subject_of
    from elman.compare.candidates import load_named, outside_candidates, score_model

    named = load_named(what, lambda path: load(path, arpa))
    text = held_out(source, [each.model for each in named], options.split)
    with ladder.Bar() as bar:
        candidates = [
            score_model(
                each,
                text,
                options.unknown,
                seed=options.seed,
                report=lambda name, doing, done, total: bar.show(f"{name}, {doing}", done, total),
            )
            for each in named
        ]
    candidates += outside_candidates(options.scores, candidates[0], base=options.log_base)
    first = candidates[0]
    subject = subject_of(source, text.origin, text.digest, first.scored.text, first.vocabulary)
    done = repeat(options, begin)
    comparison = assemble(
        candidates, subject=subject, repeat=done, counting=counting(options), notes=text.notes
    )
    if not quiet:
        ladder.head(comparison.entries[0].row.per)
        for entry in comparison.entries:
            ladder.row(entry)
    return comparison


def _finish(comparison: Comparison, options: CompareOptions, *, quiet: bool) -> None:
    """Verdicts on the screen or JSON on stdout; the page; the numbers beside the models."""
    from elman.cli import ladder
    from elman.disk import replace_file
    from elman.report import embedded, write_report

    document = comparison.as_json()
    report = report_path(options)
    if not quiet:
        ladder.conclusions(comparison)
    if options.save is not None:
        replace_file(options.save / NUMBERS, embedded(document, indent=1) + "\n")
    if report is not None:
        write_report(comparison, report)
        messages.print(f"Report: {report}")
    if quiet:
        emit(document | {"report": None if report is None else str(report)})
