"""Executing one notebook of the tutorial by papermill, and the page that shows it."""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import os
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from .. import __version__
from ..common.errors import BadInput, did_you_mean
from ..common.files import write_text
from ..common.kernels import kernel_manager_class, socket_folder
from ..config.settings import fingerprint

METADATA = "streamrec_lite"
START_TIMEOUT = 300  # seconds for a kernel to start: cold disks, shared cores


def notebooks_folder() -> Path:
    """The folder of the tutorial's notebooks: as STREAMREC_NOTEBOOKS says, else beside the package,
    installed with it, or below the working directory."""
    given = os.environ.get("STREAMREC_NOTEBOOKS")
    places = [
        Path(__file__).resolve().parents[2] / "notebooks",
        Path(sys.prefix) / "share" / "streamrec_lite" / "notebooks",
        Path("notebooks"),
    ]
    for place in [Path(given)] if given else places:
        if any(place.glob("[0-9][0-9]_*.ipynb")):
            return place
    rule = "the tutorial's notebooks (00_start_here.ipynb, ...) are not there"
    remedy = "install from a clone with `pip install -e .`, or run in its folder"
    raise BadInput(given or str(places[0]), rule, remedy)


def notebook_hash(source: Path, *shown: object) -> str:
    """Hash of what decides a notebook's output: its cells, what it has ``shown``, this version.

    Opening and saving a notebook changes its outputs and IDs, which do not count.
    """
    try:
        cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
        text = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(str(source), f"not a notebook ({error})", "restore it from the repository") from None
    return fingerprint(text, *shown, __version__)


def notebook_done(target: Path, hash_: str) -> bool:
    """Was the notebook executed for this hash, and its HTML written?"""
    if not target.with_suffix(".html").is_file():
        return False
    try:
        found = json.loads(target.read_text(encoding="utf-8"))["metadata"][METADATA]["hash"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return found == hash_


def copy_executed(target: Path, hash_: str, parents: list[Path]) -> bool:
    """Take over an executed notebook, its page and its figures from a parent run; was there one?"""
    run_dir, number = target.parents[1], target.name[:2]
    for parent in parents:
        other = parent / "notebooks" / target.name
        if notebook_done(other, hash_):
            pictures = [path for path in (parent / "figures").glob(f"{number}_*") if path.is_file()]
            for source in [*pictures, other.with_suffix(".html"), other]:
                copy = run_dir / source.relative_to(parent)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, copy)
            return True
    return False


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


def execute(source: Path, target: Path, parameters: dict, hash_: str) -> dict:
    """Execute ``source`` into ``target`` and its HTML twin, both whole or not at all.

    A notebook that fails is kept as NAME.failed.ipynb.

    Args:
        source: a notebook of the tutorial.
        target: the executed notebook.
        parameters: of its first cell.
        hash_: what it is executed for; kept in its metadata.

    Returns:
        {"ok": True}, or {"ok": False, "kind": "bad-input" or "failed", "message", "traceback"}.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)  # parameters are checked below
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
        return {"ok": True}
    except PapermillExecutionError as error:
        work.replace(failed)
        where = f"notebook {source.name}, cell In [{error.exec_count}]"
        lines = str(error.evalue).strip().splitlines() or [""]
        if error.ename == "BadInput":
            return failure("bad-input", lines[-1], str(error))
        return failure("failed", f"{where}: {error.ename}: {lines[-1]} (kept: {failed})", str(error))
    except BadInput as error:
        return failure("bad-input", str(error), traceback.format_exc())
    except Exception as error:  # the kernel died, or papermill itself failed: the caller reports it
        where = f"notebook {source.name}{_last_cell(work)}"
        if work.exists():
            work.replace(failed)
        line = (str(error).strip().splitlines() or [""])[-1]
        return failure("failed", f"{where}: {type(error).__name__}: {line}", traceback.format_exc())
    finally:
        work.unlink(missing_ok=True)


def failure(kind: str, message: str, trace: str) -> dict:
    """The answer to a job that failed: "bad-input" or "failed", one line, the traceback."""
    return {"ok": False, "kind": kind, "message": " ".join(message.split()), "traceback": trace}


def _publish(notebook: Any, target: Path, hash_: str) -> None:
    """Write the HTML, then the notebook, whose metadata says for which hash it was executed."""
    import nbformat

    from ..common.pages import offline_html

    notebook.metadata[METADATA] = {"hash": hash_}
    write_text(target.with_suffix(".html"), offline_html(notebook, target.stem))
    write_text(target, nbformat.writes(notebook))


def _last_cell(work: Path) -> str:
    """The cell in which the kernel died, by the notebook that papermill saves after every cell: it marks
    cells that it has not reached as pending, and the one that killed the kernel as completed."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        cells = json.loads(work.read_text(encoding="utf-8"))["cells"]
        states = [cell["metadata"].get("papermill", {}).get("status", "pending") for cell in cells]
        begun = [n for n, state in enumerate(states, 1) if state != "pending"]
        return f", cell {begun[-1]} of {len(cells)}" if begun else ""
    return ""
