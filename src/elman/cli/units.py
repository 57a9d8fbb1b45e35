"""`elman memory units`: which units stay on over some words, and where else in a text they do.

Not here: the search (memory/units.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Interval

from elman.cli.app import Json, emit, examples, progress
from elman.cli.connectivity import ids_of, words_of
from elman.cli.memory import memory_app
from elman.cli.models_and_text import Split, held_out
from elman.cli.ranges import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES = examples(
    'elman memory units runs/lstm sotu-modern "we spent $ 300 billion on defense" --first 3 --last 6',
    "elman memory units runs/lstm sotu-modern speech.txt --first 40 --last 45 --layer 2 --part c",
)

SHOWN = 10  # units


@memory_app.command(name="units", help_epilogue=EXAMPLES)
def units_command(
    model: str,
    reference: str,
    text: str,
    /,
    *,
    first: Place = 0,
    last: Place | None = None,
    layer: Annotated[int, Interval(ge=1, le=64)] = 1,
    part: Literal["h", "c"] = "h",
    threshold: Annotated[float, Interval(gt=0, le=65_504)] | None = None,
    split: Split | None = None,
    state: Literal["carry", "reset"] = "carry",
    json: Json = False,
) -> None:
    """Which units stay on over some words, and where else in a reference text they do (as LSTMVis finds it).

    A unit is on at a token where its value, once the token has been read, is at least the threshold, above
    zero or below.

    Parameters
    ----------
    model
        A recurrent model: a folder or a training run.
    reference
        Where to look: a text or a corpus, as in `elman evaluate`; its first 50,000 tokens.
    text
        The words themselves in quotes, a text file, or - for standard input.
    first
        The first token of the text that counts, from 0.
    last
        The token after the last that counts (all).
    layer
        From 1, the one that reads the embedding.
    part
        h, or the cell c of an LSTM.
    threshold
        From which size on a value is on (so that a quarter of the reference text's values are).
    split
        Which part of a corpus, or of a file that a model was trained from, is the reference (test).
    state
        carry: each text is one stream. reset: every sentence starts from zeros.
    """
    from elman.checkpoint import load_model
    from elman.memory.state_index import index_states, states_over
    from elman.memory.units import similar

    loaded = load_model(model)
    ids = ids_of(words_of(text), loaded)
    states = states_over(loaded, ids, layer, part, state=state)
    with progress() as display:
        task = display.add_task(reference, total=None, rate="")
        index = index_states(
            loaded,
            held_out(reference, [loaded], split).of(loaded),
            layer,
            part,
            state=state,
            progress=lambda done, work: display.update(task, completed=done, total=work),
        )
    found = similar(index, states, first, len(ids) if last is None else last, threshold)
    if json:
        emit({"model": model, "reference": reference, "text": text, **found})
    else:
        _print(found, [loaded.vocabulary.tokens[token] for token in ids])


def _print(found: dict[str, Any], tokens: Sequence[str]) -> None:
    words = " ".join(tokens[found["first"] : found["last"]])
    print(f"tokens {found['first']} to {found['last']}: {words}")
    print(f"layer {found['layer']}, |{found['part']}| at least {found['threshold']:g} throughout: ", end="")
    units = [f"{unit['unit']} ({unit['mean']:+.2f})" for unit in found["units"]]
    more = f"  and {len(units) - SHOWN} more" if len(units) > SHOWN else ""
    print(("  ".join(units[:SHOWN]) or "no unit") + more)
    if found["common"]:
        print(f"(and {found['common']} that are on at most tokens of the reference text anyway)")
    if not found["matches"]:
        print("nowhere else" if found["units"] else "a lower --threshold, or fewer tokens, may find some")
        return
    print(f"\n{'on':>5}  {'place':>6}  where else")
    for match in found["matches"]:
        shown, begin, stop = match["tokens"], match["from"], match["to"]
        parts = (shown[:begin], ["[", *shown[begin:stop], "]"], shown[stop:])
        line = " ".join(token for part in parts for token in part)
        print(f"{100 * match['score']:>3.0f} %  {match['start']:>6,}  {line}")
