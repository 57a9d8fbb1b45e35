"""Kneser-Ney as Chen and Goodman (1998) write it: dictionaries, recursion, float64, no code of Elman's.

Also the small texts that the n-gram tests use. A token is its id; "<s>" is the string.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from elman.ngram.backoff import NgramModel
from elman.text.corpus import Text
from elman.text.vocabulary import Vocabulary

GOLDEN = Path(__file__).parent / "golden" / "ngram"
START = "<s>"
EOS = 1
MUTANTS = ("raw counts", "shared discounts", "start adjusted", "no uniform", "n plus one", "order swapped")
"""Mistakes that are easy to make; the real model must differ from each."""


def text_of(sentences: Sequence[Sequence[int]]) -> Text:
    """Sentences of ids (without `</s>`) as a Text."""
    ids = [id for sentence in sentences for id in (*sentence, EOS)]
    lengths = np.array([len(sentence) for sentence in sentences], dtype=np.int32)
    return Text(np.array(ids, dtype=np.int32), lengths, lengths + 1)


def vocabulary_of(size: int) -> Vocabulary:
    """`size` predictable tokens: <unk>, </s>, w2, w3, …"""
    return Vocabulary(["<unk>", "</s>", *(f"w{id}" for id in range(2, size))])


def read_golden(name: str) -> tuple[Text, Vocabulary]:
    """A text file of the golden folder, one sentence a line, words between blanks."""
    return read_words(GOLDEN / name)


def read_words(path: Path, vocabulary: Vocabulary | None = None) -> tuple[Text, Vocabulary]:
    """A text file and its vocabulary, or under a given one."""
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    counts = Counter(word for line in lines for word in line)
    vocabulary = vocabulary or Vocabulary.build(counts, sentences=len(lines))
    return text_of([vocabulary.ids(line).tolist() for line in lines]), vocabulary


def listed(model: NgramModel) -> list[dict[tuple[str, ...], tuple[float, float]]]:
    """By order: the words of each n-gram → (log10 probability, log10 backoff)."""
    tokens = (*model.vocabulary.tokens, START)
    found, grams = [], [(token,) for token in tokens]
    for n, table in enumerate(model.tables, start=1):
        if n > 1:
            rows = np.stack(np.divmod(table.keys, len(tokens)), axis=1).tolist()
            grams = [(*grams[prefix], tokens[word]) for prefix, word in rows]
        backoffs = table.log10_backoff.tolist() or [0.0] * len(grams)
        found.append(dict(zip(grams, zip(table.log10_prob.tolist(), backoffs, strict=True), strict=True)))
    return found


def read_plain_arpa(path: Path) -> list[dict[tuple[str, ...], tuple[float, float]]]:
    """A naive ARPA reader, for files known to be good."""
    found: list[dict[tuple[str, ...], tuple[float, float]]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.endswith("-grams:"):
            found.append({})
        elif "\t" in line:
            prob, words, *backoff = line.split("\t")
            found[-1][tuple(words.split(" "))] = (float(prob), float(backoff[0]) if backoff else 0.0)
    return found


class KneserNey:
    """P(w | context) by the definition. `mutant` names a mistake to make."""

    def __init__(
        self,
        sentences: Sequence[Sequence[int]],
        size: int,
        order: int,
        *,
        prune: Sequence[int] = (0,),
        interpolate_unigrams: bool = True,
        mutant: str = "",
    ) -> None:
        self.size, self.order, self.interpolate, self.mutant = size, order, interpolate_unigrams, mutant
        self.cut = [prune[min(n, len(prune) - 1)] for n in range(order)]
        self.raw: list[Counter[tuple[int | str, ...]]] = [Counter() for _ in range(order + 1)]
        for sentence in sentences:
            padded = (START, *sentence, EOS)
            for n in range(1, order + 1):
                for at in range(len(padded) - n + 1):
                    self.raw[n][padded[at : at + n]] += 1
        del self.raw[1][(START,)]
        self.adjusted = [Counter(), *(self._adjusted(n) for n in range(1, order + 1))]
        self.discounts = [self._discount(n) for n in range(order + 1)]
        if mutant == "shared discounts":
            self.discounts = [self.discounts[order]] * (order + 1)
        if mutant == "order swapped":
            self.discounts = self.discounts[::-1]

    def _adjusted(self, n: int) -> Counter[tuple[int | str, ...]]:
        if n == self.order or self.mutant == "raw counts":
            return self.raw[n]
        left: dict[tuple[int | str, ...], set[int | str]] = {}
        for gram in self.raw[n + 1]:
            left.setdefault(gram[1:], set()).add(gram[0])
        counts = Counter({gram: len(words) for gram, words in left.items()})
        for gram, occurrences in self.raw[n].items():
            if gram[0] == START:
                counts[gram] = 1 if self.mutant == "start adjusted" else occurrences
        return counts

    def _discount(self, n: int) -> tuple[float, float, float]:
        of = [sum(1 for count in self.adjusted[n].values() if count == j) for j in range(5)]
        if not (of[1] and of[2] and of[3]):
            return (0.5, 1.0, 1.5)
        y = of[1] / (of[1] + 2 * of[2])
        d1, d2, d3 = 1 - 2 * y * of[2] / of[1], 2 - 3 * y * of[3] / of[2], 3 - 4 * y * of[4] / of[3]
        impossible = n == 1 and not self.interpolate and d3 >= 3
        return (0.5, 1.0, 1.5) if min(d1, d2, d3) <= 0 or impossible else (d1, d2, d3)

    def prob(self, word: int, context: Sequence[int | str]) -> float:
        """P(word | the last order - 1 tokens of context)."""
        context = tuple(context)[len(context) - min(len(context), self.order - 1) :]
        n = len(context) + 1
        counts = self.adjusted[n]
        following = {gram: count for gram, count in counts.items() if gram[:-1] == context}
        if not following:
            return self.prob(word, context[1:])
        total = sum(following.values()) + (self.mutant == "n plus one")
        own = mass = 0.0
        for gram, count in following.items():
            taken = float(count)
            if n == 1 or self.raw[n][gram] > self.cut[n - 1]:
                taken = self.discounts[n][min(count, 3) - 1]
            mass += taken
            if gram[-1] == word:
                own = count - taken
        if n > 1:
            return own / total + mass / total * self.prob(word, context[1:])
        if self.interpolate and self.mutant != "no uniform":
            return own / total + mass / total / self.size
        unseen = {id for id in range(self.size) if not counts[(id,)]} | {0}
        return own / total + (mass / total / len(unseen) if word in unseen else 0.0)

    def log_probs(self, context: Sequence[int | str]) -> list[float]:
        """Nats of all tokens."""
        return [math.log(self.prob(word, context)) for word in range(self.size)]
