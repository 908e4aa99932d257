from __future__ import annotations

import json
from pathlib import Path

from tiny_notebooks import COMMAND, PARAMETERS, write_notebook

from streamrec_lite.common.progress import Tail
from streamrec_lite.running.notebooks import execute, notebook_done


def run_one(folder: Path, *cells: str, parameters=None, source_parameters: str = PARAMETERS) -> dict:
    source = write_notebook(folder / "07_demo.ipynb", *cells, parameters=source_parameters)
    return execute(source, folder / "out" / "07_demo.ipynb", parameters or {}, "the-hash")


def test_a_notebook_runs_here_over_ipc_with_its_parameters(tmp_path):
    code = (
        "import sys, os\nfrom ipykernel.kernelapp import IPKernelApp\n"
        "print(sys.executable, seed, IPKernelApp.instance().transport)"
    )
    answer = run_one(tmp_path, code, parameters={"seed": 5})
    assert answer["ok"], answer
    notebook = json.loads((tmp_path / "out" / "07_demo.ipynb").read_text())
    printed = "".join(notebook["cells"][-1]["outputs"][0]["text"]).split()
    assert printed == [COMMAND[0], "5", "ipc"]
    assert notebook_done(tmp_path / "out" / "07_demo.ipynb", "the-hash")
    assert not notebook_done(tmp_path / "out" / "07_demo.ipynb", "another")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["07_demo.html", "07_demo.ipynb"]


def test_a_failure_names_notebook_and_cell_and_keeps_it(tmp_path):
    answer = run_one(tmp_path, "print('before')", "1 / 0")
    assert not answer["ok"] and answer["kind"] == "failed"
    assert answer["message"].startswith(
        "notebook 07_demo.ipynb, cell In [3]: ZeroDivisionError: division by zero"
    )
    assert "ZeroDivisionError" in answer["traceback"]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["07_demo.failed.ipynb"]
    assert run_one(tmp_path, "print('mended')")["ok"]
    assert not (tmp_path / "out" / "07_demo.failed.ipynb").exists()


def test_bad_input_in_a_notebook_stays_bad_input(tmp_path):
    code = "from streamrec_lite.common.errors import BadInput\nraise BadInput('K=1', 'too few', 'give more')"
    answer = run_one(tmp_path, code)
    assert (answer["kind"], answer["message"]) == ("bad-input", "K=1: too few; give more")


def test_a_dead_kernel_is_named(tmp_path):
    answer = run_one(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert answer["kind"] == "failed"
    assert answer["message"].startswith("notebook 07_demo.ipynb, cell 2 of 2: ")
    assert "died" in answer["message"]


def test_an_unknown_parameter_is_bad_input(tmp_path):
    answer = run_one(tmp_path, "print(1)", parameters={"sed": 5})
    assert answer["kind"] == "bad-input" and "did you mean 'seed'" in answer["message"]
    assert not list((tmp_path / "out").iterdir())


def test_training_log_lines(tmp_path):
    part = tmp_path / "seed-0.part"
    part.mkdir()
    tail = Tail("TIGER", part / "log.jsonl")
    assert tail.lines() == []
    row = {"loss": 4.5, "valid N@10": 0.1, "samples_per_second": 1234.5, "seconds_left": 61}
    with (part / "log.jsonl").open("w") as file:
        file.write(json.dumps({"epoch": 1, **row}) + '\n{"epoch": 2, "lo')
    line = "  TIGER: epoch 1, loss 4.500, valid N@10 0.1000, 1,234 samples/s, at most 1 min 1 s left"
    assert tail.lines() == [line] and tail.lines() == []
    (part / "log.jsonl").write_text("".join(json.dumps({"epoch": e, **row}) + "\n" for e in (1, 2, 3)))
    part.rename(tmp_path / "seed-0")
    assert len(tail.lines()) == 2


def test_a_training_too_quick_to_follow_is_told_of_at_its_end(tmp_path):
    part, final = tmp_path / "seed-0.part", tmp_path / "seed-0"
    tail = Tail("TIGER", part / "log.jsonl")
    final.mkdir()
    (final / "log.jsonl").write_text('{"epoch": 9, "loss": 7.0}\n')
    assert tail.lines() == []  # what an earlier run left
    (final / "log.jsonl").write_text('{"epoch": 1, "loss": 2.0}\n{"epoch": 2, "loss": 1.5}\n')
    assert tail.lines() == []
    assert tail.lines(ended=True) == ["  TIGER: epoch 2, loss 1.500"]
    assert tail.lines(ended=True) == []
