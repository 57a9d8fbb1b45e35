"""A made-up comparison with every part filled, for the page's tests: four thousand events, six models."""

from __future__ import annotations

import numpy as np

from elman.compare.comparison import Comparison, CurvePoint, Entry, Repeat, Subject, gains
from elman.compare.table import Encoding, Scored, compare
from elman.evaluate import by_frequency, by_position
from elman.language_model import Protocol
from elman.text.corpus import Text
from elman.text.vocabulary import Vocabulary

MODELS = (
    ("unigram", "Unigram", "ngram", 6.4),
    ("kn5", "Kneser-Ney 5", "ngram", 4.9),
    ("feedforward", "Feed-forward", "feedforward", 4.95),
    ("gru", "GRU", "recurrent", 4.75),
    ("lstm", "LSTM", "recurrent", 4.7),
    ("mixture", "LSTM + Kneser-Ney 5", "mixture", 4.55),
)


def vocabulary(size: int = 211) -> Vocabulary:
    """`<unk>`, `</s>` and made-up words with falling counts."""
    counts = {f"w{i}": 40_000 // (i + 3) for i in range(size - 2)}
    return Vocabulary.build(counts, sentences=2_500)


def text(words: Vocabulary, sentences: int = 307, seed: int = 5) -> Text:
    """Sentences of 1 to 25 tokens, some unknown."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, 26, size=sentences)
    ids = draw.integers(2, len(words), size=int(lengths.sum()) + sentences).astype(np.int32)
    ids[draw.random(len(ids)) < 0.03] = 0
    ids[np.cumsum(lengths + 1) - 1] = 1
    return Text(ids, lengths.astype(np.int32), (lengths * 6).astype(np.int32))


def scored(
    name: str, mean: float, source: Text, words: Vocabulary, *, seed: int, state: str = "carry"
) -> Scored:
    """Nats around `mean`: what all models find hard plus what is the model's own."""
    shared = np.random.default_rng(11).gamma(4.0, 0.25, size=source.events)
    own = np.random.default_rng(seed).normal(0.0, 0.25, size=source.events)
    encoding = Encoding('{"name": "words"}', words.digest, len(words))
    nats = np.maximum(mean * shared + own, 0.01)
    return Scored(
        name, nats, source, encoding, Protocol("word", state="reset" if state == "reset" else "carry")
    )


def example(hostile: str = "") -> Comparison:
    """The comparison; `hostile` is appended to every text that a user or a model may choose."""
    words = vocabulary()
    source = text(words)
    models = [scored(name, mean, source, words, seed=i) for i, (name, _, _, mean) in enumerate(MODELS)]
    resets = [
        scored(name, mean * 1.02, source, words, seed=i, state="reset")
        for i, (name, _, kind, mean) in enumerate(MODELS)
        if kind == "recurrent"
    ]
    table = compare(models, baseline="kn5")
    fresh = compare([models[1], *resets], baseline="kn5")
    rows = {row.name: row for row in fresh.rows}
    entries = []
    for i, (name, label, kind, mean) in enumerate(MODELS):
        curve = tuple(
            CurvePoint(epoch, 21.5 * epoch * (1 + i / 7), 780_000 * epoch, None, 180 / epoch**0.3 + 3 * i)
            for epoch in range(1, 6)
            if kind in ("feedforward", "recurrent")
        )
        entries.append(
            Entry(
                name=name,
                label=label + hostile,
                kind=kind,
                row=table.rows[i],
                reset=rows[name] if kind == "recurrent" else None,
                valid=float(np.exp(mean)),
                parameters=123_456 * (i + 1) ** 2,
                bytes=500_000 * (i + 1),
                seconds=0.4 * (i + 1) ** 3,
                curve=curve,
                frequency=tuple(by_frequency(models[i].nats, source, words)),
                positions=tuple(by_position(models[i].nats, source)),
                samples=(
                    f"the people of this nation and N years of {name} ." + hostile,
                    "we will ." + hostile,
                ),
                details={"hidden size": "256", "note": "tied" + hostile},
            )
        )
    return Comparison(
        entries=tuple(entries),
        neighbours=table.neighbours,
        against_baseline=table.against_baseline,
        reset_against_baseline=fresh.against_baseline,
        baseline="kn5",
        subject=Subject(
            name="made-up" + hostile,
            origin="drawn at random, test of three parts" + hostile,
            digest="0123456789ab",
            sentences=source.sentences,
            events=source.events,
            words=int(source.words.sum()),
            bytes=int(source.bytes.sum()),
            unknown=source.unknown,
            vocabulary=len(words),
            trained_on=783_001,
        ),
        protocol=Protocol("word"),
        repeat=Repeat(
            command="elman compare made-up --preset quick --seed 1" + hostile,
            version="0.1.0",
            seed=1,
            machine="two cores" + hostile,
            date="2001-02-03",
            seconds=83.0,
        ),
        notes=("A note." + hostile,),
        gains=gains(models[4], models[1], words),
    )
