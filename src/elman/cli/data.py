"""`elman data`: the built-in corpora, or one corpus as a model sees it. It trains and scores nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from elman.cli.app import Json, app, emit, examples, messages, progress, results

# cyclopts reads the annotations of a command at run time
from elman.text.building import TextSettings

if TYPE_CHECKING:
    from elman.text.corpus import Corpus, Text

EXAMPLES = examples(
    "elman data",
    "elman data sotu-modern",
    "elman data text.txt --tokenizer prose",
    "elman data folder/ --vocabulary-size 10000",
    "elman data kjv --lines 3 --json",
)


wide = Console(markup=False, highlight=False, width=200)
"""Numbers are never cut to fit: a narrow terminal wraps the line."""


@app.command(help_epilogue=EXAMPLES)
def data(
    corpus: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    settings: Annotated[TextSettings, Parameter(name="*")] = TextSettings(),  # noqa: B008  frozen
    lines: Annotated[int, Interval(ge=0, le=100_000)] = 5,
    json: Json = False,
) -> None:
    """List the built-in corpora, or show one corpus: counts, vocabulary and its first sentences.

    Parameters
    ----------
    corpus
        A built-in name, a folder with train.txt, valid.txt and test.txt, one text file (also .gz), or -.
    lines
        Sentences of the training part shown as the model sees them.
    """
    if corpus is None:
        _list(json)
        return
    from elman.text.corpus import load_corpus

    with progress() as display:
        task = display.add_task("", total=None, rate="")
        shown = load_corpus(
            corpus,
            settings,
            progress=lambda what, done, total: display.update(
                task, description=what, completed=done, total=total or None
            ),
        )
    for note in shown.notes:
        messages.print(f"elman: {note}")
    rows = {name: _counts(text) for name, text in _splits(shown)}
    first = _first_sentences(shown, max(0, lines))
    if json:
        emit(_document(shown, rows, first))
        return
    results.print(f"{shown.name}  {shown.origin}")
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("")
    for title in ("sentences", "events", "words", "bytes", "unknown", "unknown %"):
        table.add_column(title, justify="right")
    for name, row in rows.items():
        whole = (f"{row[key]:,}" for key in ("sentences", "events", "words", "bytes", "unknown"))
        table.add_row(name, *whole, f"{100 * row['unknown_rate']:.2f}")
    wide.print(table)
    results.print(
        f"vocabulary {len(shown.vocabulary):,} ({shown.vocabulary.digest})  ·  "
        f"tokenizer {shown.tokenizer.name}  ·  digest {shown.digest}\n"
        f"{shown.vocabulary_in_words}\n"
        "An event is one predicted token, </s> at the end of each sentence included; words and bytes are the "
        "original text's."
    )
    if first:
        results.print("First sentences, as a model sees them:")
        for sentence in first:
            results.print(f"  {sentence}")


def _list(json: bool) -> None:
    from elman.text.builtin import list_builtin

    rows = list_builtin()
    if json:
        emit({"corpora": rows})
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("corpus", "text", "MB", "tokens", "licence"):
        table.add_column(title, no_wrap=True, justify="right" if title in ("MB", "tokens") else "left")
    for row in rows:
        name = f"{row['name']}{' *' if row['default'] else ''}"
        size, tokens = f"{row['megabytes']}", f"{row['train_tokens']:,}"
        table.add_row(name, str(row["title"]), size, tokens, str(row["licence"]).partition(" (")[0])
    wide.print(table)
    for row in rows:
        if not row["installed"]:
            results.print(f"{row['name']} is not installed: {row['install']}")
    results.print(
        "* the default; tokens: of the training part.  Show one: elman data NAME\n"
        "Your own text: a file, or a folder with train.txt, valid.txt and test.txt."
    )


def _splits(corpus: Corpus) -> tuple[tuple[str, Text], ...]:
    return (("train", corpus.train), ("valid", corpus.valid), ("test", corpus.test))


def _counts(text: Text) -> dict[str, Any]:
    return {
        "sentences": text.sentences,
        "events": text.events,
        "words": int(text.words.sum(dtype="int64")),
        "bytes": int(text.bytes.sum(dtype="int64")),
        "unknown": text.unknown,
        "unknown_rate": text.unknown / text.events,
    }


def _first_sentences(corpus: Corpus, count: int) -> list[str]:
    ids = corpus.train.ids[: 1 << 16].tolist()
    sentences: list[str] = []
    start = 0
    while len(sentences) < count and start < len(ids):
        stop = ids.index(1, start) + 1 if 1 in ids[start:] else len(ids)
        sentences.append(" ".join(corpus.vocabulary.token(number) for number in ids[start:stop]))
        start = stop
    return sentences


def _document(corpus: Corpus, rows: dict[str, dict[str, Any]], first: list[str]) -> dict[str, object]:
    return {
        "name": corpus.name,
        "origin": corpus.origin,
        "digest": corpus.digest,
        "tokenizer": corpus.tokenizer.name,
        "vocabulary": {
            "size": len(corpus.vocabulary),
            "digest": corpus.vocabulary.digest,
            "kept": corpus.kept,
            "trained_unknown": corpus.vocabulary.trained_unknown,
        },
        "splits": rows,
        "first_sentences": first,
        "notes": list(corpus.notes),
    }
