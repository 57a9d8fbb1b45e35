"""A model and a text → what it expected and all that went on inside: tokens, gates, states, gradients.

Not here: what the result holds and its JSON (tracing/document.py), pages (explore/), whole corpora.

T rows, V vocabulary, L layers, H hidden size.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from elman.cells.functions import CELLS
from elman.errors import OptionError, TextError
from elman.event_nats import device_of, evaluating
from elman.gradients.reading import read_back, unrollable
from elman.gradients.unrolling import Unrolled
from elman.gradients.vanishing import triangle
from elman.language_model import LanguageModel, State, StatePolicy, read, require_no_nan
from elman.surprisal import surprisals
from elman.tracing.document import Array, GradientTrace, LayerTrace, Row, Trace, model_card

DETAIL = 200
"""Rows that may carry gates and gradients: these grow with T·L·H and with T²."""
NOT_GATES = {"x", "h", "h_prev", "c_prev", "tanh_c", "h_n"}
"""Of a cell's cache, what is no gate nor candidate."""


@dataclass(frozen=True)
class TraceOptions:
    """top        how many of the most probable next tokens each row lists, at most
    state      "carry": the text is one stream; "reset": each sentence starts afresh, as for an n-gram
    first, last  rows [first, last) of the text; last None: to its end
    gates, gradients  whether they are traced, for models that have them
    """

    top: int = 10
    state: StatePolicy = "carry"
    first: int = 0
    last: int | None = None
    gates: bool = True
    gradients: bool = True


def trace(
    model: LanguageModel,
    lines: Sequence[str],
    *,
    name: str = "model",
    source: str = "the text",
    options: TraceOptions | None = None,
) -> Trace:
    """Read `lines` and keep what happened in the rows that `options` name. source: where messages find them.

    Raises TextError for a text without a token, OptionError for rows that are not there, more than DETAIL
    rows with gates or gradients, and `top` below 0.
    """
    how = options or TraceOptions()
    ends = [0, *accumulate(_events_of(model, lines, source))]
    total = ends[-1]
    if not total:
        raise TextError("the text is empty: there is no token to trace.", remedy="give a text with a line.")
    last = total if how.last is None else how.last
    inside = unrollable(model) and (how.gates or how.gradients)
    _require_rows(how, last, total, inside)
    read_lines = lines[: bisect_left(ends, last)]  # what comes after the last row is not scored
    sentences = list(surprisals(model, read_lines, state=how.state, name=source))
    events = [(s.line, s.sentence, event) for s in sentences for event in s.tokens]
    ends = [0, *accumulate(len(s.tokens) for s in sentences)]
    segments = list(pairwise(ends)) if how.state == "reset" else [(0, len(events))]
    eos = model.vocabulary.eos_id
    ids = np.concatenate([[eos], model.vocabulary.ids([event.token for _, _, event in events])])
    expected: list[tuple[int, tuple[tuple[str, float], ...]]] = []
    passes: list[_Pass] = []
    with evaluating(model):
        for begin, end in segments:
            first, stop = max(begin, how.first), min(end, last)
            if first >= stop:
                continue
            state = model.start(1)
            stream = torch.from_numpy(ids[begin : stop + 1].astype(np.int64))[:, None].to(device_of(state))
            if first > begin:
                state = read(model, stream[: first - begin], state)
            stream = stream[first - begin :]
            expected += _expected(model, stream, state, how.top)
            if inside:
                passes.append(_Pass.of(model, stream, state, how.gradients))
    rows = tuple(
        Row(event, line, sentence, "</s>" if not k else events[k - 1][2].token, rank, top)
        for k, (line, sentence, event), (rank, top) in zip(
            range(how.first, last), events[how.first : last], expected, strict=True
        )
    )
    return Trace(
        model_card(model, name),
        "\n".join(lines),
        how.state,
        how.first,
        total,
        rows,
        tuple(_layers(passes)) if how.gates else (),
        _gradients(passes) if how.gradients and passes else None,
    )


