from __future__ import annotations

import os
import re
import resource
import subprocess
import sys

import pytest
from tiny_notebooks import COMMAND, ROOT, environment, write_all, write_notebook

from streamrec_lite.cli import app as cli


def call(*arguments: str, notebooks=None, cwd=None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(notebooks or ROOT / "notebooks"),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def cpu_seconds(*command: str) -> float:
    """User and system time of a subprocess, the least of three."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, env=environment(ROOT), check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def test_help_is_quick_and_loads_nothing_heavy():
    start = cpu_seconds(sys.executable, "-c", "pass")
    assert cpu_seconds(*COMMAND, "--help") - start < 0.5
    program = (
        "import sys, streamrec_lite.cli.app\n"
        "assert not {'torch', 'transformers', 'numpy', 'pandas', 'papermill'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], env=environment(ROOT), check=True)


def test_help_names_every_command_and_option(capsys):
    assert cli.run(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in ("reproduce", "recommend", "datasets", "doctor", "bench"):
        assert command in shown
    assert cli.run(["reproduce", "--help"]) == 0
    shown = capsys.readouterr().out
    for option in ("dataset", "preset", "seed", "out", "gpus", "engine", "only", "set", "fresh"):
        assert f"--{option}" in shown


# arguments; what the one line must hold. "{tmp}" is an empty folder.
BAD = [
    ("reproduce --no-such", "No such option"),
    ("reproduce --seed one", "must be an integer"),
    ("reproduce --seed -1", "a seed is an integer from 0"),
    ("reproduce --seed 1 --seed 1", "each once"),
    ("reproduce --gpus many", "must be an integer"),
    ("reproduce --gpus -2", "at least 0"),
    ("reproduce --gpus 4096", "this machine has"),
    ("reproduce --engine ray", "not available yet; use --engine local"),
    ("reproduce --engine spark", "no such engine"),
    ("reproduce --preset big", "choose one of lite, paper, smoke"),
    ("reproduce --only tokeniser", "did you mean 'tokenizer'"),
    ("reproduce --set tiger.lr", "KEY=VALUE"),
    ("reproduce --set tiger.lrr=1", "did you mean 'tiger.lr'"),
    ("reproduce --set tiger.lr=fast", "tiger.lr='fast': the value must be of type float"),
    ("reproduce --set tiger.lr=nan", "must be finite"),
    ("reproduce --set tokenizer.m=0", "at least 1"),
    ("reproduce --set preset=paper", "no such setting"),
    ("reproduce --dataset nothing", "unknown data set"),
    ("reproduce --dataset amazon-2018:", "after the colon is missing"),
    ("reproduce --dataset amazon-2018:{tmp}/none", "the folder does not exist"),
    ("reproduce --dataset {tmp}/none.csv", "the file does not exist"),
    ("reproduce --dataset {tmp}", "this path is a folder"),
    ("reproduce --set", "requires an argument"),
    ("reproduce surplus", "unexpected extra argument"),
    ("recommend", "Missing option"),
    ("recommend --run {tmp} --history 1", "this folder is not a run"),
    ("recommend --run {tmp} --history 1 -k ten", "must be an integer"),
    ("bench no-such-benchmark", "no-such-benchmark"),
    ("reproducce", "No such command"),
]


@pytest.mark.parametrize("line, expected", BAD)
def test_bad_input_is_one_line_and_code_2(line, expected, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.run([part.replace("{tmp}", str(tmp_path)) for part in line.split()]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and err.endswith("\n") and err.startswith("streamrec: ")
    assert expected in err and "Traceback" not in out + err
    assert list(tmp_path.iterdir()) == []


def test_a_broken_config_of_a_run_is_bad_input(tmp_path):
    for text in ("{", "[]", "{}", '{"versions": 3}', '{"versions": {"other": "1"}}'):
        (tmp_path / "config.json").write_text(text)
        process = call("reproduce", "--preset", "smoke", "--out", str(tmp_path))
        assert (process.returncode, process.stderr.count("\n")) == (2, 1), process.stderr
        assert "config.json" in process.stderr and process.stdout == ""
        assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_out_is_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    for out in ("file", "file/below"):
        assert cli.run(["reproduce", "--preset", "smoke", "--out", str(tmp_path / out)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    process = call("reproduce", "--preset", "smoke", "--out", str(tmp_path / "run"))
    assert process.returncode == 2 and "choose a folder that you may write" in process.stderr


def raising(error: BaseException):
    def command(*args, **kwargs):
        raise error

    return command


@pytest.mark.parametrize(
    "error, code, line",
    [
        (
            OSError(28, "No space left on device", "runs/x"),
            2,
            "runs/x: No space left on device; free some space",
        ),
        (PermissionError(13, "Permission denied", "/x"), 2, "/x: Permission denied; choose a folder"),
        (FileNotFoundError(2, "No such file", "gone"), 1, "failed: FileNotFoundError: "),
        (ZeroDivisionError("division by zero"), 1, "failed: ZeroDivisionError: division by zero"),
        (FloatingPointError("TIGER's loss is nan"), 1, "failed: FloatingPointError: TIGER's loss is nan"),
        (KeyboardInterrupt(), 130, "interrupted; the same command continues where it stopped"),
    ],
)
def test_other_errors_are_one_line(error, code, line, monkeypatch, capsys):
    from streamrec_lite.cli import commands

    monkeypatch.setattr(commands, "datasets", raising(error))
    assert cli.run(["datasets"]) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith(f"streamrec: {line}")


def test_a_notebook_that_fails_ends_with_code_1_and_one_line(tmp_path):
    folder = write_all(tmp_path / "notebooks")
    write_notebook(folder / "00_start_here.ipynb", "raise RuntimeError('the map is lost')")
    out = tmp_path / "run"
    arguments = ["reproduce", "--preset", "smoke", "--out", str(out), "--only", "data"]
    arguments += ["--set", "data.playground_items=40", "--set", "data.playground_users=30"]
    process = call(*arguments, notebooks=folder)
    assert process.returncode == 1 and process.stderr.count("\n") == 1, process.stderr
    assert "notebook 00_start_here.ipynb, cell In [3]: RuntimeError: the map is lost" in process.stderr
    assert "error.log" in process.stderr and (out / "error.log").is_file()
    assert (out / "notebooks" / "00_start_here.failed.ipynb").is_file()
    code = (
        "from streamrec_lite.common.errors import BadInput\nraise BadInput('a map', 'too small', 'unfold it')"
    )
    write_notebook(folder / "00_start_here.ipynb", code)
    process = call(*arguments, notebooks=folder)
    assert (process.returncode, process.stderr) == (2, "streamrec: a map: too small; unfold it\n")


def test_datasets_version_and_doctor(capsys):
    assert cli.run(["datasets"]) == 0
    shown = capsys.readouterr().out
    for spec in ("playground", "amazon-2018:DIR", "amazon-2023:CATEGORY", "FILE.csv"):
        assert spec in shown
    assert cli.run(["--version"]) == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", capsys.readouterr().out)
    assert cli.run(["doctor"]) == 0
    shown = capsys.readouterr().out
    for what in ("torch", "CPU", "bfloat16 matrix products", "offline", "free disk", "notebooks"):
        assert what in shown
