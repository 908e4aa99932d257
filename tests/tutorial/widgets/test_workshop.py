"""The widget of the workshop without a browser: what is moved in Python changes what is shown."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from small_workshop import CATALOGUE, WORLD, prefixes_of, thinker

from streamrec_lite.tutorial.tables import workshop_steps as tables
from streamrec_lite.tutorial.widgets import workshop as widgets

USERS = prefixes_of([6, 5, 4, 1], [4, 0])


def made_up(item, path) -> tables.Walk:
    """Two errands (2 steps and 1 step) of l thoughts, with easy numbers."""
    l = len(item[0])
    numbers = torch.arange(l + 1.0)
    return tables.Walk(
        item=torch.tensor(item),
        path=torch.tensor(path),
        steps=torch.tensor([2, 1]),
        state_item=torch.tensor([[6, *row] for row in item]).clamp_min(0),
        residual=(3 - numbers / 2).repeat(2, 1),
        probability=(numbers / 4).repeat(2, 1),
    )


WALKS = {
    "True thoughts": made_up([[2, 3, 3], [1, 1, 1]], [[2, 3, 3], [1, 1, 1]]),
    "other": made_up([[0, -1], [5, 1]], [[2, 3], [1, 1]]),
}


@pytest.fixture
def explorer():
    return widgets.StepExplorer(WALKS, WORLD, CATALOGUE, USERS)


def points(trace) -> list[tuple[float, float]]:
    return list(zip(trace.x, trace.y, strict=True))


# Part 0 stands on top of the circle, 1 on the right, 2 at the bottom, 3 on the left.
ON_CIRCLE = {0: (0, 1), 1: (1, 0), 2: (0, -1), 3: (-1, 0)}


def test_starts_with_the_static_table(explorer):
    assert explorer.table.equals(tables.walk_table(WALKS["True thoughts"], 0, CATALOGUE))
    assert explorer.step.value == 0 and explorer.step.max == 3
    parts, true, named, state, gaps, answers = explorer.figure.data
    assert points(parts) == [pytest.approx(ON_CIRCLE[i]) for i in range(4)]
    assert points(true) == [pytest.approx(ON_CIRCLE[i]) for i in (1, 2, 3)]  # the start and both steps
    assert points(named) == [pytest.approx(ON_CIRCLE[1])]
    assert points(state) == []  # glue is no part
    assert list(gaps.y) == [3, 2.5, 2, 1.5] and list(answers.y) == [0, 25, 50, 75]
    assert explorer.figure.layout.title.text == "No thought yet: the goal has 0 %"
    assert "glue → guide B → guide A → part 1" in explorer.text.value


def test_moving_the_step_moves_the_state_from_item_to_item(explorer):
    named_after = [[1], [1, 2], [1, 2, 3], [1, 2, 3, 3]]
    texts = set()
    for step in range(4):
        explorer.step.value = step
        _, _, named, state, gaps, answers = explorer.figure.data
        assert points(named) == [pytest.approx(ON_CIRCLE[i]) for i in named_after[step]]
        assert points(state) == [pytest.approx(ON_CIRCLE[i]) for i in named_after[step][1:][-1:]]
        assert [text != "" for text in gaps.text] == [i <= step for i in range(4)]
        assert [colour == "white" for colour in answers.marker.color] == [i > step for i in range(4)]
        texts.add(explorer.text.value)
    assert explorer.figure.layout.title.text == "Thought 3: part 3, the true step; the goal has 75 %"
    assert len(texts) == 4


def test_playing_moves_the_slider(explorer):
    explorer.play.value = 2
    assert explorer.step.value == 2 and len(explorer.figure.data[2].x) == 3
    explorer.step.value = 1
    assert explorer.play.value == 1


def test_choosing_another_question(explorer):
    assert [text for text, _ in explorer.question.options] == [
        "1: 2 steps from part 1",
        "2: 1 step from part 0",
    ]
    explorer.question.value = 1
    assert explorer.table.equals(tables.walk_table(WALKS["True thoughts"], 1, CATALOGUE))
    assert points(explorer.figure.data[1]) == [pytest.approx(ON_CIRCLE[i]) for i in (0, 1)]


def test_another_model_may_have_fewer_thoughts_and_name_no_part(explorer):
    explorer.step.value = 3
    explorer.model.value = "other"
    assert explorer.step.max == explorer.play.max == explorer.step.value == explorer.play.value == 2
    assert points(explorer.figure.data[2]) == [pytest.approx(ON_CIRCLE[i]) for i in (1, 0)]  # -1 is no item
    assert explorer.figure.layout.title.text == "Thought 2: -, not the true step; the goal has 50 %"
    explorer.question.value = 1
    assert points(explorer.figure.data[2]) == [pytest.approx(ON_CIRCLE[i]) for i in (0, 1)]  # 5 is a guide
    explorer.model.value = "True thoughts"
    assert explorer.step.max == 3 and explorer.step.value == 2


def test_it_shows_a_model():
    model = thinker(2)
    view = widgets.StepExplorer({"m": tables.walk_of(model, WORLD, USERS)}, WORLD, CATALOGUE, USERS, 1)
    assert view.step.max == 2 and view.question.value == 1


def test_titles_are_escaped():
    names = [f"<script>{i}</script>" for i in range(7)]
    shop = SimpleNamespace(items=pd.DataFrame({"title": names}), n_items=7)
    view = widgets.StepExplorer(WALKS, WORLD, shop, USERS)
    view.step.value = 1
    assert "<script>" not in view.text.value and "&lt;script&gt;" in view.text.value
    assert "<script>" not in view.figure.layout.title.text
    assert not any("<script>" in name for trace in view.figure.data[:4] for name in trace.text)
