"""Jobs in processes of their own, several at a time: notebooks to execute, stages to do.

Every job is one process, forked from a server that has papermill loaded. A process that dies has failed
its own job and no other. If the parent is killed its jobs end, and their kernels notice within a second.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ..common.device import format_duration
from ..common.errors import BadInput, StageFailed
from ..common.progress import Progress, Tail
from .notebooks import execute, failure

LOG = ".worker.log"


@dataclass(frozen=True, eq=False)
class Job:
    """What a process is asked to do.

    label       what it is, for the person who waits: "TIGER, seed 0"
    what        how it is done: "notebook 04_fast_thinking.ipynb"
    parameters  of a notebook; they open the run
    notebook    (source, target, hash), or None
    stages      records of the stage table to do in the process instead, with the parameters' seed
    log         a growing JSONL file whose epochs are shown meanwhile
    """

    label: str
    what: str
    parameters: dict
    notebook: tuple[Path, Path, str] | None = None
    stages: tuple[str, ...] = ()
    log: Path | None = None


def do_stages(names: tuple[str, ...], label: str, parameters: dict) -> dict:
    """Do records of the stage table in the run that the parameters open; "results" gathers the rows."""
    from .run import open_run
    from .stages import ensure, run_results

    p = parameters
    try:
        options = (p["run_dir"], p["dataset"], p["preset"], p["overrides"], p["seeds"])
        run = open_run(*options, method=p.get("method", "ours"))
        for name in names:
            run_results(run) if name == "results" else ensure(run, name, p["seed"])
        return {"ok": True}
    except BadInput as error:
        return failure("bad-input", str(error), traceback.format_exc())
    except Exception as error:  # a training that diverged, say: the caller reports it, others go on
        line = (str(error).strip().splitlines() or [""])[-1]
        return failure("failed", f"{label}: {type(error).__name__}: {line}", traceback.format_exc())


def _work(job: Job, surroundings: dict[str, str], log: Path, answers: Connection) -> None:
    """The process: whatever prints goes to the log, the answer through the pipe."""
    os.setsid()  # Ctrl-C is for the parent, which ends this process with all that it started
    _end_with_parent()
    os.environ.clear()
    os.environ.update(surroundings)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if job.notebook:
        source, target, hash_ = job.notebook
        answer = execute(source, target, job.parameters, hash_)
    else:
        answer = do_stages(job.stages, job.label, job.parameters)
    answers.send_bytes(json.dumps(answer).encode())


def _end_with_parent() -> None:
    """Leave when the parent is gone, killed or not."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Running:
    """A job at work in a place: one of the GPUs, or of the shares of the cores."""

    def __init__(self, job: Job, place: int, surroundings: dict[str, str], log: Path):
        context: Any = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["papermill"])
        self.job, self.place, self.begin = job, place, time.perf_counter()
        self.tail = Tail(job.label, job.log)
        self.answers, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(job, surroundings, log, theirs), daemon=False)
        self.process.start()
        theirs.close()

    def answer(self) -> dict | None:
        """The answer, or None while the job is at work. A process that died has failed the job."""
        if not self.answers.poll() and self.process.is_alive():
            return None
        try:
            found = json.loads(self.answers.recv_bytes())
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            found = failure("failed", f"{self.job.what}: its process ended with code {code}", "")
        self.process.join(timeout=5)  # it has answered: let it end by itself
        self.close()
        return found

    def close(self) -> None:
        """End the process at once, with all that it started."""
        if self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.answers.close()


class LocalExecutor:
    """Does jobs on this machine, as many at once as there are ``places``.

    Args:
        places: what the environment of a job in each place shall say, e.g. which GPU it sees.
        log: where the processes' output goes.
        tell: prints a line for the person who waits.
        total: how many jobs there are, for the estimate of the time left.
    """

    def __init__(
        self, places: list[dict[str, str]], log: Path, tell: Callable[[str], None], total: int
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.places, self.log, self.tell, self.progress = places, log, tell, Progress(total)
        self.waiting: list[Job] = []
        self.running: list[_Running] = []

    @property
    def open(self) -> bool:
        """Does a job wait or run?"""
        return bool(self.waiting or self.running)

    def step(self) -> list[tuple[Job, StageFailed | None]]:
        """Start what waits, look at what runs for a quarter second; returns the jobs that ended.

        ``BadInput`` in one ends them all: it would be in the others too.
        """
        free = sorted({*range(len(self.places))} - {running.place for running in self.running})
        for place in free[: len(self.waiting)]:
            job = self.waiting.pop(0)
            self.tell(f"{job.label}: {job.what} runs")
            surroundings = {**os.environ, **self.places[place]}
            self.running.append(_Running(job, place, surroundings, self.log))
        wait([running.answers for running in self.running], timeout=0.25)
        ended = []
        for running in list(self.running):
            answer = running.answer()
            for line in running.tail.lines(ended=answer is not None):
                self.tell(line)
            if answer is not None:
                self.running.remove(running)
                ended.append((running.job, self._ended(running, answer)))
        return ended

    def _ended(self, running: _Running, answer: dict) -> StageFailed | None:
        job = running.job
        if answer.get("kind") == "bad-input":
            raise BadInput.of_line(answer["message"])
        if not answer["ok"]:
            self.tell(f"{job.label}: FAILED ({self.progress.step()}): {answer['message']}")
            return StageFailed(answer["message"], answer["traceback"])
        page = f", see {job.notebook[1].with_suffix('.html')}" if job.notebook else ""
        took = format_duration(time.perf_counter() - running.begin)
        self.tell(f"{job.label}: done in {took}{page} ({self.progress.step()})")
        return None

    def close(self) -> None:
        """End all jobs at once."""
        for running in self.running:
            running.close()
