"""`elman score`: the surprisal of every token, word or sentence of a text, as rows.

Not here: what is computed (surprisal.py). A line is answered as soon as it comes: the lines read so far
are scored together, so a file runs in large groups and `tail -f | elman score MODEL -` line by line.
"""

from __future__ import annotations

import json as json_module
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from elman.cli.app import Json, app, emit, examples, messages
from elman.cli.models_and_text import ArpaOptions, load
from elman.errors import TextError
from elman.text.fields import line_of

if TYPE_CHECKING:
    from elman.surprisal import SentenceSurprisal


EXAMPLES = examples(
    'echo "we the people" | elman score runs/lstm -',
    "elman score runs/lstm heldout.txt --per word > surprisal.tsv",
    "elman score runs/kn5 heldout.txt --per sentence --format jsonl",
)


@app.command(name="score", help_epilogue=EXAMPLES)
def score_command(
    model: str,
    text: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    per: Literal["token", "word", "sentence"] = "token",
    format_: Annotated[Literal["tsv", "jsonl"], Parameter(name="--format")] = "tsv",
    state: Literal["reset", "carry"] = "reset",
    unknown: Literal["word", "skip"] = "word",
    arpa: ArpaOptions | None = None,
    json: Json = False,
) -> None:
    """Surprisal in bits of every token or word, or log-probabilities of every sentence, of a text.

    TSV has a header, and quotes fields as CSV files do: pandas.read_csv(FILE, sep="\\t") and R's read.delim
    read every row and number; a number that is not given is empty. Both take a word such as NA, and a text of
    nothing but numbers, for what they look like, unless told: pandas by dtype={"token": str, "word": str,
    "text": str}, keep_default_na=False, na_values={"bits": [""]}; R by na.strings="",
    colClasses=c(token="character", text="character"). The row of a sentence's end, `</s>`, has an empty text.
    `elman compare --scores` reads the tables by token. Protocol and totals follow on stderr.

    Parameters
    ----------
    model
        A model folder, a training run or an .arpa file.
    text
        A text file, one sentence per line, or - for standard input (answered line by line).
    per
        token: what the model predicts, with its place in the line. word: summed over the words between
        white space, also for models of characters and subwords; no number where the tokenizer keeps nothing
        of a word. sentence: ln, log10 and bits.
    format_
        tsv, or jsonl: one JSON object on each line.
    state
        reset: each sentence on its own. carry: the text is one document, a sentence is read after those
        before it.
    unknown
        word: an unknown word has the surprisal of `<unk>`. skip: it has none and is left out of sums.
    """
    from elman.evaluate import protocol_of
    from elman.surprisal import grouped_surprisals, rows
    from elman.text.opening import Source, name_of, read_once
    from elman.text.sources import looks_of

    loaded = load(model, arpa)
    protocol = protocol_of(loaded, unknown=unknown, state=state)
    totals = _Totals()
    documents: list[dict[str, object]] = []
    write = _Writer(format_) if not json else None
    source: Source = "-" if text == "-" else Path(text)
    name = name_of(source)
    for sentence in grouped_surprisals(loaded, _groups(text), state=state, name=name):
        totals.add(sentence, skip=unknown == "skip", ends=protocol.end_of_sentence)
        found = rows(sentence, per=per, unknown=unknown)
        if write is None:
            documents.extend(found)
        else:
            write.rows(found)
    if not totals.sentences:
        raise TextError(f"{name} is empty: there is no sentence to score.", remedy="give a text with a line.")
    if not read_once(source) and (width := looks_of(Path(text)).width):
        messages.print(
            f"note: the lines of {name} look wrapped at {width} columns, and each was scored as a sentence; "
            "`elman evaluate` joins them."
        )
    if json:
        emit(
            {
                "model": model,
                "text": text,
                "per": per,
                "protocol": str(protocol),
                **totals.as_json(),
                "rows": documents,
            }
        )
    else:
        messages.print(f"{protocol}: {totals}")


def _groups(text: str) -> Iterator[list[str]]:
    """Lines in groups: of standard input as many as have come, and everything printed before more is read."""
    from elman.surprisal import GROUP
    from elman.text.reading import open_blocks

    for block in open_blocks("-" if text == "-" else Path(text), endless=True):
        lines = block[:-1].decode().split("\n")
        for first in range(0, len(lines), GROUP):
            yield lines[first : first + GROUP]
        sys.stdout.flush()


class _Totals:
    """Sums over the sentences so far."""

    def __init__(self) -> None:
        self.sentences = self.events = self.unknown = 0
        self.nats = 0.0

    def add(self, sentence: SentenceSurprisal, *, skip: bool, ends: bool) -> None:
        """skip  leave out unknown tokens; ends  `</s>`, the last token, counts."""
        tokens = sentence.tokens if ends else sentence.tokens[:-1]
        counted = [token.nats for token in tokens if not (skip and token.unknown)]
        self.sentences += 1
        self.unknown += sentence.unknown
        self.events += len(counted)
        self.nats += math.fsum(counted)

    @property
    def perplexity(self) -> float:
        from elman.language_model import perplexity

        return perplexity(self.nats, self.events)

    def as_json(self) -> dict[str, object]:
        return {**vars(self), "bits": self.nats / math.log(2), "perplexity": self.perplexity}

    def __str__(self) -> str:
        return (
            f"{self.sentences:,} sentences, {self.events:,} events, {self.unknown:,} unknown, "
            f"{self.nats / math.log(2):,.2f} bits, perplexity {self.perplexity:,.2f}"
        )


class _Writer:
    """Rows on stdout, the header of a TSV before the first."""

    def __init__(self, format_: str) -> None:
        self.format, self.begun = format_, False

    def rows(self, rows: Iterator[dict[str, object]]) -> None:
        for row in rows:
            if self.format == "jsonl":
                finite = {
                    key: None if isinstance(value, float) and not math.isfinite(value) else value
                    for key, value in row.items()
                }
                sys.stdout.write(json_module.dumps(finite, ensure_ascii=False, allow_nan=False) + "\n")
                continue
            if not self.begun:
                sys.stdout.write(line_of(row) + "\n")
                self.begun = True
            sys.stdout.write(line_of(row.values()) + "\n")
