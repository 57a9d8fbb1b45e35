"""`elman trace`: what a model expected at every token and what went on inside, as a table, JSON or a page.

Not here: what is computed (trace.py, tracing/), the page (explore/).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Interval

from elman.cli.app import Json, app, emit, examples, messages
from elman.cli.models_and_text import ArpaOptions, Sources, load, models_and_source, short_names
from elman.cli.ranges import Place
from elman.errors import OptionError, TextError

if TYPE_CHECKING:
    from elman.language_model import LanguageModel, StatePolicy
    from elman.tracing.document import Trace

EXAMPLES = examples(
    'echo "we the people" | elman trace runs/lstm -',
    "elman trace runs/lstm speech.txt --json > speech.json",
    "elman trace runs/rnn runs/gru runs/lstm speech.txt --html speech.html",
)


TOP, SHOWN = 10, 3


@app.command(name="trace", help_epilogue=EXAMPLES)
def trace_command(
    *models_and_text: Sources,
    state: Literal["carry", "reset"] = "carry",
    first: Place = 0,
    last: Place | None = None,
    top: Annotated[int, Interval(ge=1, le=1_000_000)] | None = None,
    detail: bool = True,
    html: Path | None = None,
    arpa: ArpaOptions | None = None,
    json: Json = False,
) -> None:
    """What a model expected at every token; with --json or --html also every gate, state and gradient.

    The table has the surprisal of each token in bits, its rank among all tokens, and what was likelier. The
    JSON (format elman-trace) adds, for recurrent models, all gates and states of each layer and the norms of
    ∂L_t/∂h_s, the gradient of every token's loss at every earlier state. The page shows all of it.

    Parameters
    ----------
    models_and_text
        MODEL… TEXT: model folders, training runs or .arpa files, then a text file or - for standard input.
    state
        carry: the text is one document. reset: each sentence starts afresh, as an n-gram sees it.
    first, last
        Tokens of the text to trace, from 0; --last is left out. Gates and gradients: at most 200 tokens.
    top
        How many of the likeliest next tokens are listed, at most (3 in the table, 10 in the JSON).
    detail
        --no-detail: neither gates nor gradients, so that a text may be as long as you like.
    html
        Write a page that opens in any browser, without a server or a network: the whole text, with gates and
        gradients of its first 200 tokens.
    json
        One JSON document; of several models, a list with one for each.
    """
    import torch

    from elman.text.opening import name_of
    from elman.trace import TraceOptions, trace

    torch.set_num_threads(1)  # step by step there is too little to share; two threads wait for each other

    names, source = models_and_source("trace", models_and_text, "speech.txt")
    if html is not None and not html.parent.is_dir():
        raise OptionError(f"{html} cannot be written: there is no folder {html.parent}.", remedy="make it.")
    lines = _lines(source)
    models = {label: load(name, arpa) for name, label in short_names(names).items()}
    if html is not None:
        if first or last is not None or top is not None or not detail:
            raise OptionError(
                "--first, --last, --top and --no-detail are for the table and --json: a page shows all.",
                remedy="leave them out, and give a shorter text where it is too long.",
            )
        _write_page(models, source, lines, state, html)
    inside = detail and json
    likeliest = top or (TOP if json else SHOWN)
    options = TraceOptions(top=likeliest, state=state, first=first, last=last, gates=inside, gradients=inside)
    told = name_of("-" if source == "-" else Path(source))
    if json:
        found = [
            trace(model, lines, name=name, source=told, options=options) for name, model in models.items()
        ]
        documents = [each.as_json() for each in found]
        emit(documents[0] if len(documents) == 1 else documents, compact=True)
    elif html is None:
        for name, model in models.items():
            try:
                _print(trace(model, lines, name=name, source=told, options=options))
            except TextError as error:
                if error.line is not None and error.line > 1 and (first, last) == (0, None):
                    _print(trace(model, lines[: error.line - 1], name=name, options=options))
                raise


def _write_page(
    models: dict[str, LanguageModel], source: str, lines: list[str], state: StatePolicy, path: Path
) -> None:
    from elman.disk import replace_file
    from elman.explore.answers import Explorer
    from elman.explore.export import static_document, static_page

    title = "standard input" if source == "-" else Path(source).name
    document = static_document(Explorer(models), [(title, "\n".join(lines))], state)
    page = static_page(document, title=title)
    replace_file(path, page)
    messages.print(f"{path}: {len(page) / 1e6:.1f} MB, opens in any browser, without a server or a network.")


def _lines(source: str) -> list[str]:
    from elman.text.reading import read_text

    if source != "-" and not Path(source).exists():
        raise TextError(
            f"{source} does not exist.",
            remedy=f'give a text file, or the text itself: echo "{source}" | elman trace MODEL -',
        )
    return read_text("-" if source == "-" else Path(source)).split("\n")[:-1]


def _print(found: Trace) -> None:
    """Place, token, bits, rank and the likeliest, in columns."""
    from elman.language_model import perplexity

    print(
        f"{found.model['name']}: tokens {found.first} to {found.first + len(found.rows)} of {found.total}\n"
    )
    width = max(5, *(len(row.event.token) for row in found.rows))
    print(f"{'':>5}  {'token':<{width}}  {'bits':>6}  {'rank':>6}  likeliest")
    for place, row in enumerate(found.rows, start=found.first):
        likeliest = "  ".join(f"{token} {100 * p:.1f} %" for token, p in row.top)
        shown = row.event.token + ("" if not row.event.unknown else "*")
        print(f"{place:>5}  {shown:<{width}}  {row.event.bits:>6.2f}  {row.rank:>6,}  {likeliest}")
    nats = sum(row.event.nats for row in found.rows)
    mean = perplexity(nats, len(found.rows))
    print(f"\n{nats / math.log(2):,.1f} bits, perplexity {mean:,.1f}, state={found.state}")
    if any(row.event.unknown for row in found.rows):
        print("* not in the vocabulary: scored as <unk>")
    print()
