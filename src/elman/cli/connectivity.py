"""`elman memory connectivity`: which earlier tokens move what a model expects next, in a text of a few words.

Not here: the measurement (memory/connectivity.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Interval

from elman.cli.app import Json, emit, examples, progress
from elman.cli.memory import memory_app, require_drawable, save_figure
from elman.cli.models_and_text import ArpaOptions, Sources, load, models_and_source, short_names
from elman.cli.ranges import Seed
from elman.errors import TextError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.progress import TaskID

    from elman.language_model import LanguageModel
    from elman.memory.connectivity import Connectivity

EXAMPLES = examples(
    'elman memory connectivity runs/lstm "we the people of the united states"',
    "elman memory connectivity runs/kn5 runs/rnn runs/lstm line.txt --figure c.svg",
)
DISTANCES = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100)


@memory_app.command(name="connectivity", help_epilogue=EXAMPLES)
def connectivity_command(
    *models_and_text: Sources,
    exchanges: Annotated[int, Interval(ge=1, le=10_000)] = 8,
    seed: Seed = 1,
    figure: Path | None = None,
    arpa: ArpaOptions | None = None,
    json: Json = False,
) -> None:
    """Which earlier tokens move what a model expects next, in a text of a few words.

    Every token is exchanged for others of the vocabulary, drawn as often as they occur, and the text is read
    again: by how many nats does the next-token distribution change? It works for every model; an n-gram's
    change is zero beyond its order. The JSON also has the norms of the gradients, for recurrent models.
    One text is an anecdote; `elman memory MODEL TEXT` measures a whole one.

    Parameters
    ----------
    models_and_text
        MODEL… TEXT: the words themselves in quotes, a text file, or - for standard input; 200 tokens at most.
    exchanges
        How many tokens are tried in the place of each.
    seed
        Of their draw.
    figure
        Also draw the changes as a matrix for each model (.svg, .png, .pdf); needs matplotlib.
    """
    from elman.memory.connectivity import connectivity

    names, source = models_and_source("memory connectivity", models_and_text, '"we the people"')
    if figure is not None:
        require_drawable(figure)
    text = words_of(source)
    labels = short_names(names)
    found: dict[str, Connectivity] = {}
    with progress() as display:
        for name in names:
            task = display.add_task(name, total=None, rate="")

            def report(done: int, work: int, task: TaskID = task) -> None:
                display.update(task, completed=done, total=work)

            model = load(name, arpa)
            found[labels[name]] = connectivity(
                model, ids_of(text, model), exchanges=exchanges, seed=seed, progress=report
            )
    if figure is not None:
        draw(found, figure)
    if json:
        rows = zip(names, found.values(), strict=True)
        emit({"text": text, "models": [{"model": name, **each.as_json()} for name, each in rows]})
        return
    for name, each in found.items():
        _print(name, each)
    _print_distances(found)


def words_of(source: str) -> str:
    """The text that an argument means: of standard input, of a file, or the argument itself."""
    from elman.text.reading import read_text

    if source == "-" or os.path.isfile(source):  # a long text is no path, and no error here
        return read_text("-" if source == "-" else Path(source)).strip("\n")
    if not source.strip():
        raise TextError("the text is empty.", remedy="give some words.")
    if source.endswith((".txt", ".gz")):
        raise TextError(f"{source} does not exist.", remedy="give a text file, or the words themselves.")
    return source


def ids_of(text: str, model: LanguageModel) -> NDArray[np.int32]:
    """[T] tokens of the text, without the end of its last sentence: it need not be over."""
    from elman.text.corpus import encode_string

    ids = encode_string(text, model.tokenizer, model.vocabulary).ids
    return ids[:-1]


def _print(name: str, found: Connectivity) -> None:
    """One line for each token: what it was expected from, the strongest first."""
    width = max(5, *(len(token) for token in found.tokens))
    print(f"{name}\n{'token':<{width}}  expected from (change in nats if another token stood there)")
    for t, token in enumerate(found.tokens):
        row = sorted(((value, -s) for s, value in enumerate(found.exchanged[t, : t + 1])), reverse=True)
        shown = [f"{found.inputs[-s]} {value:.2f}" for value, s in row[:4] if value >= 0.005]
        print(f"{token:<{width}}  " + "   ".join(shown))
    print()


def _print_distances(found: dict[str, Connectivity]) -> None:
    width = max([8, *(len(name) for name in found)])
    print(f"{'tokens back':>11}" + "".join(f"  {name:>{width}}" for name in found) + "   mean change, nats")
    columns = [each.by_distance() for each in found.values()]
    for distance in (d for d in DISTANCES if d <= max(map(len, columns))):
        cells = [f"{column[distance - 1]:.4f}" if distance <= len(column) else "" for column in columns]
        print(f"{distance:>11}" + "".join(f"  {cell:>{width}}" for cell in cells))


def draw(found: dict[str, Connectivity], path: Path) -> None:
    """For each model a matrix: predicted tokens down, the tokens read across; darker is a larger change."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    longest = max(len(each.tokens) for each in found.values())
    side = min(12.0, max(3.2, 0.22 * longest + 1.2))
    figure = Figure(figsize=(side * len(found) + 0.8, side), layout="constrained")
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    top = max(1e-2, *(float(each.exchanged.max()) for each in found.values()))
    for axis, (name, each) in zip(axes, found.items(), strict=True):
        values = each.exchanged.clip(1e-3)
        values[each.exchanged < 1e-3] = float("nan")
        image = axis.imshow(values, norm=LogNorm(1e-3, top), cmap="Blues")
        axis.set_xticks(range(len(each.inputs)), each.inputs, rotation=90, fontsize=7)
        axis.set_yticks(range(len(each.tokens)), each.tokens, fontsize=7)
        axis.set(title=name, xlabel="token read", ylabel="token predicted" if axis is axes[0] else "")
    figure.colorbar(image, ax=axes, label="change of the expectation, nats", shrink=0.8)
    save_figure(figure, path)
