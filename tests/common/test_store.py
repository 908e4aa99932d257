from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import ROOT

from streamrec_lite.common import store
from streamrec_lite.common.errors import BadInput
from streamrec_lite.common.store import DONE, RECORD, done, locked, part_of, run_stage


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the code under test may run after it."""


def write(text: str, calls: list | None = None):
    def work(part: Path) -> dict:
        if calls is not None:
            calls.append(text)
        (part / "a.txt").write_text(text)
        (part / "sub").mkdir(exist_ok=True)
        (part / "sub" / "b.txt").write_text(text * 2)
        return {"note": text}

    return work


def content(folder: Path) -> tuple[str, str]:
    return (folder / "a.txt").read_text(), (folder / "sub" / "b.txt").read_text()


def test_done_once_then_skipped(tmp_path):
    calls = []
    first = run_stage(tmp_path, "x", "h1", write("one", calls))
    again = run_stage(tmp_path, "x", "h1", write("one", calls))
    assert calls == ["one"] and first == again
    assert first["hash"] == "h1" and first["note"] == "one"
    assert first["files"] == {"a.txt": 3, "sub/b.txt": 6}
    assert content(tmp_path / "x") == ("one", "oneone")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".locks", "x"]


def test_what_a_killed_write_left_is_not_delivered(tmp_path):
    def work(part: Path) -> dict:
        for name in ("checkpoint.safetensors", ".checkpoint.safetensors.7.tmp", "sub/.b.txt.7.tmp"):
            (part / name).parent.mkdir(exist_ok=True)
            (part / name).write_text("half")
        return write("one")(part)

    run_stage(tmp_path, "x", "h1", work)
    delivered = {p.name for p in (tmp_path / "x").rglob("*") if p.is_file()}
    assert delivered == {"a.txt", "b.txt", DONE, RECORD}


def test_another_hash_replaces_only_when_asked(tmp_path):
    run_stage(tmp_path, "deep/x", "h1", write("one"))
    (tmp_path / "deep" / "x" / "left-over").write_text("from before")
    with pytest.raises(BadInput, match=r"finished with other settings; try them in a run .*--branch"):
        run_stage(tmp_path, "deep/x", "h2", write("two"))
    assert content(tmp_path / "deep" / "x") == ("one", "oneone") and done(tmp_path / "deep" / "x", "h1")
    run_stage(tmp_path, "deep/x", "h2", write("two"), replace=True)
    assert content(tmp_path / "deep" / "x") == ("two", "twotwo")
    assert not (tmp_path / "deep" / "x" / "left-over").exists()
    assert done(tmp_path / "deep" / "x", "h2") and not done(tmp_path / "deep" / "x", "h1")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"x"', "{}", '{"hash": 3}', '{"hash": "h1"}', '{"hash": "h1", "files": 1}']
)
def test_a_damaged_marker_means_redo(tmp_path, text):
    calls = []
    run_stage(tmp_path, "x", "h1", write("one", calls))
    (tmp_path / "x" / DONE).write_text(text)
    assert run_stage(tmp_path, "x", "h1", write("one", calls))["hash"] == "h1"
    assert calls == ["one", "one"]


def test_a_missing_or_cut_file_means_redo(tmp_path):
    calls = []
    for damage in (lambda p: p.unlink(), lambda p: p.write_text("o")):
        run_stage(tmp_path, "x", "h1", write("one", calls))
        damage(tmp_path / "x" / "a.txt")
        run_stage(tmp_path, "x", "h1", write("one", calls))
        assert content(tmp_path / "x") == ("one", "oneone")
    assert len(calls) == 3


def test_part_of_the_same_hash_continues_and_another_is_discarded(tmp_path):
    def interrupted(part):
        (part / "checkpoint.bin").write_text("epoch 3")
        raise Killed

    def resumed(part):
        (part / "a.txt").write_text((part / "checkpoint.bin").read_text())

    with pytest.raises(Killed):
        run_stage(tmp_path, "x", "h1", interrupted)
    assert not (tmp_path / "x").exists()
    run_stage(tmp_path, "x", "h1", resumed)
    assert (tmp_path / "x" / "a.txt").read_text() == "epoch 3"
    assert not (tmp_path / "x" / "checkpoint.bin").exists()  # of no more use
    with pytest.raises(Killed):
        run_stage(tmp_path, "x", "h2", interrupted, replace=True)
    with pytest.raises(FileNotFoundError):
        run_stage(tmp_path, "x", "h3", resumed, replace=True)
    assert done(tmp_path / "x", "h1")  # the finished one stands until it is replaced


def operations(monkeypatch, die_at: int) -> list:
    """Count renames and JSON writes of ``stages``; die before the ``die_at``-th one."""
    count: list = []

    def wrap(original):
        def call(*args, **kwargs):
            count.append(original.__name__)
            if len(count) == die_at:
                raise Killed
            return original(*args, **kwargs)

        return call

    monkeypatch.setattr(store, "write_json", wrap(store.write_json))
    monkeypatch.setattr(Path, "rename", wrap(Path.rename))
    monkeypatch.setattr(shutil, "rmtree", wrap(shutil.rmtree))
    return count


@pytest.mark.parametrize("before", [None, "h0"])
def test_killed_before_any_step_of_the_commit(tmp_path, before):
    """At every step: afterwards the old or the new folder can be had, and work is not done twice."""
    for die_at in range(1, 30):
        root = tmp_path / str(die_at)
        if before:
            run_stage(root, "x", before, write("old"))
        calls: list = []
        with pytest.MonkeyPatch.context() as patch:
            count = operations(patch, die_at)
            try:
                run_stage(root, "x", "h1", write("new", calls), replace=True)
                finished = True
            except Killed:
                finished = False
        if finished:
            assert die_at > len(count) >= 4
            return
        folders = [p for p in root.glob("x*") if (p / "a.txt").exists() and (p / "sub" / "b.txt").exists()]
        assert folders or not before  # at no moment is there only a half-written one
        records = [json.loads(path.read_text()) for path in root.glob(f"x*/{RECORD}")]
        recorded = any(record["hash"] == "h1" and "files" in record for record in records)
        run_stage(root, "x", "h1", write("new", calls), replace=True)
        assert content(root / "x") == ("new", "newnew")
        assert done(root / "x", "h1")
        assert sorted(p.name for p in root.iterdir()) == [".locks", "x"]
        if recorded:
            assert calls == ["new"]
    raise AssertionError("the commit never ended")


def test_killed_in_the_swap_the_old_stage_can_be_had_again(tmp_path):
    run_stage(tmp_path, "x", "h0", write("old"))
    (tmp_path / "x").rename(tmp_path / "x.old")
    calls: list = []
    run_stage(tmp_path, "x", "h0", write("old", calls))
    assert calls == [] and content(tmp_path / "x") == ("old", "oldold")


PROGRAM = """
import sys, time, pathlib
sys.path.insert(0, sys.argv[2])
from streamrec_lite.common.store import run_stage
from streamrec_lite.common.files import write_text
def work(part):
    at = part / "checkpoint"
    done = at.read_text().split() if at.exists() else []
    for epoch in range(len(done), 12):
        time.sleep(0.01)
        done.append(str(epoch * 7))
        write_text(at, " ".join(done))
    write_text(part / "model", " ".join(done))
    time.sleep(0.01)
    write_text(part / "row", str(sum(map(int, done))))
