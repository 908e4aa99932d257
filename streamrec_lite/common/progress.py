"""What the person who waits is told: a line an epoch of each training, and how much is left."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from .device import format_duration


class Tail:
    """Follows a training log and turns each new epoch into a line."""

    def __init__(self, label: str, path: Path | None):
        self.label, self.path = label, path
        self.seen: int | None = None  # the newest epoch that was told

    def _text(self, ended: bool) -> str:
        if self.path is None:
            return ""
        with contextlib.suppress(OSError):  # not begun yet, or done and moved
            return self.path.read_text(encoding="utf-8")
        if self.seen is not None or ended:  # before, a log there is that of an earlier run
            final = self.path.parent.with_name(self.path.parent.name.removesuffix(".part"))
            with contextlib.suppress(OSError):
                return (final / self.path.name).read_text(encoding="utf-8")
        return ""

    def lines(self, ended: bool = False) -> list[str]:
        """What is new. ``ended``: the job is, so that a training too quick to follow is told of as well."""
        rows = []
        for line in self._text(ended).splitlines():
            with contextlib.suppress(ValueError):  # a line that is being written
                rows.append(json.loads(line))
        if not rows:
            return []
        if self.seen is None:  # epochs of an earlier, killed call
            self.seen = max((row.get("epoch", 0) for row in rows[:-1]), default=0)
        seen = self.seen
        fresh = [row for row in rows if row.get("epoch", 0) > seen]
        if fresh:
            self.seen = fresh[-1]["epoch"]
        return [self._line(row) for row in fresh]

    def _line(self, row: dict) -> str:
        parts = [f"epoch {row['epoch']}"]
        for key, text in (
            ("loss", "loss {:.3f}"),
            ("valid N@10", "valid N@10 {:.4f}"),
            ("valid R@10", "R@10 {:.4f}"),
            ("samples_per_second", "{:,.0f} samples/s"),
        ):
            if key in row:
                parts.append(text.format(row[key]))
        if "seconds_left" in row:
            parts.append(f"at most {format_duration(row['seconds_left'])} left")
        return f"  {self.label}: {', '.join(parts)}"


class Progress:
    """How far the whole batch is. ``total``: the jobs that were not done when it began."""

    def __init__(self, total: int):
        self.total, self.done, self.begin = total, 0, time.perf_counter()

    def step(self) -> str:
        """One job more has ended: "3 of 12 in 40.0 s, about 2 min 0 s left at this pace"."""
        self.done, passed = self.done + 1, time.perf_counter() - self.begin
        left = passed / self.done * max(0, self.total - self.done)
        text = f"{self.done} of {max(self.total, self.done)} in {format_duration(passed)}"
        return f"{text}, about {format_duration(left)} left at this pace" if left else text
