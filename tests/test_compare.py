"""The paired table against a slow oracle, its statistics on made-up truth, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import comparison_example as made
from elman.compare.assembly import Candidate, Counting, assemble
from elman.compare.bootstrap import (
    Interval,
    Resampling,
    figure,
    interval,
    paired_bootstrap,
    resample,
    sentence_sums,
)
from elman.compare.comparison import Subject, headline, percent, verdicts
from elman.compare.table import Encoding, Scored, compare
from elman.errors import ElmanError, OptionError, ProtocolError
from elman.language_model import Protocol
from elman.text.corpus import Text
from elman.text.vocabulary import Vocabulary

WORDS = made.vocabulary()
SOURCE = made.text(WORDS)


def two(
    difference: float = -0.1, *, sentences: int = 211, seed: int = 3, noise: float = 0.2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nats [N] of two models that share what is hard, and the ends [S]; sentences hard as a whole."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(2, 18, size=sentences)
    hard = np.repeat(draw.normal(5.0, 0.8, size=sentences), lengths)
    a = np.maximum(hard + draw.normal(0.0, 1.0, size=len(hard)), 0.01)
    b = np.maximum(a + difference + draw.normal(0.0, noise, size=len(hard)), 0.005)
    return a, b, np.cumsum(lengths) - 1


# -- the bootstrap --------------------------------------------------------------------------------


def oracle(
    a: np.ndarray, b: np.ndarray, ends: np.ndarray, samples: int, seed: int
) -> tuple[float, float, float]:
    """The same draws, sentence by sentence and sample by sample."""
    starts = [0, *(end + 1 for end in ends[:-1])]
    sentences = [(a[s : e + 1], b[s : e + 1]) for s, e in zip(starts, ends, strict=True)]
    draw = np.random.default_rng(seed)
    changes = []
    for _ in range(samples):
        chosen = draw.integers(0, len(sentences), size=len(sentences), dtype=np.int32)
        mine = np.concatenate([sentences[i][1] for i in chosen])
        theirs = np.concatenate([sentences[i][0] for i in chosen])
        changes.append(math.exp(mine.mean()) / math.exp(theirs.mean()) - 1)
    return math.exp(b.mean() - a.mean()) - 1, *np.percentile(changes, [2.5, 97.5])


def test_paired_bootstrap_is_the_slow_one() -> None:
    a, b, ends = two(sentences=41)
    found = paired_bootstrap(a, b, ends, samples=150, seed=7)
    change, low, high = oracle(a, b, ends, 150, 7)
    assert found.change == pytest.approx(change, rel=1e-12)
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high), rel=1e-9)


def test_blocks_of_draws_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, ends = two(sentences=41)
    columns = np.stack([sentence_sums(a, ends), sentence_sums(b, ends)], axis=1)
    whole = resample(columns, Resampling(samples=50, seed=9))
    monkeypatch.setattr("elman.compare.bootstrap.BLOCK", 41 * 7)
    # the same draws; a product of matrices may sum them in another order
    np.testing.assert_allclose(resample(columns, Resampling(samples=50, seed=9)), whole, rtol=1e-13)


def test_identical_models_do_not_differ() -> None:
    a, _, ends = two()
    found = paired_bootstrap(a, a.copy(), ends)
    assert found.change == 0.0
    assert 0.0 in found.interval
    assert not found.clear


def test_equally_good_models_are_not_told_apart() -> None:
    a, b, ends = two(0.0, noise=0.5)
    assert not paired_bootstrap(a, b - (b.mean() - a.mean()), ends).clear


def test_a_known_difference_is_covered_as_often_as_promised() -> None:
    truth = math.expm1(-0.1)
    covered = 0
    for seed in range(200):
        a, b, ends = two(-0.1, sentences=80, seed=seed, noise=0.3)
        covered += truth in paired_bootstrap(a, b, ends, samples=200, seed=1).interval
    # 95 % promised; percentile intervals of 80 sentences give about 94; four standard errors of slack
    assert 176 <= covered <= 199


def test_pairing_narrows_the_interval() -> None:
    a, b, ends = two(-0.03)
    pair = paired_bootstrap(a, b, ends).interval
    apart = unpaired(a, b, ends)
    assert pair.high - pair.low < 0.3 * (apart.high - apart.low)


def test_sums_cut_the_text_at_its_sentences() -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    np.testing.assert_array_equal(sentence_sums(values, np.array([1, 2, 4])), [3.0, 4.0, 24.0])
    for wrong in ([1, 2], [1, 1, 4], [], [4, 2]):
        with pytest.raises(ElmanError, match="cut 5 events"):
            sentence_sums(values, np.array(wrong, dtype=np.int64))


# -- known wrong: each must be told from the right one --------------------------------------------------


def unpaired(a: np.ndarray, b: np.ndarray, ends: np.ndarray) -> Interval:
    """Wrong: each model is resampled on its own."""
    changes = []
    for nats, seed in ((a, 1), (b, 2)):
        columns = np.stack([sentence_sums(nats, ends), sentence_sums(np.ones(len(nats)), ends)], axis=1)
        totals = resample(columns, Resampling(seed=seed))
        changes.append(totals[:, 0] / totals[:, 1])
    low, high = np.percentile(np.expm1(changes[1] - changes[0]), [2.5, 97.5])
    return Interval(float(low), float(high))


def over_events(a: np.ndarray, _: np.ndarray, ends: np.ndarray) -> Interval:
    """Wrong: events instead of sentences are drawn."""
    return interval(a, np.ones(len(a)))


def mean_of_perplexities(a: np.ndarray, _: np.ndarray, ends: np.ndarray) -> float:
    """Wrong: a mean over sentences of their perplexities."""
    sums, counts = sentence_sums(a, ends), sentence_sums(np.ones(len(a)), ends)
    return float(np.exp(sums / counts).mean())


def test_the_wrong_ones_differ() -> None:
    a, b, ends = two()
    right = paired_bootstrap(a, b, ends).interval
    wrong = unpaired(a, b, ends)
    assert wrong.high - wrong.low > 3 * (right.high - right.low)
    counts = sentence_sums(np.ones(len(a)), ends)
    by_sentence = interval(sentence_sums(a, ends), counts)
    by_event = over_events(a, b, ends)
    assert by_sentence.high - by_sentence.low > 1.5 * (by_event.high - by_event.low)
    scored = Scored("a", a, text_of(ends), Encoding("t", "v", 9), Protocol("word"))
    perplexity = compare([scored]).rows[0].figure
    assert perplexity == pytest.approx(math.exp(a.mean()), rel=1e-12)
    assert abs(mean_of_perplexities(a, b, ends) / perplexity - 1) > 0.05


def text_of(ends: np.ndarray) -> Text:
    ids = np.full(ends[-1] + 1, 2, dtype=np.int32)
    ids[ends] = 1
    lengths = np.diff(ends, prepend=-1)
    return Text(ids, (lengths - 1).astype(np.int32), (lengths * 5).astype(np.int32))


# -- the table ------------------------------------------------------------------------------------


def models(*means: float, state: str = "carry") -> list[Scored]:
    return [made.scored(f"m{i}", mean, SOURCE, WORDS, seed=i, state=state) for i, mean in enumerate(means)]


def test_rows_and_pairs_agree_with_the_parts() -> None:
    scored = models(5.0, 4.6, 4.8)
    table = compare(scored, baseline="m0", resampling=Resampling(samples=200, seed=4))
    for row, model in zip(table.rows, scored, strict=True):
        events = sentence_sums(np.ones(SOURCE.events), SOURCE.ends)
        expected = interval(
            sentence_sums(model.nats, SOURCE.ends), events, resampling=Resampling(samples=200, seed=4)
        )
        assert row.figure == pytest.approx(math.exp(model.nats.mean()), rel=1e-12)
        assert (row.interval.low, row.interval.high) == pytest.approx(
            (expected.low, expected.high), rel=1e-12
        )
        assert row.score.perplexity == pytest.approx(row.figure, rel=1e-12)
        assert row.figure in row.interval
    assert [(d.name, d.other) for d in table.neighbours] == [("m2", "m0"), ("m1", "m2")]
    assert [(d.name, d.other) for d in table.against_baseline] == [("m2", "m0"), ("m1", "m0")]
    pair = paired_bootstrap(scored[0].nats, scored[1].nats, SOURCE.ends, samples=200, seed=4)
    assert table.against_baseline[1].change == pytest.approx(pair.change, rel=1e-9)
    assert table.against_baseline[1].interval.low == pytest.approx(pair.interval.low, rel=1e-9)
    assert table.against_baseline[1].clear


def test_a_row_alone_is_the_row_in_the_table() -> None:
    scored = models(5.0, 4.6)
    alone, beside = compare(scored[1:]).rows[0], compare(scored).rows[1]
    assert alone.score == beside.score
    assert alone.interval.low == pytest.approx(beside.interval.low, rel=1e-12)
    assert alone.interval.high == pytest.approx(beside.interval.high, rel=1e-12)


def test_disjoint_asks_for_more_than_clear() -> None:
    near = compare(models(4.8, 4.78)).neighbours[0]
    assert near.clear == (0.0 not in near.interval)
    assert not near.disjoint
    far = compare(models(5.5, 4.0)).neighbours[0]
    assert far.clear
    assert far.disjoint


def test_skip_leaves_unknown_events_out() -> None:
    skipping = [
        replace(model, protocol=replace(model.protocol, unknown="skip")) for model in models(5.0, 4.8)
    ]
    table = compare(skipping)
    known = SOURCE.ids != 0
    assert 0 < SOURCE.unknown < SOURCE.events
    assert table.rows[0].score.events == known.sum()
    assert table.rows[0].figure == pytest.approx(math.exp(skipping[0].nats[known].mean()), rel=1e-12)


def test_skip_counts_what_every_model_knows() -> None:
    first, second = (replace(m, protocol=replace(m.protocol, unknown="skip")) for m in models(5.0, 4.8))
    ids = SOURCE.ids.copy()
    ids[(ids > 150)] = 0
    small = replace(SOURCE, ids=ids)
    second = replace(second, text=small, encoding=Encoding(second.encoding.tokenizer, "smaller", 151))
    table = compare([first, second])
    assert table.rows[0].score.events == table.rows[1].score.events == (ids != 0).sum()


def characters_of(source: Text) -> Text:
    """The same sentences cut finer: every event twice, the ends kept; a sentence ends only at each third."""
    ids = np.repeat(np.where(source.ids == 1, 3, 4), 2).astype(np.int32)
    last = [*range(2, source.sentences - 1, 3), source.sentences - 1]
    ids[2 * source.ends[last] + 1] = 1
    first = np.concatenate(([0], np.array(last[:-1]) + 1))
    return Text(ids, np.add.reduceat(source.words, first), np.add.reduceat(source.bytes, first))


def test_other_tokens_compare_per_byte_on_sentences_that_meet() -> None:
    word = models(5.0)[0]
    letters = characters_of(SOURCE)
    nats = np.repeat(word.nats, 2) * 0.45
    letter = Scored("letters", nats, letters, Encoding("characters", "c", 5), Protocol("character"))
    table = compare([word, letter])
    assert table.per == "byte"
    assert table.sentences == letters.sentences < SOURCE.sentences
    total = int(SOURCE.bytes.sum())
    assert table.rows[0].figure == pytest.approx(word.nats.sum() / total / math.log(2), rel=1e-12)
    assert table.neighbours[0].name == "letters"
    assert table.neighbours[0].change == pytest.approx(-0.1, rel=1e-9)
    np.testing.assert_allclose(
        [table.neighbours[0].interval.low, table.neighbours[0].interval.high], -0.1, rtol=1e-6
    )
    assert any("flattered" in note for note in table.notes)
    assert not any("leaves out blanks" in note for note in table.notes)
    lossy = replace(word, protocol=replace(word.protocol, normalized=True))
    assert any(note.startswith(f"{word.name} leaves out blanks") for note in compare([lossy, letter]).notes)
    per_word = compare([word, letter], per="word")
    assert per_word.rows[1].figure == pytest.approx(math.exp(nats.sum() / SOURCE.words.sum()), rel=1e-12)


def test_per_token_refuses_other_tokens() -> None:
    word = models(5.0)[0]
    letter = replace(word, name="letters", encoding=Encoding("characters", "c", 5))
    with pytest.raises(ProtocolError, match="different tokens cannot be compared per token"):
        compare([word, letter], per="token")


def test_per_byte_refuses_what_leaves_events_out() -> None:
    model = models(5.0)[0]
    with pytest.raises(ProtocolError, match="leaves events out"):
        compare([replace(model, protocol=replace(model.protocol, unknown="skip"))], per="byte")


def test_unlike_protocols_refuse() -> None:
    first, second = models(5.0, 4.8)
    with pytest.raises(ProtocolError, match="unknown=word with unknown=skip"):
        compare([first, replace(second, protocol=replace(second.protocol, unknown="skip"))])
    with pytest.raises(ProtocolError, match="end_of_sentence"):
        compare([first, replace(second, protocol=replace(second.protocol, end_of_sentence=False))])


def test_other_words_refuse() -> None:
    first, second = models(5.0, 4.8)
    other = replace(second.encoding, vocabulary="another", size=99)
    with pytest.raises(ProtocolError, match=r"know different words \(211 and 99 tokens\)"):
        compare([first, replace(second, encoding=other)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "m0"}, "the name 'm0' is given to two models"),
        ({"nats": np.ones(5)}, "has 5 numbers for a text of"),
        ({"nats": np.full(SOURCE.events, np.inf)}, "probability zero"),
        ({"text": made.text(WORDS, 100)}, "was scored on 23,730 bytes and m1 on 7,254"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    first, second = models(5.0, 4.8)
    wrong = replace(second, **change)  # type: ignore[arg-type]
    if "text" in change:
        wrong = replace(wrong, nats=wrong.nats[: wrong.text.events])
    with pytest.raises(ElmanError, match=message):
        compare([first, wrong])


def test_options_are_checked() -> None:
    with pytest.raises(OptionError, match="there is no model"):
        compare([])
    with pytest.raises(OptionError, match="baseline 'kn9' is not among"):
        compare(models(5.0), baseline="kn9")
    with pytest.raises(OptionError, match="3 bootstrap samples are too few"):
        Resampling(samples=3)
    with pytest.raises(OptionError, match=r"level 1\.5"):
        Resampling(level=1.5)


def test_one_sentence_has_no_interval() -> None:
    ends = np.array([6])
    model = Scored("a", np.full(7, 2.0), text_of(ends), Encoding("t", "v", 9), Protocol("word"))
    table = compare([model])
    assert math.isnan(table.rows[0].interval.low)
    assert "cannot be trusted" in table.notes[0]


# -- the whole comparison -------------------------------------------------------------------------


def test_reset_models_are_compared_with_the_baseline() -> None:
    carried, fresh = models(5.0, 4.5), models(5.0, 4.9, state="reset")
    candidates = [
        Candidate("Five-gram", "ngram", carried[0], WORDS),
        Candidate("LSTM", "recurrent", carried[1], WORDS, reset=fresh[1]),
    ]
    example = made.example()
    whole = assemble(candidates, subject=example.subject, repeat=example.repeat, counting=Counting())
    assert whole.baseline == "m0"
    assert whole.entries[1].reset is not None
    assert whole.entries[1].reset.figure > whole.entries[1].row.figure
    assert whole.entries[0].reset is None
    assert [(d.name, d.other) for d in whole.reset_against_baseline] == [("m1", "m0")]
    assert any("with its state reset" in line for line in verdicts(whole))
    assert sum(b.nats for b in whole.entries[1].frequency) == pytest.approx(carried[1].nats.sum(), rel=1e-12)
    assert whole.gains is not None
    first = whole.gains.won[0]
    where = SOURCE.ids == WORDS.id(first.text)
    assert first.count == where.sum()
    assert first.nats == pytest.approx((carried[0].nats - carried[1].nats)[where].sum(), rel=1e-9)


def test_what_unknown_words_take_and_who_never_learned_it() -> None:
    known = SOURCE.ids != 0
    model, words = models(5.0)[0], list(WORDS.tokens)
    untrained = Vocabulary(words, [0, *[3] * (len(words) - 1)])
    trained = Vocabulary(words, [9, *[3] * (len(words) - 1)])
    example = made.example()
    shown = {"subject": example.subject, "repeat": example.repeat}
    whole = assemble([Candidate("Five-gram", "ngram", model, untrained)], **shown)  # type: ignore[arg-type]
    score = whole.entries[0].row.score
    assert score.unknown == (~known).sum() > 50
    assert score.known_perplexity == pytest.approx(math.exp(model.nats[known].mean()), rel=1e-12)
    assert score.unknown_share == pytest.approx(model.nats[~known].sum() / model.nats.sum(), rel=1e-9)
    assert [
        note for note in whole.notes if note.startswith("Five-gram: <unk> was never seen in its training")
    ]
    learned = assemble([Candidate("Five-gram", "ngram", model, trained)], **shown)  # type: ignore[arg-type]
    assert not any("<unk>" in note for note in learned.notes)
    unlike = replace(model, protocol=replace(model.protocol, unknown="skip"))
    skipped = assemble([Candidate("Five-gram", "ngram", unlike, untrained)], **shown)  # type: ignore[arg-type]
    assert not any("<unk>" in note for note in skipped.notes)
    assert skipped.entries[0].row.figure == pytest.approx(score.known_perplexity, rel=1e-12)


def test_one_model_alone_is_a_comparison_too() -> None:
    example = made.example()
    whole = assemble(
        [Candidate("Only", "recurrent", models(5.0)[0], WORDS)],
        subject=example.subject,
        repeat=example.repeat,
    )
    assert whole.baseline is None
    assert headline(whole).startswith("Only is best")


def test_a_difference_in_words() -> None:
    assert percent(-0.1834, Interval(-0.194, -0.171)) == "18.3 % [17.1, 19.4] below"
    assert percent(0.052, Interval(0.04, 0.063)) == "5.2 % [4.0, 6.3] above"
    assert percent(-0.0012, Interval(-0.004, 0.0016)) == "0.12 % [-0.16, 0.40] below"
    example = made.example()
    assert "LSTM + Kneser-Ney 5 is best on made-up: perplexity" in headline(example)
    assert isinstance(example.subject, Subject)


def test_figures_of_bits_are_linear() -> None:
    nats, count = np.array([math.log(2) * 6]), np.array([3.0])
    assert figure(nats, count, "byte")[0] == pytest.approx(2.0)
    assert figure(nats, count, "token")[0] == pytest.approx(4.0)
