"""`elman train`: one model of one text, saved, with its perplexity on the part kept for testing.

Not here: the loop (train.py), what options there are (train_options.py), how its events look
(train_display.py).
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from elman.cli.app import app, emit, examples, messages, progress, results
from elman.cli.train_options import (
    Kind,
    ModelOptions,
    Options,
    SaveOptions,
    TrainFlags,
    build_model,
    count_ngrams,
    merge,
    model_config,
    read_options,
    said,
    said_of_text,
    text_settings,
    train_config,
)
from elman.errors import OptionError

# cyclopts reads the annotations of a command at run time
from elman.text.building import TextSettings
from elman.training.config import TrainConfig
from elman.training.interrupt import Terminated

if TYPE_CHECKING:
    from elman.language_model import LanguageModel, Score
    from elman.text.corpus import Corpus
    from elman.training.events import Stopped

EXAMPLES = examples(
    "elman train sotu-modern --save runs/lstm",
    "elman train DIR --model gru --nhid 300 --emsize 300 --tied --dropout 0.3 --save runs/gru",
    "elman train DIR --save runs/gru --resume",
    "elman train DIR --model ngram --order 5 --prune 0 0 1 --save runs/kn5",
    "elman train DIR --config run.toml --lr 0.001 --save runs/third",
    "Zaremba's small LSTM: elman train PTB --model lstm --nhid 200 --emsize 200 --nlayers 2 --dropout 0 "
    "--init-scale 0.1 --optimizer sgd --loss sum --lr 1 --clip 5 --bptt 20 --batch-size 20 "
    "--schedule zaremba --decay 2 --decay-after 4 --epochs 13 --save runs/zaremba-small",
)


@app.command(help_epilogue=EXAMPLES)
def train(
    corpus: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    kind: Annotated[Kind | None, Parameter(name="--model", group="Model")] = None,
    model: Annotated[ModelOptions | None, Parameter(name="*", group="Model")] = None,
    vectors: Annotated[Path | None, Parameter(group="Model")] = None,
    training: Annotated[TrainFlags | None, Parameter(name="*", group="Training")] = None,
    text: Annotated[TextSettings | None, Parameter(name="*", group="Text")] = None,
    output: Annotated[SaveOptions | None, Parameter(name="*", group="Output")] = None,
) -> None:
    """Train a model on a text and report its perplexity on the part kept for testing.

    Ctrl-C stops, keeps the best model and still evaluates it; SIGTERM and SIGHUP stop at once, saved too;
    --resume goes on exactly from there.

    Parameters
    ----------
    corpus
        A built-in name (`elman data` lists them), a folder with train.txt, valid.txt and test.txt, one
        text file (split for you), or - for standard input.
    kind
        What is trained (lstm).
    vectors
        Start from the word vectors of a word2vec or GloVe text file.
    """
    place = output or SaveOptions()  # type: ignore[call-arg]
    flags = said(model) | said(training) | said_of_text(text) | ({"model": kind} if kind else {})
    options = merge(_remembered(place), read_options(place.config) if place.config else {}, flags)
    model_config(options)  # a wrong option is told before the text is read
    config = None if options.kind == "ngram" else train_config(options)
    if place.save is not None and not (place.resume or place.dry_run):
        from elman.run_folder import require_empty, require_replaceable

        (require_replaceable if place.overwrite else require_empty)(place.save)  # before a large text is read
    loaded = _load(corpus, text_settings(options))
    if place.dry_run:
        _dry_run(options, config, loaded, place)
        return
    folder = place.save
    began = time.monotonic()
    report: dict[str, Any] = {"corpus": loaded.name, "origin": loaded.origin, "options": options.as_json()}
    report |= {"kept": loaded.kept, "trained_unknown": loaded.train.unknown}
    report |= {"training_events": loaded.train.events, "corpus_notes": list(loaded.notes)}
    interrupted = None
    if config is None:
        if vectors is not None or place.resume:
            raise OptionError("an n-gram takes neither --vectors nor --resume.")
        trained, lines = _count(options, loaded, folder, place.overwrite)
        report |= lines
    else:
        trained, stopped, history = _learn(options, config, loaded, vectors, place)
        interrupted = stopped.signal
        if (
            interrupted is not None and interrupted != signal.SIGINT
        ):  # whoever sent it does not wait for an evaluation
            raise Terminated(interrupted)
        report |= {"config": config.model_dump(mode="json"), "stopped": stopped.reason, "epochs": history}
        report |= {"best_epoch": stopped.best_epoch, "parameters": trained.parameter_count}
    scores = _final(trained, loaded, bool(config and config.independent))
    report |= {"seconds": time.monotonic() - began, "folder": None if folder is None else str(folder)}
    if place.json_:
        emit(report | {part: score.as_json() for part, score in scores.items()})
    else:
        for part, score in scores.items():
            results.print(
                f"{part:>5} perplexity {score.perplexity:.2f}  ({score.events:,} events, {score.protocol})"
            )
        if folder is not None:
            results.print(f"saved in {folder}")
    if interrupted is not None:
        sys.exit(128 + interrupted)


def _remembered(place: SaveOptions) -> dict[str, Any]:
    """The options of the run that is resumed; none when there is no run yet."""
    if not place.resume:
        return {}
    if place.save is None:
        raise OptionError("--resume needs the folder of the run.", remedy="--save DIR --resume")
    from elman.run_folder import OPTIONS

    path = place.save / OPTIONS
    return read_options(path) if path.is_file() else {}


def _load(source: str, settings: TextSettings) -> Corpus:
    from elman.text.corpus import load_corpus

    with progress() as display:
        task = display.add_task("reading", total=None, rate="")

        def show(what: str, done: int, total: int) -> None:
            display.update(task, description=what, completed=done >> 20, total=(total >> 20) or None)

        corpus = load_corpus(source, settings, progress=show)
    messages.print(
        f"{corpus.name}: {corpus.train.events:,} / {corpus.valid.events:,} / {corpus.test.events:,} "
        f"training / validation / test events. {corpus.origin}"
    )
    messages.print(corpus.vocabulary_in_words)
    for note in corpus.notes:
        messages.print(f"note: {note}")
    return corpus


def _learn(
    options: Options, config: TrainConfig, corpus: Corpus, vectors: Path | None, place: SaveOptions
) -> tuple[Any, Stopped, list[dict[str, Any]]]:
    """Train a neural model, showing how it goes: (the best model, how it ended, a row for each epoch)."""
    from elman.cli.train_display import show
    from elman.neural.vectors import load_vectors
    from elman.train import train

    model = build_model(options, corpus, config.seed)
    if vectors is not None:
        messages.print(f"vectors: {load_vectors(model, vectors)}")

    where = {"save": place.save, "resume": place.resume, "overwrite": place.overwrite}
    events = train(model, corpus, config, **where, options=options.as_json())  # type: ignore[arg-type]
    stopped, history = show(events, config, quiet=place.json_)
    return model, stopped, history


def _count(
    options: Options, corpus: Corpus, folder: Path | None, overwrite: bool
) -> tuple[LanguageModel, dict[str, Any]]:
    from elman.checkpoint import save_model

    model = count_ngrams(options, corpus)
    for line in model.report:
        messages.print(f"note: {line}")
    if folder is not None:
        save_model(model, folder, overwrite=overwrite)
    return model, {"notes": list(model.report)}


def _final(model: LanguageModel, corpus: Corpus, independent: bool) -> dict[str, Score]:
    from elman.evaluate import evaluate

    scores = {}
    with progress() as display:
        for part in ("valid", "test"):
            text = getattr(corpus, part)
            task = display.add_task(f"evaluating {part}", total=text.events, rate="")
            scores[part] = evaluate(
                model,
                text,
                state="reset" if independent else "carry",
                progress=lambda done, total, task=task: display.update(task, completed=done),  # type: ignore[misc]
            )
    return scores


def _dry_run(options: Options, config: TrainConfig | None, corpus: Corpus, place: SaveOptions) -> None:
    """What would be trained: configuration, number of parameters, an estimate of memory."""
    document: dict[str, Any] = {
        "model": options.kind,
        "corpus": corpus.name,
        "vocabulary": len(corpus.vocabulary),
    }
    if config is None:
        document |= {"options": options.model}
    else:
        import torch

        with torch.device("meta"):
            model = build_model(options, corpus, config.seed)
        document |= {"options": model.config_json(), "training": config.model_dump(mode="json")}
        count, kept = model.parameter_count, {"sgd": 1 if config.momentum else 0}.get(config.optimizer, 2)
        rows = config.batch_size * config.bptt
        # weights, gradient, best weights, optimizer; logits and their gradient; some 12 values a unit
        shape = model.config
        units = getattr(shape, "num_layers", 1) * shape.hidden_size + shape.embedding_size
        size = 4 * (count * (3 + kept) + rows * (2 * len(corpus.vocabulary) + 12 * units))
        document |= {"parameters": count, "megabytes": round(size / 1e6, 1)}
    if place.json_:
        emit(document)
        return
    for name, value in document.items():
        if isinstance(value, dict):
            results.print(f"{name}:")
            for key, item in value.items():
                results.print(f"  {key} = {item}")
        else:
            results.print(f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}")
