"""Thoughts of reinforcement and of the annotator on the workshop, by hand."""

from __future__ import annotations

import pytest
import torch
from small_workshop import CATALOGUE, IDS, WORLD, prefixes_of, tokens_of

from streamrec_lite.common.files import RunLog, write_json, write_tensors
from streamrec_lite.common.schemas import FIRST_CODE, Splits
from streamrec_lite.training.channel import derangement
from streamrec_lite.tutorial.tables import workshop_thoughts as tables

NO_ITEM = FIRST_CODE + 5


def test_what_is_learned_from_an_example():
    # A leads 1 to 2, B leads 2 to 3; after that "goes with": 3 to 0.
    table = tables.strategy_table(CATALOGUE, IDS, prefixes_of([5, 4, 1]), 3)
    assert table.loc["True thoughts"].tolist() == ["part 2 → part 3 → part 3", "part 3"]
    assert table.loc["Pause tokens"].tolist() == ["- → - → -", "part 3"]
    path = ["part 2", "part 3", "part 0"]
    for draw in (1, 2, 3):
        thoughts, answer = table.loc[f"SFT, draw {draw}"]
        assert thoughts in [" → ".join(path[: r + 1] + [path[r]] * (2 - r)) for r in range(3)]
        assert answer == thoughts.split(" → ")[-1]


def test_rewards_by_block_over_seeds(tmp_path):
    rows = {"RL": {}}
    for seed, depths in enumerate(([0.5, 1.0], [0.7, 2.0])):
        folder = tmp_path / str(seed)
        folder.mkdir()
        log = RunLog(folder / "log.jsonl")
        log.write(epoch=0, valid=0.1)
        for block, depth in enumerate(depths, start=1):
            log.write(**{"epoch": block, "match depth": depth})
        rows["RL"][seed] = {"dir": str(folder)}
    table = tables.reward_table(rows, ("RL",), 2)
    assert table["block"].tolist() == [1, 2] and table["model"].tolist() == ["RL", "RL"]
    assert table[["mean", "low", "high"]].to_numpy().ravel().tolist() == pytest.approx(
        [0.3, 0.25, 0.35, 0.75, 0.5, 1.0]
    )


@pytest.fixture
def trains(tmp_path):
    """Two users before and after: user 1 (one step, 0 to 1) and user 0 (two steps, 1 to 2 to 3)."""
    users = prefixes_of([5, 4, 1], [4, 0])

    def rollout(user, thoughts, item):
        return {"user": user, "target": 0, "thoughts": thoughts, "item": item, "reward": 0.0}

    two, three = tokens_of([2, 3])[0].tolist()
    early = [rollout(0, [two, two], 2), rollout(0, [two, three], 3), rollout(1, [two, NO_ITEM], -1)]
    late = [rollout(0, [two, three], 3), rollout(0, [two, three], 3), rollout(1, [two, two], 0)]
    for block, found in ((0, early), (2, early), (10, late)):
        write_json(tmp_path / f"rollouts-{block}.json", found)
    return tables.read_trains(tmp_path, IDS, WORLD, Splits(users, users, users))


def test_recorded_trains_of_thought(trains):
    assert trains["block"].tolist() == [0, 0, 0, 10, 10, 10]  # the first and the last, by number
    assert trains["steps"].tolist() == [2, 2, 1] * 2 and trains["goal"].tolist() == [3, 3, 1] * 2
    assert trains["items"].tolist()[:3] == [[2, 2], [2, 3], [2, -1]]
    assert trains["right"].tolist() == [False, True, False, True, True, False]


def test_the_example_is_the_user_whose_answers_improve_most(trains):
    table = tables.example_trains(trains, CATALOGUE, 2)
    assert table.index.tolist() == [0, 0, 10, 10]
    assert table["thoughts"].tolist() == ["part 2 → part 2", "part 2 → part 3"] + ["part 2 → part 3"] * 2
    assert table["answer"].tolist() == ["part 2", "part 3", "part 3", "part 3"]
    assert table["right"].tolist() == ["no", "yes", "yes", "yes"]
    short = tables.example_trains(trains[trains["steps"] == 1], CATALOGUE)
    assert short["answer"].tolist() == ["-", "part 0"]  # there is no other user


def test_the_traces_of_the_last_round(tmp_path):
    for number in (0, 9, 10):
        write_tensors(tmp_path / f"traces-{number}.safetensors", {"thought": torch.tensor([[number]])})
    assert tables.last_traces(tmp_path).tolist() == [[10]]


def test_annotated_thoughts_by_hand():
    # One step: left out. Two steps, 1 to 2 to 3. Three steps (A, B, B): 2 to 3 to 1 to 0.
    users = prefixes_of([4, 0], [5, 4, 1], [5, 5, 4, 2])
    thought = tokens_of([1, 1, 1], [2, 3, 1], [1, 3, 6])
    table = tables.annotated_table(IDS, WORLD, users, thought)
    assert table.index.tolist() == ["1", "2", "3", "all"]
    # User 1: this step, the target, the start. User 2: another step, another step, something else.
    assert table.loc["1", "this step"] == 50 and table.loc["1", "another step"] == 50
    assert table.loc["2", "the target"] == 50 and table.loc["2", "another step"] == 50
    assert table.loc["3", "the start"] == 50 and table.loc["3", "something else"] == 50
    assert table.loc["all", list(tables.KINDS)].tolist() == pytest.approx(
        [100 / 6, 100 / 6, 200 / 6, 100 / 6, 100 / 6]
    )
    # By chance the two change places. User 1 gets [1, 3, 6]: the start, the target, something else.
    # User 2 gets [2, 3, 1]: the start, another step (3 is its first), another step (1 is its second).
    assert derangement(2).tolist() == [1, 0]
    chance = table.loc["all", [f"{kind}, by chance" for kind in tables.KINDS]]
    assert chance.tolist() == pytest.approx([100 / 6, 0, 200 / 6, 200 / 6, 100 / 6])


def test_a_step_that_is_also_the_target_counts_as_the_target():
    # B, A from 0: A leads 0 to 1, B leads 1 to 0. Bought by chance: 1, the first step.
    users = prefixes_of([5, 4, 0], [5, 4, 0], target=[1, 0])
    table = tables.annotated_table(IDS, WORLD, users, tokens_of([1], [1]))
    assert table.loc["1", "the target"] == 50 and table.loc["1", "this step"] == 50


def annotated(here: float, other: float, chance: float):
    users = prefixes_of([5, 4, 1], [5, 5, 4, 2])
    table = tables.annotated_table(IDS, WORLD, users, tokens_of([2], [3]))
    table.loc["all", ["this step", "another step"]] = here, other
    table.loc["all", ["this step, by chance", "another step, by chance"]] = chance, 0.0
    return tables.annotated_findings(table)


def test_findings_about_the_annotator():
    none, target = annotated(0, 0, 3.0)
    assert none == "The residual annotator does not find the steps: no annotated thought is one."
    assert target == "0.0 % are the target (by chance 50.0 %)."  # 3 is the first user's target
    line = "4.0 % of the annotated thoughts are an intermediate step; by chance 3.0 %."
    assert annotated(1, 3, 3.0)[0] == f"The residual annotator does not find the steps: {line}"
    assert annotated(30, 3, 3.0)[0].startswith("The residual annotator finds the steps: 33.0 %")
