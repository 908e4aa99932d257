"""A worker process that executes notebooks, or trains baselines, one after another.

It reads jobs from its standard input, a JSON object a line, and answers each with a line:

    {"source": "notebooks/01_data.ipynb", "target": "RUN/notebooks/01_data.ipynb",
     "parameters": {...}, "hash": "..."}
    {"baseline": "SASRec", "parameters": {"run_dir": ..., "dataset": ..., "seed": 0, ...}}
    {"ok": true, "seconds": 4.2}
    {"ok": false, "kind": "bad-input" | "failed", "message": one line, "traceback": text}

Processes, because papermill's working directory and signal handling are the process's. If the
parent is killed the worker ends, and its kernel notices that within a second.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import json
import logging
import os
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

from ..common.errors import BadInput, did_you_mean
from ..common.files import write_text
from .run import open_run

METADATA = "streamrec_lite"
PLOTLY = "application/vnd.plotly.v1+json"
START_TIMEOUT = 300  # seconds for a kernel to start: cold disks, shared cores


def check_parameters(notebook: Path, parameters: dict) -> None:
    """``BadInput`` if the notebook has no such parameter: papermill only warns."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    known = [
        target.id
        for cell in tagged
        for statement in ast.parse("".join(cell["source"])).body
        for target in getattr(statement, "targets", [getattr(statement, "target", None)])
        if isinstance(target, ast.Name)
    ]
    for name in parameters:
        if name not in known:
            value = f"notebook {notebook.name}: parameter {name!r}"
            rule = "its parameters cell has no such name" if known else "it has no cell tagged 'parameters'"
            raise BadInput(value, rule, did_you_mean(name, known) if known else "add one")


def kernel_manager_class(folder: Path):
    """A kernel manager whose kernel runs this interpreter and talks over IPC sockets in ``folder``.

    TCP ports are drawn at random, and kernels that start together collide; a folder of its own for
    each kernel cannot. No installed kernelspec is asked: "python3" may belong elsewhere.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = KernelSpec(argv=argv, display_name="Python 3", language="python")

    class IpcKernelManager(AsyncKernelManager):
        def __init__(self, **options):
            super().__init__(**options)
            self.transport, self.ip = "ipc", str(folder / "k")
            self.connection_file = str(folder / "kernel.json")

        @property
        def kernel_spec(self):
            return spec

    return IpcKernelManager


def socket_folder() -> str | None:
    """Where sockets go: a path of theirs may have 107 bytes, so a long TMPDIR will not do."""
    return None if len(tempfile.gettempdir()) < 60 or not Path("/tmp").is_dir() else "/tmp"


def execute(source: Path, target: Path, parameters: dict, hash_: str) -> dict:
    """Execute ``source`` into ``target`` and its HTML twin, both whole or not at all.

    A notebook that fails is kept as NAME.failed.ipynb. Returns the answer to a job (see above).
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    begin = time.perf_counter()
    failed = target.with_suffix(".failed.ipynb")
    work = target.with_name(f".{target.stem}.{os.getpid()}.tmp.ipynb")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        check_parameters(source, parameters)
        with tempfile.TemporaryDirectory(prefix="srl-", dir=socket_folder()) as folder:
            notebook = papermill.execute_notebook(
                str(source),
                str(work),
                parameters=parameters,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                start_timeout=START_TIMEOUT,
                iopub_timeout=START_TIMEOUT,  # a busy machine may hand out large outputs late
                kernel_manager_class=kernel_manager_class(Path(folder)),
            )
        _publish(notebook, target, hash_)
        failed.unlink(missing_ok=True)
        return {"ok": True, "seconds": round(time.perf_counter() - begin, 2)}
    except PapermillExecutionError as error:
        work.replace(failed)
        where = f"notebook {source.name}, cell In [{error.exec_count}]"
        lines = str(error.evalue).strip().splitlines() or [""]
        if error.ename == "BadInput":
            return _answer("bad-input", lines[-1], str(error))
        return _answer("failed", f"{where}: {error.ename}: {lines[-1]} (kept: {failed})", str(error))
    except BadInput as error:
        return _answer("bad-input", str(error), traceback.format_exc())
    except Exception as error:  # the kernel died, or papermill itself failed: the caller reports it
        where = f"notebook {source.name}{_last_cell(work)}"
        if work.exists():
            work.replace(failed)
        line = (str(error).strip().splitlines() or [""])[-1]
        return _answer("failed", f"{where}: {type(error).__name__}: {line}", traceback.format_exc())
    finally:
        work.unlink(missing_ok=True)


