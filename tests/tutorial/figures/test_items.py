"""Figures are drawn without a display, say what they show, and are kept whole in the run."""

from __future__ import annotations

import numpy as np
from drawing import assert_readable, words

from streamrec_lite.data.sequences import leave_one_out
from streamrec_lite.tutorial.figures import items as figures
from streamrec_lite.tutorial.tables import items as tables


def drawings(shop, ids):
    splits = leave_one_out(shop, 20)
    labels = tables.categories(shop)
    rng = np.random.default_rng(0)
    usage = tables.code_usage(ids.codes, ids.K)
    return {
        "stage_map": figures.plot_stage_map(),
        "leave_one_out": figures.plot_leave_one_out(shop, 0),
        "history_lengths": figures.plot_history_lengths(shop),
        "padding": figures.plot_padding(tables.padding_shares(splits.train, 16)),
        "popularity": figures.plot_popularity(shop),
        "posterior": figures.plot_posterior(tables.project_posterior(shop, 0), "belief"),
        "item_map": figures.plot_item_map(rng.normal(size=(shop.n_items, 2)), labels),
        "similarities": figures.plot_similarities(rng.uniform(size=50), rng.uniform(size=50)),
        "quantisation": figures.plot_quantisation(ids, 3, shop.items["title"].iloc[3]),
        "codebook_health": figures.plot_codebook_health(usage, usage, ids.K),
    }


def test_every_figure_draws_readably(shop, ids):
    for name, figure in drawings(shop, ids).items():
        assert_readable(name, figure)


def test_leave_one_out_marks_one_target_a_row(shop):
    user = tables.user_with_length(shop, 8)
    n = len(shop.sequences[user])
    marks = [t.get_text() for t in figures.plot_leave_one_out(shop, user).axes[0].texts]
    assert marks.count("?") == n - 1 and marks.count("h") == n * (n - 1) // 2


def test_quantisation_figure_shows_the_errors_of_the_table(shop, ids):
    text = words(figures.plot_quantisation(ids, 7, "a thing"))
    for error in tables.quantisation_table(ids, 7)["error"]:
        assert f"{100 * error:.0f} %" in text
