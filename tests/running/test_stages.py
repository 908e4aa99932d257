from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import COUNTING, GROUPS, GUIDED, opened

from streamrec_lite import running
from streamrec_lite.common.errors import BadInput
from streamrec_lite.common.files import read_json
from streamrec_lite.common.store import done
from streamrec_lite.data.specs import input_files
from streamrec_lite.running.scheduler import is_done
from streamrec_lite.tutorial.tables import results as tables


def changed(out: Path, *more: str) -> running.Run:
    """The run as it would be with other settings; nothing is written."""
    run = opened(out)
    return dataclasses.replace(run, config=run.config.override(list(more)))


def test_functions_load_what_is_done(copied):
    run = opened(copied)
    dataset, splits = running.run_data(run)
    assert dataset.n_items == 40 and splits.test.n_examples == dataset.n_users == 60
    vectors, tokenizer = running.run_embeddings(run), running.run_tokenizer(run)
    assert vectors.shape[0] == 40 and vectors.dtype == np.float32 and tokenizer.n_items == 40
    row = running.run_tiger(run, 0)
    assert Path(row["dir"]) == run.folder("tiger", 0) and row["epochs"] == 3
    assert set(running.run_baselines(run)) == {*COUNTING, "Oracle"}
    assert running.run_results(run) == read_json(copied / "results.json")


def test_rows_of_notebook_10_leave_out_what_is_not_done(copied):
    run = opened(copied)
    rows = running.run_workshop(run, 0, train=False)
    assert list(rows) == ["Direct", "ReaRec", "STREAM-Rec-SFT", "Oracle"]  # not as printed
    assert rows["Direct"] == running.run_tiger(run, 0) and rows["STREAM-Rec-SFT"] == running.run_sft(run, 0)
    assert list(running.run_workshop(run, 1, train=False)) == ["Oracle"]  # the same for every seed


def test_a_setting_redoes_what_depends_on_it_and_nothing_else(copied):
    def state(*more):
        return [stage for stage in GROUPS if is_done(changed(copied, *more), stage)]

    assert state() == list(GROUPS)
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
    assert state("grpo.lr=0.002") == list(GROUPS)[:-2]
    assert state("pretrain.similar_pool=9") == ["data", "embeddings", "tokenizer", "tiger", "baselines"]
    assert state("baselines.lr=0.002") == [stage for stage in GROUPS[:-1] if stage != "baselines"]
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
    (run.folder("tiger", 0) / "row.json").unlink()
    run = opened(copied)
    assert not is_done(run, "embeddings") and not is_done(run, "tokenizer") and not is_done(run, "tiger")
    running.run_embeddings(run)
    stamp = (copied / "tokenizer" / "tokenizer.json").stat().st_mtime_ns
    running.run_tokenizer(run)
    assert (copied / "tokenizer" / "tokenizer.json").stat().st_mtime_ns == stamp
    assert (copied / "tokenizer" / "tokenizer.safetensors").read_bytes() == tokenizer_before
    assert running.run_tiger(run, 0)["test"] == before
    assert all(is_done(opened(copied), stage) for stage in GROUPS)


def test_tiger_continues_from_its_last_epoch(copied, monkeypatch):
    from streamrec_lite.training import loop

    run, trained = opened(copied), []
    final = read_json(run.folder("tiger", 0) / "row.json")
    shutil.rmtree(run.folder("tiger", 0))
    original = loop._one_epoch

    def killed_in_the_third(*args):
        trained.append(len(trained))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(loop, "_one_epoch", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        running.run_tiger(run, 0)
    assert (run.folder("tiger", 0).parent / "seed-0.part" / "checkpoint.safetensors").is_file()
    row = running.run_tiger(run, 0)
    assert len(trained) == 4  # epochs 1, 2, the killed one, and that one again
    assert (row["valid"], row["test"], row["epochs"]) == (final["valid"], final["test"], 3)
    assert not list(copied.rglob("checkpoint*"))


def test_several_seeds_give_means_and_deviations(copied):
    run = opened(copied, seeds=(0, 1))
    assert read_json(copied / "config.json")["seeds"] == [0, 1]
    assert run.hash("tiger", 0) != run.hash("tiger", 1)
    with pytest.raises(BadInput, match="with --only baselines"):
        running.run_results(run)
    running.run_neural(run, 1)
    with pytest.raises(BadInput, match="with --only tiger"):
        running.run_results(run)
    assert tables.with_all_seeds(opened(copied)).seeds == (0,)  # the only one that is finished
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
    whole = tables.with_all_seeds(opened(copied))  # and notebook 09 for all
    assert whole.seeds == (0, 1) and running.run_results(whole) == results
    counts = {model: len(rows) for model, rows in tables.read_ranks(whole).items()}
    assert counts["TIGER"] == counts[GUIDED] == 2 and counts["Markov"] == counts["Oracle"] == 1
    assert set(counts) == {*results["models"], "Oracle"}
    assert read_json(copied / "config.json")["seeds"] == [0, 1]  # and the run keeps both


def test_a_grid_chooses_lr_and_dropout_for_every_seed(copied, monkeypatch):
    from streamrec_lite.baselines import neural

    monkeypatch.setattr(neural, "LEARNING_RATES", (0.0001, 0.01))
    monkeypatch.setattr(neural, "DROPOUTS", (0.2,))
    monkeypatch.setattr("streamrec_lite.running.stages.NEURAL", ("GRU4Rec",))
    run = opened(copied, "baselines.tune=grid", seeds=(0, 1), branch="grid")
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
    hashes = run.hash("data"), run.hash("embeddings")
    os.utime(source / "shop.csv", ns=(1, 1))  # touched, the same content: read again, no more
    run = running.open_run(tmp_path / "run", spec, "smoke")
    assert run.hash("data") != hashes[0] and run.hash("embeddings") is None
    running.run_data(run)
    assert run.hash("embeddings") == hashes[1] and run.marker("embeddings")
    (source / "shop.items.csv").write_text(items.replace("thing", "object"))
    run = running.open_run(tmp_path / "run", spec, "smoke")
    with pytest.raises(BadInput, match="the data have changed since its stages were finished"):
        running.run_data(run)
    assert done(tmp_path / "run" / "embeddings") and done(tmp_path / "run" / "data", hashes[0]) == {}


def test_controls_and_counting_know_what_they_are_made_from(copied):
    run, faster = opened(copied), changed(copied, "tiger.lr=0.002")
    for name, same in (("deep-tiger", False), ("item-tiger", False), ("no-thoughts", True)):
        assert (run.hash(name, 0) == faster.hash(name, 0)) == same
    shorter = changed(copied, "data.max_history=2")
    assert run.hash("SequentialRules") != shorter.hash("SequentialRules")
