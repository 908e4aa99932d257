"""What the notebooks show: tables, figures and widgets, by topic."""
