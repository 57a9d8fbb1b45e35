"""`elman inspect`: what a model is, read from its folder, and which words it holds to be alike.

Not here: how well it does on a text (evaluate.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval
from cyclopts import Parameter

from elman.cli.app import Json, app, emit, examples
from elman.cli.models_and_text import ArpaOptions, load
from elman.errors import OptionError

if TYPE_CHECKING:
    from elman.language_model import LanguageModel
    from elman.neural.model import NeuralModel

HEAD = 12
"""How many of the most frequent tokens are shown."""


EXAMPLES = examples(
    "elman inspect runs/lstm",
    "elman inspect runs/lstm --neighbours congress war peace -k 5",
    "elman inspect runs/lstm --vectors embedding.txt",
)


@app.command(name="inspect", help_epilogue=EXAMPLES)
def inspect_command(
    model: str,
    /,
    *,
    neighbours: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    count: Annotated[int, Interval(ge=1, le=1_000_000), Parameter(name=["--count", "-k"])] = 10,
    vectors: Path | None = None,
    arpa: ArpaOptions | None = None,
    json: Json = False,
) -> None:
    """What a model is: kind, shape, size, vocabulary, training; and the nearest neighbours of words.

    Parameters
    ----------
    model
        A model folder, a training run or an .arpa file.
    neighbours
        Words whose nearest neighbours by the cosine of their embeddings are listed.
    count
        How many neighbours of each word.
    vectors
        Write the embedding to this file in word2vec's text format (.gz: compressed).
    """
    from elman.kernels import native
    from elman.neural import vectors as word_vectors

    path = Path(model)
    loaded = load(path, arpa)
    document: dict[str, Any] = {"model": model, **_describe(loaded), **_size(path)}
    document["kernels"] = native.running()
    document["vocabulary"] = _vocabulary(loaded)
    document["tokenizer"] = loaded.tokenizer.as_json() | {"unit": loaded.tokenizer.unit}
    if training := _training(path):
        document["training"] = training
    if neighbours:
        embedded = _embedded(loaded)
        document["neighbours"] = {
            word: [
                {"word": near, "cosine": cosine}
                for near, cosine in word_vectors.neighbours(embedded, loaded.vocabulary, word, count)
            ]
            for word in neighbours
        }
    if vectors is not None:
        word_vectors.write_vectors(_embedded(loaded), loaded.vocabulary, vectors)
        document["vectors"] = str(vectors)
    if json:
        emit(document)
        return
    _print(document)


def _describe(model: LanguageModel) -> dict[str, Any]:
    describe = getattr(model, "describe", None)
    described: dict[str, Any] = describe() if describe is not None else {"kind": type(model).__name__}
    return described


def _size(path: Path) -> dict[str, Any]:
    """Where the model was read from, and the bytes of its files."""
    folder = _folder(path)
    files = [folder] if folder.is_file() else [file for file in folder.rglob("*") if file.is_file()]
    return {"folder": str(folder), "disk_bytes": sum(file.stat().st_size for file in files)}


def _folder(path: Path) -> Path:
    """The folder or file that holds the model: of a run, the step that is loaded."""
    from elman import run_folder

    if path.is_file() or (path / "config.json").is_file():
        return path
    best = run_folder.pointer(path, run_folder.BEST)
    return best or next(iter(run_folder.candidates(path)), path)


def _vocabulary(model: LanguageModel) -> dict[str, Any]:
    vocabulary = model.vocabulary
    counts = None if vocabulary.counts is None else vocabulary.counts[:HEAD].tolist()
    return {
        "size": len(vocabulary),
        "digest": vocabulary.digest,
        "head": list(vocabulary.tokens[:HEAD]),
        "head_counts": counts,
        "training_events": None if vocabulary.counts is None else int(vocabulary.counts.sum()),
    }


def _training(path: Path) -> dict[str, Any] | None:
    """How far the training came, from the checkpoint's own record; None for a model without one."""
    from elman.checkpoint import STATE
    from elman.storage import read_json

    if not path.is_dir() or not (state := _folder(path) / STATE).is_file():
        return None
    record = _object(read_json(state), "record")
    progress, run = _object(record, "progress"), _object(record, "run")
    summary: dict[str, Any] = {key: progress.get(key) for key in ("step", "epoch", "best_epoch", "seconds")}
    history = progress.get("history")
    summary["history"] = history if isinstance(history, list) else []
    return summary | {"config": run.get("config"), "corpus": run.get("corpus")}


