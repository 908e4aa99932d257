"""Widgets of the notebooks, a module a topic."""
