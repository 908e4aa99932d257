"""An executed notebook as an HTML page that needs no network."""

from __future__ import annotations

import copy
import json
from typing import Any

from . import equations, static_widgets
from .static_widgets import VIEW, StaticWidgets

PLOTLY = "application/vnd.plotly.v1+json"
STYLE = equations.STYLE + static_widgets.STYLE
# nbconvert's page takes require.js, MathJax, mermaid and the widget manager from other hosts: leave them out
TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock html_head_js -%}
{%- block jupyter_widgets -%}{%- endblock jupyter_widgets -%}
{%- block html_head_js_mathjax -%}{%- endblock html_head_js_mathjax -%}
{%- block html_head_js_mermaidjs -%}{%- endblock html_head_js_mermaidjs -%}
{%- block html_head_css -%}<style>STYLE</style>{%- endblock html_head_css -%}
""".replace("STYLE", STYLE)


def offline_html(notebook: Any, name: str) -> str:
    """The page of an executed notebook, whole in one file: it asks no other host for anything.

    Args:
        notebook: an nbformat notebook with outputs; it is not changed.
        name: the page's title.
    """
    from nbconvert.exporters.html import HTMLExporter

    exporter = HTMLExporter(raw_template=TEMPLATE)
    html, _ = exporter.from_notebook_node(static_notebook(notebook), {"metadata": {"name": name}})
    return html


def static_notebook(notebook: Any, plotly_js: str | None = None) -> Any:
    """A copy of an executed notebook in which nothing needs a script from elsewhere.

    Equations become MathML. Widgets become the HTML that they showed last. Figures by plotly become HTML,
    drawn by plotly's own script.

    Args:
        notebook: an nbformat notebook with outputs; it is not changed.
        plotly_js: where the page finds plotly's script, an address ending in .js; None embeds it (5 MB) in
            the first figure.
    """
    metadata = notebook.metadata
    page = copy.copy(notebook)
    page.metadata = copy.copy(metadata)  # the widgets' state holds megabytes of scripts: not copied
    page.metadata.pop("widgets", None)
    page.cells = copy.deepcopy(notebook.cells)
    figures = _PlotlyFigures(plotly_js)
    widgets = StaticWidgets(metadata, figures.draw)
    for cell in page.cells:
        if cell.cell_type == "markdown":
            cell.source = equations.with_mathml(cell.source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if VIEW in data:
                shown = widgets.page(data.pop(VIEW)["model_id"])
                data["text/html"] = shown or "<p>A widget: run the notebook to see it.</p>"
            elif PLOTLY in data:
                data["text/html"] = figures.draw(data.pop(PLOTLY))
    return page


class _PlotlyFigures:
    """Draws the figures of a page; only the first one brings plotly's script."""

    def __init__(self, plotly_js: str | None):
        self.script: bool | str = plotly_js or True

    def draw(self, figure: dict) -> str:
        """The HTML of a figure, given as {"data", "layout"}."""
        import plotly.io

        content = json.dumps({key: figure[key] for key in ("data", "layout")})
        parsed = plotly.io.from_json(content, skip_invalid=True)
        options = {"full_html": False, "config": {"displaylogo": False}}
        html = plotly.io.to_html(parsed, include_plotlyjs=self.script, **options)
        self.script = False
        return html
