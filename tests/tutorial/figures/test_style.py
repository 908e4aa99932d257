"""Figures and numbers are written whole, and the reader's settings are left alone."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from drawing import size

from streamrec_lite.tutorial.figures import items as figures
from streamrec_lite.tutorial.figures.style import record, save_figure


def test_save_figure_and_record(tmp_path):
    run = SimpleNamespace(dir=tmp_path)
    figure = save_figure(run, "map", figures.plot_stage_map())
    assert (tmp_path / "figures" / "map.png").read_bytes()[:4] == b"\x89PNG"
    assert size(figure)[0] > 0
    shown = record(run, "numbers", {"a": 1, "b": [0.5, None]})
    assert json.loads((tmp_path / "figures" / "numbers.json").read_text()) == {"a": 1, "b": [0.5, None]}
    assert shown.loc["b", "recorded"] == [0.5, None]
    with pytest.raises(ValueError):
        record(run, "broken", {"a": float("nan")})
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["map.png", "numbers.json"]


def test_drawing_leaves_the_readers_settings_alone(shop):
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.plot_history_lengths(shop)
    assert dict(matplotlib.rcParams) == before
