"""Figures of the notebooks, a module a topic."""
