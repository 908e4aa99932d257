"""The side of `streamrec reproduce` that hands its work to worker processes and shows progress.

A job is a notebook to execute or baselines to train. Where one fails, the others are still done.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from ..common.device import format_duration
from ..common.errors import BadInput
from ..config.sections import fingerprint
from .notebooks import METADATA

LOG = ".worker.log"


class StageFailed(RuntimeError):
    """A job failed: one line that names it, a notebook's with the cell. ``trace`` is the traceback."""

    def __init__(self, message: str, trace: str = ""):
        super().__init__(message)
        self.trace = trace

    @classmethod
    def of(cls, failures: list[Exception]) -> StageFailed:
        """One error for several, with all that they say."""
        if len(failures) == 1:
            return failures[0]
        trace = "\n".join(f"{failure}\n{getattr(failure, 'trace', '')}" for failure in failures)
        whole = cls(f"{len(failures)} failures: {'; '.join(map(str, failures))}", trace)
        for note in [note for failure in failures for note in getattr(failure, "__notes__", [])]:
            whole.add_note(note)
        return whole


@dataclass(frozen=True, eq=False)
class Job:
    """What a worker is asked (see ``papermill_runner``).

    label    what it is, for the person who waits: "TIGER, seed 0"
    what     how it is done: "notebook 04_fast_thinking.ipynb"
    request  JSON-able
    log      a growing JSONL file whose epochs are shown meanwhile
    page     what there is to look at in the end
    seed     the seed that cannot go on if this fails
    """

    label: str
    what: str
    request: dict
    log: Path | None = None
    page: Path | None = None
    seed: int | None = None


def notebooks_folder() -> Path:
    """Where the tutorial's notebooks are: as STREAMREC_NOTEBOOKS says, else beside the package,
    installed with it, or here."""
    given = os.environ.get("STREAMREC_NOTEBOOKS")
    places = (
        [Path(given)]
        if given
        else [
            Path(__file__).resolve().parents[2] / "notebooks",
            Path(sys.prefix) / "share" / "streamrec_lite" / "notebooks",
            Path("notebooks"),
        ]
    )
    for place in places:
        if any(place.glob("[0-9][0-9]_*.ipynb")):
            return place
    rule = "the tutorial's notebooks (00_start_here.ipynb, ...) are not there"
    raise BadInput(str(places[0]), rule, "install from a clone with `pip install -e .`, or run in its folder")


def notebook_hash(source: Path, stage_hashes: list, seed: int | None, preset: str) -> str:
    """What decides a notebook's output: its cells, the stages it shows, its seed, this version.

    Opening and saving a notebook changes its outputs and IDs, which do not count.
    """
    try:
        cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
        text = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(str(source), f"not a notebook ({error})", "restore it from the repository") from None
    return fingerprint(text, stage_hashes, seed, preset, __version__)


