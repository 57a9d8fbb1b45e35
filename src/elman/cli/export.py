"""`elman export`: a model in another form. Import is not a verb: every verb reads .arpa files.

arpa         n-gram models, for KenLM, SRILM, Kaldi and others
vectors      the word embedding of a neural model, in word2vec's text format
safetensors  all arrays of any model in one file; configuration, tokenizer and vocabulary as its metadata
int8, bfloat16  a recurrent model in fewer bits: a model folder, smaller and faster, for every verb but train
"""

from __future__ import annotations

import json as standard_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from cyclopts import Parameter

from elman.cli.app import Json, app, emit, examples, results
from elman.cli.models_and_text import ArpaOptions, load
from elman.errors import OptionError

if TYPE_CHECKING:
    from elman.language_model import LanguageModel
    from elman.neural.model import NeuralModel
    from elman.ngram.backoff import NgramModel

Format = Literal["arpa", "vectors", "safetensors", "int8", "bfloat16"]
QUANTIZED = ("int8", "bfloat16")


EXAMPLES = examples(
    "elman export runs/kn5 kn5.arpa.gz",
    "elman export runs/lstm embedding.txt --to vectors",
    "elman export runs/lstm lstm.safetensors",
    "elman export runs/lstm runs/lstm-int8 --to int8",
)


@app.command(name="export", help_epilogue=EXAMPLES)
def export_command(
    model: str,
    path: Path,
    /,
    *,
    to: Format | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    arpa: ArpaOptions | None = None,
    json: Json = False,
) -> None:
    """Write a model for other programs, or a recurrent one smaller and faster for Elman itself.

    With --to int8 or bfloat16 the result is a model folder that every verb but train reads: a quarter or half
    the size, and faster, as reading the weights is what takes the time. Perplexity hardly moves; evaluate
    both on your text to see.

    Parameters
    ----------
    model
        A model folder, a training run or an .arpa file.
    path
        The file to write; .gz packs it (arpa, vectors). A folder for int8 and bfloat16.
    to
        arpa (n-gram models), vectors (neural models), safetensors (both), int8 or bfloat16 (recurrent
        models). Default: by the name of the file.
    overwrite
        Replace the file, or the model folder, if it exists.
    """

    chosen = to or _by_name(path)
    folder = chosen in QUANTIZED
    if (path.is_dir() and not folder) or (path.exists() and not overwrite):
        raise OptionError(f"{path} exists.", remedy="choose another name, or --overwrite a file.")
    loaded = load(model, arpa)
    _write(loaded, path, chosen, overwrite=overwrite)
    size = sum(file.stat().st_size for file in (path.iterdir() if folder else [path]))
    document = {"model": model, "format": chosen, "path": str(path), "bytes": size}
    if json:
        emit(document)
    else:
        results.print(f"{path}  {chosen}, {document['bytes']:,} bytes")


def _by_name(path: Path) -> Format:
    name = path.name.removesuffix(".gz")
    endings: dict[str, Format] = {
        ".arpa": "arpa",
        ".safetensors": "safetensors",
        ".vec": "vectors",
        ".txt": "vectors",
    }
    for ending, chosen in endings.items():
        if name.endswith(ending):
            return chosen
    raise OptionError(
        f"the name {path.name} does not tell the format.",
        remedy=f"give --to {' or --to '.join(get_args(Format))}.",
    )


def _write(model: LanguageModel, path: Path, chosen: Format, *, overwrite: bool) -> None:
    from elman.neural.model import NeuralModel
    from elman.neural.streaming import StreamingModel
    from elman.ngram.backoff import NgramModel

    if isinstance(model, StreamingModel):
        raise OptionError(
            f"a quantized model is not written as {chosen}.",
            reason="its weights are rounded for use.",
            remedy="export the model that it was made from.",
        )
    if chosen == "int8" or chosen == "bfloat16":
        _write_quantized(model, path, chosen, overwrite=overwrite)
    elif chosen == "arpa":
        if not isinstance(model, NgramModel):
            raise OptionError(
                "only n-gram models have an ARPA form.", remedy="--to safetensors writes this model."
            )
        from elman.ngram.arpa_writing import write_arpa

        write_arpa(model, path)
    elif chosen == "vectors":
        if not isinstance(model, NeuralModel):
            raise OptionError(
                "this model has no word embedding: it is not a neural model.",
                remedy="export a feed-forward or recurrent model.",
            )
        from elman.neural.vectors import write_vectors

        write_vectors(model, model.vocabulary, path)
    else:
        if not isinstance(model, NgramModel | NeuralModel):
            raise OptionError(
                "a mixture is several models.", remedy="export its components: the folders 0, 1, … in it."
            )
        _write_safetensors(model, path)


def _write_quantized(
    model: LanguageModel, path: Path, weights: Literal["int8", "bfloat16"], *, overwrite: bool
) -> None:
    from elman.checkpoint import save_model
    from elman.neural.recurrent import RecurrentModel
    from elman.neural.streaming import StreamingModel

    if not isinstance(model, RecurrentModel):
        raise OptionError(
            f"only recurrent models are written in {weights}.",
            remedy="export an lstm, gru, rnn or rnn-relu.",
        )
    save_model(StreamingModel(model, weights), path, overwrite=overwrite)


def _write_safetensors(model: NgramModel | NeuralModel, path: Path) -> None:
    from elman.disk import replace_file
    from elman.storage import encode_tensors

    parts = {
        "format": "pt",
        "kind": model.kind,
        "config": standard_json.dumps(model.config_json()),
        "tokenizer": standard_json.dumps(model.tokenizer.as_json()),
        "vocabulary": standard_json.dumps(model.vocabulary.as_json()),
    }
    replace_file(path, encode_tensors(model.arrays(), parts))
