"""ARPA files written: exactly, in float32 with as many digits as bring it back bit for bit.

A tokenizer other than `words` is kept in a comment before \\data\\, which other programs skip. Not here:
reading (arpa.py).
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from elman.disk import new_file
from elman.errors import FormatError
from elman.ngram import native
from elman.ngram.backoff import NgramModel
from elman.ngram.tables import Floats
from elman.text.tokenizers import Words
from elman.text.vocabulary import BOS

BLOCK = 100_000
"""Lines written at once."""
COMMENT = b"# elman tokenizer "


def write_arpa(model: NgramModel, path: Path | str) -> None:
    """Write a model as ARPA, gzip when the name ends in .gz; the file appears when it is complete.

    Raises FormatError when a token holds a NUL, ElmanError when the file cannot be written.
    """
    path = Path(path)
    bad = next((token for token in model.vocabulary.tokens if "\0" in token), None)
    if bad is not None:
        raise FormatError(f"the token {bad!r} cannot stand in an ARPA file: it holds a NUL.")
    with new_file(path) as raw:
        if path.name.endswith(".gz"):
            with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed:
                _write(model, cast(IO[bytes], packed))
        else:
            _write(model, raw)


def _write(model: NgramModel, out: IO[bytes]) -> None:
    if not isinstance(model.tokenizer, Words):
        out.write(COMMENT + json.dumps(model.tokenizer.as_json()).encode() + b"\n")
    sizes = "".join(f"ngram {n}={len(table.keys)}\n" for n, table in enumerate(model.tables, start=1))
    out.write(f"\\data\\\n{sizes}".encode())
    tokens = [token.encode() for token in (*model.vocabulary.tokens, BOS)]
    first = np.array([b"\t" + token for token in tokens], dtype=object)
    later = np.array([b" " + token for token in tokens], dtype=object)
    base = len(tokens)
    for n, table in enumerate(model.tables, start=1):
        out.write(f"\n\\{n}-grams:\n".encode())
        if native.usable(0):
            tables = [(t.keys, t.log10_prob, t.log10_backoff) for t in model.tables]
            for lines in native.arpa_lines(tables, n, tokens):
                out.write(lines)
            continue
        highest = n == model.order
        for begin in range(0, len(table.keys), BLOCK):
            part = slice(begin, begin + BLOCK)
            keys = table.keys[part]
            fields = np.full((len(keys), n + (2 if highest else 4)), b"\t", dtype=object)
            fields[:, 0] = _numerals(table.log10_prob[part])
            for place in range(n, 0, -1):
                fields[:, place] = (first if place == 1 else later)[keys % base]
                if place > 1:
                    keys = model.tables[place - 2].keys[keys // base]
            if not highest:
                fields[:, -2] = _numerals(table.log10_backoff[part])
            fields[:, -1] = b"\n"
            out.write(b"".join(fields.ravel().tolist()))
    out.write(b"\n\\end\\\n")


def _numerals(values: Floats) -> NDArray[Any]:
    """Shortest decimals that give the same float32 again; 0 as "0"."""
    text = values.astype("S32")
    text[values == 0] = b"0"
    return text.astype(object)
