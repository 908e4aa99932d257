"""The one exception that users see: a value, the rule that it breaks, and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(ValueError):
    """Input from outside (a file, a setting, an argument) that cannot be used.

    The message is a single line: the value, the rule that it breaks, and what to do about it. The
    command line prints it and exits with code 2. No file is left half-written when it is raised.
    """

    def __init__(self, value: str, rule: str, remedy: str):
        self.value, self.rule, self.remedy = value, rule, remedy
        super().__init__(" ".join(f"{value}: {rule}; {remedy}".split()))

    @classmethod
    def of_line(cls, line: str) -> BadInput:
        """The error whose message is ``line``, as another process reported it."""
        error = cls("", "", "")
        error.args = (line,)
        return error

    def __reduce__(self) -> tuple:  # pickles the three arguments, so that it crosses a process pool
        return type(self), (self.value, self.rule, self.remedy)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A remedy for an unknown word: the most similar known word, then all known words."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}choose one of {', '.join(known)}"


class StageFailed(RuntimeError):
    """A job failed: one line that names it, a notebook's with the cell. ``trace`` is the traceback."""

    def __init__(self, message: str, trace: str = ""):
        super().__init__(message)
        self.trace = trace

    @classmethod
    def of(cls, failures: list[Exception]) -> Exception:
        """One error for several, with all that they say."""
        if len(failures) == 1:
            return failures[0]
        trace = "\n".join(f"{one}\n{getattr(one, 'trace', '')}" for one in failures)
        whole = cls(f"{len(failures)} failures: {'; '.join(map(str, failures))}", trace)
        for note in [note for one in failures for note in getattr(one, "__notes__", [])]:
            whole.add_note(note)
        return whole