for name in ("a", "b/c"):
    run_stage(pathlib.Path(sys.argv[1]), name, "h", work)
"""


def test_sigkill_at_random_moments(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), str(ROOT)]
    chance = random.Random(0)
    kills = 0
    for _ in range(60):
        process = subprocess.Popen(command)
        try:
            process.wait(timeout=chance.uniform(0.05, 0.3))
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert subprocess.run(command, check=False).returncode == 0
    assert kills >= 1
    for name in ("a", "b/c"):
        folder = tmp_path / "run" / name
        assert done(folder, "h")
        assert (folder / "model").read_text() == " ".join(str(7 * i) for i in range(12))
        assert (folder / "row").read_text() == str(7 * 66)
        assert not part_of(folder).exists() and not (folder / "checkpoint").exists()


HOLD = """
import sys, time, pathlib
sys.path.insert(0, sys.argv[2])
from streamrec_lite.common.store import locked
with locked(pathlib.Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_is_one_line_of_bad_input_and_ends_with_its_process(tmp_path):
    lock = tmp_path / "run" / ".locks" / "run.lock"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(lock), str(ROOT)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(BadInput, match="another `streamrec reproduce` is at work"), locked(lock, wait=False):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    begin = time.monotonic()
    with locked(lock, wait=False):
        assert time.monotonic() - begin < 1


def test_a_stage_that_another_run_has_is_copied_and_not_done_again(tmp_path):
    run_stage(tmp_path / "parent", "deep/x", "h1", write("one"))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "parent").rglob("*")}
    calls = []
    parents = [tmp_path / "nothing", tmp_path / "parent"]
    marker = run_stage(tmp_path / "branch", "deep/x", "h1", write("new", calls), parents)
    assert calls == [] and content(tmp_path / "branch" / "deep" / "x") == ("one", "oneone")
    assert marker == done(tmp_path / "parent" / "deep" / "x") and marker["note"] == "one"
    run_stage(tmp_path / "other", "deep/x", "h2", write("new", calls), parents)
    assert calls == ["new"]  # for another hash there is nothing to copy
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "parent").rglob("*")} == before