def _events_of(model: LanguageModel, lines: Sequence[str], source: str) -> Iterator[int]:
    """Events of each line. Raises TextError with the line's number."""
    for number, line in enumerate(lines, start=1):
        try:
            yield sum(len(tokens) + 1 for tokens in model.tokenizer.sentences(line))
        except TextError as error:
            raise error.at(source, number) from None


def _require_rows(how: TraceOptions, last: int, total: int, inside: bool) -> None:
    if not 0 <= how.first < last <= total:
        raise OptionError(
            f"rows {how.first} to {last} are not in a text of {total} tokens.",
            remedy=f"choose 0 ≤ first < last ≤ {total}.",
        )
    if inside and last - how.first > DETAIL:
        raise OptionError(
            f"{last - how.first} tokens are too many for gates and gradients: at most {DETAIL} at a time.",
            reason="a gate has a number for every token and unit, gradients one for every pair of tokens.",
            remedy="trace a part of the text (--first, --last), or neither of them (--no-detail).",
        )
    if how.top < 0:
        raise OptionError(f"top {how.top} is below 0.", remedy="give 0 or more.")


def _expected(
    model: LanguageModel, stream: Tensor, state: State, top: int
) -> Iterator[tuple[int, tuple[tuple[str, float], ...]]]:
    """stream [T+1, 1] → rank of each next token, and the `top` likeliest with their probabilities."""
    tokens = model.vocabulary.tokens
    for token, target in pairwise(stream):
        state, logs = model.advance(state, token)
        require_no_nan(logs)
        values, places = logs[0].topk(min(top, len(tokens)))
        rank = 1 + int((logs[0] > logs[0, target]).sum())
        likeliest = zip(places.tolist(), values.exp().tolist(), strict=True)
        yield rank, tuple((tokens[place], p) for place, p in likeliest)


@dataclass(frozen=True)
class _Pass:
    """One stretch without a reset."""

    unrolled: Unrolled
    x: Array | None  # [T, T]
    states: tuple[Array, ...]  # h (and c): [L, T, T]

    @classmethod
    def of(cls, model: LanguageModel, stream: Tensor, state: State, gradients: bool) -> _Pass:
        reading = read_back(model, stream, state)
        if not gradients:
            return cls(reading.unrolled, None, ())
        found = triangle(reading.unrolled, reading.dhidden[:, 0])
        return cls(reading.unrolled, _numpy(found.x), tuple(map(_numpy, found.states)))


def _layers(passes: Sequence[_Pass]) -> Iterator[LayerTrace]:
    """Gates and states of the passes, one after the other."""
    if not passes:
        return
    first = passes[0].unrolled
    functions = CELLS[first.cell]
    gates = [name for name in functions.cache._fields if name not in NOT_GATES]
    parts = functions.state._fields
    for layer in range(first.layers):
        yield LayerTrace(
            {
                name: np.concatenate([_numpy(one.unrolled.gate(layer, name)[:, 0]) for one in passes])
                for name in gates
            },
            {
                part: np.concatenate([_numpy(one.unrolled.states[k][layer, 1:, 0]) for one in passes])
                for k, part in enumerate(parts)
            },
            {part: _numpy(first.states[k][layer, 0, 0]) for k, part in enumerate(parts)},
        )


def _gradients(passes: Sequence[_Pass]) -> GradientTrace:
    """The triangles of the passes along the diagonal: nothing goes back over a reset."""
    first = passes[0]
    x = _along_the_diagonal([one.x for one in passes if one.x is not None])
    parts = CELLS[first.unrolled.cell].state._fields
    layers = tuple(
        {part: _along_the_diagonal([one.states[k][layer] for one in passes]) for k, part in enumerate(parts)}
        for layer in range(first.unrolled.layers)
    )
    return GradientTrace(x, layers)


def _along_the_diagonal(blocks: Sequence[Array]) -> Array:
    size, begin = sum(map(len, blocks)), 0
    whole = np.zeros((size, size))
    for block in blocks:
        end = begin + len(block)
        whole[begin:end, begin:end] = block
        begin = end
    return whole


def _numpy(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().double().numpy()
    return array
