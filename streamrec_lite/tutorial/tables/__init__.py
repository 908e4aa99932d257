"""Tables of the notebooks, a module a topic."""
