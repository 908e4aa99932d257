"""An executed notebook as an HTML page that needs no network."""

from __future__ import annotations

import copy
import json
from typing import Any

PLOTLY = "application/vnd.plotly.v1+json"


def offline_html(notebook: Any, name: str) -> str:
    """The page of an executed notebook.

    Args:
        notebook: an nbformat notebook with outputs; it is not changed.
        name: the page's title.
    """
    from nbconvert.exporters.html import HTMLExporter

    page = _with_plotly(copy.deepcopy(notebook))
    html, _ = HTMLExporter().from_notebook_node(page, {"metadata": {"name": name}})
    return html


def _with_plotly(notebook: Any) -> Any:
    """Give plotly's outputs, JSON that JupyterLab draws, an HTML form for the page; needs no network."""
    first = True
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if PLOTLY in data and "text/html" not in data:
                import plotly.io

                figure = plotly.io.from_json(json.dumps(data[PLOTLY]), skip_invalid=True)
                data["text/html"] = plotly.io.to_html(figure, include_plotlyjs=first, full_html=False)
                first = False
    return notebook
