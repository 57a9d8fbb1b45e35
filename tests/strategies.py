"""What Hypothesis draws: shapes and options of recurrent stacks."""

from __future__ import annotations

from math import gcd

from hypothesis import settings
from hypothesis import strategies as st

from agreement import CELLS, LAYOUTS, Case

QUICK = settings(max_examples=20, deadline=None)
"""Few examples: the product of options is walked in full elsewhere; these draw the sizes."""


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, int]:
    """T, B, D, H from 1 to 9, no two equal; D and H coprime where neither is 1.

    Equal sizes hide a transposed matrix; a common factor hides a wrong reshape.
    """
    T, B, D, H = draw(
        st.lists(st.integers(1, 9), min_size=4, max_size=4, unique=True).filter(
            lambda n: gcd(n[2], n[3]) == 1
        )
    )
    return {"T": T, "B": B, "D": D, "H": H}


@st.composite
def cases(draw: st.DrawFn, layouts: tuple[str, ...] = LAYOUTS, bidirectional: bool | None = None) -> Case:
    """A stack of one to three layers with any options, in one of the layouts."""
    return Case(
        cell=draw(st.sampled_from(CELLS)),
        layout=draw(st.sampled_from(layouts)),
        layers=draw(st.integers(1, 3)),
        bias=draw(st.booleans()),
        bidirectional=draw(st.booleans()) if bidirectional is None else bidirectional,
        initial=draw(st.booleans()),
        **draw(shapes()),
    )
