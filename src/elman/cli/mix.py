"""`elman mix`: one model out of several, with the weights that suit a held-out text best.

Not here: the estimation (mixture.py) and how texts are found (evaluate.py of this folder).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from elman.cli.app import Json, app, emit, examples, messages, progress
from elman.cli.models_and_text import ArpaOptions, Sources, Split, held_out, load
from elman.errors import OptionError

if TYPE_CHECKING:
    import numpy as np

    from elman.language_model import LanguageModel
    from elman.text.corpus import Text


EXAMPLES = examples(
    "elman mix runs/lstm runs/kn5 --tune sotu-modern --save runs/mixture",
    "elman mix runs/lstm runs/gru model.arpa.gz --tune heldout.txt --json",
)


@app.command(name="mix", help_epilogue=EXAMPLES)
def mix_command(
    *models: str,
    tune: Sources,
    save: Path | None = None,
    split: Split | None = None,
    state: Literal["carry", "reset"] = "carry",
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    arpa: ArpaOptions | None = None,
    json: Json = False,
) -> None:
    """One model out of several: P = Σ wᵢ Pᵢ, with the weights that suit a held-out text best.

    The weights are found by expectation-maximization and are the best possible to 1e-7 nats per token.
    Tune on text that no model was trained on, and report the mixture on yet another text.

    Parameters
    ----------
    models
        Model folders, training runs or .arpa files. Where they know different words, a word that one lacks
        has its share of what that model gives to `<unk>`.
    tune
        The held-out text: a file, - for standard input, a folder with train.txt valid.txt test.txt, or a
        built-in corpus.
    save
        Write the mixture to this folder, as one model.
    split
        Which part is used: of a corpus valid, of one text file the whole; but of a file that a model was
        trained from, the valid part that `elman train` cut off it.
    state
        carry: the models remember across sentences. reset: every sentence on its own.
    overwrite
        Replace the model in the --save folder.
    """
    from elman.aligned import alignment
    from elman.checkpoint import save_model
    from elman.evaluate import protocol_of, score
    from elman.mixture import Mixture, fit_weights, mix_nats

    if len(models) < 2:
        raise OptionError(
            f"a mixture needs at least two models, not {len(models)}.",
            remedy="for instance: elman mix runs/lstm runs/kn5 --tune sotu-modern --save runs/mixture",
        )
    if save is not None and save.exists() and not overwrite and any(save.iterdir() if save.is_dir() else [1]):
        raise OptionError(f"{save} is not empty.", remedy="choose another folder, or --overwrite.")
    loaded = [load(name, arpa) for name in models]
    mixture = Mixture(loaded, [1.0] * len(loaded))  # refuses what cannot be mixed before any is scored
    notes = alignment(loaded, models)
    for note in notes:
        messages.print(f"note: {note}")
    # the weights are not for training text, nor for the text that they are tested on
    text = held_out(tune, [mixture, *loaded], split, usual="valid").of(mixture)
    nats = _nats(models, mixture.aligned, text, state)
    weights = fit_weights(nats)
    protocol = protocol_of(mixture, state=state)
    scores = [score(row, text, protocol) for row in nats]
    mixed = score(mix_nats(nats, weights), text, protocol)
    if save is not None:
        save_model(Mixture(loaded, weights), save, overwrite=overwrite)
    if json:
        rows = zip(models, weights, scores, strict=True)
        emit(
            {
                "text": tune,
                "models": [{"model": n, "weight": float(w), "score": s.as_json()} for n, w, s in rows],
                "notes": notes,
                "mixture": {"score": mixed.as_json(), "saved": None if save is None else str(save)},
            }
        )
        return
    print(f"tuned on {tune}: {text.events:,} events ({protocol})\n")
    width = max(len("mixture"), *map(len, models))
    print(f"{'model':{width}}  weight  perplexity")
    for name, weight, each in zip(models, weights, scores, strict=True):
        print(f"{name:{width}}  {weight:6.4f}  {each.perplexity:10,.2f}")
    print(f"{'mixture':{width}}  {'':6}  {mixed.perplexity:10,.2f}")
    if save is not None:
        messages.print(f"saved to {save}; now: elman evaluate {save} TEXT")


def _nats(
    names: tuple[str, ...], models: list[LanguageModel], text: Text, state: Literal["carry", "reset"]
) -> np.ndarray:
    """Nats [M, N] of every model and event, float64."""
    import numpy as np

    from elman.evaluate import event_nats

    nats = np.empty((len(models), text.events))
    with progress() as display:
        for row, name, model in zip(nats, names, models, strict=True):
            task = display.add_task(name, total=text.events, rate="")
            began, done = time.monotonic(), 0
            for chunk in event_nats(model, text, state=state):
                row[done : done + len(chunk)] = chunk
                done += len(chunk)
                rate = f"{done / max(time.monotonic() - began, 1e-9):,.0f} tokens/s"
                display.update(task, completed=done, rate=rate)
    return nats
