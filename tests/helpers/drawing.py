"""What a figure shows: its size in pixels and its words."""

from __future__ import annotations


def size(figure) -> tuple[int, int]:
    """Pixels (width, height) of what a notebook shows."""
    png, metadata = figure._repr_png_()
    assert metadata["alt"].strip()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def words(figure) -> str:
    return " ".join(t.get_text() for t in figure.findobj(match=lambda o: hasattr(o, "get_text")))


def assert_readable(name: str, figure) -> None:
    """The figure has a usual size, titles, labels of all axes, and no text below 10 points."""
    width, height = size(figure)
    assert 600 <= width <= 1200 and height >= 150, (name, width, height)
    titles = [ax.get_title() for ax in figure.axes] + [words(figure)]
    assert any(titles), name
    for ax in figure.axes:
        if ax.axison and ax.get_label() != "<colorbar>":
            assert ax.get_xlabel(), f"{name}: an axis without a label"
    small = [t for t in figure.findobj(match=lambda o: hasattr(o, "get_fontsize")) if t.get_text()]
    assert min(t.get_fontsize() for t in small) >= 10, f"{name}: text smaller than 10 points"
