r"""ARPA files, the exchange format of n-gram models: written exactly, read strictly.

    \data\                       log10 probabilities and backoff weights, in float32 with as many digits
    ngram 1=7294                 as bring them back bit for bit
    …
    \2-grams:
    -1.25<tab>of the<tab>-0.46

Files end in .arpa or .arpa.gz. There is no formal definition; this reader asks for what KenLM asks for,
reads a block of lines at a time in bulk, never allocates by the counts in the header, and names order and
line of what is wrong. Tokens never hold ASCII white space (a tokenizer shows a blank as ␣), so nothing needs
an escape. A tokenizer other than `words` is kept in a comment before \data\, which other programs skip.
"""

from __future__ import annotations

import gzip
import json
import re
from itertools import repeat
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from elman.disk import new_file
from elman.errors import FormatError, TextError
from elman.ngram import native
from elman.ngram.arpa_lines import Columns, Lines, shown
from elman.ngram.backoff import Doubles, Floats, NgramModel, Table, find_rows
from elman.ngram.counts import MAX_ORDER, Ints
from elman.text.tokenizers import Tokenizer, Words, tokenizer_from_json
from elman.text.vocabulary import BOS, EOS, MAX_TOKENS, UNK, Vocabulary

BLOCK = 100_000
"""Lines written or parsed at once."""
MISSING_UNKNOWN = -100.0
"""log10 probability of `<unk>` in a file that does not list it, as KenLM has it."""
_UNK, _BOS, _EOS = UNK.encode(), BOS.encode(), EOS.encode()
_COMMENT = b"# elman tokenizer "
_BINARY = b"mmap lm http://kheafield.com/code"
_COUNT = re.compile(rb"ngram[ \t]+(\d{1,9})=[ \t]*(\d{1,18})[ \t]*")


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
        out.write(_COMMENT + json.dumps(model.tokenizer.as_json()).encode() + b"\n")
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


