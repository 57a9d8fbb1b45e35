"""Filters against direct computation, draws against the distribution, text against the joiner."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elman.errors import ElmanError, OptionError
from elman.generate import (
    GenerationSettings,
    Joiner,
    draw,
    generate,
    next_distribution,
    read_prompt,
    samples,
    token_stream,
)
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.text.corpus import encode_string
from elman.text.tokenizers import get_tokenizer
from elman.text.vocabulary import Vocabulary
from table_model import TableModel, close, oracle

MODEL = TableModel(["the", "cat", "sat", "on", "mat", "of", "a", "dog", "ran"])
V = len(MODEL.vocabulary)
LOG_PROBS = MODEL.table[:6].clone()  # [6, V] float64


def direct(row: list[float], settings: GenerationSettings) -> list[float]:
    """The filters in words: `<unk>` out, temperature, top-k, top-p, each on a dictionary."""
    kept = {token: value for token, value in enumerate(row) if settings.allow_unknown or token != 0}
    if settings.temperature == 0:
        best = min(kept, key=lambda token: (-kept[token], token))
        return [float(token == best) for token in range(len(row))]
    weight = {token: math.exp(value / settings.temperature) for token, value in kept.items()}
    ranked = sorted(weight, key=lambda token: (-weight[token], token))[: settings.top_k]
    total = math.fsum(weight[token] for token in ranked)
    nucleus, mass = [], 0.0
    for token in ranked:
        if mass >= settings.top_p and settings.top_p < 1:
            break
        nucleus.append(token)
        mass += weight[token] / total
    whole = math.fsum(weight[token] for token in nucleus)
    return [weight[token] / whole if token in nucleus else 0.0 for token in range(len(row))]


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [None, 1, 3, V, V + 5])
@pytest.mark.parametrize("top_p", [1e-6, 0.4, 0.85, 1.0])
@pytest.mark.parametrize("allow_unknown", [False, True])
def test_the_distribution_is_the_one_computed_directly(
    temperature: float, top_k: int | None, top_p: float, allow_unknown: bool
) -> None:
    settings = GenerationSettings(
        temperature=temperature, top_k=top_k, top_p=top_p, allow_unknown=allow_unknown
    )
    found = next_distribution(LOG_PROBS, settings)
    expected = [direct(row, settings) for row in LOG_PROBS.tolist()]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=0)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-14)


def test_filters_on_numbers_that_can_be_read() -> None:
    log_probs = torch.tensor([[0.2, 0.05, 0.4, 0.25, 0.1]], dtype=torch.float64).log()

    def kept(**options: object) -> list[int]:
        settings = GenerationSettings(allow_unknown=True, **options)  # type: ignore[arg-type]
        return [int(k) for k in np.flatnonzero(next_distribution(log_probs, settings)[0])]

    assert kept(top_k=2) == [2, 3]
    assert kept(top_p=0.4) == [2]  # one token reaches 0.4: keeping the next too is off by one
    assert kept(top_p=0.41) == [2, 3]
    assert kept(top_p=0.8) == [0, 2, 3]
    assert kept(top_p=0.99) == [0, 1, 2, 3, 4]
    assert kept(top_k=3, top_p=0.9) == [0, 2, 3]  # of the three, two have 0.76 and three have all
    assert kept(top_k=3, top_p=0.7) == [2, 3]
    assert kept(temperature=0.0) == [2]
    half = next_distribution(log_probs, GenerationSettings(temperature=0.5, allow_unknown=True))[0]
    squares = np.array([0.2, 0.05, 0.4, 0.25, 0.1]) ** 2
    np.testing.assert_allclose(half, squares / squares.sum(), rtol=1e-12)


def test_known_wrong_top_p_is_caught() -> None:
    """One token too many or too few, or the nucleus taken before top-k, differs on these rows."""
    settings = GenerationSettings(top_p=0.6)
    found = next_distribution(LOG_PROBS, settings)
    for row, probabilities in zip(LOG_PROBS.tolist(), found, strict=True):
        kept = int((probabilities > 0).sum())
        known = sorted((math.exp(value) for value in row[1:]), reverse=True)
        mass = math.fsum(known[:kept]) / math.fsum(known)
        without_last = math.fsum(known[: kept - 1]) / math.fsum(known)
        assert without_last < 0.6 <= mass


def test_ties_go_to_the_smaller_id() -> None:
    even = torch.zeros(1, 5, dtype=torch.float64).log_softmax(1)
    assert next_distribution(even, GenerationSettings(temperature=0))[0].tolist() == [0, 1, 0, 0, 0]
    assert next_distribution(even, GenerationSettings(top_k=2))[0].tolist() == [0, 0.5, 0.5, 0, 0]
    assert next_distribution(even, GenerationSettings(top_p=0.3))[0].tolist() == [0, 0.5, 0.5, 0, 0]


def test_extreme_temperatures_stay_distributions() -> None:
    for temperature in (1e-300, 1e-9, 1e9, 1e300):
        found = next_distribution(LOG_PROBS, GenerationSettings(temperature=temperature))
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-12)
    assert np.allclose(next_distribution(LOG_PROBS, GenerationSettings(temperature=1e12))[:, 1:], 1 / (V - 1))


def test_the_models_log_probs_are_left_alone() -> None:
    before = LOG_PROBS.clone()
    next_distribution(LOG_PROBS, GenerationSettings(top_k=2, temperature=0.5))
    assert torch.equal(LOG_PROBS, before)


def test_a_model_that_knows_only_unk_is_told() -> None:
    only = torch.tensor([[0.0, -math.inf, -math.inf]])
    with pytest.raises(ElmanError, match=r"no token but <unk>[^$]*--allow-unknown"):
        next_distribution(only, GenerationSettings())
    assert next_distribution(only, GenerationSettings(allow_unknown=True)).tolist() == [[1, 0, 0]]


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.25, 1.0, 3.0]), min_size=2, max_size=9).filter(any),
    st.floats(0, 1, exclude_max=True),
)
def test_a_draw_is_the_token_at_that_point(weights: list[float], uniform: float) -> None:
    probabilities = np.array([weights]) / sum(weights)
    (token,) = draw(probabilities, np.array([uniform]))
    assert probabilities[0, token] > 0
    assert probabilities[0, :token].sum() <= uniform + 1e-12
    assert uniform < probabilities[0, : token + 1].sum() + 1e-12


def test_every_token_is_drawn_as_often_as_its_probability() -> None:
    """Exact: n evenly spaced points hit each token n·p times, give or take one."""
    n = 10_000
    probabilities = next_distribution(LOG_PROBS[:1], GenerationSettings(temperature=0.8, top_p=0.95))
    tokens = draw(np.repeat(probabilities, n, axis=0), (np.arange(n) + 0.5) / n)
    counts = np.bincount(tokens, minlength=V)
    assert (np.abs(counts - n * probabilities[0]) <= 1).all()


def test_sampled_frequencies_lie_within_hoeffdings_bound() -> None:
    """4,000 first tokens; each frequency within sqrt(ln(2V/δ)/2n), δ = 1e-6, of its probability."""
    n = 4000
    drawn = samples(MODEL, "the", GenerationSettings(length=1, seed=5), count=n)
    counts = Counter(sample.tokens[0] for sample in drawn)
    state, _ = MODEL.advance(MODEL.start(1), torch.tensor([1]))
    _, log_probs = MODEL.advance(state, torch.tensor([MODEL.vocabulary.id("the")]))
    expected = next_distribution(log_probs, GenerationSettings())[0]
    bound = math.sqrt(math.log(2 * V / 1e-6) / (2 * n))
    for token in range(V):
        assert abs(counts[MODEL.vocabulary.token(token)] / n - expected[token]) <= bound


def test_temperature_zero_is_the_most_probable_token_each_time() -> None:
    (sample,) = samples(MODEL, "the cat", GenerationSettings(temperature=0, length=30, seed=99))
    state = MODEL.start(1)
    for token in (1, MODEL.vocabulary.id("the"), MODEL.vocabulary.id("cat")):
        state, log_probs = MODEL.advance(state, torch.tensor([token]))
    expected = []
    for _ in range(30):
        best = max(range(1, V), key=lambda token: (float(log_probs[0, token]), -token))
        expected.append(MODEL.vocabulary.token(best))
        state, log_probs = MODEL.advance(state, torch.tensor([best]))
    assert list(sample.tokens) == expected


def test_the_nats_of_a_sample_are_the_models() -> None:
    settings = GenerationSettings(length=25, temperature=0.7, top_k=4, seed=8)
    for sample in samples(MODEL, "a dog", settings, count=3):
        ids = [MODEL.vocabulary.id(token) for token in ("a", "dog", *sample.tokens)]
        assert close(sample.nats, math.fsum(oracle(MODEL, ids, carry=True)[2:]))


def test_one_seed_is_one_text_and_another_seed_another() -> None:
    settings = GenerationSettings(length=40, seed=4)
    assert samples(MODEL, "the", settings) == samples(MODEL, "the", settings)
    assert samples(MODEL, "the", settings) != samples(MODEL, "the", GenerationSettings(length=40, seed=5))
    five = samples(MODEL, "the", settings, count=5)
    assert five[:1] == samples(MODEL, "the", settings)
    assert len({sample.text for sample in five}) == 5
    assert "".join(generate(MODEL, "the", settings)) == five[0].text


def test_unknown_comes_only_when_allowed() -> None:
    model = TableModel(["a", "b"], seed=1)
    settings = GenerationSettings(length=200)
    assert "<unk>" not in samples(model, "", settings)[0].tokens
    assert "<unk>" in samples(model, "", GenerationSettings(length=200, allow_unknown=True))[0].tokens


@pytest.mark.parametrize(("length", "lines"), [(7, None), (None, 3), (12, 2), (1, 1), (None, None)])
def test_generation_stops_where_it_should(length: int | None, lines: int | None) -> None:
    settings = GenerationSettings(length=length, lines=lines)
    for sample in samples(MODEL, "", settings, count=4):
        ended = sample.tokens.count("</s>")
        assert len(sample.tokens) <= (length or (100 if lines is None else 1000 * lines))
        if ended != lines:
            assert len(sample.tokens) == (length or 100)
        else:
            assert sample.tokens[-1] == "</s>"
        assert sample.text.count("\n") == ended


def test_streams_that_end_leave_the_others_as_they_are() -> None:
    settings = GenerationSettings(lines=1, seed=3)
    together = samples(MODEL, "the", settings, count=9)
    assert len({len(sample.tokens) for sample in together}) > 2
    drawn: dict[int, list[str]] = {}
    for sample, token, _ in token_stream(MODEL, read_prompt(MODEL, "the").ids, settings, 9):
        drawn.setdefault(sample, []).append(MODEL.vocabulary.token(token))
    assert [tuple(drawn[k]) for k in range(9)] == [sample.tokens for sample in together]
    assert together[:4] == samples(MODEL, "the", settings, count=4)


def test_a_prompt_is_read_in_the_models_tokens() -> None:
    read = read_prompt(MODEL, "the cat\n\n sat zebra on zebra ")
    vocabulary = MODEL.vocabulary
    assert read.ids == (
        vocabulary.id("the"),
        vocabulary.id("cat"),
        1,
        1,
        vocabulary.id("sat"),
        0,
        vocabulary.id("on"),
        0,
    )
    assert read.unknown == ("zebra",)
    assert read.text == "the cat\n\nsat zebra on zebra"
    assert read.open_tokens == ("sat", "zebra", "on", "zebra")
    assert read_prompt(MODEL, "") == read_prompt(MODEL, "").__class__((), "", (), ())


def test_a_prompts_state_is_used() -> None:
    """A prompt that is printed but not read (or read twice) gives other texts."""
    settings = GenerationSettings(temperature=0, length=8)
    texts = {samples(MODEL, prompt, settings)[0].tokens for prompt in ("", "the", "the the", "cat sat")}
    assert len(texts) == 4


@pytest.mark.parametrize("name", ["words", "characters", "bytes", "prose"])
def test_pieces_make_up_the_joined_text(name: str) -> None:
    tokenizer = get_tokenizer(name)
    text = 'the cafés "were open", (mostly) at dawn; we didn\'t go \N{WATER WAVE} twice. ' * 12
    tokens = [token for sentence in tokenizer.split(text) for token in sentence]
    joiner = Joiner(tokenizer)
    pieces = [joiner.push(token) for token in tokens]
    assert "".join(pieces) + joiner.end() == tokenizer.join(tokens) + "\n"
    assert len([piece for piece in pieces if piece]) >= 0.8 * len(pieces)  # it streams


def test_prose_is_joined_without_blanks_before_marks() -> None:
    tokenizer = get_tokenizer("prose")
    joiner = Joiner(tokenizer, ["so", ","])
    assert [joiner.push(token) for token in ("he", "said", ",", '"', "no", '"', "!")] == [
        " he",
        " said",
        ",",
        ' "',
        "no",
        '"',
        "!",
    ]


def test_a_prompt_and_its_continuation_are_one_text() -> None:
    (sample,) = samples(MODEL, "the  cat", GenerationSettings(length=6, seed=2))
    words = [token if token != "</s>" else "\n" for token in sample.tokens]
    assert sample.text == " ".join(["the cat", *words]).replace(" \n", "\n").replace("\n ", "\n")
    letters = TableModel(list("abc␣"), tokenizer="characters")
    (raw,) = samples(letters, "ab ", GenerationSettings(length=9))
    assert raw.text == "ab " + "".join(raw.tokens).replace("␣", " ").replace("</s>", "\n")


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"temperature": -0.5}, "--temperature -0.5 is not"),
        ({"temperature": math.nan}, "--temperature nan is not"),
        ({"temperature": math.inf}, "--temperature inf is not"),
        ({"top_k": 0}, "--top-k 0 keeps no token"),
        ({"top_p": 0.0}, "--top-p 0 is not in"),
        ({"top_p": 1.01}, "--top-p 1.01 is not in"),
        ({"top_p": math.nan}, "--top-p nan is not in"),
        ({"length": 0}, "--length 0 is below"),
        ({"lines": 0}, "--lines 0 is below"),
        ({"seed": -1}, "--seed -1 is negative"),
    ],
)
def test_settings_out_of_range_are_told(options: dict[str, float], cause: str) -> None:
    with pytest.raises(OptionError, match=cause) as caught:
        GenerationSettings(**options)  # type: ignore[arg-type]
    assert "Remedy: give " in str(caught.value)


def test_no_samples_are_refused() -> None:
    with pytest.raises(OptionError, match="0 samples"):
        samples(MODEL, "", count=0)


def test_an_n_gram_model_generates_through_the_same_call() -> None:
    words = get_tokenizer("words")
    training = "the cat sat on the mat\nthe dog sat\na mat sat on a cat\n" * 3
    vocabulary = Vocabulary.build(Counter(training.split()), sentences=9)
    model = estimate(
        encode_string(training, words, vocabulary), vocabulary, words, KneserNeySettings(order=3)
    )
    for sample in samples(model, "the", GenerationSettings(lines=2, top_k=3, seed=2), count=4):
        assert sample.tokens.count("</s>") == 2
        ids = torch.tensor([1, *(vocabulary.id(token) for token in ("the", *sample.tokens))])[:, None]
        nats, _ = model.token_nats(ids, model.start(1))
        assert close(sample.nats, float(nats[1:].double().sum()), relative=1e-6)
