"""Figures are drawn without a display, say what they show, and are kept whole in the run."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from drawing import size, words

from streamrec_lite.data.sequences import leave_one_out
from streamrec_lite.tutorial.figures import items as figures
from streamrec_lite.tutorial.figures import style as plotting
from streamrec_lite.tutorial.figures import tiger as figures_tiger
from streamrec_lite.tutorial.tables import items as walkthrough
from streamrec_lite.tutorial.tables import tiger as slow_motion


def drawings(shop, ids, steps):
    splits = leave_one_out(shop, 20)
    labels = walkthrough.categories(shop)
    rng = np.random.default_rng(0)
    usage = walkthrough.code_usage(ids.codes, ids.K)
    encoder, teacher = slow_motion.teacher_forcing(ids, splits.valid, 0)
    log = [{"epoch": e, "loss": 5.0 / e, "valid N@10": 0.1 * e} for e in (1, 2, 3)]
    table = pd.DataFrame({"N@10": [0.1, 0.2]}, index=["Popularity", "Markov"])
    answers = pd.DataFrame({"title": ["a", "b"], "score": [-1.0, -2.0], "truth": [False, True]})
    by_length = slow_motion.hits_by_length(torch.tensor([1, 0] * 20), splits.test.length)
    return {
        "stage_map": figures.stage_map(),
        "leave_one_out": figures.leave_one_out(shop, 0),
        "history_lengths": figures.history_lengths(shop),
        "padding": figures.padding(walkthrough.padding_shares(splits.train, 16)),
        "popularity": figures.popularity(shop),
        "posterior": figures.posterior(walkthrough.project_belief(shop, 0), "belief"),
        "item_map": figures.item_map(rng.normal(size=(shop.n_items, 2)), labels),
        "similarities": figures.similarities(rng.uniform(size=50), rng.uniform(size=50)),
        "semantic_id_walk": figures.semantic_id_walk(ids, 3, shop.items["title"].iloc[3]),
        "codebook_health": figures.codebook_health(usage, usage, ids.K),
        "teacher_forcing": figures_tiger.teacher_forcing(encoder, teacher),
        "training_curve": figures_tiger.training_curve(log),
        "trie_shape": figures_tiger.trie_shape(slow_motion.trie_shape(ids.trie), ids.K),
        "beam": figures_tiger.beam(steps, shop, 5, codes=ids.codes),
        "recommendations": figures_tiger.recommendations(answers),
        "model_bars": figures_tiger.model_bars(table, "N@10", 0.4),
        "hits_by_length": figures_tiger.hits_by_length({"TIGER": by_length}),
    }


def test_every_model_is_in_the_picture_of_history_lengths(shop):
    splits = leave_one_out(shop, 20)
    table = slow_motion.hits_by_length(torch.tensor([1, 0] * 20), splits.test.length)
    names = ["TIGER", "Popularity", "Markov", "SequentialRules", "Oracle"]
    axes = figures_tiger.hits_by_length(dict.fromkeys(names, table)).axes[0]
    assert axes.get_legend_handles_labels()[1] == names


def test_every_figure_draws_readably(shop, ids, steps):
    for name, figure in drawings(shop, ids, steps).items():
        width, height = size(figure)
        assert 600 <= width <= 1200 and height >= 150, (name, width, height)
        titles = [ax.get_title() for ax in figure.axes] + [words(figure)]
        assert any(titles), name
        for ax in figure.axes:
            if ax.axison and ax.get_label() != "<colorbar>":
                assert ax.get_xlabel(), f"{name}: an axis without a label"
        small = [t for t in figure.findobj(match=lambda o: hasattr(o, "get_fontsize")) if t.get_text()]
        assert min(t.get_fontsize() for t in small) >= 10, f"{name}: text smaller than 10 points"


def test_leave_one_out_marks_one_target_a_row(shop):
    user = walkthrough.typical_user(shop, 8)
    n = len(shop.sequences[user])
    marks = [t.get_text() for t in figures.leave_one_out(shop, user).axes[0].texts]
    assert marks.count("?") == n - 1 and marks.count("h") == n * (n - 1) // 2


def test_walk_figure_shows_the_errors_of_the_table(shop, ids):
    text = words(figures.semantic_id_walk(ids, 7, "a thing"))
    for error in walkthrough.residual_walk(ids, 7)["error"]:
        assert f"{100 * error:.0f} %" in text


def test_beam_figure_follows_the_target(shop, ids, steps):
    target = int(steps[-1]["example"].iloc[11])  # kept, but beyond the six best
    text = words(figures_tiger.beam(steps, shop, target, codes=ids.codes))
    assert "★ 12. " in text and "★ is number 12" in text
    assert "★" not in words(figures_tiger.beam(steps, shop))


def test_save_figure_and_record(tmp_path):
    run = SimpleNamespace(dir=tmp_path)
    figure = plotting.save_figure(run, "map", figures.stage_map())
    assert (tmp_path / "figures" / "map.png").read_bytes()[:4] == b"\x89PNG"
    assert size(figure)[0] > 0
    shown = plotting.record(run, "numbers", {"a": 1, "b": [0.5, None]})
    assert json.loads((tmp_path / "figures" / "numbers.json").read_text()) == {"a": 1, "b": [0.5, None]}
    assert shown.loc["b", "recorded"] == [0.5, None]
    with pytest.raises(ValueError):
        plotting.record(run, "broken", {"a": float("nan")})
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["map.png", "numbers.json"]


def test_drawing_leaves_the_readers_settings_alone(shop):
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.history_lengths(shop)
    assert dict(matplotlib.rcParams) == before