def read_arpa(path: Path | str, tokenizer: Tokenizer | None = None) -> NgramModel:
    """Read an ARPA file, packed or not. Raises FormatError with order and line.

    tokenizer  how its texts are cut; default: as the file says, else words between blanks
    Ids follow the order of the unigrams, after `<unk>` 0 and `</s>` 1. Whether the probabilities of a
    context sum to one is the writer's promise and not checked.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(len(_BINARY)) == _BINARY:
                raise FormatError(
                    f"{path} is a binary model of KenLM, not an ARPA file.",
                    remedy="give the ARPA file that it was built from.",
                )
        return _Reader(path).read(tokenizer)
    except TextError as error:
        raise FormatError(error.cause, reason=error.reason, remedy=error.remedy) from None
    except OSError as error:
        raise FormatError(
            f"{path} cannot be read: {error.strerror or error}.", remedy="check the path."
        ) from None


class _Reader:
    """One pass through one file."""

    def __init__(self, path: Path) -> None:
        self.lines = Lines(path)
        self.tables: list[Table] = []
        self.orders = 0

    def read(self, tokenizer: Tokenizer | None) -> NgramModel:
        lines = self.lines
        line = lines.line()
        while line is not None and (not line.strip() or line.startswith(b"#")):
            if line.startswith(_COMMENT) and tokenizer is None:
                tokenizer = self._tokenizer(line[len(_COMMENT) :])
            line = lines.line()
        if line is None or line.strip() != b"\\data\\":
            raise lines.wrong(f"expected \\data\\ and found {shown(line)}", _advice(line))
        sizes = self._sizes()
        self.orders = len(sizes)
        header = lines.skip_blank()
        for n, size in enumerate(sizes, start=1):
            if header is None or header.rstrip() != b"\\%d-grams:" % n:
                raise lines.wrong(f"expected \\{n}-grams: and found {shown(header)}")
            if n == 1:
                vocabulary, report = self._unigrams(size)
                ids = {token.encode(): id for id, token in enumerate((*vocabulary.tokens, BOS))}
            else:
                self._ngrams(n, size, ids)
            header = lines.skip_blank()
            if header is not None and not header.startswith(b"\\"):
                raise lines.wrong(f"order {n}: more n-grams than the {size} that \\data\\ announces")
        if header is None or header.rstrip() != b"\\end\\":
            raise lines.wrong(f"expected \\end\\ and found {shown(header)}")
        if (line := lines.skip_blank()) is not None:
            raise lines.wrong(f"text after \\end\\: {shown(line)}")
        return NgramModel(vocabulary, tokenizer or Words(), self.tables, method="arpa", report=report)

    def _tokenizer(self, text: bytes) -> Tokenizer:
        try:
            return tokenizer_from_json(json.loads(text))
        except (ValueError, RecursionError):
            raise self.lines.wrong("the comment on the tokenizer is not JSON") from None

    def _sizes(self) -> list[int]:
        """The counts of \\data\\: promises to be checked, never sizes to allocate."""
        sizes: list[int] = []
        while (line := self.lines.line()) is not None and line.strip():
            match = _COUNT.fullmatch(line)
            if match is None or int(match[1]) != len(sizes) + 1:
                raise self.lines.wrong(f"expected ngram {len(sizes) + 1}=… and found {shown(line)}")
            if len(sizes) == MAX_ORDER:
                raise self.lines.wrong(f"the model has more than {MAX_ORDER} orders")
            sizes.append(int(match[2]))
        if not sizes:
            raise self.lines.wrong("\\data\\ lists no counts")
        if sizes[0] > MAX_TOKENS + 1:
            raise self.lines.wrong(f"{sizes[0]:,} unigrams; at most {MAX_TOKENS + 1:,} can be read")
        return sizes

    def _unigrams(self, size: int) -> tuple[Vocabulary, list[str]]:
        """Read \\1-grams: and append their table; the vocabulary and what had to be added."""
        probs, backoffs, report = [np.zeros(0)], [np.zeros(0)], []
        place: dict[bytes, int] = {}
        for part in self.lines.columns(1, size, highest=self.orders == 1):
            before = len(place)
            for at, word in enumerate(part.words[0]):
                if place.setdefault(word, before + at) != before + at:
                    raise self.lines.wrong(f"order 1: {shown(word)} occurs twice", line=part.line + at)
            probs.append(part.prob)
            backoffs.append(part.backoff)
        if _UNK not in place and b"<UNK>" in place:
            place[_UNK] = place.pop(b"<UNK>")
        if _UNK not in place:
            place[_UNK] = len(place)
            probs.append(np.array([MISSING_UNKNOWN]))
            backoffs.append(np.zeros(1))
            report.append(f"the file does not list <unk>; it got log10 probability {MISSING_UNKNOWN:g}.")
        for mark in (_BOS, _EOS):
            if mark not in place:
                raise self.lines.wrong(f"order 1: {mark.decode()} is not listed", "Elman models sentences.")
        rest = sorted(place.keys() - {_UNK, _EOS, _BOS}, key=place.__getitem__)
        vocabulary = Vocabulary([token.decode() for token in (_UNK, _EOS, *rest)])
        rows = np.array([place[token] for token in (_UNK, _EOS, *rest, _BOS)])
        self._append(np.arange(len(rows)), np.concatenate(probs)[rows], np.concatenate(backoffs)[rows])
        return vocabulary, report

    def _ngrams(self, n: int, size: int, ids: dict[bytes, int]) -> None:
        """Read \\n-grams: for n ≥ 2 and append their table."""
        probs, backoffs, keys = [np.zeros(0)], [np.zeros(0)], [np.zeros(0, dtype=np.int64)]
        start = 0
        for part in self.lines.columns(n, size, highest=n == self.orders):
            start = start or part.line
            probs.append(part.prob)
            backoffs.append(part.backoff)
            keys.append(self._keys(n, part, ids))
        key = np.concatenate(keys)
        order = np.argsort(key, kind="stable")
        key = key[order]
        if (twice := np.flatnonzero(key[1:] == key[:-1])).size:
            line = start + int(order[twice[0] + 1])
            raise self.lines.wrong(f"order {n}: an n-gram occurs for the second time", line=line)
        self._append(key, np.concatenate(probs)[order], np.concatenate(backoffs)[order])

    def _keys(self, n: int, part: Columns, ids: dict[bytes, int]) -> Ints:
        """int64 [M]: prefix · (V + 1) + word of each n-gram, whose context must be listed."""
        row: Ints = np.zeros(len(part.prob), dtype=np.int64)
        for place, column in enumerate(part.words):
            word = np.fromiter(map(ids.get, column, repeat(-1)), np.int64, len(column))
            if (wrong := np.flatnonzero(word < 0)).size:
                what = f"order {n}: {shown(column[wrong[0]])} is not among the unigrams"
                raise self.lines.wrong(what, line=part.line + int(wrong[0]))
            if place and (wrong := np.flatnonzero(word == len(ids) - 1)).size:
                raise self.lines.wrong(f"order {n}: <s> after a word", line=part.line + int(wrong[0]))
            key = row * len(ids) + word
            if place == n - 1:
                break
            row = find_rows(self.tables[place].keys, key)
            if (wrong := np.flatnonzero(row < 0)).size:
                context = b" ".join(words[wrong[0]] for words in part.words[: place + 1])
                what = f"order {n}: its context {shown(context)} is not among the {place + 1}-grams"
                raise self.lines.wrong(what, line=part.line + int(wrong[0]))
        return key

    def _append(self, keys: Ints, prob: Doubles, backoff: Doubles) -> None:
        kept = backoff if len(self.tables) + 1 < self.orders else backoff[:0]
        self.tables.append(Table(keys, prob.astype(np.float32), kept.astype(np.float32)))


def _advice(line: bytes | None) -> str:
    if line is not None and line.strip() == b"iARPA":
        return "this is an iARPA file: compile-lm --text yes makes an ARPA file of it."
    if line is not None and line.startswith(b"blmt"):
        return "this is a binary file of IRSTLM: compile-lm --text yes makes an ARPA file of it."
    return "this is not an ARPA file; before \\data\\ only blank lines and comments with # may stand."
