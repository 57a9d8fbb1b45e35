"""Files of options for `elman train`: TOML and JSON, refused or agreeing with themselves."""

from __future__ import annotations

import json

from elman.cli.train_options import merge, model_config, read_options, text_settings, train_config
from elman.training.config import parse_train_config
from fuzz.target import Target, scratch


def run(data: bytes) -> None:
    """First byte: { means JSON, else it is TOML. What passes the checks is JSON that passes them again."""
    path = scratch() / ("options.json" if data.lstrip().startswith(b"{") else "options.toml")
    path.write_bytes(data)
    options = merge(read_options(path))
    training = train_config(options)
    model = model_config(options)
    text_settings(options)
    document = json.loads(json.dumps(options.as_json(), allow_nan=False))
    again = merge(document)
    assert train_config(again) == training == parse_train_config(training.model_dump(mode="json"))
    assert model_config(again) == model
    assert text_settings(again) == text_settings(options)


def seeds() -> list[bytes]:
    texts = (
        'model = "lstm"\nnhid = 200\nlr = 0.5\ntied = true\n[training]\noptimizer = "sgd"\nepochs = 3\n',
        'model = "ngram"\norder = 3\nsmoothing = "add-k"\nadd_k = 0.5\ntokenizer = "words"\nmin-count = 2\n',
        '{"model": "feedforward", "window": 4, "direct": true, "emsize": 20, "seed": 7, "prune": null}',
        '{"model": "gru", "clip": 0, "schedule": "zaremba", "decay": 1.5, "update_interval": 10}',
    )
    return [text.encode() for text in texts]


MARKS = (
    b"model", b"nhid", b"nlayers", b"emsize", b"lr", b"epochs", b"bptt", b"clip", b"seed", b"dropout",
    b"order", b"prune", b"add_k",
    b"window", b"tokenizer", b"vocabulary_size", b"min_count", b"bpe_size", b"schedule", b"warmup",
    b"precision", b"device", b"backend",
    b"softmax", b"init", b"forget_bias", b' = "', b" = ", b"true", b"[a]", b"[[a]]", b"inf", b"nan",
    b"1e400", b"0x7fffffffffffffff",
    b"1979-05-27", b"07:32:00", b'"""', b"'''", b"\\u0000", b'"rnn"', b'"ngram"', b'"sgd"', b'"adamw"',
    b'"kneser-ney"', b"{}", b"[1, 2]",
)  # fmt: skip

OPTIONS = Target(run, seeds, MARKS, largest=1024, json=True)
