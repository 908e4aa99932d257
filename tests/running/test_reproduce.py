from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from tiny_notebooks import COMMAND, TINY, environment
from tiny_runs import BOTH, COUNTING, GROUPS, MIXED, NEURAL, TRAINED, again, opened

from streamrec_lite import running
from streamrec_lite.bench.common import of_run
from streamrec_lite.bench.thinking import bench_thinking
from streamrec_lite.cli import app as cli
from streamrec_lite.common.errors import BadInput
from streamrec_lite.common.files import read_json, read_tensors
from streamrec_lite.common.store import done
from streamrec_lite.running import reproduce
from streamrec_lite.running.scheduler import is_done

METRICS = {"R@5", "R@10", "N@5", "N@10"}


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
        for split in ("valid", "test", "test_new"):
            assert set(rows["0"][split]) == METRICS
            assert all(0 <= value <= 1 for value in rows["0"][split].values())
    counted = {row["users_new"] for rows in results["models"].values() for row in rows.values()}
    assert counted == {results["test_users"]["test_new"]} and results["test_users"]["test"] == 60
    assert (
        set(results["oracle"]) == {"valid", "test", "test_new"} and set(results["oracle"]["test"]) == METRICS
    )
    assert results["tokenizer"]["collisions_after"] == 0
    assert set(results["models"]["STREAM-Rec-PT"]["0"]["direct"]["test"]) == METRICS
    row = results["models"]["STREAM-Rec-SFT"]["0"]
    assert row["l"] == 2 and set(row["question"]["l"]) == {"0", "1", "2", "4", "6", "8"}
    assert set(row["question"]["n"]) == {"1", "4", "16"} and row["question"]["users"] == 60
    usual = row["question"]["l"]["2"]["N@10"]  # the same users after the same thoughts
    assert row["channel"]["users"] == 60 and row["channel"]["after"]["own"]["N@10"] == usual
    assert set(row["channel"]["after"]) == {"none", "own", "another", "random", "annotated"}
    reinforced = results["models"]["STREAM-Rec-RL"]["0"]["channel"]
    assert set(reinforced["after"]) == set(row["channel"]["after"])
    best = max(value["N@10"] for name, value in row["weights"].items() if name != "state")
    assert row["weights"][str(row["w"])]["N@10"] == best
    for model in (*COUNTING, *NEURAL, *TRAINED[1:], *BOTH, *MIXED):
        row, tiger = results["models"][model]["0"]["test"], results["models"]["TIGER"]["0"]["test"]
        versus = results["versus_TIGER"][model]["N@10"]
        assert versus["mean_difference"] == pytest.approx(row["N@10"] - tiger["N@10"], abs=1e-12)
        assert versus["low"] <= versus["mean_difference"] <= versus["high"]
        row, tiger = (results["models"][name]["0"]["test_new"]["N@10"] for name in (model, "TIGER"))
        versus = results["versus_TIGER_new"][model]["N@10"]
        assert versus["mean_difference"] == pytest.approx(row - tiger, abs=1e-12)


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
    lines = process.stdout.splitlines()[: len(GROUPS)]
    assert lines == [f"{stage}: done before" for stage in GROUPS]
    after = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != "config.json"}
    assert after == before


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
    history = names["item_ids"][:2]
    for model in ("TIGER", "STREAM-Rec-SFT"):
        assert cli.run([*asked, "--model", model, "--no-repeat", "-k", "30"]) == 0
        first, *answers = capsys.readouterr().out.splitlines()
        assert first == "new items only, none of the history (as asked)" and len(answers) == 30
        assert not {line.split()[2] for line in answers} & set(history)
    assert cli.run(asked) == 0
    assert "(share of repeats in training: " in capsys.readouterr().out.splitlines()[0]
    assert cli.run([*asked, "--model", "STREAM-Rec-PT", "--guided"]) == 2
    assert "name STREAM-Rec-SFT" in capsys.readouterr().err
    assert cli.run([*asked, "--model", "STREAM-Rec-RL"]) == 0
    assert cli.run([*asked, "--model", "STREAM-Rec-DPO"]) == 2
    assert "STREAM-Rec-PT" in capsys.readouterr().err


def test_fresh_discards_known_names_only(copied):
    (copied / "my-notes.txt").write_text("keep me")
    (copied / "baselines" / "Mine").mkdir()
    reproduce.clean(opened(copied), fresh=True)
    left = {p.name for p in copied.iterdir() if not p.name.startswith(".")}
    assert left == {"config.json", "my-notes.txt"}
    assert not any(is_done(opened(copied), stage) for stage in GROUPS)


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
        reproduce.reproduce(str(tmp_path / "bad.csv"), "smoke", out=tmp_path / "run")
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
        reproduce.reproduce(**{"preset": "smoke", "out": tmp_path / "run", **options})
    assert not (tmp_path / "run").exists()


def test_another_data_set_does_not_replace_a_run_unasked(copied, tmp_path):
    rows = "".join(f"u{u},i{i},{i}\n" for u in range(6) for i in range(6))
    (tmp_path / "shop.csv").write_text("user,item,timestamp\n" + rows)
    (tmp_path / "shop.items.csv").write_text("item,title\n" + "".join(f"i{i},thing {i}\n" for i in range(6)))
    with pytest.raises(BadInput, match="a run of 'playground'"):
        reproduce.reproduce(str(tmp_path / "shop.csv"), "smoke", out=copied)
    assert read_json(copied / "config.json")["dataset"] == "playground" and done(copied / "sft" / "seed-0")


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
