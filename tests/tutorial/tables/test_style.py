"""What all tables share, with hand-made values."""

from __future__ import annotations

import pandas as pd

from streamrec_lite.tutorial.tables.style import shorten, stacked


def test_shorten_keeps_short_titles_and_cuts_long_ones():
    assert shorten("a  b") == "a b"
    assert shorten("one two three four", 12) == "one two thr…"
    assert shorten("x" * 50, 10) == "x" * 9 + "…"
    assert shorten("") == "(no title)"


def test_stacked_names_the_tables():
    a = pd.DataFrame({"x": [1, 2]})
    assert stacked([a, a], "step")["step"].tolist() == [1, 1, 2, 2]
    assert stacked({"m": a}, "model")["model"].tolist() == ["m", "m"]
