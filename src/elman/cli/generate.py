"""`elman generate`, also called `sample`: text from any model, drawn or searched.

Not here: how tokens are chosen (generate.py, beam.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated

from annotated_types import Interval
from cyclopts import Parameter

from elman.cli.app import Json, app, emit, examples, messages
from elman.cli.models_and_text import ArpaOptions, load
from elman.cli.ranges import Seed
from elman.errors import OptionError
from elman.text.fields import line_of

EXAMPLES = examples(
    'elman generate runs/lstm --prompt "my fellow" --temperature 0.8',
    "elman generate runs/kn5 --lines 5 --seed 7",
    'elman generate runs/lstm --prompt "the" --beam 10 -n 3',
)


@app.command(name="generate", alias="sample", help_epilogue=EXAMPLES)
def generate_command(
    model: str,
    /,
    *,
    prompt: str = "",
    length: Annotated[int, Interval(ge=1, le=1_000_000)] | None = None,
    lines: Annotated[int, Interval(ge=1, le=100_000)] | None = None,
    temperature: Annotated[float, Interval(ge=0, le=1_000)] = 1.0,
    top_k: Annotated[int, Interval(ge=1, le=2**31 - 1)] | None = None,
    top_p: Annotated[float, Interval(gt=0, le=1)] = 1.0,
    beam: Annotated[int, Interval(ge=1, le=10_000)] | None = None,
    length_penalty: Annotated[float, Interval(ge=0, le=10)] | None = None,
    samples: Annotated[int, Interval(ge=1, le=10_000), Parameter(name=["--samples", "-n"])] = 1,
    seed: Seed = 1,
    allow_unknown: Annotated[bool, Parameter(negative="")] = False,
    arpa: ArpaOptions | None = None,
    json: Json = False,
) -> None:
    """Text from a model, printed as it is drawn; n-gram and neural models alike.

    Parameters
    ----------
    model
        A model folder, a training run or an .arpa file.
    prompt
        Text to continue; it is tokenized as the model's training text was.
    length
        Tokens at most, ends of sentences included (100; with --lines 1000 a line).
    lines
        Stop after so many sentences.
    temperature
        Below 1 more likely tokens, above 1 more surprising ones; 0 always takes the most probable token.
    top_k
        Draw from the k most probable tokens only.
    top_p
        Draw from the fewest most probable tokens that together have this probability.
    beam
        Search for the most probable sentence with so many hypotheses instead of drawing.
    length_penalty
        With --beam: divide log P by the number of tokens to this power; 0 favours short texts, 1 is the
        mean per token.
    samples
        How many texts; with --beam the best so many.
    seed
        The same seed gives the same text.
    allow_unknown
        Let `<unk>` be generated.
    """
    from elman.beam import BeamSettings, beam_search
    from elman.generate import DEFAULT_LENGTH, GenerationSettings, generate, read_prompt
    from elman.generate import samples as draw_samples

    settings = GenerationSettings(length, lines, temperature, top_k, top_p, seed, allow_unknown)
    if samples < 1:
        raise OptionError(f"-n {samples} is no sample.", remedy="give 1 or more.")
    if beam is None and length_penalty is not None:
        raise OptionError(
            "--length-penalty is an option of beam search.", remedy="add --beam 5, or leave it out."
        )
    if beam is not None and (temperature != 1 or top_k is not None or top_p != 1):
        raise OptionError(
            "--beam cannot be combined with --temperature, --top-k or --top-p.",
            reason="beam search finds the most probable text; nothing is drawn.",
            remedy="leave out --beam to draw, or the other options to search.",
        )
    if beam is not None and lines not in (None, 1):
        raise OptionError(
            f"--beam ends with the sentence, so --lines {lines} cannot be.", remedy="leave out --lines."
        )
    searching = None
    if beam is not None:
        searching = BeamSettings(
            beam=beam,
            best=samples,
            length=settings.length or DEFAULT_LENGTH,
            length_penalty=length_penalty or 0.0,
            allow_unknown=allow_unknown,
        )
    loaded = load(model, arpa)
    if unknown := read_prompt(loaded, prompt).unknown:
        listed = ", ".join(unknown[:8]) + (" …" if len(unknown) > 8 else "")
        messages.print(f"elman: the model does not know {listed}: it reads <unk> there.")
    if searching is not None:
        found = beam_search(loaded, prompt, searching)
    elif samples > 1 or json:
        found = draw_samples(loaded, prompt, settings, samples)
    else:
        _print_pieces(generate(loaded, prompt, settings))
        return
    if json:
        emit({"model": model, "prompt": prompt, "samples": [sample.as_json() for sample in found]})
    elif beam is not None and samples > 1:
        for sample in found:
            print(line_of([f"{-sample.nats:.4f}", sample.text.rstrip("\n")]))
    else:
        between = "" if lines == 1 or beam is not None else "\n"
        print(between.join(sample.text.rstrip("\n") + "\n" for sample in found), end="")


def _print_pieces(pieces: Iterator[str]) -> None:
    """Each piece at once, and a line end when the text has none."""
    last = ""
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
        last = piece
    if not last.endswith("\n"):
        sys.stdout.write("\n")
