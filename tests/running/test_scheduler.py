from __future__ import annotations

import shutil

import pytest
from tiny_notebooks import OPEN, write_all, write_notebook
from tiny_runs import again, opened

from streamrec_lite.common.errors import BadInput, StageFailed
from streamrec_lite.common.store import done
from streamrec_lite.running import scheduler
from streamrec_lite.running.scheduler import Scheduler, is_done


def test_a_notebook_that_skips_its_stage_is_a_failure(copied, tmp_path):
    folder = write_all(tmp_path / "lazy")
    write_notebook(folder / "03_semantic_ids.ipynb", "print('nothing')")
    shutil.rmtree(copied / "tokenizer")
    run = opened(copied)
    with (
        pytest.raises(StageFailed, match="without running its stage, tokenizer"),
        Scheduler(run, folder, 0, lambda line: None) as crew,
    ):
        crew.work(["tokenizer"])
    assert (copied / "error.log").is_file()


def test_a_changed_notebook_runs_again_and_its_failure_ends_the_run(copied, tmp_path, monkeypatch):
    folder = write_all(tmp_path / "changed")
    monkeypatch.setenv("STREAMREC_NOTEBOOKS", str(folder))
    assert again(copied)[0] == "data: done before"
    write_notebook(folder / "02_embeddings.ipynb", OPEN, "raise RuntimeError('no more ink')")
    with pytest.raises(StageFailed, match=r"cell In \[4\]: RuntimeError: no more ink"):
        again(copied)
    assert (copied / "notebooks" / "02_embeddings.failed.ipynb").is_file()
    assert "no more ink" in (copied / "error.log").read_text()


def test_results_are_written_and_then_shown_by_their_notebook(copied, tmp_path, monkeypatch):
    (copied / "results.json").unlink()
    told = again(copied)[-1]
    assert told.startswith("results: done in") and "html" not in told  # the notebook has shown the same
    folder = write_all(tmp_path / "other")
    monkeypatch.setenv("STREAMREC_NOTEBOOKS", str(folder))
    write_notebook(folder / "09_results.ipynb", "print('read again')")
    assert again(copied)[-2] == "results: notebook 09_results.ipynb runs"
    assert "read again" in (copied / "notebooks" / "09_results.html").read_text()
    assert again(copied)[-1] == "results: done before"
    with pytest.raises(BadInput, match="would replace its stages results"):
        again(copied, "evaluate.bootstrap=60")
    assert again(copied, "evaluate.bootstrap=60", replace=True)[-3].startswith("results: done in")
    assert len(list((copied / "notebooks").glob("09_*.ipynb"))) == 1


def test_two_seeds_run_at_once_each_seeing_its_own_gpu(copied, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    folder = write_all(tmp_path / "both")
    meet = f"""import os, pathlib, time
here, begin = pathlib.Path({str(tmp_path)!r}), time.time()
(here / f"seed-{{seed}}").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
while len(list(here.glob("seed-*"))) < 2:  # both are at work, or this never ends
    assert time.time() - begin < 100
    time.sleep(0.1)"""
    write_notebook(folder / "04_fast_thinking.ipynb", meet, f"{OPEN}\nrunning.run_tiger(run, seed)")
    run = opened(copied, seeds=(0, 1))
    with Scheduler(run, folder, 2, lambda line: None) as crew:
        crew.work(["tiger"])
    assert sorted((tmp_path / f"seed-{seed}").read_text() for seed in (0, 1)) == ["0", "1"]
    assert is_done(run, "tiger") and len(list((copied / "notebooks").glob("04_*-seed-?.html"))) == 2


def test_stages_that_do_not_need_each_other_run_side_by_side(copied, tmp_path):
    """Two jobs, each with half the cores: the second stage begins while the first one waits for it."""
    folder = write_all(tmp_path / "beside")
    sign = tmp_path / "seen"
    wait = f"""import os, pathlib, time
begin = time.time()
while not pathlib.Path({str(sign)!r}).exists():
    assert time.time() - begin < 100, "the other stage does not begin"
    time.sleep(0.1)"""
    note = f"import os, pathlib\npathlib.Path({str(sign)!r}).write_text(os.environ['OMP_NUM_THREADS'])"
    write_notebook(folder / "04_fast_thinking.ipynb", wait, f"{OPEN}\nrunning.run_tiger(run, seed)")
    write_notebook(folder / "05_pretraining.ipynb", note, f"{OPEN}\nrunning.run_pretrain(run, seed)")
    run = opened(copied, seeds=(1,))
    with pytest.MonkeyPatch.context() as patch:
        for name in scheduler.THREADS:
            patch.delenv(name, raising=False)
        patch.setattr(scheduler, "cores", lambda: 6)
        with Scheduler(run, folder, 0, lambda line: None, jobs=2) as both:
            both.work(["tiger", "pretrain"])
    assert sign.read_text() == "3"
    assert is_done(run, "tiger") and is_done(run, "pretrain")


def test_what_fails_leaves_the_rest_to_be_done(copied, tmp_path):
    """Seed 0 fails in one stage: seed 1 still goes through this one and the next, the results wait."""
    folder = write_all(tmp_path / "torn")
    broken = "if seed == 0:\n    raise RuntimeError('paper jam')"
    write_notebook(folder / "04_fast_thinking.ipynb", broken, f"{OPEN}\nrunning.run_tiger(run, seed)")
    run, told = opened(copied, seeds=(0, 1)), []
    with (
        pytest.raises(StageFailed, match=r"04_fast_thinking.ipynb, cell In \[\d\].*paper jam"),
        Scheduler(run, folder, 0, told.append) as crew,
    ):
        crew.work(["tiger", "pretrain", "results"])
    # two seeds of 04, one of 05 and 06, the results and 09: seed 0 of 05 and 06 was shown before
    assert crew.executor.progress.total == 6
    assert done(run.folder("pretrain", 1)) and not is_done(run, "results")
    assert next(line for line in told if "FAILED" in line).startswith("TIGER, seed 0: FAILED (1 of")
    assert told[-1] == "results: left out, it needs what failed"
    assert "paper jam" in (copied / "error.log").read_text()


def test_a_baseline_that_fails_stops_no_other_and_no_other_stage(copied, notebooks):
    for name in ("GRU4Rec", "SASRec"):
        shutil.rmtree(copied / "baselines" / name)
    (copied / "results.json").unlink()
    run, told = opened(copied), []
    (copied / "baselines" / "GRU4Rec").mkdir()
    (copied / "baselines" / "GRU4Rec" / "seed-0.part").write_text("in the way")
    (copied / "notebooks" / "05_pretraining-seed-0.html").unlink()
    with (
        pytest.raises(StageFailed, match="GRU4Rec, seed 0: NotADirectoryError"),
        Scheduler(run, notebooks, 0, told.append) as crew,
    ):
        crew.work(["baselines", "pretrain", "results"])
    assert done(copied / "baselines" / "SASRec" / "seed-0")
    assert any(line.startswith("STREAM-Rec-PT, seed 0: done in") for line in told)
    assert told[-1] == "results: left out, it needs what failed"
