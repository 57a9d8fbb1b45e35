r"""ARPA files, the exchange format of n-gram models, read as they are found in the world.

    \data\                       log10 probabilities and backoff weights
    ngram 1=7294
    …
    \2-grams:
    -1.25<tab>of the<tab>-0.46

There is no formal definition. What SRILM, CMU's toolkit, Sphinx and others write is read, and the model's
`report` says what stood otherwise than it should; `strict` refuses what KenLM refuses, and what is listed
twice, of which KenLM takes the first and SRILM the last. The reader parses a block of lines at a time in
bulk, never allocates by the counts in the header, and names order and line of what is wrong. Tokens hold no
ASCII white space (a tokenizer shows a blank as ␣), so nothing needs an escape. Not here: writing
(arpa_writing.py).
"""

from __future__ import annotations

import json
import re
from itertools import repeat
from pathlib import Path

import numpy as np

from elman.errors import FormatError, TextError
from elman.ngram.arpa_lines import Columns, Lines, shown
from elman.ngram.arpa_writing import COMMENT
from elman.ngram.backoff import NgramModel
from elman.ngram.counts import MAX_ORDER, Ints
from elman.ngram.normalization import unnormalized
from elman.ngram.tables import Doubles, Table, find_rows
from elman.text.tokenizers import Tokenizer, Words, tokenizer_from_json
from elman.text.vocabulary import BOS, EOS, MAX_TOKENS, UNK, Vocabulary

MISSING_UNKNOWN = -100.0
"""log10 probability of `<unk>` in a file that does not list it, as KenLM has it."""
PREAMBLE = 1 << 20
r"""Bytes of free text before \data\ that are passed over."""
PSEUDO_ZERO = -99.0
"""What SRILM writes for the logarithm of 0."""
_UNK, _BOS, _EOS = UNK.encode(), BOS.encode(), EOS.encode()
_BINARY, _MARK = b"mmap lm http://kheafield.com/code", b"\xef\xbb\xbf"
_COUNT = re.compile(rb"ngram[ \t]+(\d{1,9})=[ \t]*(\d{1,18})[ \t]*")
_LOOSE_COUNT = re.compile(rb"[ \t]*ngram[ \t]*(\d{1,9})[ \t]*=[ \t]*(\d{1,18})[ \t]*", re.IGNORECASE)


