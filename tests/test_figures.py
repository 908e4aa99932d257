"""Figures are drawn without a display, say what they show, and are kept whole in the run."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from streamrec_lite import figures, figures_tiger, plotting, slow_motion, walkthrough
from streamrec_lite.config import DataConfig
from streamrec_lite.data.playground import make_playground
from streamrec_lite.data.sequences import leave_one_out
from streamrec_lite.semantic_ids import SemanticTokenizer


@pytest.fixture(scope="module")
def shop():
    return make_playground(DataConfig(playground_items=60, playground_users=40))


@pytest.fixture(scope="module")
def ids(shop):
    generator = torch.Generator().manual_seed(0)
    books = [torch.randn(8, 5, generator=generator) for _ in range(3)]
    order = torch.randperm(512, generator=generator)[: shop.n_items]
    codes = torch.cartesian_prod(*[torch.arange(8)] * 3)[order]
    latents = sum(book[codes[:, j]] for j, book in enumerate(books)) + 0.1
    return SemanticTokenizer(codes, 8, codes, books, latents)


@pytest.fixture(scope="module")
def steps(ids):
    """A beam of three steps as ``beam_steps`` makes them, with scores made up."""
    rng, tables, alive = np.random.default_rng(0), [], [((), 0, 0.0)]
    for depth in range(3):
        rows = []
        for parent, (codes, node, score) in enumerate(alive):
            for child, code in zip(*(t.tolist() for t in ids.trie.children(depth, node)), strict=True):
                gain = float(np.log(rng.uniform(0.01, 1)))
                rows.append(((*codes, code), parent, child, gain, score + gain))
        table = pd.DataFrame(rows, columns=["codes", "parent", "node", "log_prob", "score"])
        table = table.sort_values("score", ascending=False).reset_index(drop=True)
        below = [slow_motion.leaves(ids.trie, depth + 1, n) for n in table["node"]]
        table["items"], table["example"] = [len(b) for b in below], [int(b[0]) for b in below]
        table["kept"] = table.index < 12
        tables.append(table)
        alive = list(table[table["kept"]][["codes", "node", "score"]].itertuples(index=False, name=None))
    return tables


def size(figure) -> tuple[int, int]:
    """Pixels (width, height) of what a notebook shows."""
    png, metadata = figure._repr_png_()
    assert metadata["alt"].strip()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def words(figure) -> str:
    return " ".join(t.get_text() for t in figure.findobj(match=lambda o: hasattr(o, "get_text")))


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