def train_baseline(name: str, parameters: dict) -> dict:
    """Train and evaluate ``name`` in the run of a notebook's ``parameters``; returns the answer to the job.

    "counting" stands for all that only count.
    """
    from .baseline_stages import run_baselines, run_neural_model

    begin, p = time.perf_counter(), parameters
    try:
        run = open_run(p["run_dir"], p["dataset"], p["preset"], p["overrides"], (p["seed"],))
        run_baselines(run) if name == "counting" else run_neural_model(run, name, p["seed"])
        return {"ok": True, "seconds": round(time.perf_counter() - begin, 2)}
    except BadInput as error:
        return _answer("bad-input", str(error), traceback.format_exc())
    except Exception as error:  # a training that diverged, say: the caller reports it, others go on
        line = (str(error).strip().splitlines() or [""])[-1]
        return _answer(
            "failed", f"{name}, seed {p['seed']}: {type(error).__name__}: {line}", traceback.format_exc()
        )


def _publish(notebook, target: Path, hash_: str) -> None:
    """Write the HTML, then the notebook, whose metadata says for which hash it was executed."""
    import nbformat
    from nbconvert.exporters.html import HTMLExporter

    notebook.metadata[METADATA] = {"hash": hash_}
    page = _with_plotly(copy.deepcopy(notebook))
    html, _ = HTMLExporter().from_notebook_node(page, {"metadata": {"name": target.stem}})
    write_text(target.with_suffix(".html"), html)
    write_text(target, nbformat.writes(notebook))


def _with_plotly(notebook):
    """Give plotly's outputs, JSON that JupyterLab draws, an HTML form for the page; needs no network."""
    first = True
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if PLOTLY in data and "text/html" not in data:
                import plotly.io

                figure = plotly.io.from_json(json.dumps(data[PLOTLY]), skip_invalid=True)
                data["text/html"] = plotly.io.to_html(figure, include_plotlyjs=first, full_html=False)
                first = False
    return notebook


def _last_cell(work: Path) -> str:
    """The cell in which the kernel died, by the notebook that papermill saves after every cell: it
    marks cells that it has not come to as pending, and the one that killed the kernel as completed."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        cells = json.loads(work.read_text(encoding="utf-8"))["cells"]
        states = [cell["metadata"].get("papermill", {}).get("status", "pending") for cell in cells]
        begun = [n for n, state in enumerate(states, 1) if state != "pending"]
        return f", cell {begun[-1]} of {len(cells)}" if begun else ""
    return ""


def _answer(kind: str, message: str, trace: str) -> dict:
    return {"ok": False, "kind": kind, "message": " ".join(message.split()), "traceback": trace}


def _end_with_parent() -> None:
    """Leave when the parent is gone, killed or not."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Answer jobs until the standard input ends."""
    _end_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints goes to the log
    import papermill  # noqa: F401  the slow part, before the first job

    logging.getLogger("papermill").setLevel(logging.ERROR)  # parameters have been checked
    for line in sys.stdin:
        job = json.loads(line)
        if "baseline" in job:
            answer = train_baseline(job["baseline"], job["parameters"])
        else:
            answer = execute(Path(job["source"]), Path(job["target"]), job["parameters"], job["hash"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
