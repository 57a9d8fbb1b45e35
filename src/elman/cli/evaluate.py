"""`elman evaluate`, also called `ppl`: the perplexity of models on a text, with its protocol.

Not here: what is computed (evaluate.py), row by row (score.py). Only options, texts found, and tables.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Interval
from cyclopts import Parameter

from elman.cli import score as score  # `elman score` comes with this verb group
from elman.cli.app import Json, app, emit, examples, messages, progress
from elman.cli.models_and_text import ArpaOptions, Sources, Split, held_out, load, models_and_source
from elman.errors import OptionError

if TYPE_CHECKING:
    import numpy as np

    from elman.evaluate import Breakdown, Bucket
    from elman.language_model import LanguageModel, Score, StatePolicy, UnknownPolicy
    from elman.text.corpus import Text

Row = tuple[str, "LanguageModel", "Breakdown"]  # a model's name, the model, its figures under one protocol


EXAMPLES = examples(
    "elman evaluate runs/lstm heldout.txt",
    "elman evaluate runs/lstm runs/kn5 sotu-modern --state both",
    "elman evaluate kn5.arpa.gz heldout.txt --unknown both --breakdown",
)


@app.command(name="evaluate", alias="ppl", help_epilogue=EXAMPLES)
def evaluate_command(
    *models_and_text: Sources,
    split: Split | None = None,
    state: Literal["carry", "reset", "both"] = "carry",
    unknown: Literal["word", "skip", "both"] = "word",
    batch_size: Annotated[int, Interval(ge=1, le=65_536)] = 32,
    breakdown: Annotated[bool, Parameter(negative="")] = False,
    arpa: ArpaOptions | None = None,
    json: Json = False,
) -> None:
    """Perplexity of one or more models on a text, with the protocol it was counted under.

    Parameters
    ----------
    models_and_text
        MODEL… TEXT. A model is a folder, a training run or an .arpa file. TEXT is a file, - for standard
        input, a folder with train.txt valid.txt test.txt, or a built-in corpus.
    split
        Which part is scored: of a corpus or folder test, of one text file the whole; but of a file that a
        model was trained from, the test part that `elman train` cut off it.
    state
        carry: the model remembers across sentences. reset: every sentence on its own, what an n-gram
        sees. both: one row each.
    unknown
        word: `<unk>` counts like a word, as in all Penn Treebank tables. skip: events that are unknown are
        left out. both: one row each.
    batch_size
        Sentences side by side under --state reset; changes the speed only.
    breakdown
        Also show the figures by training count of the token and by place in the sentence.
    """

    names, source = models_and_source("evaluate", models_and_text, "sotu-modern")
    if "-" in names:
        raise OptionError("- (standard input) can be the text, not a model.", remedy="name the text last.")
    if (Path(source) / "config.json").is_file():
        raise OptionError(f"{source} is a model, not a text.", remedy="name the text last.")
    models = [load(name, arpa) for name in names]
    texts = held_out(source, models, split)
    entries: list[dict[str, object]] = []
    rows: list[Row] = []
    for name, model in zip(names, models, strict=True):
        text = texts.of(model)
        found = _evaluate(name, model, text, state, unknown, batch_size)
        rows += [(name, model, each) for each in found]
        entries.append(_entry(name, model, text, found))
    notes = _notes(rows)
    if json:
        emit({"text": source, "split": texts.part, "models": entries, "notes": [*texts.notes, *notes]})
        return
    _print_table(rows, texts.of(models[0]), texts.name)
    if breakdown:
        for name, _, each in rows:
            _print_breakdown(name, each)
    for note in notes:
        messages.print(note)


def _evaluate(
    name: str, model: LanguageModel, text: Text, state: str, unknown: str, batch_size: int
) -> list[Breakdown]:
    """One breakdown for each protocol asked for; the nats are computed once for each state policy."""
    from elman.evaluate import breakdown, event_nats, protocol_of

    states: Sequence[StatePolicy] = ("carry", "reset") if state == "both" else (state,)  # type: ignore[assignment]
    unknowns: Sequence[UnknownPolicy] = ("word", "skip") if unknown == "both" else (unknown,)  # type: ignore[assignment]
    found = []
    for policy in states:
        with progress() as display:
            task = display.add_task(f"{name} ({policy})", total=text.events, rate="")
            began = time.monotonic()

            def advanced(done: int, _: int, task: object = task, began: float = began) -> None:
                rate = f"{done / max(time.monotonic() - began, 1e-9):,.0f} tokens/s"
                display.update(task, completed=done, rate=rate)  # type: ignore[arg-type]

            chunks = event_nats(model, text, state=policy, batch_size=batch_size, progress=advanced)
            nats: np.ndarray | list[np.ndarray] = []
            if len(unknowns) > 1:
                nats = list(chunks)
            for each in unknowns:
                protocol = protocol_of(model, unknown=each, state=policy)
                found.append(breakdown(nats or chunks, text, model.vocabulary, protocol))
    return found


def _entry(name: str, model: LanguageModel, text: Text, found: list[Breakdown]) -> dict[str, object]:
    return {
        "model": name,
        "tokenizer": model.tokenizer.name,
        "vocabulary_size": len(model.vocabulary),
        "sentences": text.sentences,
        "scores": [
            each.score.as_json()
            | {
                "by_frequency": [bucket.as_json() for bucket in each.by_frequency],
                "by_position": [bucket.as_json() for bucket in each.by_position],
            }
            for each in found
        ],
    }


def _notes(rows: list[Row]) -> list[str]:
    """What a reader of the numbers must know."""
    notes = []
    first = rows[0][1]
    scores = [each.score for _, _, each in rows]
    if any(model.tokenizer != first.tokenizer for _, model, _ in rows):
        notes.append(
            "These models cut the text into different tokens: compare them per word and in bits per byte, "
            "never by the first perplexity."
        )
    known = set(first.vocabulary.tokens)
    unlike = any(set(model.vocabulary.tokens) != known for _, model, _ in rows)
    if unlike and any(one.unknown for one in scores):
        notes.append(
            "These models know different words, and some words of the text are unknown: the model that knows "
            "fewer has the easier task. Compare models of one vocabulary, or texts without unknown words."
        )
    lost = dict.fromkeys(model.tokenizer.lost for _, model, _ in rows if model.tokenizer.lost)
    notes += [f"* of less than the text, as the tokens do not tell all of it ({what})." for what in lost]
    told: dict[tuple[str, int, int], list[str]] = {}
    told_ends: list[str] = []
    for name, _, each in rows:
        found = each.score
        of = found.events + (found.unknown if found.protocol.unknown == "skip" else 0)
        if not found.protocol.end_of_sentence:
            told_ends.append(name)
        if found.unknown:
            told.setdefault((found.protocol.unknown, found.unknown, of), []).append(name)
    if told_ends:
        notes.append(
            f"{', '.join(dict.fromkeys(told_ends))}: without </s>, so that ends of sentences do not count: "
            "the perplexity is that of the words alone."
        )
    for (policy, unknown, of), names in told.items():
        share = (
            f"{', '.join(dict.fromkeys(names))}: {unknown:,} of {of:,} events ({100 * unknown / of:.1f} %)"
        )
        if policy == "skip":
            notes.append(
                f'unknown=skip: {share} are <unk> and left out: "excluding OOVs" in other tools. Per word '
                "and per byte are not given: the text without them has no count of its own."
            )
        else:
            notes.append(
                f'unknown=word: {share} are <unk> and count like a word: "including OOVs" in other tools.'
            )
    from elman.evaluate import unlearned

    said = (unlearned(name, model.vocabulary, each.score) for name, model, each in rows)
    return notes + list(dict.fromkeys(note for note in said if note))


def _print_table(rows: list[Row], text: Text, source: str) -> None:
    first = rows[0][2].score
    print(f"{source}: {text.sentences:,} sentences, {first.words:,} words, {first.bytes:,} bytes")
    for protocol in dict.fromkeys(str(each.score.protocol) for _, _, each in rows):
        print(protocol)
    print()
    heads = ("model", "unit", "state", "unknown", "perplexity", "per word", "bits/byte", "events", "<unk>")
    lines: list[tuple[str, ...]] = [(*heads, "of nats", "without")]
    for name, _, each in rows:
        found = each.score
        lines.append(
            (
                name,
                found.protocol.unit,
                found.protocol.state,
                found.protocol.unknown,
                f"{found.perplexity:,.2f}",
                "-" if math.isnan(found.word_perplexity) else f"{found.word_perplexity:,.2f}",
                _bits(found),
                f"{found.events:,}",
                f"{found.unknown:,}",
                f"{found.unknown_share:.1%}" if found.protocol.unknown == "word" else "-",
                f"{found.known_perplexity:,.2f}",
            )
        )
    if not any(each.score.unknown for _, _, each in rows):
        lines = [line[:-2] for line in lines]
    _print_columns(lines, left=4)


def _bits(found: Score) -> str:
    """Bits per byte, marked where the tokens do not tell all of the text."""
    mark = "*" if found.protocol.normalized else ""
    return "-" if math.isnan(found.bits_per_byte) else f"{found.bits_per_byte:.4f}{mark}"


def _print_breakdown(name: str, each: Breakdown) -> None:
    for title, buckets in (("training count", each.by_frequency), ("place in sentence", each.by_position)):
        print(f"\n{name} ({each.score.protocol})")
        if not buckets:
            print(
                "no table by training count: the vocabulary of this model has none (read from an ARPA file)"
            )
            continue
        _print_columns([(title, "events", "share", "of all bits", "perplexity"), *_shares(buckets)], left=1)


def _shares(buckets: list[Bucket]) -> list[tuple[str, ...]]:
    events = sum(bucket.events for bucket in buckets) or 1
    nats = sum(bucket.nats for bucket in buckets) or 1.0
    return [
        (
            bucket.label,
            f"{bucket.events:,}",
            f"{100 * bucket.events / events:.1f} %",
            f"{100 * bucket.nats / nats:.1f} %",
            f"{bucket.perplexity:,.2f}" if bucket.events else "-",
        )
        for bucket in buckets
    ]


def _print_columns(lines: Sequence[tuple[str, ...]], *, left: int) -> None:
    """Aligned columns, the first `left` of them to the left; no colour, so that a pipe reads the same."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
