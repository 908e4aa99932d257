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
