"""Pages of executed notebooks: equations, widgets and figures are drawn without a network."""

from __future__ import annotations

import copy
import re

import nbformat
import pytest

from streamrec_lite.common.equations import mathml, with_mathml
from streamrec_lite.common.pages import offline_html, static_notebook
from streamrec_lite.common.static_widgets import STATE, VIEW

LOADED = re.compile(
    r"""<(?:script|img|link|iframe)[^>]*(?:src|href)=["']?(?:https?:)?//[^>]*
      | @import[^;]*//[^;]* | url\(["']?(?:https?:)?//[^)]* | \bimport\(["'](?:https?:)?//[^)]*""",
    re.VERBOSE,
)


def model(kind: str, **state) -> dict:
    return {"model_name": kind, "model_module": "-", "model_module_version": "-", "state": state}


MODELS = {
    "all": model("VBoxModel", children=["IPY_MODEL_row", "IPY_MODEL_plot", "IPY_MODEL_text"]),
    "row": model(
        "HBoxModel", children=["IPY_MODEL_step", "IPY_MODEL_user", "IPY_MODEL_models", "IPY_MODEL_play"]
    ),
    "play": model("PlayModel", description="press play", value=7),
    "step": model("IntSliderModel", description="step", value=3),
    "user": model("DropdownModel", description="user", index=1, _options_labels=["all", "<12>"]),
    "models": model(
        "SelectMultipleModel", description="models", index=[0, 2], _options_labels=["A", "B", "C"]
    ),
    "text": model("HTMLModel", value="<p>the text below</p>"),
    "plot": model(
        "AnyModel",
        _esm="import('https://elsewhere.example/x.js')",
        _widget_data=[{"type": "bar", "y": [1, 2]}],
        _widget_layout={"title": {"text": "two bars"}},
    ),
    "bar": model("HBoxModel", children=["IPY_MODEL_share", "IPY_MODEL_progress"]),
    "share": model("HTMLModel", value="100%"),
    "progress": model("FloatProgressModel", value=12.0),
}


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    """Text with equations, a widget with a figure, a progress bar, and a widget that left no state."""
    outputs = [
        nbformat.v4.new_output("display_data", data={VIEW: {"model_id": name}, "text/plain": "VBox()"})
        for name in ("all", "bar", "gone")
    ]
    cells = [
        nbformat.v4.new_markdown_cell("# T\n\n$$r_1 = \\text{MLP}(t - s_0) \\tag{12}$$\n\nand $s_0$."),
        nbformat.v4.new_code_cell("show()", outputs=outputs),
    ]
    return nbformat.v4.new_notebook(cells=cells, metadata={"widgets": {STATE: {"state": MODELS}}})


def test_a_page_loads_nothing_and_draws_everything(notebook):
    page = offline_html(notebook, "thinking")
    assert LOADED.findall(re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.DOTALL)) == []
    assert not re.search(r"<script[^>]*\bsrc=", page) and "MathJax.Hub" not in page
    assert page.count("<math") == 2 and ">(12)</span>" in page and "$s_0$" not in page
    assert "Plotly.newPlot" in page and "two bars" in page and "elsewhere.example" not in page


def test_widgets_show_what_they_showed_last(notebook):
    shown = [output.data["text/html"] for output in static_notebook(notebook).cells[1].outputs]
    for text in ("step <b>3</b>", "user <b>&lt;12&gt;</b>", "models <b>A, C</b>", "<p>the text below</p>"):
        assert text in shown[0]
    assert "press play" not in shown[0]  # a button that does nothing on a page
    assert shown[1] == '<div class="progress">100%</div>'
    assert "run the notebook" in shown[2]


def test_the_notebook_itself_is_not_changed(notebook):
    before = nbformat.writes(notebook)
    offline_html(notebook, "thinking")
    assert nbformat.writes(notebook) == before


def test_plotly_is_embedded_once_or_not_at_all(notebook):
    notebook.cells.append(copy.deepcopy(notebook.cells[1]))
    linked = static_notebook(notebook, plotly_js="plotly.min.js")
    text = "".join(o.data["text/html"] for cell in linked.cells[1:] for o in cell.outputs)
    assert text.count('src="plotly.min.js"') == 1 and len(text) < 60_000
    whole = "".join(o.data["text/html"] for cell in static_notebook(notebook).cells[1:] for o in cell.outputs)
    assert 1e6 < len(whole) < 8e6


def test_code_prices_and_escaped_dollars_are_no_equations():
    for text in ("`$x$` stays", "```\n$x$\n```", "from $5 to $10", r"\$x\$", "one $ only"):
        assert with_mathml(text) == text


def test_equations_survive_markdown():
    assert not re.search(r"[*_\[\]`|\\$]", re.sub(r"<div|</div>", "", with_mathml("$a_1 * [b_2] | c_3$")))
    assert with_mathml("- x\n  $$a$$").startswith("- x\n\n\n  <div")
    assert mathml("a_b_c") == "<code>a_b_c</code>"  # not LaTeX: shown as it was written


def test_both_bars_of_a_norm_have_one_height():
    bars = re.findall(r"<mo[^>]*>&#x0(?:2016|007C);", mathml(r"\lVert a \rVert^2 + \lvert b \rvert^2"))
    assert len(bars) == 4 and all('stretchy="false"' in bar for bar in bars)
