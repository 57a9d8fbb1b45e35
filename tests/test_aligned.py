"""Models over unlike vocabularies: by word, one by one in plain Python; sums stay 1."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from elman.aligned import Aligned, align, alignment
from elman.checkpoint import load_model, save_model
from elman.errors import ProtocolError
from elman.evaluate import evaluate
from elman.mixture import Mixture
from elman.neural.recurrent import RecurrentConfig, RecurrentModel
from elman.ngram.arpa import read_arpa
from elman.ngram.arpa_writing import write_arpa
from elman.ngram.kneser_ney import KneserNeySettings, estimate
from elman.text.corpus import encode_string
from elman.text.tokenizers import Words
from elman.text.vocabulary import Vocabulary
from neural_oracle import assert_contract, drawn
from ngram_oracle import read_golden
from table_model import TableModel, run_cli
from tolerance import tolerance

FIRST, SECOND = ["a", "b", "c", "d"], ["x", "c", "a", "y", "z"]
LINES = "a c b\nx a nothing y\n\nd z c\n"


def by_word(model: TableModel, union: list[str], words: list[str]) -> list[float]:
    """-ln P of each word of a stream: its own, or that of <unk> over the words that <unk> stands for."""
    own = list(model.vocabulary.tokens)
    shared = 1 + sum(word not in own for word in union)
    state, nats, before = 17, [], "</s>"
    for word in words:
        state = (5 * state + (own.index(before) if before in own else 0) + 1) % len(model.table)
        row = model.table[state].tolist()
        known = word in own and word != "<unk>"
        nats.append(-row[own.index(word)] if known else -row[0] + math.log(shared))
        before = word
    return nats


def test_every_word_has_its_share() -> None:
    models = [TableModel(FIRST), TableModel(SECOND, seed=5)]
    union = [*FIRST, "x", "y", "z"]
    mixture = Mixture(models, [0.3, 0.7])
    assert mixture.vocabulary.tokens == ("<unk>", "</s>", *union)
    text = encode_string(LINES, mixture.tokenizer, mixture.vocabulary)
    assert text.unknown == 1
    words = [mixture.vocabulary.token(int(number)) for number in text.ids]
    expected = [by_word(model, union, words) for model in models]
    for model, nats in zip(align(models), expected, strict=True):
        assert math.isclose(evaluate(model, text).nats, math.fsum(nats), rel_tol=1e-12)
    mixed = [-math.log(0.3 * math.exp(-p) + 0.7 * math.exp(-q)) for p, q in zip(*expected, strict=True)]
    assert math.isclose(evaluate(mixture, text).nats, math.fsum(mixed), rel_tol=1e-12)


def test_the_contract_holds_and_sums_are_one() -> None:
    config = RecurrentConfig(embedding_size=3, hidden_size=5, num_layers=2)
    models = [
        drawn(RecurrentModel(Vocabulary(["<unk>", "</s>", *words]), Words(), config))
        for words in (FIRST, SECOND, ["y", "q"])
    ]
    for model in align(models):
        assert isinstance(model, Aligned)
        assert_contract(model)
    assert_contract(Mixture(models, [1, 2, 3]))


def test_another_order_changes_nothing() -> None:
    text, vocabulary = read_golden("rhyme.txt")
    model = estimate(text, vocabulary, Words(), KneserNeySettings(order=3))
    turned = Vocabulary([*vocabulary.tokens[:2], *vocabulary.tokens[:1:-1]])
    other = Aligned(model, turned)
    assert other.lacking == 0
    lines = "\n".join(" ".join(vocabulary.tokens[2 + k : 9 + k]) + " never" for k in range(0, 70, 5))
    same = evaluate(model, encode_string(lines, Words(), vocabulary))
    moved = evaluate(other, encode_string(lines, Words(), turned))
    assert math.isclose(same.nats, moved.nats, rel_tol=tolerance(torch.float64, same.events))
    logs = other.advance(other.start(1), torch.tensor([1]))[1][0]
    own = model.advance(model.start(1), torch.tensor([1]))[1][0]
    for word in turned.tokens:
        assert logs[turned.id(word)] == own[vocabulary.id(word)]


def test_what_is_said() -> None:
    assert alignment([TableModel(FIRST), TableModel(FIRST, seed=2)], ["m", "n"]) == []
    models = [TableModel(words) for words in (FIRST, ["d", "c", "b", "a"], ["c"])]
    assert alignment(models, ["m", "n", "o"]) == [
        "n has its words in another order: aligned by word.",
        "o lacks 3 of the 6 words: each of them and <unk> has 1/4 of the probability that it gives to <unk>.",
    ]
    with pytest.raises(ProtocolError, match="cut text differently"):
        Mixture([TableModel(FIRST), TableModel(["a", "b"], tokenizer="characters")], [1, 1])


def test_a_mixture_is_stored_with_its_own_parts(tmp_path: Path) -> None:
    config = RecurrentConfig(embedding_size=3, hidden_size=5, num_layers=1)
    parts = [
        drawn(RecurrentModel(Vocabulary(["<unk>", "</s>", *words]), Words(), config)).float()
        for words in (FIRST, SECOND)
    ]
    mixture = Mixture(parts, [0.4, 0.6])
    save_model(mixture, tmp_path / "mixture")
    again = load_model(tmp_path / "mixture")
    assert again.vocabulary == mixture.vocabulary
    text = encode_string(LINES, again.tokenizer, again.vocabulary)
    assert math.isclose(evaluate(again, text).nats, evaluate(mixture, text).nats, rel_tol=1e-6)


def test_arpa_files_of_unlike_programs_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SRILM sorts its unigrams, KenLM lists them as they occur."""
    monkeypatch.chdir(tmp_path)
    text, vocabulary = read_golden("rhyme.txt")
    for name, order in (("kenlm", 3), ("srilm", 2)):
        write_arpa(estimate(text, vocabulary, Words(), KneserNeySettings(order=order)), Path(f"{name}.arpa"))
    lines = Path("srilm.arpa").read_text("utf-8").split("\n")
    begin = lines.index("\\1-grams:") + 1
    end = lines.index("", begin)
    lines[begin:end] = sorted(lines[begin:end], key=lambda line: line.split("\t")[1])
    Path("srilm.arpa").write_text("\n".join(lines), "utf-8")
    assert read_arpa("srilm.arpa").vocabulary != read_arpa("kenlm.arpa").vocabulary
    words = vocabulary.tokens[2:]
    random = np.random.default_rng(3)
    Path("text.txt").write_text(
        "\n".join(" ".join([*random.choice(words, 6), "unheard"]) for _ in range(40)) + "\n", "utf-8"
    )
    assert run_cli("mix", "kenlm.arpa", "srilm.arpa", "--tune", "text.txt", "--save", "both") == 0
    assert "note: srilm.arpa has its words in another order: aligned by word." in capsys.readouterr().err
    mixture, plain = load_model("both"), read_arpa("kenlm.arpa")
    bigrams = estimate(text, plain.vocabulary, Words(), KneserNeySettings(order=2))
    assert isinstance(mixture, Mixture)
    scored = encode_string(Path("text.txt").read_text("utf-8"), Words(), plain.vocabulary)
    expected = evaluate(Mixture([plain, bigrams], mixture.weights), scored)
    found = evaluate(mixture, encode_string(Path("text.txt").read_text("utf-8"), Words(), mixture.vocabulary))
    assert found.unknown == 40
    assert math.isclose(found.perplexity, expected.perplexity, rel_tol=1e-5)
    assert run_cli("compare", "both", "kenlm.arpa", "srilm.arpa", "--text", "text.txt", "--no-report") == 0
    assert run_cli("evaluate", "kenlm.arpa", "srilm.arpa", "text.txt") == 0
    assert "know different words" not in capsys.readouterr().err
