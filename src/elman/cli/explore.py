"""`elman explore`: the local page of one or several models, or the same page as one file.

Not here: the server (explore/), the page (explore/page/), what is computed (explore/answers.py). While the
page is served this process does not load torch: the models are in another one.
"""

from __future__ import annotations

import asyncio
import os
import sys
import webbrowser
from contextlib import AsyncExitStack
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Annotated, Any, Literal

from annotated_types import Interval

from elman.cli.app import app, examples, messages, progress
from elman.cli.models_and_text import ArpaOptions, load, short_names
from elman.errors import OptionError, TextError

EXAMPLES = examples(
    "elman explore runs/lstm",
    "elman explore runs/rnn runs/gru runs/lstm runs/kn5 --reference sotu-modern",
    "elman explore runs/lstm --port 8123 --no-browser",
    "elman explore runs/rnn runs/lstm --text speech.txt --export speech.html",
)
REFERENCE_BYTES = 4 << 20
"""Of the reference text at most so much is looked at: far more than the tokens that are kept."""


@app.command(name="explore", help_epilogue=EXAMPLES)
def explore_command(
    *models: str,
    reference: str | None = None,
    state: Literal["carry", "reset"] = "carry",
    port: Annotated[int, Interval(ge=0, le=65_535)] = 0,
    browser: bool = True,
    text: Path | None = None,
    arpa: ArpaOptions | None = None,
    export: Path | None = None,
) -> None:
    """See through models on your own text: a page in your browser, served by this machine to itself.

    Type a text; its tokens are coloured by surprisal. Click one: what every model expected there, the states
    and gates of each layer as the text goes by, how far back the gradient of its loss reaches, which units
    stay on and where else they do. The address printed at the start is the key to the page: who has it can
    use it, nobody else. Ctrl-C ends it.

    Parameters
    ----------
    models
        Model folders, training runs or .arpa files.
    reference
        A corpus (its valid part) or a text file to search for places where the same units stay on.
    state
        carry: the sentences of a text are one document. reset: each starts afresh. The page can change it.
    port
        Of the address; 0 finds a free one.
    browser
        --no-browser: only print the address. So it stays out of the list of processes on a shared machine.
    text
        For --export: a text file to show beside the examples.
    export
        Write the page with the examples and --text as one file that needs no server, for a teacher's site.
    """
    if not models:
        raise OptionError(
            "explore needs a model.", remedy="elman explore MODEL…, for instance: elman explore runs/lstm"
        )
    named = short_names(list(dict.fromkeys(models)))
    if export is not None:
        if reference is not None:
            raise OptionError(
                "--reference is searched by the server: a file cannot.",
                remedy="leave --reference or --export out; `elman memory units` searches without a page.",
            )
        _export(named, export, text, state, arpa)
        return
    if text is not None:
        raise OptionError("--text belongs to --export.", remedy="type or paste the text into the page.")
    _require_web()
    with TemporaryDirectory(prefix="elman-explore-") as folder:
        order = {
            "models": [[label, path] for path, label in named.items()],
            "arpa": asdict(arpa or ArpaOptions()),
            "folder": folder,
            "reference": None
            if reference is None
            else _write_reference(reference, Path(folder) / "reference.txt"),
            "state": state,
        }
        asyncio.run(_serve(order, port, browser))


async def _serve(order: dict[str, Any], port: int, browser: bool) -> None:
    from elman.explore.access import new_token
    from elman.explore.presets import PRESETS
    from elman.explore.questions import CHARACTERS, DETAIL, TOP
    from elman.explore.server import HOST, Page, make_app, require_port, serve
    from elman.explore.work import Work

    await require_port(port)
    page, token = Page.load(), new_token()
    async with AsyncExitStack() as stack:
        with progress() as display:
            task = display.add_task("starting", total=None, rate="")

            def report(doing: str, done: int, total: int) -> None:
                display.update(task, description=doing, completed=done, total=total or None)

            work = await stack.enter_async_context(Work(order, progress=report))
        limits = {"characters": CHARACTERS, "detail": DETAIL, "top": TOP}
        about = {**work.facts, "presets": PRESETS, "state": order["state"], "limits": limits}

        def listening(port: int) -> None:
            address = f"http://{HOST}:{port}/?token={token}"
            print(address, flush=True)
            messages.print("Open this address in your browser. Ctrl-C ends it.")
            if browser and _has_display():  # without, it would be a browser in this terminal
                Thread(target=webbrowser.open, args=(address,), daemon=True).start()

        await serve(make_app(work, page, about, token), work, port, listening)


def _has_display() -> bool:
    return sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())


def _require_web() -> None:
    missing = [name for name in ("litestar", "uvicorn") if find_spec(name) is None]
    if missing:
        raise OptionError(
            f"the page needs {' and '.join(missing)}: not installed.", remedy="pip install 'elman[web]'"
        )


def _write_reference(source: str, path: Path) -> list[str]:
    """The text to search, into a file; what it is called, and where it is."""
    from elman.text.sources import find_corpus

    found = find_corpus(source)
    whole = len(found.parts) == 1
    with path.open("wb") as file:
        for block in found.parts[0 if whole else 1](None):
            file.write(block)
            if file.tell() > REFERENCE_BYTES:
                break
    return [Path(source).name if whole else f"{Path(source).name} valid", str(path)]


def _export(
    named: dict[str, str],
    path: Path,
    text: Path | None,
    state: Literal["carry", "reset"],
    arpa: ArpaOptions | None,
) -> None:
    """The page with the traces of the examples, and of `text`, inside."""
    import torch

    from elman.disk import replace_file
    from elman.explore.answers import Explorer
    from elman.explore.export import static_document, static_page
    from elman.explore.presets import PRESETS

    torch.set_num_threads(1)  # as the process that computes for the server does
    texts = [(preset["title"], preset["text"]) for preset in PRESETS]
    if text is not None:
        texts.insert(0, (text.name, _short_text(text)))
    explorer = Explorer({label: load(name, arpa) for name, label in named.items()})
    with progress() as display:
        task = display.add_task("tracing", total=len(texts), rate="")

        def traced(done: int) -> None:
            display.update(task, completed=done)

        document = static_document(explorer, texts, state, presets=PRESETS, progress=traced)
    page = static_page(document, title=" · ".join(named.values()))
    replace_file(path, page)
    messages.print(f"{path}: {len(page) / 1e6:.1f} MB, opens in any browser, without a server or a network.")


def _short_text(path: Path) -> str:
    """A text file that the page can hold."""
    from elman.explore.questions import CHARACTERS
    from elman.text.reading import read_text

    if not path.exists():
        raise TextError(f"{path} does not exist.", remedy="give a text file.")
    text = read_text(path)[:-1]
    if not 0 < len(text) <= CHARACTERS:
        raise TextError(
            f"{path} has {len(text):,} characters.", remedy=f"give a text of 1 to {CHARACTERS:,} characters."
        )
    return text
