"""Beam search: the most probable continuations of a prompt, up to the end of the sentence.

Not sampling (generate.py): nothing is random. Log-probabilities are the model's own; `<unk>` is left
out of the search without changing them. With a beam as wide as the number of prefixes the search is
exhaustive, by test.

K hypotheses side by side, V vocabulary size. Nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from elman.errors import OptionError
from elman.event_nats import device_of, evaluating
from elman.generate import (
    DEFAULT_LENGTH,
    Prompt,
    Sample,
    nothing_to_draw,
    prime,
    read_prompt,
    require,
    to_sample,
)
from elman.language_model import LanguageModel, require_no_nan, select

LARGEST_BEAM = 10_000
LARGEST_PENALTY = 10


@dataclass(frozen=True)
class BeamSettings:
    """How to search; raises OptionError for values out of range.

    beam    hypotheses kept at each step
    best    how many are returned, at most `beam`
    length  tokens at most, `</s>` included; a hypothesis that long is returned unfinished
    length_penalty  a hypothesis of n tokens scores log P / n**length_penalty (Wu et al. 2016 in its
            simple form): 0 favours short ones, 1 is the mean per token
    """

    beam: int = 5
    best: int = 1
    length: int = DEFAULT_LENGTH
    length_penalty: float = 0.0
    allow_unknown: bool = False

    def __post_init__(self) -> None:
        require(self.beam >= 1, f"--beam {self.beam} keeps no hypothesis", "1 or more")
        require(
            self.beam <= LARGEST_BEAM,
            f"--beam {self.beam:,} needs a step of the model for each hypothesis",
            f"{LARGEST_BEAM:,} at most; more than 100 seldom finds a better text",
        )
        require(self.length >= 1, f"--length {self.length} is below 1 token", "1 or more")
        require(
            0 <= self.length_penalty <= LARGEST_PENALTY,
            f"--length-penalty {self.length_penalty:g} is not a number from 0 to {LARGEST_PENALTY}",
            "0 (none) to 1 (the mean per token)",
        )
        if not 1 <= self.best <= self.beam:
            raise OptionError(
                f"a beam of {self.beam} cannot return {self.best} texts.",
                remedy="ask for between 1 and --beam samples (-n).",
            )


@dataclass(frozen=True)
class Hypothesis:
    """A continuation with its -log P; `finished` when it ends in `</s>`; `score` is what ranks it."""

    ids: tuple[int, ...]
    nats: tuple[float, ...]
    score: float
    finished: bool


def beam_search(model: LanguageModel, prompt: str = "", settings: BeamSettings | None = None) -> list[Sample]:
    """The best continuations as texts, best first."""
    read = read_prompt(model, prompt)
    found = search(model, read, settings or BeamSettings())
    return [to_sample(model, read, list(zip(each.ids, each.nats, strict=True))) for each in found]


def search(model: LanguageModel, prompt: Prompt, settings: BeamSettings) -> list[Hypothesis]:
    """The best hypotheses, best first; ties by the smaller ids."""
    eos = model.vocabulary.eos_id
    state, log_probs = prime(model, prompt.ids, 1)
    live: list[tuple[tuple[int, ...], tuple[float, ...]]] = [((), ())]
    done: list[Hypothesis] = []
    for step in range(1, settings.length + 1):
        table = log_probs.to("cpu", torch.float64, copy=True)  # [K, V]
        require_no_nan(table)
        if not settings.allow_unknown:
            table[:, model.vocabulary.unk_id] = -math.inf
        done += [
            _hypothesis((*ids, eos), (*nats, -float(table[row, eos])), settings, finished=True)
            for row, (ids, nats) in enumerate(live)
            if table[row, eos] > -math.inf
        ]
        table[:, eos] = -math.inf
        totals = table - torch.tensor([math.fsum(nats) for _, nats in live], dtype=torch.float64)[:, None]
        width = min(settings.beam, totals.numel())
        best = torch.sort(totals.flatten(), descending=True, stable=True)
        picked = [int(place) for place in best.indices[:width] if totals.flatten()[place] > -math.inf]
        rows = [place // table.shape[1] for place in picked]
        tokens = [place % table.shape[1] for place in picked]
        live = [
            ((*live[row][0], token), (*live[row][1], -float(table[row, token])))
            for row, token in zip(rows, tokens, strict=True)
        ]
        done = sorted(done, key=lambda each: (-each.score, each.ids))[: settings.best]
        if not live or step == settings.length:
            break
        if len(done) == settings.best:
            # nothing added raises log P; the longest text divides what is there by the most
            hope = max(-math.fsum(nats) for _, nats in live) / settings.length**settings.length_penalty
            if hope < done[-1].score:
                live = []
                break
        with evaluating(model):
            state = select(state, torch.tensor(rows))
            state, log_probs = model.advance(state, torch.tensor(tokens, device=device_of(state)))
    done += [_hypothesis(ids, nats, settings, finished=False) for ids, nats in live]
    if not done:
        raise nothing_to_draw()
    return sorted(done, key=lambda each: (-each.score, each.ids))[: settings.best]


def _hypothesis(
    ids: tuple[int, ...], nats: tuple[float, ...], settings: BeamSettings, *, finished: bool
) -> Hypothesis:
    return Hypothesis(ids, nats, -math.fsum(nats) / len(ids) ** settings.length_penalty, finished)
