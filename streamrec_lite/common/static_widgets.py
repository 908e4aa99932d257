"""Widgets of an executed notebook as plain HTML: what they showed when the notebook was run."""

from __future__ import annotations

import html
from typing import Any

STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"
BOXES = ("VBoxModel", "HBoxModel", "BoxModel", "GridBoxModel")
HIDDEN = ("PlayModel",)  # buttons that do nothing on a page
STYLE = """
.widget { border: 1px solid #bbb; border-radius: 4px; padding: 0.6em 1em; margin: 0.5em 0; overflow-x: auto; }
.widget .row { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 1.5em; }
.widget .control { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; max-width: 100%; }
.widget .control b { background: #eef2f6; color: #111; padding: 0 0.4em; border-radius: 3px; }
.widget .note { color: #666; font-size: 85%; font-style: italic; margin: 0.3em 0 0; }
.progress { font-family: monospace; font-size: 85%; white-space: pre-wrap; }
"""
NOTE = "In JupyterLab this is a widget with controls. This page shows how it stood after the run."


class StaticWidgets:
    """Draws the widgets of one notebook from the state that the notebook keeps of them.

    Args:
        metadata: the notebook's metadata, which hold the state of its widgets.
        draw: the HTML of a plotly figure, given as {"data", "layout"}.
    """

    def __init__(self, metadata: Any, draw: Any):
        self.models: dict[str, Any] = metadata.get("widgets", {}).get(STATE, {}).get("state", {})
        self.draw = draw

    def page(self, model_id: str) -> str:
        """The HTML of the widget; "" if the notebook keeps no state of it."""
        if model_id not in self.models:
            return ""
        names = [self.models[child]["model_name"] for child in self._children(model_id)]
        if "FloatProgressModel" in names:
            return f'<div class="progress">{self._progress(model_id)}</div>'
        body = self._element(model_id)
        return f'<div class="widget">{body}<p class="note">{NOTE}</p></div>' if body else ""

    def _children(self, model_id: str) -> list[str]:
        children = self.models[model_id]["state"].get("children", [])
        return [name for child in children if (name := child.removeprefix("IPY_MODEL_")) in self.models]

    def _element(self, model_id: str) -> str:
        """One widget and those inside it."""
        model = self.models[model_id]
        kind, state = model["model_name"], model["state"]
        if kind in BOXES:
            row = ' class="row"' if kind == "HBoxModel" else ""
            return f"<div{row}>{''.join(self._element(child) for child in self._children(model_id))}</div>"
        if kind == "HTMLModel":
            return f"<div>{state.get('value', '')}</div>"
        if "_widget_layout" in state:
            traces = state.get("_widget_data", [])
            return self.draw({"data": traces, "layout": state["_widget_layout"]}) if traces else ""
        value = _value(state)
        if value is None or kind in HIDDEN:
            return ""
        label = html.escape(state.get("description") or "")
        return f'<div class="control">{label} <b>{html.escape(value)}</b></div>'

    def _progress(self, model_id: str) -> str:
        """A progress bar as its text: the share done, the counts and the times."""
        states = [self.models[child]["state"] for child in self._children(model_id)]
        return " ".join(s["value"].strip() for s in states if isinstance(s.get("value"), str))


def _value(state: dict) -> str | None:
    """The text that a control shows; None if it shows nothing."""
    index = state.get("index")
    if "_options_labels" in state:
        chosen = index if isinstance(index, list) else [] if index is None else [index]
        return ", ".join(state["_options_labels"][i] for i in chosen)
    value = state.get("value")
    return None if value is None or value == "" else str(value)
