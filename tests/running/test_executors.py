"""Processes that do jobs: one that dies has failed its own job, and failures are one line."""

from __future__ import annotations

import os
import signal
import time

import pytest
from tiny_notebooks import write_notebook
from tiny_runs import parameters_of

from streamrec_lite.common import progress
from streamrec_lite.common.errors import BadInput
from streamrec_lite.running.executors import Job, LocalExecutor, do_stages


def finish(executor: LocalExecutor) -> list[str]:
    """Work until nothing is open; the messages of what failed."""
    failed = []
    while executor.open:
        failed += [str(failure) for _, failure in executor.step() if failure]
    return failed


def counting(out, label: str = "second") -> Job:
    return Job(label, "counting", parameters_of(out), stages=("Popularity",))


def test_a_process_that_dies_has_failed_its_own_job_only(copied, tmp_path):
    kill = write_notebook(tmp_path / "kill.ipynb", "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)")
    told: list[str] = []
    executor = LocalExecutor([{}], tmp_path / "log", told.append, 2)
    first = Job("first", "notebook kill.ipynb", {}, (kill, tmp_path / "out.ipynb", "h"))
    executor.waiting = [first, counting(copied)]
    try:
        failed = finish(executor)
    finally:
        executor.close()
    assert failed == ["notebook kill.ipynb: its process ended with code -9"]
    assert told[-1].startswith("second: done in")


def test_closing_ends_the_processes_and_what_they_started(tmp_path):
    note = tmp_path / "pid"
    code = (
        f"import os, pathlib, time\npathlib.Path({str(note)!r}).write_text(str(os.getppid()))\ntime.sleep(99)"
    )
    sleep = write_notebook(tmp_path / "sleep.ipynb", code)
    executor = LocalExecutor([{}], tmp_path / "log", lambda line: None, 1)
    executor.waiting = [Job("sleep", "notebook sleep.ipynb", {}, (sleep, tmp_path / "out.ipynb", "h"))]
    begin = time.time()
    while not note.exists() or not note.read_text():
        assert time.time() - begin < 60
        assert executor.step() == []
    process = int(note.read_text())
    os.kill(process, 0)  # alive
    executor.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, signal.SIG_DFL)


def test_bad_input_in_a_job_is_bad_input_here(copied, tmp_path):
    executor = LocalExecutor([{}], tmp_path / "log", lambda line: None, 1)
    parameters = {**parameters_of(copied), "preset": "huge"}
    executor.waiting = [Job("x", "counting", parameters, stages=("Popularity",))]
    with pytest.raises(BadInput, match="preset 'huge': unknown preset; choose one of"):
        finish(executor)
    executor.close()


def test_a_failure_of_a_stage_is_one_line(copied, monkeypatch):
    def torn(work):
        raise FloatingPointError("the loss of SASRec is nan")

    parameters = parameters_of(copied)
    assert do_stages(("Caser",), "Caser, seed 0", parameters) == {"ok": True}
    (copied / "baselines" / "SASRec" / "seed-0" / "done.json").unlink()
    monkeypatch.setattr("streamrec_lite.running.baseline_stages.train_neural", torn)
    (copied / "baselines" / "SASRec" / "seed-0" / "stage.json").unlink()
    answer = do_stages(("SASRec",), "SASRec, seed 0", parameters)
    assert answer["kind"] == "failed"
    assert answer["message"] == "SASRec, seed 0: FloatingPointError: the loss of SASRec is nan"


def test_progress_by_hand(monkeypatch):
    times = iter([100.0, 110.0, 130.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(times))
    counted = progress.Progress(2)
    assert counted.step() == "1 of 2 in 10.0 s, about 10.0 s left at this pace"
    assert counted.step() == "2 of 2 in 30.0 s"
