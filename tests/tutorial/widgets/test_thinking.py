"""The widget of thinking without a browser: what is moved in Python changes what is shown."""

from __future__ import annotations

import nbformat
import numpy as np
import pytest
import torch
from places import NOTEBOOKS
from tiny_world import catalogue, small_world

from streamrec_lite.tutorial.tables import thinking as tables
from streamrec_lite.tutorial.tables.style import titles
from streamrec_lite.tutorial.tables.trajectory import (
    annotated_trajectory,
    item_representations,
    own_trajectory,
)
from streamrec_lite.tutorial.widgets import thinking as widgets

NOTEBOOK = NOTEBOOKS / "06_thinking_step_by_step.ipynb"


class FirstTwoDimensions:
    """A plane that shows the first two dimensions."""

    def __init__(self, table: torch.Tensor):
        self.rows, self.table, self.placed = np.arange(len(table)), table.numpy(), 0
        self.points = self.table[:, :2]

    def place(self, vectors) -> np.ndarray:
        self.placed += 1
        return np.asarray(vectors)[:, :2]

    def item(self, item: int) -> np.ndarray:
        return self.points[item]


def explorer_of(dataset):
    model, ids, users = small_world()
    table = item_representations(model, ids)
    few = users.select(torch.arange(3))
    cases = {
        "annotated": (annotated_trajectory(model, ids, users, 4), users),
        "own": (own_trajectory(model, ids, few, 2), few),
    }
    return widgets.ResidualExplorer(cases, ids, dataset, table, FirstTwoDimensions(table), example=2)


@pytest.fixture
def explorer():
    return explorer_of(catalogue())


def static_table(explorer, case: str, row: int):
    """The static table that must say the same."""
    trajectory, _ = explorer.cases[case]
    return tables.step_table(trajectory, row, explorer.tokenizer, explorer.dataset, explorer.items)


def test_starts_with_the_static_table(explorer):
    assert explorer.table.equals(static_table(explorer, "annotated", 2))
    assert explorer.step.value == 0 and explorer.step.max == 4
    bars, items, path, here, goal = explorer.figure.data
    assert np.allclose(bars.y, explorer.table["gap"])
    assert len(items.x) == 40 and len(path.x) == len(here.x) == len(goal.x) == 1


def test_moving_the_step_changes_what_is_shown(explorer):
    trajectory, users = explorer.cases["annotated"]
    titles, texts = set(), set()
    for step in range(5):
        explorer.step.value = step
        assert explorer.near == tables.closest_items(trajectory.s[2, step], explorer.items, 5).tolist()
        bars, _, path, here, goal = explorer.figure.data
        assert [text != "" for text in bars.text] == [i <= step for i in range(5)]
        assert [colour == "white" for colour in bars.marker.color] == [i > step for i in range(5)]
        assert np.allclose(np.c_[path.x, path.y], trajectory.s[2, : step + 1, :2], atol=1e-3)
        assert np.allclose([*here.x, *here.y], trajectory.s[2, step, :2], atol=1e-3)
        assert np.allclose([*goal.x, *goal.y], explorer.items[users.target[2], :2], atol=1e-3)
        thoughts = explorer.table["thought"].tolist()
        ticks = list(explorer.figure.layout.xaxis.ticktext)
        assert ticks == ["at first", *thoughts[1 : step + 1], *[""] * (4 - step)]
        assert f"number {explorer.table['rank'][step]} of 40" in explorer.figure.layout.title.text
        assert all(f"thing {item}" in explorer.text.value for item in explorer.near)
        titles.add(explorer.figure.layout.title.text)
        texts.add(explorer.text.value)
    assert len(titles) == len(texts) == 5
    assert explorer.plane.placed == 1  # sliding asks UMAP for nothing


def test_choosing_another_example(explorer):
    explorer.step.value = 3
    explorer.example.value = 5
    assert explorer.table.equals(static_table(explorer, "annotated", 5)) and explorer.step.value == 3
    _, users = explorer.cases["annotated"]
    assert f"<b>thing {int(users.target[5])}</b>" in explorer.text.value
    last = titles(explorer.dataset, users.history[5, :1])[0]
    assert f"History (1 items), the last: {last}<br>" in explorer.text.value


def test_another_source_of_thoughts_has_its_own_examples_and_steps(explorer):
    explorer.example.value, explorer.step.value = 5, 4
    explorer.case.value = "own"
    assert (explorer.example.value, explorer.step.value) == (2, 2)
    assert explorer.table.equals(static_table(explorer, "own", 2))
    assert np.allclose(explorer.figure.data[0].y, explorer.table["gap"])
    explorer.case.value = "annotated"
    explorer.step.value = 4
    assert explorer.table.equals(static_table(explorer, "annotated", 2))


def test_titles_are_escaped():
    view = explorer_of(catalogue(title="<script>alert({})</script>"))
    view.step.value = 1
    assert "<script>" not in view.text.value and "&lt;script&gt;" in view.text.value
    assert not any("<script>" in name for name in view.figure.data[1].text)
    assert "<script>" not in view.figure.data[4].text[0]


def test_a_figure_and_a_table_follow_the_widget():
    cells = [c.source for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    at = next(i for i, source in enumerate(cells) if "widgets.ResidualExplorer" in source)
    assert "save_figure" in cells[at + 1]
    assert "save_figure" not in cells[at + 2]