def _object(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _embedded(model: LanguageModel) -> NeuralModel:
    """The model if it has an embedding; of a mixture, its heaviest part that has."""
    from elman.mixture import Mixture
    from elman.neural.model import NeuralModel

    if isinstance(model, NeuralModel):
        return model
    if isinstance(model, Mixture):
        ranked = sorted(zip(model.weights, model.models, strict=True), key=lambda pair: -pair[0])
        for _, part in ranked:
            if isinstance(part, NeuralModel | Mixture):
                return _embedded(part)
    raise OptionError(
        "this model has no embedding.",
        reason="n-grams count words; they hold no vectors of them.",
        remedy="inspect a recurrent or feed-forward model.",
    )


def _print(document: dict[str, Any]) -> None:
    shown = {
        "vocabulary",
        "tokenizer",
        "training",
        "neighbours",
        "models",
        "orders",
        "ngrams",
        "settings",
        "vectors",
    }
    for name, value in document.items():
        if name not in shown and value not in (None, []):
            _line(name, _readable(name, value))
    for part in document.get("models", []):
        _line(
            f"{part['weight']:.4f} ×", ", ".join(f"{key} {_readable(key, part[key])}" for key in _brief(part))
        )
    _print_orders(document)
    vocabulary, tokenizer = document["vocabulary"], document["tokenizer"]
    events = vocabulary["training_events"]
    counted = "" if events is None else f", {events:,} training tokens"
    _line("vocabulary", f"{vocabulary['size']:,} tokens, digest {vocabulary['digest']}{counted}")
    _line("", " ".join(map(_visible, vocabulary["head"])) + (" …" if vocabulary["size"] > HEAD else ""))
    options = ", ".join(f"{k}={v}" for k, v in tokenizer.items() if k not in ("name", "unit") and _short(v))
    _line(
        "tokenizer", f"{tokenizer['name']} (unit: {tokenizer['unit']})" + (f", {options}" if options else "")
    )
    if "training" in document:
        _print_training(document["training"])
    for word, near in document.get("neighbours", {}).items():
        print(f"\n{word}")
        for each in near:
            print(f"  {each['cosine']:7.4f}  {_visible(each['word'])}")
    if "vectors" in document:
        print(f"\nvectors written to {document['vectors']}")


def _print_orders(document: dict[str, Any]) -> None:
    """n-gram counts and discounts, one line an order."""
    orders = {str(each.get("order")): each for each in document.get("orders", [])}
    for order, size in document.get("ngrams", {}).items():
        discounts = orders.get(order, {}).get("discounts")
        numbers = "" if not discounts else f"  discounts {' '.join(f'{amount:.5f}' for amount in discounts)}"
        _line(f"{order}-grams", f"{size:>12,}{numbers}")


def _print_training(training: dict[str, Any]) -> None:
    seconds = training["seconds"]
    took = f", {seconds:,.0f} s" if isinstance(seconds, int | float) else ""
    _line("training", f"{training['epoch']} epochs, {training['step']} updates{took}")
    for row in training["history"]:
        if isinstance(row, dict) and row.get("epoch") == training["best_epoch"]:
            train, valid = row.get("train_perplexity"), row.get("valid_perplexity")
            if isinstance(train, float) and isinstance(valid, float):
                _line("", f"best epoch {row['epoch']}: train perplexity {train:,.2f}, valid {valid:,.2f}")


def _brief(part: dict[str, Any]) -> list[str]:
    wanted = ("kind", "cell", "hidden_size", "num_layers", "window", "method", "order", "parameters")
    return [key for key in wanted if key in part]


def _line(name: str, value: str) -> None:
    print(f"{name.replace('_', ' '):18} {value}".rstrip())


def _readable(name: str, value: Any) -> str:
    if name.endswith("bytes"):
        return f"{value / 1e6:,.2f} MB"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _visible(token: str) -> str:
    """Blanks and controls as escapes: a character model's tokens must be seen."""
    return token if token.isprintable() and not token.isspace() else ascii(token)


def _short(value: object) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) < 40)
