"""Byte-level byte-pair encoding through the optional package `tokenizers`, guarded.

Only vocabulary and merges are ever stored, in our own JSON, and they are checked here before the
library sees them: it panics on hostile files, with an exception that is no `Exception`.
Not a tokenizer by itself (tokenizers.BPE is).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from elman.errors import ElmanError, FormatError
from elman.text.vocabulary import BOS, EOS, UNK

T = TypeVar("T")
MAX_VOCABULARY = 1_000_000


def train_bpe(lines: Iterable[str], size: int) -> dict[str, Any]:
    """{"vocab": {token: id}, "merges": [[left, right], …]} learned from lines of training text.

    size  number of subwords at most, the 256 bytes included
    """
    library = _library()

    def train() -> dict[str, Any]:
        engine = _empty_engine(library, library.models.BPE())
        trainer = library.trainers.BpeTrainer(
            vocab_size=size,
            show_progress=False,
            initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        )
        engine.train_from_iterator(lines, trainer=trainer)
        model = json.loads(engine.to_str())["model"]
        merges = [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
        return {"vocab": model["vocab"], "merges": merges}

    return guarded(train, "BPE: training failed")


def load_bpe(model: object) -> Any:
    """The library's engine for a stored model. Raises FormatError before and instead of a panic."""
    vocab, merges = _validated(model)
    library = _library()
    if not vocab.keys() >= set(library.pre_tokenizers.ByteLevel.alphabet()):
        raise FormatError("BPE: the vocabulary lacks some of the 256 bytes.")
    pairs = [(left, right) for left, right in merges]
    return guarded(
        lambda: _empty_engine(library, library.models.BPE(vocab=vocab, merges=pairs)), "BPE: bad model"
    )


def guarded(call: Callable[[], T], what: str) -> T:
    """Run a call into the library; a panic (a BaseException) becomes a FormatError."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, MemoryError, ElmanError):
        raise
    except BaseException as error:  # noqa: BLE001  PanicException derives from BaseException
        raise FormatError(f"{what}: {type(error).__name__}: {error!s:.200}") from None


def _empty_engine(library: Any, model: Any) -> Any:
    engine = library.Tokenizer(model)
    engine.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    engine.decoder = library.decoders.ByteLevel()
    return engine


def _library() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise ElmanError(
            "subwords need the package `tokenizers`, which is not installed.",
            remedy="pip install 'elman[bpe]', or choose --tokenizer words, prose, characters or bytes.",
        ) from None
    return tokenizers


def _validated(model: object) -> tuple[dict[str, int], list[list[str]]]:
    if not isinstance(model, dict) or set(model) != {"vocab", "merges"}:
        raise FormatError("BPE: expected an object with `vocab` and `merges`.")
    vocab, merges = model["vocab"], model["merges"]
    if not isinstance(vocab, dict) or not isinstance(merges, list):
        raise FormatError("BPE: `vocab` must be an object and `merges` a list.")
    if not 256 <= len(vocab) <= MAX_VOCABULARY or len(merges) > len(vocab):
        raise FormatError(f"BPE: {len(vocab):,} subwords and {len(merges):,} merges are out of range.")
    if not all(type(number) is int for number in vocab.values()) or set(vocab.values()) != set(
        range(len(vocab))
    ):
        raise FormatError("BPE: ids must be 0, 1, … without gaps.")
    if any(not token or len(token) > 10_000 or token in (UNK, BOS, EOS) for token in vocab):
        raise FormatError("BPE: an empty, overlong or reserved subword.")
    for number, pair in enumerate(merges):
        if (
            not isinstance(pair, list | tuple)
            or len(pair) != 2
            or not all(isinstance(part, str) for part in pair)
        ):
            raise FormatError(f"BPE: merge {number} is not a pair of strings.")
        if pair[0] not in vocab or pair[1] not in vocab or pair[0] + pair[1] not in vocab:
            raise FormatError(
                f"BPE: merge {number} ({pair!r:.80}) uses subwords that are not in the vocabulary."
            )
    return vocab, merges
