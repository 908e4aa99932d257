"""The figures of reinforcement draw what their tables hold."""

from __future__ import annotations

import torch
from tiny_world import catalogue, small_world

from streamrec_lite.config.reinforcement import GrpoConfig
from streamrec_lite.tutorial.figures import reinforcement as figures
from streamrec_lite.tutorial.tables import reinforcement as tables

CONFIG = GrpoConfig(G=4, K=6, batch_size=3)


def test_mixture_and_rewards_draw():
    model, tokenizer, users = small_world()
    near = (torch.arange(40)[:, None] + torch.arange(1, 7)) % 40
    models = tables.RolloutModels(model, model, tokenizer, near, 2)
    found = models.collect(models.model, users, CONFIG, 0)
    rows = tables.rollout_table(users, found, CONFIG)
    frame = tables.named_rollouts(rows, models.tokenizer, catalogue())
    assert figures.plot_rewards({0: frame, 3: frame}).axes[1].get_title()
    values = {"0.0": {"N@10": 0.1}, "0.5": {"N@10": 0.3}, "1.0": {"N@10": 0.2}}
    figure = figures.plot_mixture({"TIGER": values}, {"TIGER": 0.5})
    assert [line.get_ydata() for line in figure.axes[0].get_lines()][1] == [0.3]
