from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_notebooks import COMMAND, OPEN, TINY, environment, write_all, write_notebook

from streamrec_lite.bench.subject import of_run
from streamrec_lite.bench.thinking import bench_thinking
from streamrec_lite.cli import app as cli
from streamrec_lite.common.errors import BadInput
from streamrec_lite.common.files import read_json, read_tensors
from streamrec_lite.data.specs import input_files
from streamrec_lite.running import (
    executors as workers,
)
from streamrec_lite.running import (
    reproduce as reproduction,
)
from streamrec_lite.running import (
    scheduler as conductor,
)
from streamrec_lite.running.run import (
    control_hash,
    counting_hash,
    data_hash,
    embeddings_hash,
    pretrain_dir,
    tiger_dir,
    tiger_hash,
)
from streamrec_lite.running.scheduler import Conductor, is_done
from streamrec_lite.running.store import done
from streamrec_lite.tutorial.tables import results as lessons_results

METRICS = {"R@5", "R@10", "N@5", "N@10"}
TRAINED = ("TIGER", "STREAM-Rec-PT", "STREAM-Rec-SFT", "STREAM-Rec-RL")
COUNTING = ("Popularity", "Markov", "SequentialRules")
NEURAL = ("Caser", "GRU4Rec", "SASRec", "BERT4Rec", "ReaRec")
GUIDED = "STREAM-Rec-SFT, state-guided"
BOTH = (GUIDED, "STREAM-Rec-RL, state-guided")
MIXED = [f"{model}, with rules" for model in ("TIGER", *BOTH)]
STAGES = ("data", "embeddings", "tokenizer", "tiger", "baselines", "pretrain", "sft", "grpo", "results")


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("notebooks"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, notebooks):
    """A run that `reproduce` made through its notebooks, in a process of its own."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    command = [*COMMAND, "reproduce", "--preset", "smoke", "--out", str(out)]
    command += [part for setting in TINY for part in ("--set", setting)]
    process = subprocess.run(command, env=environment(notebooks), capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return out, process.stdout


@pytest.fixture
def copied(finished, tmp_path, notebooks, monkeypatch):
    """A copy of the finished run that a test may damage."""
    monkeypatch.setenv("STREAMREC_NOTEBOOKS", str(notebooks))
    return Path(shutil.copytree(finished[0], tmp_path / "tiny"))


def opened(out: Path, *more: str, seeds=(0,)) -> running.Run:
    return running.open_run(out, "playground", "smoke", [*TINY, *more], seeds)


def again(out: Path, *more: str, **options) -> list[str]:
    """Call ``reproduce`` in this process; returns what it told."""
    told: list[str] = []
    options = {"preset": "smoke", "out": out, "overrides": [*TINY, *more], "tell": told.append, **options}
    reproduction.reproduce("playground", **options)
    return told


def test_the_run_folder_is_the_contract(finished):
    out, told = finished
    for name in ("config.json", "results.json", "table2.md", "embeddings", "tokenizer", "data"):
        assert (out / name).exists()
    names = ["00_start_here", "01_data", "02_embeddings", "03_semantic_ids", "04_fast_thinking-seed-0"]
    for name in (*names, "09_results"):
        assert (out / "notebooks" / f"{name}.ipynb").is_file()
        assert "<html" in (out / "notebooks" / f"{name}.html").read_text()[:1000]
    assert not list(out.rglob("*.part")) and not list(out.rglob("*.tmp*")) and not list(out.rglob("*.old"))
    config = read_json(out / "config.json")
    assert config["seeds"] == [0] and config["tokenizer"]["K"] == 8 and "torch" in config["versions"]
    assert "TIGER, seed 0: epoch 3" in told and "| TIGER" in told and "*oracle*" in told


def test_results_json_is_the_contract(finished):
    results = read_json(finished[0] / "results.json")
    assert results["schema"] == 1 and results["dataset"] == "playground" and results["preset"] == "smoke"
    assert results["seeds"] == [0]
    assert set(results["models"]) == {*COUNTING, *NEURAL, *TRAINED, *BOTH, *MIXED}
    for rows in results["models"].values():
        assert set(rows) == {"0"}
        assert {"train_seconds", "epochs", "users_per_second", "wall_seconds"} <= set(rows["0"])
        for split in ("valid", "test"):
            assert set(rows["0"][split]) == METRICS
            assert all(0 <= value <= 1 for value in rows["0"][split].values())
    assert set(results["oracle"]) == {"valid", "test"} and set(results["oracle"]["test"]) == METRICS
    assert results["tokenizer"]["collisions_after"] == 0
    assert set(results["models"]["STREAM-Rec-PT"]["0"]["direct"]["test"]) == METRICS
    row = results["models"]["STREAM-Rec-SFT"]["0"]
    assert row["l"] == 2 and set(row["question"]["l"]) == {"0", "1", "2", "4", "6", "8"}
    assert set(row["question"]["n"]) == {"1", "4", "16"} and row["question"]["users"] == 60
    best = max(value["N@10"] for name, value in row["weights"].items() if name != "state")
    assert row["weights"][str(row["w"])]["N@10"] == best
    for model in (*COUNTING, *NEURAL, *TRAINED[1:], *BOTH, *MIXED):
        row, tiger = results["models"][model]["0"]["test"], results["models"]["TIGER"]["0"]["test"]
        versus = results["versus_TIGER"][model]["N@10"]
        assert versus["mean_difference"] == pytest.approx(row["N@10"] - tiger["N@10"], abs=1e-12)
        assert versus["low"] <= versus["mean_difference"] <= versus["high"]


def test_everything_done_is_skipped_without_torch(finished, notebooks):
    out = finished[0]
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != "config.json"}
    settings = [part for setting in TINY for part in ("--set", setting)]
    program = (
        "import sys\nfrom streamrec_lite.cli.app import run\ncode = run(sys.argv[1:])\n"
        "assert not {'torch', 'transformers', 'pandas', 'papermill'} & set(sys.modules)\nsys.exit(code)"
    )
    command = [COMMAND[0], "-c", program, "reproduce", "--preset", "smoke", "--out", str(out), *settings]
    process = subprocess.run(command, env=environment(notebooks), capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()[: len(STAGES)]
    assert lines == [f"{stage}: done before" for stage in STAGES]
    after = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != "config.json"}
    assert after == before


def test_functions_load_what_is_done(copied):
    run = opened(copied)
    dataset, splits = running.run_data(run)
    assert dataset.n_items == 40 and splits.test.n_examples == dataset.n_users == 60
    vectors, tokenizer = running.run_embeddings(run), running.run_tokenizer(run)
    assert vectors.shape[0] == 40 and vectors.dtype == np.float32 and tokenizer.n_items == 40
    row = running.run_tiger(run, 0)
    assert Path(row["dir"]) == tiger_dir(run, 0) and row["epochs"] == 3
    assert set(running.run_baselines(run)) == {*COUNTING, "Oracle"}
    assert running.run_results(run) == read_json(copied / "results.json")


def test_recommend_explains_history_and_thoughts(finished, capsys):
    out, names = finished[0], read_json(finished[0] / "data" / "items.json")
    asked = ["recommend", "--run", str(out), "--history", " ".join(names["item_ids"][:2]), "-k", "3"]
    assert cli.run([*asked, "--explain"]) == 0
    at_once = capsys.readouterr().out
    assert names["titles"][1] in at_once and "thoughts" not in at_once
    assert cli.run([*asked, "--explain", "--model", "STREAM-Rec-PT"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("thoughts"))
    log_prob, *codes = lines[at + 1].split()
    assert float(log_prob) < 0 and len(codes) == 4  # two similar items of two codes
    assert all(0 <= int(code.split(":")[1]) < 8 for code in codes)
    assert len(lines) == at + 12  # five states and their heading, then the answers
    assert cli.run([*asked, "--model", "STREAM-Rec-PT", "--think", "none"]) == 0
    capsys.readouterr()
    assert cli.run([*asked, "--model", "STREAM-Rec-SFT", "--guided", "--explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("state by state"))
    assert [line.split()[0] for line in lines[at + 1 : at + 4]] == ["s_0", "s_1", "s_2"]
    assert cli.run([*asked, "--model", "STREAM-Rec-PT", "--guided"]) == 2
    assert "name STREAM-Rec-SFT" in capsys.readouterr().err
    assert cli.run([*asked, "--model", "STREAM-Rec-RL"]) == 0
    assert cli.run([*asked, "--model", "STREAM-Rec-DPO"]) == 2
    assert "STREAM-Rec-PT" in capsys.readouterr().err


def test_a_setting_redoes_what_depends_on_it_and_nothing_else(copied):
    def state(*more):
        run = dataclasses.replace(opened(copied), config=opened(copied).config.override(list(more)))
        return [stage for stage in STAGES if is_done(run, stage)]

    assert state() == list(STAGES)
    assert state("evaluate.bootstrap=60") == [
        "data",
        "embeddings",
        "tokenizer",
        "tiger",
        "baselines",
        "pretrain",
        "sft",
        "grpo",
    ]
    slow = ["pretrain", "sft", "grpo"]
    assert state("tiger.lr=0.001") == ["data", "embeddings", "tokenizer", "baselines", *slow]
    assert state("sft.lr=0.002") == ["data", "embeddings", "tokenizer", "tiger", "baselines", "pretrain"]
    assert state("grpo.lr=0.002") == list(STAGES)[:-2]
    assert state("pretrain.pool=9") == ["data", "embeddings", "tokenizer", "tiger", "baselines"]
    assert state("baselines.lr=0.002") == [stage for stage in STAGES[:-1] if stage != "baselines"]
    assert state("data.max_history=10") == ["data", "embeddings", "tokenizer"]
    assert state("tokenizer.K=16") == ["data", "embeddings", "baselines"]
    assert state("embeddings.dim=9") == ["data", "baselines"]
    assert state("data.playground_users=61") == []


def test_damaged_stages_are_redone_with_the_same_results(copied):
    before = read_json(copied / "results.json")["models"]["TIGER"]["0"]["test"]
    tokenizer_before = (copied / "tokenizer" / "tokenizer.safetensors").read_bytes()
    run = opened(copied)
    (copied / "embeddings" / "done.json").write_text("{broken")
    (copied / "tokenizer" / "done.json").unlink()  # killed between rename and marker: recovered
    (tiger_dir(run, 0) / "row.json").unlink()
    assert not is_done(run, "embeddings") and not is_done(run, "tokenizer") and not is_done(run, "tiger")
    running.run_embeddings(run)
    stamp = (copied / "tokenizer" / "tokenizer.json").stat().st_mtime_ns
    running.run_tokenizer(run)
    assert (copied / "tokenizer" / "tokenizer.json").stat().st_mtime_ns == stamp
    assert (copied / "tokenizer" / "tokenizer.safetensors").read_bytes() == tokenizer_before
    assert running.run_tiger(run, 0)["test"] == before
    assert all(is_done(run, stage) for stage in STAGES)


def test_tiger_continues_from_its_last_epoch(copied, monkeypatch):
    from streamrec_lite.training import loop

    run, trained = opened(copied), []
    final = read_json(tiger_dir(run, 0) / "row.json")
    shutil.rmtree(tiger_dir(run, 0))
    original = loop._one_epoch

    def killed_in_the_third(*args):
        trained.append(len(trained))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(loop, "_one_epoch", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        running.run_tiger(run, 0)
    assert (tiger_dir(run, 0).parent / "seed-0.part" / "checkpoint.safetensors").is_file()
    row = running.run_tiger(run, 0)
    assert len(trained) == 4  # epochs 1, 2, the killed one, and that one again
    assert (row["valid"], row["test"], row["epochs"]) == (final["valid"], final["test"], 3)
    assert not list(copied.rglob("checkpoint*"))


def test_several_seeds_give_means_and_deviations(copied):
    run = opened(copied, seeds=(0, 1))
    assert read_json(copied / "config.json")["seeds"] == [0, 1]
    assert tiger_hash(run, 0) != tiger_hash(run, 1)
    with pytest.raises(BadInput, match="with --only baselines"):
        running.run_results(run)
    running.run_neural(run, 1)
    with pytest.raises(BadInput, match="with --only tiger"):
        running.run_results(run)
    assert lessons_results.with_all_seeds(opened(copied)).seeds == (0,)  # the only one that is finished
    running.run_tiger(run, 1)
    with pytest.raises(BadInput, match="with --only pretrain"):
        running.run_results(run)
    running.run_pretrain(run, 1)
    with pytest.raises(BadInput, match="with --only sft"):
        running.run_results(run)
    running.run_sft(run, 1)
    with pytest.raises(BadInput, match="with --only grpo"):
        running.run_results(run)
    assert not list((copied / "baselines").glob("with-rules/*/seed-1"))  # nothing was mixed in vain
    running.run_grpo(run, 1)
    results = running.run_results(run)
    rows = [results["models"]["TIGER"][seed]["test"]["N@10"] for seed in ("0", "1")]
    summary = results["summary"]["TIGER"]["test"]["N@10"]
    assert summary["mean"] == pytest.approx(sum(rows) / 2, abs=1e-15)
    assert summary["sd"] == pytest.approx(abs(rows[0] - rows[1]) / 2**0.5, abs=1e-15)
    assert "±" in (copied / "table2.md").read_text() and set(results["models"]["Markov"]) == {"0"}
    assert opened(copied).seeds == (0,)  # a notebook opens the run for one seed
    whole = lessons_results.with_all_seeds(opened(copied))  # and notebook 09 for all
    assert whole.seeds == (0, 1) and running.run_results(whole) == results
    counts = {model: len(rows) for model, rows in lessons_results.read_ranks(whole).items()}
    assert counts["TIGER"] == counts[GUIDED] == 2 and counts["Markov"] == counts["Oracle"] == 1
    assert set(counts) == {*results["models"], "Oracle"}
    assert read_json(copied / "config.json")["seeds"] == [0, 1]  # and the run keeps both


def test_a_grid_chooses_lr_and_dropout_for_every_seed(copied, monkeypatch):
    from streamrec_lite.baselines import neural

    monkeypatch.setattr(neural, "RATES", (0.0001, 0.01))
    monkeypatch.setattr(neural, "DROPOUTS", (0.2,))
    monkeypatch.setattr("streamrec_lite.running.baseline_stages.NEURAL", ("GRU4Rec",))
    run = opened(copied, "baselines.tune=grid", seeds=(0, 1))
    rows = [running.run_neural(run, seed)["GRU4Rec"] for seed in run.seeds]
    tuning = running.run_tuning(run, "GRU4Rec")
    assert [row["lr"] for row in tuning] == [0.01, 0.0001]
    assert all(row["tuning"] == tuning and row["lr"] == 0.01 and row["dropout"] == 0.2 for row in rows)
    assert rows[0]["valid"]["N@10"] == pytest.approx(tuning[0]["valid N@10"], abs=1e-12)
    assert rows[0]["train_seconds"] == tuning[0]["train_seconds"]  # seed 0 was trained by the grid


def test_own_data_is_kept_in_the_run(tmp_path):
    source = tmp_path / "mine"
    source.mkdir()
    rows = [f"u{u},i{(u + t) % 9},{t}" for u in range(12) for t in range(6)]
    (source / "shop.csv").write_text("\n".join(["user,item,timestamp", *rows]))
    items = "\n".join(["item,title", *(f"i{i},thing number {i}" for i in range(9))])
    (source / "shop.items.csv").write_text(items)
    np.save(source / "shop.embeddings.npy", np.eye(9, dtype=np.float32))
    spec = str(source / "shop.csv")
    run = running.open_run(tmp_path / "run", spec, "smoke")
    first, splits = running.run_data(run)
    assert [p.name for p in input_files(spec)] == ["shop.csv", "shop.items.csv", "shop.embeddings.npy"]
    again, same = running.run_data(run)
    assert again.fingerprint() == first.fingerprint() and again.name == first.name
    assert all(torch.equal(a, b) for a, b in zip(splits.train, same.train, strict=True))
    assert np.array_equal(running.run_embeddings(run), np.eye(9, dtype=np.float32))
    hashes = data_hash(run), embeddings_hash(run)
    os.utime(source / "shop.csv", ns=(1, 1))  # touched, the same content: read again, no more
    assert data_hash(run) != hashes[0] and embeddings_hash(run) is None
    running.run_data(run)
    assert embeddings_hash(run) == hashes[1]
    (source / "shop.items.csv").write_text(items.replace("thing", "object"))
    running.run_data(run)
    assert embeddings_hash(run) not in (None, hashes[1])


def test_fresh_discards_known_names_only(copied):
    (copied / "my-notes.txt").write_text("keep me")
    (copied / "baselines" / "Mine").mkdir()
    reproduction.clean(opened(copied), fresh=True)
    left = {p.name for p in copied.iterdir() if not p.name.startswith(".")}
    assert left == {"config.json", "my-notes.txt"}
    assert not any(is_done(opened(copied), stage) for stage in STAGES)


def test_a_folder_that_is_no_run_is_left_alone(tmp_path, notebooks, monkeypatch):
    monkeypatch.setenv("STREAMREC_NOTEBOOKS", str(notebooks))
    cases = {"notes.txt": "hello", "config.json": '{"name": "another program"}'}
    for name, text in cases.items():
        folder = tmp_path / name.replace(".", "-")
        (folder / "data").mkdir(parents=True)
        (folder / name).write_text(text)
        with pytest.raises(BadInput, match="give another --out"):
            again(folder, fresh=True)
        assert (folder / "data").is_dir() and (folder / name).read_text() == text
        assert len(list(folder.iterdir())) == 2


def test_bad_data_leaves_nothing_behind(tmp_path, notebooks, monkeypatch):
    monkeypatch.setenv("STREAMREC_NOTEBOOKS", str(notebooks))
    (tmp_path / "bad.csv").write_text("user,item\n1,2\n")
    with pytest.raises(BadInput, match="timestamp"):
        reproduction.reproduce(str(tmp_path / "bad.csv"), "smoke", out=tmp_path / "run")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.csv"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"only": ["tigger"]}, "did you mean 'tiger'"),
        ({"engine": "ray"}, "not available yet; use --engine local"),
        ({"engine": "slurm"}, "no such engine"),
        ({"gpus": -1}, "at least 0"),
        ({"jobs": -1}, "between 1 and the"),
        ({"jobs": 4096}, "between 1 and the"),
        ({"gpus": 4096}, "this machine has"),
        ({"seeds": [1, 1]}, "each once"),
        ({"seeds": [-1]}, "from 0 to"),
        ({"seeds": [True]}, "from 0 to"),
        ({"preset": "huge"}, "unknown preset"),
        ({"overrides": ["tiger.lr"]}, "KEY=VALUE"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(BadInput, match=message):
        reproduction.reproduce(**{"preset": "smoke", "out": tmp_path / "run", **options})
    assert not (tmp_path / "run").exists()


# Notebooks


def test_a_notebook_that_skips_its_stage_is_a_failure(copied, tmp_path):
    folder = write_all(tmp_path / "lazy")
    write_notebook(folder / "03_semantic_ids.ipynb", "print('nothing')")
    run = opened(copied)
    shutil.rmtree(copied / "tokenizer")
    with (
        pytest.raises(workers.StageFailed, match="without running its stage, tokenizer"),
        Conductor(run, folder, 0, lambda line: None) as conductor,
    ):
        conductor.conduct(["tokenizer"])
    assert (copied / "error.log").is_file()


def test_a_changed_notebook_runs_again_and_its_failure_ends_the_run(copied, tmp_path, monkeypatch):
    folder = write_all(tmp_path / "changed")
    monkeypatch.setenv("STREAMREC_NOTEBOOKS", str(folder))
    assert again(copied)[0] == "data: done before"
    write_notebook(folder / "02_embeddings.ipynb", OPEN, "raise RuntimeError('no more ink')")
    with pytest.raises(workers.StageFailed, match=r"cell In \[4\]: RuntimeError: no more ink"):
        again(copied)
    assert (copied / "notebooks" / "02_embeddings.failed.ipynb").is_file()
    assert "no more ink" in (copied / "error.log").read_text()


def test_results_are_written_and_then_shown_by_their_notebook(copied, tmp_path, monkeypatch):
    (copied / "results.json").unlink()
    told = again(copied)[-1]
    assert told.startswith("results: done in")  # the same results, which the notebook has shown
    folder = write_all(tmp_path / "other")
    monkeypatch.setenv("STREAMREC_NOTEBOOKS", str(folder))
    write_notebook(folder / "09_results.ipynb", "print('read again')")
    assert again(copied)[-2] == "results: notebook 09_results.ipynb runs"
    assert "read again" in (copied / "notebooks" / "09_results.html").read_text()
    assert again(copied)[-1] == "results: done before"
    assert again(copied, "evaluate.bootstrap=60")[-3].startswith("results: done in")
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
    write_notebook(folder / "04_fast_thinking.ipynb", meet, f"{OPEN}\npipeline.run_tiger(run, seed)")
    run = opened(copied, seeds=(0, 1))
    with Conductor(run, folder, 2, lambda line: None) as conductor:
        conductor.conduct(["tiger"])
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
    write_notebook(folder / "04_fast_thinking.ipynb", wait, f"{OPEN}\npipeline.run_tiger(run, seed)")
    write_notebook(folder / "05_pretraining.ipynb", note, f"{OPEN}\npipeline.run_pretrain(run, seed)")
    run = opened(copied, seeds=(1,))
    with pytest.MonkeyPatch.context() as patch:
        for name in conductor.THREADS:
            patch.delenv(name, raising=False)
        patch.setattr(conductor, "cores", lambda: 6)
        with Conductor(run, folder, 0, lambda line: None, jobs=2) as both:
            both.conduct(["tiger", "pretrain"])
    assert sign.read_text() == "3"
    assert is_done(run, "tiger") and is_done(run, "pretrain")


def test_what_fails_leaves_the_rest_to_be_done(copied, tmp_path):
    """Seed 0 fails in one stage: seed 1 still goes through this one and the next, the results wait."""
    folder = write_all(tmp_path / "torn")
    broken = "if seed == 0:\n    raise RuntimeError('paper jam')"
    write_notebook(folder / "04_fast_thinking.ipynb", broken, f"{OPEN}\npipeline.run_tiger(run, seed)")
    run, told = opened(copied, seeds=(0, 1)), []
    with (
        pytest.raises(workers.StageFailed, match=r"04_fast_thinking.ipynb, cell In \[\d\].*paper jam"),
        Conductor(run, folder, 0, told.append) as conductor,
    ):
        conductor.conduct(["tiger", "pretrain", "results"])
    assert (
        conductor.crew.progress.total == 5
    )  # two seeds of 04, one of 05 and 06, and 09: seed 0 of 05 and 06 was shown before
    assert done(pretrain_dir(run, 1)) and not is_done(run, "results")
    assert next(line for line in told if "FAILED" in line).startswith("TIGER, seed 0: FAILED (1 of")
    assert told[-1] == "results: left out, it needs what failed"
    assert "paper jam" in (copied / "error.log").read_text()


def test_a_baseline_that_fails_stops_no_other_and_no_other_stage(copied, notebooks):
    run, told = opened(copied), []
    for name in ("GRU4Rec", "SASRec"):
        shutil.rmtree(copied / "baselines" / name)
    (copied / "baselines" / "GRU4Rec").mkdir()
    (copied / "baselines" / "GRU4Rec" / "seed-0.part").write_text("in the way")
    (copied / "notebooks" / "05_pretraining-seed-0.html").unlink()
    with (
        pytest.raises(workers.StageFailed, match="GRU4Rec, seed 0: NotADirectoryError"),
        Conductor(run, notebooks, 0, told.append) as conductor,
    ):
        conductor.conduct(["baselines", "pretrain", "results"])
    assert done(copied / "baselines" / "SASRec" / "seed-0")
    assert any(line.startswith("STREAM-Rec-PT, seed 0: done in") for line in told)
    assert told[-1] == "results: left out, it needs what failed"


def test_a_worker_that_dies_has_failed_its_job_and_is_replaced(copied, tmp_path):
    kill = tmp_path / "kill.ipynb"
    write_notebook(kill, "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)")
    told: list[str] = []
    crew = workers.Crew(1, lambda number: workers.Worker(tmp_path), told.append, 2)
    try:
        request = {"source": str(kill), "target": str(tmp_path / "out.ipynb"), "parameters": {}, "hash": "h"}
        crew.waiting = [workers.Job("first", "notebook kill.ipynb", request)]
        crew.waiting.append(
            workers.Job("second", "counting", {"baseline": "counting", "parameters": parameters_of(copied)})
        )
        failed = []
        while crew.open:
            failed += [failure for _, failure in crew.step() if failure]
    finally:
        crew.close()
    assert [str(error) for error in failed] == ["notebook kill.ipynb: its worker process ended with code -9"]
    assert told[-1].startswith("second: done in")


def test_a_worker_that_died_while_idle_is_replaced(copied, tmp_path):
    worker = workers.Worker(tmp_path)
    try:
        worker.process.kill()
        worker.process.wait()
        request = {"baseline": "counting", "parameters": parameters_of(copied)}
        worker.give(workers.Job("again", "counting", request))
        assert worker.answer(120)["ok"]
    finally:
        worker.close()


def test_controls_and_counting_know_what_they_are_made_from(copied):
    run, faster = opened(copied), opened(copied, "tiger.lr=0.002")
    for name, same in (("deep-tiger", False), ("item-tiger", False), ("no-thoughts", True)):
        assert (control_hash(run, name, 0) == control_hash(faster, name, 0)) == same
    shorter = opened(copied, "data.max_history=2")
    assert counting_hash(run, "SequentialRules") != counting_hash(shorter, "SequentialRules")


def test_another_data_set_does_not_replace_a_run_unasked(copied, tmp_path):
    rows = "".join(f"u{u},i{i},{i}\n" for u in range(6) for i in range(6))
    (tmp_path / "shop.csv").write_text("user,item,timestamp\n" + rows)
    (tmp_path / "shop.items.csv").write_text("item,title\n" + "".join(f"i{i},thing {i}\n" for i in range(6)))
    with pytest.raises(BadInput, match="a run of 'playground'"):
        reproduction.reproduce(str(tmp_path / "shop.csv"), "smoke", out=copied)
    assert read_json(copied / "config.json")["dataset"] == "playground" and done(copied / "sft" / "seed-0")


@pytest.mark.parametrize(
    "spec, name",
    [
        ("playground", "playground"),
        ("shops/a.csv", "a"),
        ("amazon-2018:data/sci.v2", "sci.v2"),
        ("amazon-2023:Gift_Cards", "Gift_Cards"),
        ("amazon-2023:Gift_Cards@data/hub", "Gift_Cards"),
    ],
)
def test_a_run_is_named_after_its_data(spec, name):
    assert reproduction.default_out(spec, "lite") == Path("runs") / name


def parameters_of(out: Path) -> dict:
    run = opened(out)
    parameters = {"run_dir": str(run.dir), "dataset": "playground", "preset": "smoke", "seed": 0}
    return parameters | {"overrides": list(run.overrides)}


def test_a_failure_of_a_baseline_is_one_line(copied, monkeypatch):
    from streamrec_lite.running import notebooks as papermill_runner

    def torn(run, name, seed):
        if name == "SASRec":
            raise FloatingPointError("the loss of SASRec is nan")

    monkeypatch.setattr("streamrec_lite.running.baseline_stages.run_neural_model", torn)
    parameters = parameters_of(copied)
    assert papermill_runner.train_baseline("Caser", parameters)["ok"]
    answer = papermill_runner.train_baseline("SASRec", parameters)
    assert answer["kind"] == "failed"
    assert answer["message"] == "SASRec, seed 0: FloatingPointError: the loss of SASRec is nan"


def test_progress_by_hand(monkeypatch):
    times = iter([100.0, 110.0, 130.0])
    monkeypatch.setattr(workers.time, "perf_counter", lambda: next(times))
    progress = workers.Progress(2)
    assert progress.step() == "1 of 2 in 10.0 s, about 10.0 s left at this pace"
    assert progress.step() == "2 of 2 in 30.0 s"


def test_several_data_sets_each_get_a_run(tmp_path, monkeypatch):
    done_for, told = [], []

    def fake(name, preset, out, tell, **options):
        if name == "a.csv":
            raise workers.StageFailed("a.csv is torn")
        done_for.append((name, out))
        return out / "results.json"

    monkeypatch.setattr(reproduction, "reproduce", fake)
    monkeypatch.setattr(reproduction, "check_spec", lambda name: None)
    with pytest.raises(workers.StageFailed, match="torn"):
        reproduction.reproduce_all(["a.csv", "playground"], "smoke", tmp_path, told.append)
    assert done_for == [("playground", tmp_path / "playground-smoke")]
    assert told[:2] == ["a.csv, data set 1 of 2", "a.csv: FAILED: a.csv is torn"]
    bad = BadInput("a.csv", "it has no rows", "add some")

    def refuse(name, *arguments, **options):
        if name == "a.csv":
            raise bad
        return fake(name, *arguments, **options)

    monkeypatch.setattr(reproduction, "reproduce", refuse)
    with pytest.raises(BadInput, match="no rows"):  # exit code 2, and the rest is done all the same
        reproduction.reproduce_all(["a.csv", "playground"], "smoke", tmp_path, told.append)
    assert len(done_for) == 2
    monkeypatch.setattr(reproduction, "reproduce", fake)
    one = reproduction.reproduce_all(["playground"], "smoke", tmp_path / "x", told.append)
    assert one == [tmp_path / "x" / "results.json"]
    with pytest.raises(BadInput, match="own name"):
        reproduction.reproduce_all(["a.csv", "a.csv"])


@pytest.mark.slow
def test_sigkill_at_random_moments_ends_with_the_same_metrics(finished, notebooks, tmp_path):
    """SIGKILL to the parent alone: its worker and kernel must end by themselves, the next call goes on."""
    out = tmp_path / "killed"
    command = [*COMMAND, "reproduce", "--preset", "smoke", "--out", str(out)]
    command += [part for setting in TINY for part in ("--set", setting)]
    chance, kills = random.Random(0), 0
    for _ in range(10):
        process = subprocess.Popen(command, env=environment(notebooks), stdout=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert process.wait(timeout=chance.uniform(1, 12)) == 0
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert subprocess.run(command, env=environment(notebooks), stdout=subprocess.DEVNULL).returncode == 0
    assert kills >= 2
    models, expected = (read_json(p / "results.json")["models"] for p in (out, finished[0]))
    for model, rows in expected.items():
        for split in ("valid", "test"):
            assert models[model]["0"][split] == rows["0"][split]


def test_logs_become_tensorboards(copied, capsys, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # a second export replaces the first
        assert cli.run(["tensorboard", "--run", str(copied)]) == 0
    assert str(copied / "tensorboard") in capsys.readouterr().out
    events = EventAccumulator(str(copied / "tensorboard" / "grpo" / "seed-0"))
    events.Reload()
    seen = {event.step: event.value for event in events.Scalars("valid_N@10")}
    lines = (copied / "grpo" / "seed-0" / "log.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "valid N@10" in row]
    assert [*seen][:2] == [0, 1]  # the guard may end it after the first block
    assert seen == pytest.approx({row["epoch"]: row["valid N@10"] for row in rows}, abs=1e-6)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert cli.run(["tensorboard", "--run", str(copied)]) == 2
    assert "[tensorboard]" in capsys.readouterr().err
    assert cli.run(["tensorboard", "--run", str(copied / "figures")]) == 2


def test_benchmarks_time_a_runs_own_models(finished):
    run = opened(finished[0])
    subject = of_run(finished[0], torch.device("cpu"))
    assert torch.equal(subject.tokenizer.codes, running.run_tokenizer(run).codes)
    assert torch.equal(subject.splits.test.history, running.run_data(run)[1].test.history)
    for name, folder in (("TIGER", "baselines/TIGER"), ("STREAM-Rec-SFT", "sft")):
        mine = subject.trained[name].state_dict()
        kept, _ = read_tensors(finished[0] / folder / "seed-0" / "model.safetensors")
        assert all(torch.equal(mine[key], value) for key, value in kept.items())
    report = bench_thinking(subject)
    assert report["trained"]
    parts = report["ms a user, after 4 thoughts"] / report["ms a user, at once"]
    assert report["ratio"] == pytest.approx(parts)


def test_a_run_that_is_not_fine_tuned_cannot_be_timed(copied):
    shutil.rmtree(copied / "sft")
    with pytest.raises(BadInput, match="no fine-tuned model"):
        of_run(copied, torch.device("cpu"))