def notebook_done(target: Path, hash_: str) -> bool:
    """Was the notebook executed for this hash, and its HTML written?"""
    if not target.with_suffix(".html").is_file():
        return False
    try:
        found = json.loads(target.read_text(encoding="utf-8"))["metadata"][METADATA]["hash"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return found == hash_


class Worker:
    """A process of ``papermill_runner``; it starts at once and loads papermill meanwhile.

    ``surroundings``: what the process's environment shall say, e.g. which GPU it sees.
    """

    def __init__(self, folder: Path, surroundings: dict[str, str] | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.surroundings = folder, surroundings or {}
        self.job: Job | None = None
        self.begin = 0.0
        self._start()

    def _start(self) -> None:
        paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
        self.log = (self.folder / LOG).open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streamrec_lite.running.notebooks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **self.surroundings},
            start_new_session=True,  # Ctrl-C is for the parent, which ends the worker
        )

    def give(self, job: Job) -> None:
        self.job, self.begin = job, time.perf_counter()
        request = json.dumps(job.request).encode() + b"\n"
        try:
            self._write(request)
        except BrokenPipeError:  # the process died while it had nothing to do
            self.close()
            self._start()
            self._write(request)

    def _write(self, request: bytes) -> None:
        self.process.stdin.write(request)
        self.process.stdin.flush()

    def answer(self, timeout: float) -> dict | None:
        """The answer to the job, or None if it is not there after ``timeout`` seconds.

        A process that died has failed the job, and another one takes its place.
        """
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            return None
        line = self.process.stdout.readline()
        if not line:
            message = f"{self.job.what}: its worker process ended with code {self.process.wait()}"
            self.close()
            self._start()
            return {"ok": False, "kind": "failed", "message": message, "traceback": ""}
        return json.loads(line)

    def close(self) -> None:
        """End the process at once, whatever it does: everything it works on survives that."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class Tail:
    """Follows a training log and turns each new epoch into a line."""

    def __init__(self, label: str, path: Path | None):
        self.label, self.path, self.seen = label, path, None

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
        """What is new. ``ended``: the job is, so that even a training too quick to follow is told of."""
        text = self._text(ended)
        if not text:
            return []
        rows = []
        for line in text.splitlines():
            with contextlib.suppress(ValueError):  # a line that is being written
                rows.append(json.loads(line))
        if self.seen is None:  # epochs of an earlier, killed call
            self.seen = max((row.get("epoch", 0) for row in rows[:-1]), default=0)
        fresh = [row for row in rows if row.get("epoch", 0) > self.seen]
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


class Crew:
    """Workers that do jobs side by side. What waits is begun in its order as soon as one is free.

    Args:
        start: starts the worker of a number, from 0; it is called when that one is first needed.
        count: how many work at once.
    """

    def __init__(self, count: int, start: Callable[[int], Worker], tell: Callable[[str], None], total: int):
        self.count, self.start, self.tell = count, start, tell
        self.progress = Progress(total)
        self.waiting: list[Job] = []
        self.idle: list[Worker] = []
        self.busy: dict[Worker, Tail] = {}

    @property
    def open(self) -> list[Job]:
        """The jobs that have not ended."""
        return self.waiting + [worker.job for worker in self.busy]

    def step(self) -> list[tuple[Job, StageFailed | None]]:
        """Hand out what waits, look at the workers for a quarter second; returns the jobs that ended.

        ``BadInput`` in one ends them all: it would be in the others too.
        """
        while self.waiting and (self.idle or len(self.busy) < self.count):
            worker = self.idle.pop(0) if self.idle else self.start(len(self.busy))
            job = self.waiting.pop(0)
            self.tell(f"{job.label}: {job.what} runs")
            worker.give(job)
            self.busy[worker] = Tail(job.label, job.log)
        ended = []
        for worker in list(self.busy):
            answer = worker.answer(0.25 / len(self.busy))
            for line in self.busy[worker].lines(ended=answer is not None):
                self.tell(line)
            if answer is not None:
                del self.busy[worker]
                self.idle.append(worker)
                ended.append((worker.job, self._end(worker, answer)))
        return ended

    def _end(self, worker: Worker, answer: dict) -> StageFailed | None:
        job = worker.job
        if answer.get("kind") == "bad-input":
            raise _bad_input(answer["message"])
        if not answer["ok"]:
            self.tell(f"{job.label}: FAILED ({self.progress.step()}): {answer['message']}")
            return StageFailed(answer["message"], answer["traceback"])
        page = f", see {job.page}" if job.page else ""
        took = format_duration(time.perf_counter() - worker.begin)
        self.tell(f"{job.label}: done in {took}{page} ({self.progress.step()})")
        return None

    def close(self) -> None:
        """End all workers at once."""
        for worker in [*self.idle, *self.busy]:
            worker.close()


def _bad_input(line: str) -> BadInput:
    """The ``BadInput`` whose text is ``line``: its three parts are joined by ": " and "; "."""
    error = BadInput("", "", "")
    error.args = (line,)
    return error
