"""The website of a run: every link resolves, nothing is loaded from elsewhere, equations are drawn."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

from streamrec_lite.cli import app as cli
from streamrec_lite.cli.site import build_site
from streamrec_lite.common.errors import BadInput
from streamrec_lite.common.files import write_json

TABLE = "# shop\n\n| Model | N@10 |\n|:--|--:|\n| TIGER | 0.1234 |\n"
TYPES = {"html": "text/html", "png": "image/png", "plotly": "application/vnd.plotly.v1+json"}
TEXT = "# 06 · Thinking\n\n## The gap\n\n$$r_1 = t - s_0 \\tag{13}$$\n\nand $s_0$, `$HOME`."
ROWS = "<table class='dataframe'>\n\n<tr><td>7</td></tr></table>"
PLOT = {"data": [{"type": "bar", "y": [1, 2]}], "layout": {"title": {"text": "two bars"}}}


def output(**data) -> nbformat.NotebookNode:
    named = {
        {"html": "text/html", "png": "image/png", "plotly": "application/vnd.plotly.v1+json"}[k]: v
        for k, v in data.items()
    }
    return nbformat.v4.new_output("display_data", data=named)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with two executed notebooks: text, an equation, a table, a picture, a figure by plotly."""
    folder = tmp_path_factory.mktemp("runs") / "shop"
    dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    cells = [
        nbformat.v4.new_markdown_cell(
            "# 06 · Thinking\n\n## The gap\n\n$$r_1 = t - s_0 \\tag{13}$$\n\nand $s_0$, `$HOME`."
        ),
        nbformat.v4.new_code_cell(
            "show()",
            outputs=[
                output(png=dot),
                output(html=ROWS),
            ],
        ),
        nbformat.v4.new_code_cell("plot()", outputs=[output(plotly=PLOT)]),
    ]
    for name in ("06_thinking-seed-0", "06_thinking-seed-1", "07_more.failed"):
        path = folder / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    write_json(folder / "config.json", {"dataset": "shop"})
    (folder / "table2.md").write_text(TABLE)
    return folder


@pytest.fixture(scope="module")
def site(run) -> Path:
    return build_site(run)


def test_there_is_a_page_for_each_executed_notebook(site):
    assert {path.name for path in site.glob("*.html")} >= {
        "index.html",
        "06_thinking-seed-0.html",
        "06_thinking-seed-1.html",
    }
    assert not list(site.glob("07*")) and not list(site.parent.glob(".site-*"))
    first = (site / "index.html").read_text()
    assert "0.1234" in first and "06 · Thinking, seed 1" in first


def test_every_link_resolves(site):
    for page in site.glob("*.html"):
        if page.name == "404.html":  # it may be shown at any address: its links begin at the root
            continue
        for link in re.findall(r'(?:src|href)="([^"#?]+)', page.read_text()):
            if not re.match(r"[a-z]+:", link):
                assert (page.parent / unquote(link)).exists(), f"{page.name}: {link}"


def test_nothing_is_loaded_from_elsewhere(site):
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        text = path.read_text()
        loads = re.findall(r'<(?:script|img|link|iframe)[^>]*(?:src|href)="(?:https?:)?//[^"]*"', text)
        loads += re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)]*", text)
        assert [load for load in loads if 'rel="canonical"' not in load] == [], path.name


def test_equations_tables_and_figures_are_there(site):
    page = (site / "06_thinking-seed-0.html").read_text()
    assert page.count("<math") == 2 and "(13)" in page and "$HOME" in page
    assert "<td>7</td>" in page and "two bars" in page and "Plotly.newPlot" in page
    assert (site / "plotly.min.js").stat().st_size > 1e6
    assert len(list((site / "06_thinking-seed-0").glob("*.png"))) == 1


def test_a_second_site_replaces_the_first(run, site, tmp_path):
    other = tmp_path / "site"
    assert build_site(run, other) == build_site(run, other) == other and (other / "index.html").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


@pytest.mark.parametrize(
    "what, rule", [("no run", "not a run"), ("no notebooks", "no executed"), ("own", "no website")]
)
def test_bad_input_is_one_line(run, tmp_path, capsys, what, rule):
    folder, out = (run, tmp_path / "out") if what == "own" else (tmp_path / "run", tmp_path / "out")
    if what == "no notebooks":
        write_json(folder / "config.json", {})
    if what == "own":
        out.mkdir()
        (out / "letter.txt").write_text("keep me")
    assert cli.run(["site", "--run", str(folder), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert rule in said and len(said.splitlines()) == 1
    assert what != "own" or (out / "letter.txt").read_text() == "keep me"


def test_without_mkdocs_the_remedy_is_named(run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"\[site\]"):
        build_site(run)
