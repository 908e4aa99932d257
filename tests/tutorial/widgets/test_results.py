"""The results explorer without a browser: what is chosen in Python changes what is shown."""

from __future__ import annotations

import nbformat
import numpy as np
import pytest
import torch
from places import NOTEBOOKS
from result_files import ranks, results

from streamrec_lite.tutorial.tables import results as tables
from streamrec_lite.tutorial.widgets import results as widgets

NOTEBOOK = NOTEBOOKS / "09_results.ipynb"
GROUPS = {
    "history length": tables.length_groups(torch.tensor([1, 2, 3, 5, 6, 9])),
    "popularity": tables.UserGroups(("head", "tail"), np.array([0, 0, 0, 0, 1, 1])),
}


@pytest.fixture
def explorer():
    names = ("Popularity", "TIGER", "STREAM-Rec-SFT", "TIGER, with rules")
    rows = dict(zip(names, (*ranks().values(), [torch.tensor([1, 1, 1, 2, 0, 0])]), strict=True))
    return widgets.ResultsExplorer(results(), rows, GROUPS)


def lines(explorer):
    return {trace.name: trace for trace in explorer.figure.data[2:] if trace.visible}


def test_shows_the_main_models_at_first(explorer):
    assert set(lines(explorer)) == {"Popularity", "TIGER", "STREAM-Rec-SFT"}
    sure, unsure = explorer.figure.data[:2]
    assert sure.y == ("Popularity",) and unsure.y == ("STREAM-Rec-SFT",)
    assert sure.x[0] == -0.2 and sure.error_x.array[0] == pytest.approx(0.1)
    assert lines(explorer)["TIGER"].x == ("1-4 (3)", "5-7 (2)", "8-12 (1)")
    assert lines(explorer)["TIGER"].y[2] == pytest.approx(1 / 3)
    assert "STREAM-Rec-SFT" in explorer.text.value


def test_each_control_changes_what_is_shown(explorer):
    explorer.metric.value = "R@5"
    assert lines(explorer)["TIGER"].y[2] == 0 and "R@5" in explorer.figure.layout.title.text
    assert explorer.figure.layout.xaxis.title.text == "R@5 minus TIGER's"
    explorer.group.value = "popularity"
    assert lines(explorer)["TIGER"].x == ("head (4)", "tail (2)")
    assert explorer.figure.layout.xaxis2.title.text == "popularity"
    explorer.models.value = ["TIGER, with rules"]
    assert list(lines(explorer)) == ["TIGER, with rules"] and explorer.differences["excludes 0"].tolist() == [
        True
    ]
    assert explorer.figure.data[0].y == ("TIGER, with rules",) and not explorer.figure.data[1].y
    explorer.models.value = []
    assert lines(explorer) == {} and not explorer.figure.data[0].y


def test_a_figure_and_a_table_follow_the_widget():
    cells = [c.source for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    at = next(i for i, source in enumerate(cells) if "ResultsExplorer(" in source and "import" not in source)
    assert "save_figure" in cells[at + 1]
    assert "save_figure" not in cells[at + 2]
