"""Texts that show the point of each view of the page, for models of English words in lower case.

They were chosen by trying them on models of `sotu-modern` (an LSTM, a GRU, a tanh RNN and a Kneser-Ney 5-gram
of `elman compare`'s default line-up, seed 1); a note says what those did there. No unit is named: units of
two trainings have nothing in common, and the page chooses the one that varies most. Not here: their traces.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict


class Preset(TypedDict):
    """A text and what to look at: a view of the page, a token, a range [first, last) of tokens, from 0.

    token  the one that is predicted; in the views of one step (heatmap, conveyor, cell) the note is about the
           token before it, which that step reads
    """

    id: str
    title: str
    text: str
    view: str
    token: int
    note: str
    range: NotRequired[tuple[int, int]]


PRESETS: tuple[Preset, ...] = (
    {
        "id": "scrambled",
        "title": "the same words in two orders",
        "text": "we will work together for peace and freedom .\n"
        "freedom and for together we peace work will .",
        "view": "surprisal",
        "token": 12,
        "note": "Both lines have the same words. In order they cost the models of Elman's README between 3 "
        "and 4 bits a word, out of order twice as much: most of what a model knows is what may follow what.",
    },
    {
        "id": "not-only",
        "title": "not only … but",
        "text": "it is not only a matter of money , but also a matter of justice .",
        "view": "nextword",
        "token": 9,
        "note": "“not only” stands six words before “but”. For the LSTM and the GRU of Elman's README “but” "
        "was the first guess; for their 5-gram, which sees four words, the fifth, at 3 %.",
    },
    {
        "id": "again",
        "title": "the same beginning three times",
        "text": "we need jobs for our people .\nwe need schools for our children .\n"
        "we need peace for all of the nations of the world .",
        "view": "heatmap",
        "token": 10,
        "note": "The lines begin alike, and so do their columns: compare a word of one line with the same "
        "word of the next. What differs is what the state has kept of the line before.",
    },
    {
        "id": "belt",
        "title": "one sentence after another",
        "text": "if we act together , we will leave our children a stronger nation .\n"
        "if we do not act , they will ask us why .",
        "view": "conveyor",
        "token": 14,
        "note": "See where the belts thin out: at a full stop, a line's end and the first word of the next "
        "line half of the gates of the GRU in Elman's README are shut, after other words, and commas, a "
        "third (of its LSTM's a quarter and a sixth). Some units carry their content across.",
    },
    {
        "id": "step",
        "title": "a comma, gate by gate",
        "text": "if we act together , we will leave our children a stronger nation .",
        "view": "cell",
        "token": 5,
        "note": "The cell has just read the comma. Step through it, then take another unit with [ and ].",
    },
    {
        "id": "far",
        "title": "how far back a loss is felt",
        "text": "last year i asked the congress to pass a bill that would help working families to pay for "
        "the care of their children , and to give every american the chance to go to college .\n"
        "the house has passed it , the senate has not , and the people of this country are still waiting "
        "for the help that they were promised .",
        "view": "gradients",
        "token": 60,
        "note": "For the LSTM the gradient at its cell is drawn, for the others at h: what each carries from "
        "word to word. Take h for all of them and see the LSTM's colour fade sooner.",
    },
    {
        "id": "money",
        "title": "units that know a sum of money",
        "text": "in the year 1999 , we spent more than $ 300 billion on defense , and we will spend "
        "$ 20 billion more in the next 5 years .",
        "view": "memory",
        "token": 10,
        "range": (10, 13),
        "note": "Which units stay on after each word of “300 billion on”? For the models of Elman's README "
        "every place found, in speeches that they never saw, was another sum of money.",
    },
)