def read_arpa(
    path: Path | str, tokenizer: Tokenizer | None = None, *, strict: bool = False, encoding: str = "utf-8"
) -> NgramModel:
    """Read an ARPA file, packed or not. Raises FormatError with order and line.

    tokenizer  how its texts are cut; default: as the file says, else words between blanks
    strict     refuse what KenLM refuses, and n-grams listed twice
    encoding   of the file, one that extends ASCII
    Ids follow the order of the unigrams, after `<unk>` 0 and `</s>` 1. `report` of the model tells what stood
    otherwise than it should, and where the probabilities of a context do not sum to one.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(len(_BINARY))
        if start == _BINARY:
            raise FormatError(
                f"{path} is a binary model of KenLM, not an ARPA file.",
                remedy="give the ARPA file that it was built from.",
            )
        reader = _Reader(Lines(path, strict=strict, encoding=encoding))
        if start.startswith(_MARK):
            reader.lines.tell("a byte-order mark", line=1)
        return reader.read(tokenizer)
    except TextError as error:
        remedy = error.remedy
        if error.cause.endswith("is not UTF-8."):
            remedy = f"name its encoding: --encoding latin-1; or {remedy}"
        raise FormatError(error.cause, reason=error.reason, remedy=remedy) from None
    except OSError as error:
        raise FormatError(
            f"{path} cannot be read: {error.strerror or error}.", remedy="check the path."
        ) from None


class _Reader:
    """One pass through one file."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.tables: list[Table] = []
        self.orders = 0
        self.tokenizer: Tokenizer | None = None
        self.report: list[str] = []

    def read(self, tokenizer: Tokenizer | None) -> NgramModel:
        lines = self.lines
        self._preamble(wanted=tokenizer is None)
        sizes, header = self._sizes()
        self.orders = len(sizes)
        for n, size in enumerate(sizes, start=1):
            title = b"\\%d-grams:" % n
            if header is None or header.strip() != title:
                if size or header is None:
                    raise lines.wrong(f"expected {title.decode()} and found {shown(header)}")
                lines.tell(f"{title.decode()} is missing")
            elif header != title:
                lines.tell(f"blanks beside {title.decode()}")
            if n == 1:
                vocabulary = self._unigrams(size)
                ids = {token.encode(): id for id, token in enumerate((*vocabulary.tokens, BOS))}
                ids.setdefault(b"<UNK>", Vocabulary.unk_id)
            else:
                self._ngrams(n, size, ids)
            if header is not None and header.strip() == title:
                header = lines.skip_blank()
            if header is not None and not header.lstrip().startswith(b"\\"):
                raise lines.wrong(f"order {n}: more n-grams than the {size} that \\data\\ announces")
        self._end(header)
        how = tokenizer or self.tokenizer or Words()
        report = [*lines.report(), *self.report]
        model = NgramModel(vocabulary, how, self.tables, method="arpa", report=report)
        if off := unnormalized(model):
            model.report.append(off)
        return model

    def _preamble(self, *, wanted: bool) -> None:
        """Everything to \\data\\: comments, blank lines, free text."""
        lines, first, passed = self.lines, None, 0
        line = lines.line()
        while line is not None and line.strip() != b"\\data\\" and passed < PREAMBLE:
            if line.startswith(COMMENT):
                self.tokenizer = self._tokenizer(line[len(COMMENT) :]) if wanted else None
            elif line.strip() and not line.startswith(b"#"):
                first = first or (lines.number, line)
                if advice := _advice(line):
                    raise lines.wrong(f"expected \\data\\ and found {shown(line)}", advice)
            passed += len(line) + 1
            line = lines.line()
        number, found = first or (lines.number, line)
        if line is None or line.strip() != b"\\data\\":
            raise lines.wrong(
                f"expected \\data\\ and found {shown(found)}", "this is not an ARPA file.", line=number
            )
        if first:
            lines.tell(f"text before \\data\\: {shown(found)}", line=number)
        if line != b"\\data\\":
            lines.tell("blanks beside \\data\\")

    def _tokenizer(self, text: bytes) -> Tokenizer:
        try:
            return tokenizer_from_json(json.loads(text))
        except (ValueError, RecursionError):
            raise self.lines.wrong("the comment on the tokenizer is not JSON") from None

    def _sizes(self) -> tuple[list[int], bytes | None]:
        """The counts of \\data\\, promises to be checked, never sizes to allocate; the line after them."""
        lines, found, blank = self.lines, dict[int, int](), False
        while (line := lines.line()) is not None and not line.lstrip().startswith(b"\\"):
            if not line.strip():
                blank = True
                continue
            match, order = _LOOSE_COUNT.fullmatch(line), len(found) + 1
            if match is None or int(match[1]) in found:
                raise lines.wrong(f"expected ngram {order}=… and found {shown(line)}")
            if blank:
                lines.tell("an empty line among the counts")
            if int(match[1]) != order:
                lines.tell("the counts stand in another order")
            if not _COUNT.fullmatch(line):
                lines.tell("a count is written otherwise than as ngram N=COUNT")
            found[int(match[1])], blank = int(match[2]), False
        if not found:
            raise lines.wrong("\\data\\ lists no counts")
        if len(found) > MAX_ORDER:
            raise lines.wrong(f"the model has more than {MAX_ORDER} orders")
        if missing := set(range(1, len(found) + 1)) - set(found):
            raise lines.wrong(f"expected ngram {min(missing)}=… and found {shown(line)}")
        if not blank and line is not None:
            lines.tell("no empty line after the counts")
        if found[1] > MAX_TOKENS + 1:
            raise lines.wrong(f"{found[1]:,} unigrams; at most {MAX_TOKENS + 1:,} can be read")
        return [found[n] for n in sorted(found)], line

    def _unigrams(self, size: int) -> Vocabulary:
        """Read \\1-grams: and append their table; the vocabulary."""
        probs, backoffs = [np.zeros(0)], [np.zeros(0)]
        place: dict[bytes, int] = {}
        rows = 0
        for part in self.lines.columns(1, size, highest=self.orders == 1):
            for word, line in zip(part.words[0], part.lines.tolist(), strict=True):
                known = _UNK if word == b"<UNK>" else word
                if known in place:
                    unk = known == _UNK
                    what = "<unk> is listed again" if unk else "order 1: a word is listed again"
                    self.lines.tell(f"{what}; the last line counts", line=line, kenlm=unk)
                place[known] = rows
                rows += 1
            probs.append(part.prob)
            backoffs.append(part.backoff)
        for mark, prob, then in (
            (_UNK, MISSING_UNKNOWN, f"it got log10 probability {MISSING_UNKNOWN:g}"),
            (_EOS, -np.inf, "the end of a sentence is impossible"),
            (_BOS, 0.0, "a sentence begins without a context"),
        ):
            if mark not in place:
                kenlm = mark == _UNK
                self.lines.tell(f"the file does not list {mark.decode()}; {then}", kenlm=kenlm)
                place[mark] = rows
                rows += 1
                probs.append(np.array([prob]))
                backoffs.append(np.zeros(1))
        rest = sorted(place.keys() - {_UNK, _EOS, _BOS}, key=place.__getitem__)
        vocabulary = Vocabulary([token.decode() for token in (_UNK, _EOS, *rest)])
        chosen = np.array([place[token] for token in (_UNK, _EOS, *rest, _BOS)])
        prob = np.concatenate(probs)[chosen]
        prob[-1] = 0.0  # never used
        self._append(np.arange(len(chosen)), prob, np.concatenate(backoffs)[chosen])
        return vocabulary

    def _ngrams(self, n: int, size: int, ids: dict[bytes, int]) -> None:
        """Read \\n-grams: for n ≥ 2 and append their table."""
        probs, backoffs, keys = [np.zeros(0)], [np.zeros(0)], [np.zeros(0, dtype=np.int64)]
        lines = [np.zeros(0, dtype=np.int64)]
        for part in self.lines.columns(n, size, highest=n == self.orders):
            probs.append(part.prob)
            backoffs.append(part.backoff)
            keys.append(self._keys(n, part, ids))
            lines.append(part.lines)
        key = np.concatenate(keys)
        order = np.argsort(key, kind="stable")
        key = key[order]
        again = np.flatnonzero(key[1:] == key[:-1])
        if again.size:
            line = int(np.concatenate(lines)[order[again + 1]].min())
            what = f"order {n}: an n-gram is listed again; the last line counts"
            self.lines.tell(what, line=line, times=len(again))
        kept = np.delete(order, again)  # of equal keys the last
        self._append(np.delete(key, again), np.concatenate(probs)[kept], np.concatenate(backoffs)[kept])

    def _keys(self, n: int, part: Columns, ids: dict[bytes, int]) -> Ints:
        """int64 [M]: prefix · (V + 1) + word of each n-gram, whose context must be listed."""
        row: Ints = np.zeros(len(part.prob), dtype=np.int64)
        for place, column in enumerate(part.words):
            word = np.fromiter(map(ids.get, column, repeat(-1)), np.int64, len(column))
            if (wrong := np.flatnonzero(word < 0)).size:
                what = f"order {n}: {shown(column[wrong[0]])} is not among the unigrams"
                raise self.lines.wrong(what, line=int(part.lines[wrong[0]]))
            if place and (wrong := np.flatnonzero(word == self._start)).size:
                raise self.lines.wrong(f"order {n}: <s> after a word", line=int(part.lines[wrong[0]]))
            key = row * (self._start + 1) + word
            if place == n - 1:
                break
            row = find_rows(self.tables[place].keys, key)
            if (wrong := np.flatnonzero(row < 0)).size:
                context = b" ".join(words[wrong[0]] for words in part.words[: place + 1])
                what = f"order {n}: its context {shown(context)} is not among the {place + 1}-grams"
                raise self.lines.wrong(what, line=int(part.lines[wrong[0]]))
        return key

    @property
    def _start(self) -> int:
        """V, the id of `<s>`."""
        return len(self.tables[0].keys) - 1

    def _append(self, keys: Ints, prob: Doubles, backoff: Doubles) -> None:
        n = len(self.tables) + 1
        if zeros := int(((prob <= PSEUDO_ZERO) & np.isfinite(prob) & (prob != MISSING_UNKNOWN)).sum()):
            self.report.append(
                f"order {n}: {zeros:,} log10 probabilities are {PSEUDO_ZERO:g} or less; SRILM takes them for "
                "no probability, they are read as they stand, as KenLM does."
            )
        kept = backoff if n < self.orders else backoff[:0]
        self.tables.append(Table(keys, prob.astype(np.float32), kept.astype(np.float32)))

    def _end(self, line: bytes | None) -> None:
        """\\end\\ and nothing after it."""
        lines = self.lines
        if line is None:
            lines.tell("\\end\\ is missing, after as many n-grams as \\data\\ announces")
            return
        if line.strip() != b"\\end\\":
            raise lines.wrong(f"expected \\end\\ and found {shown(line)}")
        if line != b"\\end\\":
            lines.tell("blanks beside \\end\\")
        if (more := lines.skip_blank()) is not None:
            lines.tell(f"text after \\end\\: {shown(more)}")


def _advice(line: bytes) -> str:
    if line.strip() == b"iARPA":
        return "this is an iARPA file: compile-lm --text yes makes an ARPA file of it."
    if line.startswith(b"blmt"):
        return "this is a binary file of IRSTLM: compile-lm --text yes makes an ARPA file of it."
    return ""
