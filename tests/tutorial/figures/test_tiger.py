"""The figures of fast thinking show what their tables hold."""

from __future__ import annotations

import pandas as pd
import torch
from drawing import assert_readable, words

from streamrec_lite.data.sequences import leave_one_out
from streamrec_lite.tutorial.figures import tiger as figures
from streamrec_lite.tutorial.tables.tiger import recall_by_length, teacher_forcing_example, trie_table


def drawings(shop, ids, steps):
    splits = leave_one_out(shop, 20)
    encoder, teacher = teacher_forcing_example(ids, splits.valid, 0)
    log = [{"epoch": e, "loss": 5.0 / e, "valid N@10": 0.1 * e} for e in (1, 2, 3)]
    table = pd.DataFrame({"N@10": [0.1, 0.2]}, index=["Popularity", "Markov"])
    answers = pd.DataFrame({"title": ["a", "b"], "score": [-1.0, -2.0], "target": [False, True]})
    by_length = recall_by_length(torch.tensor([1, 0] * 20), splits.test.length)
    return {
        "teacher_forcing": figures.plot_teacher_forcing(encoder, teacher),
        "training_curve": figures.plot_training_curve(log),
        "trie_shape": figures.plot_trie(trie_table(ids.trie), ids.K),
        "beam": figures.plot_beam(steps, shop, 5, codes=ids.codes),
        "recommendations": figures.plot_recommendations(answers),
        "model_bars": figures.plot_metric(table, "N@10", 0.4),
        "hits_by_length": figures.plot_recall_by_length({"TIGER": by_length}),
    }


def test_every_figure_draws_readably(shop, ids, steps):
    for name, figure in drawings(shop, ids, steps).items():
        assert_readable(name, figure)


def test_every_model_is_in_the_figure_of_history_lengths(shop):
    splits = leave_one_out(shop, 20)
    table = recall_by_length(torch.tensor([1, 0] * 20), splits.test.length)
    names = ["TIGER", "Popularity", "Markov", "SequentialRules", "Oracle"]
    axes = figures.plot_recall_by_length(dict.fromkeys(names, table)).axes[0]
    assert axes.get_legend_handles_labels()[1] == names


def test_beam_figure_follows_the_target(shop, ids, steps):
    target = int(steps[-1]["example"].iloc[11])  # kept, but beyond the six best
    text = words(figures.plot_beam(steps, shop, target, codes=ids.codes))
    assert "★ 12. " in text and "★ is number 12" in text
    assert "★" not in words(figures.plot_beam(steps, shop))
