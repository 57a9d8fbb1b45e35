"""Where sentences end in running prose, and what its tokens are: pure functions on one line (a paragraph).

Not a tokenizer by itself (tokenizers.Prose is), not for hard-wrapped lines (a line end always ends a
sentence; paragraphs.py joins them), and tuned to English: other alphabets work, but only English
abbreviations are known.

A sentence ends after . ? ! or … (and any closing quotes or brackets) before a blank, when what follows
does not begin with a small letter, except after
  titles                Mr. Dr. Gen. … always stand before a name;
  initials              J. Q. Adams;
  abbreviations         No. Art. Sec. … before a number;
  ambiguous ones        U.S. a.m. Co. Jr. … unless a word follows that often begins a sentence;
  a number or letter that opens the sentence: "1. The debt …" is one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

Span = tuple[int, int]

_NOTE = re.compile(r"\[[^\]]{1,80}\]")
"""Bracketed stage notes: [Laughter], [Applause], [see APP Note]."""

TOKEN = re.compile(r"[^\W\d_][^\W\d_\u0300-\u036f]*(?:['’][^\W\d_]+)?|\d+(?:[.,]\d+)*|[^\w\s]|_")
"""A word with at most one inner apostrophe, a number, or one mark (corpora of the State of the Union
are counted with the ASCII form of this expression; letters of any alphabet are kept here)."""

_END = re.compile(r"[.?!…]+[\"'”’»)\]]*(?=\s)")
_GAP = re.compile(r"\s*[ \t\n\r\v\f]")  # up to its last blank between words: no sentence begins inside a word
_OPENING = "\"'“‘«([¿¡—–-•*"


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_TITLES = _words("""
    mr mrs ms messrs mme dr prof gen col lt sgt capt cmdr maj adm brig gov sen rep hon rev st pres supt
""")
_BEFORE_NUMBER = _words("""
    no nos art arts sec secs vol vols p pp ch fig figs par pt stat op cit cf ca jan feb mar apr jun jul
    aug sept sep oct nov dec
""")
_AMBIGUOUS = _words("""
    jr sr co cos inc corp ltd bros etc esq dept est vs ave blvd ft mt rd gent sq lb lbs oz mass conn
    penn pa va ga ala ark ariz calif colo del fla ill ind kan ky la md mich minn miss mo mont neb nev
    okla ore tenn tex vt wash wis wyo am pm messrs viz al
""")
_STARTERS = _words("""
    the a an this that these those it its he his she her they their we our i my you your there here in
    on at to for from of by with without under over after before since during within while when where if
    as although though because but and or nor so yet not no all some many most each every both such one
    two three other another any none let now then thus therefore however moreover furthermore
    nevertheless is are was were has have had do does did will would shall should may might can could
    what who which how why indeed finally first second third last next only even much more less congress
""")
_LETTERS = re.compile(r"[^\W\d_]+")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]$")
_LIST_MARK = re.compile(r"\W*(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,5})\.$")


def hide_notes(line: str) -> str:
    """The line with bracketed stage notes blanked out, so that offsets stay what they were.

    By no-break spaces, as a note's place ends no word: in "so.[Applause]Then" there is one, in one sentence.
    """
    if "[" not in line:
        return line
    return _NOTE.sub(lambda note: "\u00a0" * len(note[0]), line)


def sentence_spans(line: str) -> list[Span]:
    """Spans [start, end) of the sentences of a line without notes; together they are the whole line.

    Blanks between two sentences belong to the first. No span for a line without any token.
    """
    spans: list[Span] = []
    start = 0
    for end in _END.finditer(line):
        if (gap := _GAP.match(line, end.end())) is None:
            continue
        after = gap.end()
        while after < len(line) and line[after].isspace():
            after += 1
        if after < len(line) and _ends_sentence(line, start, end, after):
            spans.append((start, gap.end()))
            start = gap.end()
    if start < len(line) and (spans or not line.isspace()):
        spans.append((start, len(line)))
    return spans


def _ends_sentence(line: str, start: int, end: re.Match[str], after: int) -> bool:
    follows = after
    while follows < len(line) and line[follows] in _OPENING:
        follows += 1
    nextchar = line[follows] if follows < len(line) else " "
    if nextchar.islower():
        return False
    if end[0][0] != "." or end[0].startswith(".."):
        return True
    before = line[max(start, end.start() - 40) : end.start()]
    word = before.rsplit(None, 1)[-1].lstrip("\"'“‘«([—–-") if before.strip() else ""
    # an em dash joins words without blanks: "way—Mr. Smith"
    word = re.split("[—–]", word)[-1].lower()
    if not word or _LIST_MARK.fullmatch(line[start : end.start() + 1]):
        return not word
    if word in _TITLES:
        return False
    if word in _BEFORE_NUMBER and nextchar.isdigit():
        return False
    closed = len(end[0]) > 1
    initial = len(word) == 1 and word != "i"
    if closed or not (initial or _DOTTED.search(word) or word in _AMBIGUOUS):
        return True
    following = _LETTERS.match(line, follows)
    return following is not None and following[0].lower() in _STARTERS


@dataclass(frozen=True)
class Style:
    """How prose is read; ’ inside a word always becomes '.

    numbers    True: each number is the token N; False: numbers stay as they are
    lowercase  True: capital letters are lowered
    brackets   True: what stands in square brackets is read like the rest; False: left out, as stage notes
    wrapped    whether a file's lines are joined to paragraphs (paragraphs.py); None: where they look wrapped
    """

    numbers: bool = True
    lowercase: bool = True
    brackets: bool = False
    wrapped: bool | None = None

    def shown(self, line: str) -> str:
        """The line without what is left out; offsets stay what they were."""
        return line if self.brackets else hide_notes(line)

    def spans(self, line: str) -> list[Span]:
        """Spans [start, end) of the sentences of a line; together they are the whole line."""
        line = self.shown(line)
        spans: list[Span] = []
        for start, end in sentence_spans(line):
            if spans and line[start:end].isspace():
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
        return spans

    def normal(self, text: str) -> str:
        """The token of a word, number or mark of the text."""
        if text[0].isdecimal():
            return "N" if self.numbers else text
        text = text.lower() if self.lowercase else text
        return text.replace("’", "'") if len(text) > 1 else text

    def dropped(self, line: str) -> int:
        """Words of a line that are left out."""
        if self.brackets or "[" not in line:
            return 0
        return sum(len(note[0].split()) for note in _NOTE.finditer(line))

    def as_json(self) -> dict[str, bool | None]:
        """The numbers, as models saved before know them, and what is not usual."""
        return {"numbers": self.numbers} | {n: v for n, v in asdict(self).items() if v != asdict(Style())[n]}


_NO_BLANK_BEFORE = frozenset(".,;:?!)]}%”’…-—–")
_NO_BLANK_AFTER = frozenset("([{$“‘#-—–")


def as_printed(tokens: Sequence[str]) -> str:
    """Tokens as readable text, blanks only where print has them."""
    text, glue, quoted = "", True, False
    for token in tokens:
        if token == '"':
            quoted = not quoted
        before = token in _NO_BLANK_BEFORE or (token == '"' and not quoted)
        text += token if glue or before else " " + token
        glue = token in _NO_BLANK_AFTER or (token == '"' and quoted)
    return text
