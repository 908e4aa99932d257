"""Notebooks of three cells, in place of the tutorial's: the pipeline's tests run them in seconds."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from places import ROOT

PARAMETERS = 'run_dir = "runs/x"\ndataset = "playground"\npreset = "smoke"\nseed = 0\noverrides = []'
OPEN = """from streamrec_lite import running
run = running.open_run(run_dir, dataset=dataset, preset=preset, overrides=overrides, seeds=[seed])"""
STAGES = {
    "00_start_here": "print('hello')",
    "01_data": f"{OPEN}\nrunning.run_data(run)",
    "02_embeddings": f"{OPEN}\nrunning.run_embeddings(run)",
    "03_semantic_ids": f"{OPEN}\nrunning.run_tokenizer(run)",
    "04_fast_thinking": f"{OPEN}\nprint(running.run_tiger(run, seed))",
    "05_pretraining": f"{OPEN}\nprint(running.run_pretrain(run, seed))",
    "06_thinking_step_by_step": f"{OPEN}\nprint(running.run_pretrain(run, seed))",
    "07_fine_tuning": f"{OPEN}\nprint(running.run_sft(run, seed), running.run_controls(run, seed))",
    "08_reinforcement": f"{OPEN}\nprint(running.run_grpo(run, seed))",
    "09_results": f"{OPEN}\nprint(list(running.run_results(run)))",
}
TINY = (
    "data.playground_items=40",
    "data.playground_users=60",
    "embeddings.dim=8",
    "tokenizer.K=8",
    "tokenizer.m=2",
    "tokenizer.epochs=3",
    "tiger.max_epochs=3",
    "pretrain.max_epochs=1",
    "sft.max_epochs=2",
    "grpo.max_epochs=2",
    "grpo.batches_per_block=2",
    "grpo.K=8",
    "evaluate.bootstrap=50",
)


def write_notebook(path: Path, *cells: str, parameters: str = PARAMETERS) -> Path:
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)])
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def write_all(folder: Path) -> Path:
    for name, code in STAGES.items():
        write_notebook(folder / f"{name}.ipynb", code)
    return folder


def environment(notebooks: Path) -> dict[str, str]:
    """For a subprocess that runs the command line of this checkout."""
    return {
        **os.environ,
        "STREAMREC_NOTEBOOKS": str(notebooks),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }


COMMAND = (sys.executable, "-m", "streamrec_lite.cli.app")
