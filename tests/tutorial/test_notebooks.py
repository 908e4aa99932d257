"""The notebooks: their form, and that each runs from a clean kernel with the smoke settings."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import nbformat
import pytest
from places import NOTEBOOKS, SCIENTIFIC

FOLDER = NOTEBOOKS
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = ["00_start_here", "01_data", "02_embeddings", "03_semantic_ids", "04_fast_thinking"]
NAMES += ["05_pretraining", "06_thinking_step_by_step", "07_fine_tuning", "08_reinforcement", "09_results"]
NAMES += ["10_when_thinking_pays"]
ON_WORKSHOP = {"run_dir": "../runs/workshop", "dataset": "workshop"}  # parameters of notebook 10
OF_A_SEED = ("04", "05", "06", "07", "08")
PARAMETERS = {
    "run_dir": "../runs/playground",
    "dataset": "playground",
    "preset": "lite",
    "seed": 0,
    "overrides": [],
    "branch": "",
}
LONGEST_CELL = 25


def read(path: Path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_of(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_all_notebooks_are_there():
    assert [path.stem for path in NOTEBOOKS][: len(NAMES)] == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
class TestForm:
    def test_valid_and_without_outputs(self, path):
        notebook = read(path)
        nbformat.validate(notebook)
        assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
        assert notebook.metadata.kernelspec.name == "python3"
        ids = [cell.id for cell in notebook.cells]
        assert len(set(ids)) == len(ids)
        for cell in code_of(notebook):
            assert cell.outputs == [] and cell.execution_count is None
        assert "widgets" not in notebook.metadata and "papermill" not in notebook.metadata

    def test_starts_with_a_title_and_the_parameters(self, path):
        notebook = read(path)
        assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
        first = code_of(notebook)[0]
        assert first.metadata.tags == ["parameters"]
        assert sum("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells) == 1
        found = {s.targets[0].id: ast.literal_eval(s.value) for s in ast.parse(first.source).body}
        assert found == {**PARAMETERS, **(ON_WORKSHOP if path.stem.startswith("10") else {})}

    def test_ends_with_the_recorded_results(self, path):
        last = read(path).cells[-1]
        name = f'f"{path.stem}-seed-{{seed}}"' if path.stem[:2] in OF_A_SEED else f'"{path.stem}"'
        assert last.cell_type == "code" and last.source.splitlines()[-1].startswith(f"record(run, {name}")

    def test_cells_are_short_and_import_the_library(self, path):
        cells = code_of(read(path))
        for cell in cells:
            assert len(cell.source.splitlines()) <= LONGEST_CELL, cell.source
            ast.parse(cell.source)
        assert any("from streamrec_lite." in cell.source for cell in cells)

    def test_speaks_of_no_machine(self, path):
        text = path.read_text(encoding="utf-8")
        for word in ("/home/", "/work/", "/root/", "/tmp/", "C:\\\\"):
            assert word not in text

    def test_a_figure_and_a_table_follow_each_widget(self, path):
        cells = code_of(read(path))
        for i, cell in enumerate(cells):
            if "widgets." in cell.source and not cell.source.startswith(("import", "from")):
                assert "save_figure" in cells[i + 1].source, cell.source  # the figure
                assert "save_figure" not in cells[i + 2].source, cell.source  # the table


def execute(path: Path, run_dir: Path, target: Path, **parameters) -> dict:
    """Execute a notebook as ``streamrec reproduce`` does; the answer of the worker."""
    from streamrec_lite.running import open_run
    from streamrec_lite.running.notebooks import execute as worker

    named = {key: value for key, value in parameters.items() if key in ("dataset", "overrides")}
    open_run(run_dir, preset="smoke", **named)  # as the command does first
    values = {"run_dir": str(run_dir), "preset": "smoke", **parameters}
    return worker(path, target / path.name, values, "test")


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


def assert_ran(path: Path, run_dir: Path, answer: dict) -> None:
    assert answer["ok"], answer
    executed = read(run_dir / "notebooks" / path.name)
    for cell in code_of(executed):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr" or "Error" not in output.text, output.text
    assert (run_dir / "notebooks" / path.with_suffix(".html").name).stat().st_size > 10_000
    (kept,) = (run_dir / "figures").glob(f"{path.stem}*.json")
    assert json.loads(kept.read_text())
    pictures = [p.stem for p in (run_dir / "figures").glob(f"{path.stem[:2]}_*.png")]
    saves = "".join(cell.source for cell in code_of(executed)).count("save_figure(run, ")
    assert len(pictures) == saves


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem in NAMES[:2]], ids=lambda p: p.stem)
def test_runs_on_the_playground(path, smoke_run):
    assert_ran(path, smoke_run, execute(path, smoke_run, smoke_run / "notebooks"))


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem in NAMES[2:10]], ids=lambda p: p.stem)
def test_runs_on_the_playground_slowly(path, smoke_run):
    assert_ran(path, smoke_run, execute(path, smoke_run, smoke_run / "notebooks"))


@pytest.mark.slow
def test_runs_on_the_workshop(tmp_path):
    path = FOLDER / f"{NAMES[10]}.ipynb"
    answer = execute(path, tmp_path, tmp_path / "notebooks", dataset="workshop")
    assert_ran(path, tmp_path, answer)


def test_notebook_10_refuses_other_data(tmp_path):
    answer = execute(FOLDER / f"{NAMES[10]}.ipynb", tmp_path, tmp_path / "notebooks", dataset="playground")
    assert not answer["ok"] and answer["kind"] == "bad-input"
    assert "set dataset" in answer["message"]


@pytest.mark.slow
@pytest.mark.skipif(not SCIENTIFIC.exists(), reason="the scientific-2018 data set is not here")
def test_run_on_real_data(tmp_path):
    overrides = ["embeddings.model=tfidf", "tokenizer.m=4", "tokenizer.K=32", "tiger.max_epochs=1"]
    overrides += [
        "pretrain.max_epochs=1",
        "sft.max_epochs=1",
        "grpo.max_epochs=1",
        "grpo.batches_per_block=5",
    ]
    for path in NOTEBOOKS[:10]:
        spec = f"amazon-2018:{SCIENTIFIC}"
        answer = execute(path, tmp_path, tmp_path / "notebooks", dataset=spec, overrides=overrides)
        assert answer["ok"], answer


def test_a_wrong_parameter_is_named(tmp_path):
    answer = execute(NOTEBOOKS[0], tmp_path / "run", tmp_path, run_dri="x")
    assert not answer["ok"] and "run_dri" in answer["message"]
