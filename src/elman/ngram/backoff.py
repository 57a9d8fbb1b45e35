"""The one representation of every n-gram model: probabilities and backoff weights, as in an ARPA file.

    P(w | v_1 … v_k) = probability of v_1 … v_k w,                    where that n-gram is listed
                     = backoff(v_1 … v_k) · P(w | v_2 … v_k),         else (backoff 1 where not listed)

Kneser-Ney, add-k and stupid backoff differ only in the numbers. Not here: where these come from.

T steps, B batch, V vocabulary size, N_n n-grams of order n, L = longest context = order - 1. Tables hold
log10 in float32, as ARPA files and KenLM do; sums run in float64, results are nats. A context is the row
of its n-gram (see counts.py) or -1; reading `</s>` makes the context `<s>`, which has the id V.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elman.errors import FormatError
from elman.language_model import State
from elman.ngram import native
from elman.ngram.counts import MAX_ORDER, Ints
from elman.ngram.tables import Doubles, Table, find_rows, validate
from elman.text.tokenizers import Tokenizer
from elman.text.vocabulary import Vocabulary

LN10 = math.log(10)


class NgramModel:
    """An n-gram language model; state = (history [B, L] int64,), -1 before the beginning.

    method   kneser-ney, add-k, stupid-backoff, or arpa when it was read
    details  JSON: settings and discounts, for `describe`
    report   sentences on what the estimation had to do otherwise than asked
    """

    kind: ClassVar[str] = "ngram"
    chunk: ClassVar[int] = 1 << 19
    """Steps of a stream that one call scores best: enough for every core, 4 MiB of numbers."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        tokenizer: Tokenizer,
        tables: Sequence[Table],
        *,
        method: str,
        details: Mapping[str, Any] | None = None,
        report: Sequence[str] = (),
    ) -> None:
        """Raises FormatError when the tables are not a model over this vocabulary."""
        self.vocabulary, self.tokenizer, self.tables = vocabulary, tokenizer, tuple(tables)
        self.method, self.details, self.report = method, dict(details or {}), list(report)
        validate(self.tables, len(vocabulary))
        self._found: native.Lookup | None = None  # made when it is first needed

    @property
    def order(self) -> int:
        """The length of the longest n-grams."""
        return len(self.tables)

    @property
    def ends_sentences(self) -> bool:
        """Whether `</s>` has a probability: in an ARPA file that does not list it, it has none."""
        return bool(self.tables[0].log10_prob[Vocabulary.eos_id] > -math.inf)

    @property
    def parameter_count(self) -> int:
        """Probabilities and backoff weights."""
        return sum(len(table.log10_prob) + len(table.log10_backoff) for table in self.tables)

    def describe(self) -> dict[str, Any]:
        """What `elman inspect` shows: JSON."""
        sizes = {str(n): len(table.keys) for n, table in enumerate(self.tables, 1)}
        return {
            "kind": self.kind,
            "method": self.method,
            "order": self.order,
            "parameters": self.parameter_count,
            "vocabulary_size": len(self.vocabulary),
            "ngrams": sizes,
            "bytes": sum(t.keys.nbytes + t.log10_prob.nbytes + t.log10_backoff.nbytes for t in self.tables),
            **self.details,
            "report": list(self.report),
        }

    def start(self, batch: int) -> State:
        """The state before any token: an empty history."""
        return (torch.full((batch, self.order - 1), -1, dtype=torch.int64),)

    def advance(self, state: State, token: Tensor) -> tuple[State, Tensor]:
        """token [B] → the state after it, log-probabilities [B, V] float64 in nats."""
        history = _numpy(state[0])
        stream = np.concatenate([history.T, _numpy(token)[None]])
        history = self._history(stream)
        log10 = np.repeat(self.tables[0].log10_prob[None, :-1].astype(np.float64), len(history), axis=0)
        contexts = self._contexts(history.T)
        base = len(self.vocabulary) + 1
        for lower, table, context in zip(self.tables, self.tables[1:], contexts, strict=False):
            rows = np.flatnonzero(context[-1] >= 0)
            seen = context[-1][rows]
            log10[rows] += lower.log10_backoff[seen][:, None]
            first, last = np.searchsorted(table.keys, [seen * base, seen * base + base])
            lengths = last - first
            # all listed successors of all rows, one after the other
            place = np.arange(lengths.sum()) + np.repeat(first - np.cumsum(lengths) + lengths, lengths)
            words = table.keys[place] - np.repeat(seen * base, lengths)
            log10[np.repeat(rows, lengths), words] = table.log10_prob[place]
        log10 *= LN10
        return _state(history, token), torch.from_numpy(log10).to(token.device)

    def token_nats(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """ids [T+1, B] → nats [T, B] float64 of ids[1:], and the state after ids[T-1]."""
        nats, _, history = self._score(ids, state, -LN10, lengths=False)
        return torch.from_numpy(nats).to(ids.device), _state(history, ids)

    def stream_nats(self, ids: NDArray[np.int32], first: int) -> Doubles:
        """ids int32 [S] → nats float64 [S - first] of ids[first:], as `token_nats` gives them.

        `</s>` stands before ids[0]; ids are in 0 … V - 1 (the caller has checked) and read in place.
        """
        if native.usable(0):
            return self._lookup().score(ids[:, None], first, -LN10)[0][:, 0]
        stream = np.concatenate([np.full(self.order - 1, -1), [Vocabulary.eos_id], ids])[first:, None]
        return (self._score_in_numpy(stream.astype(np.int64))[0] * -LN10)[:, 0]

    def matched_lengths(self, ids: Tensor, state: State) -> Tensor:
        """int64 [T, B]: the length of the longest listed n-gram that ends in each of ids[1:] (at least 1)."""
        return torch.from_numpy(self._score(ids, state, 1.0, lengths=True)[1]).to(ids.device)

    def _score(self, ids: Tensor, state: State, scale: float, lengths: bool) -> tuple[Doubles, Ints, Ints]:
        """scale · log10 P [T, B], matched lengths [T, B] if wanted, history [B, L] after ids[T-1]."""
        stream = np.concatenate([_numpy(state[0]).T, _numpy(ids)])
        events = stream[self.order :]
        history = self._history(stream[:-1])
        if native.usable(0) and _within(stream, len(self.vocabulary)) and int(events.min(initial=0)) >= 0:
            return *self._lookup().score(stream.astype(np.int32), self.order, scale, lengths), history
        log10, matched = self._score_in_numpy(stream)
        return log10 * scale, matched, history

    def _score_in_numpy(self, stream: Ints) -> tuple[Doubles, Ints]:
        """stream [L+1+T, B], from the history on → log10 P and matched lengths [T, B]."""
        events = stream[self.order :]
        log10 = self.tables[0].log10_prob[events].astype(np.float64)
        matched = np.ones(events.shape, dtype=np.int64)
        contexts = self._contexts(stream[:-1])
        base = len(self.vocabulary) + 1
        for n, context in enumerate(contexts[: self.order - 1], start=2):
            before = context[self.order - 1 :]
            listed = before >= 0
            log10[listed] += self.tables[n - 2].log10_backoff[before[listed]]
            found = np.full(events.shape, -1, dtype=np.int64)
            found[listed] = find_rows(self.tables[n - 1].keys, before[listed] * base + events[listed])
            hit = found >= 0
            log10[hit] = self.tables[n - 1].log10_prob[found[hit]]
            matched[hit] = n
        return log10, matched

    def prepare(self) -> int:
        """Make the index that scoring a long text makes once it pays; its bytes, 0 where there is none."""
        return self._lookup().index() if native.usable(0) else 0

    def _lookup(self) -> native.Lookup:
        if self._found is None:
            tables = [(t.keys, t.log10_prob, t.log10_backoff) for t in self.tables]
            self._found = native.Lookup(tables, len(self.vocabulary))
        return self._found

    def _contexts(self, stream: Ints) -> list[Ints]:
        """For n = 1 … L: the rows [S, B] of the n-grams that end at each place of stream [S, B], or -1."""
        base = len(self.vocabulary) + 1
        ends = stream == Vocabulary.eos_id
        contexts = [np.where(ends, len(self.vocabulary), stream)]
        for table in self.tables[1:-1]:
            found = np.full(stream.shape, -1, dtype=np.int64)
            possible = (contexts[-1][:-1] >= 0) & (stream[1:] >= 0) & ~ends[1:]
            keys = contexts[-1][:-1][possible] * base + stream[1:][possible]
            found[1:][possible] = find_rows(table.keys, keys)
            contexts.append(found)
        return contexts

    def _history(self, stream: Ints) -> Ints:
        """The last L tokens [B, L] of stream [S, B], -1 for all that stands before the last `<s>`."""
        last = stream[len(stream) - (self.order - 1) :]
        last = np.where(last == Vocabulary.eos_id, len(self.vocabulary), last)
        starts = last == len(self.vocabulary)
        later = np.cumsum(starts[::-1], axis=0)[::-1] - starts
        return np.ascontiguousarray(np.where(later > 0, -1, last).T)

    def config_json(self) -> dict[str, Any]:
        """Everything but vocabulary, tokenizer and tables."""
        return {
            "order": self.order,
            "method": self.method,
            "details": self.details,
            "report": list(self.report),
        }

    def arrays(self) -> dict[str, Tensor]:
        """`n.keys` (from order 2), `n.log10_prob`, `n.log10_backoff` (below the highest order)."""
        found: dict[str, NDArray[Any]] = {}
        for n, table in enumerate(self.tables, start=1):
            if n > 1:
                found[f"{n}.keys"] = table.keys
            found[f"{n}.log10_prob"] = table.log10_prob
            if n < self.order:
                found[f"{n}.log10_backoff"] = table.log10_backoff
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in found.items()}

    @classmethod
    def from_parts(
        cls,
        config: dict[str, Any],
        arrays: Mapping[str, Tensor],
        vocabulary: Vocabulary,
        tokenizer: Tokenizer,
    ) -> Self:
        """The inverse of `config_json` and `arrays`. Raises FormatError for anything else."""
        order, method = config.get("order"), config.get("method")
        details, report = config.get("details", {}), config.get("report", [])
        if type(order) is not int or not 1 <= order <= MAX_ORDER:
            raise FormatError(f"n-gram model: order is {order!r}, not a whole number from 1 to {MAX_ORDER}.")
        if not isinstance(method, str) or not isinstance(details, dict) or not isinstance(report, list):
            raise FormatError("n-gram model: the configuration lacks method, details or report.")
        expected = {f"{n}.log10_prob": torch.float32 for n in range(1, order + 1)}
        expected |= {f"{n}.keys": torch.int64 for n in range(2, order + 1)}
        expected |= {f"{n}.log10_backoff": torch.float32 for n in range(1, order)}
        if expected != {name: array.dtype for name, array in arrays.items()}:
            wrong = sorted(set(expected) ^ set(arrays)) or "their types"
            raise FormatError(f"n-gram model: the arrays are not those of order {order}: {wrong}.")
        unigrams, nothing = np.arange(len(vocabulary) + 1), np.zeros(0, dtype=np.float32)
        tables = [
            Table(
                arrays[f"{n}.keys"].numpy() if n > 1 else unigrams,
                arrays[f"{n}.log10_prob"].numpy(),
                arrays[f"{n}.log10_backoff"].numpy() if n < order else nothing,
            )
            for n in range(1, order + 1)
        ]
        return cls(vocabulary, tokenizer, tables, method=method, details=details, report=report)


def _within(stream: Ints, vocabulary_size: int) -> bool:
    return bool(stream.size) and int(stream.min()) >= -1 and int(stream.max()) <= vocabulary_size


def _numpy(tensor: Tensor) -> Ints:
    return tensor.detach().to("cpu", torch.int64).numpy()


def _state(history: Ints, like: Tensor) -> State:
    return (torch.from_numpy(history).to(like.device),)
