"""The figures of the results are readable, and mark differences that may be chance."""

from __future__ import annotations

import pandas as pd
import torch
from result_files import ranks, results

from streamrec_lite.tutorial.figures import results as figures
from streamrec_lite.tutorial.tables import results as tables


def test_figures_have_titles_and_labels():
    groups = tables.length_groups(torch.tensor([1, 2, 3, 5, 6, 9]))
    table = tables.mean_by_group(tables.metric_by_user(ranks()), groups)
    gaps = tables.mean_by_group(tables.metric_by_user(ranks()), groups, "TIGER")
    hit = tables.hits_by_user(ranks())
    forest = figures.plot_differences(tables.difference_table(results()))
    colours = [
        line.get_markerfacecolor() for line in forest.axes[0].get_lines() if line.get_marker() != "None"
    ]
    assert colours == [figures.GREEN, "white", figures.RED]
    panels = figures.plot_groups(table, "By length", "test N@10")
    assert [axes.get_title() for axes in panels.axes] == ["1-4\n3 users", "5-7\n2 users", "8-12\n1 users"]
    assert panels.get_suptitle() == "By length" and panels.get_supxlabel() == "test N@10"
    figures.plot_groups(gaps, "Minus TIGER", "difference", differences=True)._repr_png_()
    overview = figures.plot_overview(tables.difference_table(results()), table, "N@10", "history length")
    for figure in (
        forest,
        overview,
        figures.plot_overlap(tables.overlap_table(hit)),
        figures.plot_coverage(tables.coverage_table(hit)),
    ):
        assert all(axes.get_title() and axes.get_xlabel() for axes in figure.axes)
        assert figure._repr_png_()[0][:4] == b"\x89PNG"
    styles = {figures.line_style(number)[:2] for number in range(64)}
    assert len(styles) == 64
    figures.plot_differences(
        pd.DataFrame(columns=["difference", "low", "high", "p", "excludes 0"])
    )._repr_png_()


def test_a_difference_that_may_be_chance_looks_different():
    table = pd.DataFrame(
        {"difference": [0.01, -0.02, 0.001], "low": [0.005, -0.03, -0.01], "high": [0.015, -0.01, 0.01]},
        ["better", "worse", "alike"],
    )
    figure = figures.plot_differences(table)
    points = [line for line in figure.axes[0].get_lines() if line.get_marker() in ("^", "v", "s")]
    assert [point.get_marker() for point in points] == ["^", "v", "s"]
    assert [point.get_markerfacecolor() == "white" for point in points] == [False, False, True]
    assert "+0.0100" in [text.get_text() for text in figure.axes[0].texts]
