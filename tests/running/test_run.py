"""A run folder belongs to its settings: others are refused, tried in a branch, or done anew on request."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tiny_notebooks import COMMAND, OPEN, TINY, environment, write_all, write_notebook
from tiny_runs import GROUPS, again, opened

from streamrec_lite import running
from streamrec_lite.cli import app as cli
from streamrec_lite.common.errors import BadInput
from streamrec_lite.common.files import read_json, write_json
from streamrec_lite.common.store import done
from streamrec_lite.config.settings import Config, config_of
from streamrec_lite.running import reproduce

MODELS = ("tiger", "pretrain", "sft", "grpo")
# a setting of each stage, and the finished stages that it would replace
CHANGES = {
    "data.playground_users=61": GROUPS,
    "embeddings.dim=9": ("embeddings", "tokenizer", *MODELS, "results"),
    "tokenizer.K=16": ("tokenizer", *MODELS, "results"),
    "tiger.lr=0.001": ("tiger", "results"),
    "baselines.lr=0.002": ("baselines", "results"),
    "pretrain.max_epochs=2": ("pretrain", "sft", "grpo", "results"),
    "sft.lr=0.002": ("sft", "grpo", "results"),
    "grpo.lr=0.002": ("grpo", "results"),
    "evaluate.bootstrap=60": ("results",),
    "data.max_history=10": ("tiger", "baselines", "pretrain", "sft", "grpo", "results"),
}


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Every file of a run with its time and content, but for locks."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


@pytest.mark.parametrize("setting", CHANGES)
def test_a_changed_setting_touches_no_finished_stage(finished, notebooks, monkeypatch, setting):
    monkeypatch.setenv("STREAMREC_NOTEBOOKS", str(notebooks))
    out, before = finished[0], files(finished[0])
    named = f"these would replace its stages {', '.join(CHANGES[setting])}; try them in a run of their own"
    with pytest.raises(BadInput, match=named):  # from a notebook
        opened(out, setting)
    with pytest.raises(BadInput, match=named):  # from the command line
        again(out, setting)
    assert files(out) == before


def test_every_stage_is_among_the_changes():
    assert {group for groups in CHANGES.values() for group in groups} == set(GROUPS)


def test_a_changed_setting_is_refused_in_one_line(finished, capsys):
    command = ["reproduce", "--preset", "smoke", "--out", str(finished[0])]
    command += [part for setting in (*TINY, "sft.lr=0.002") for part in ("--set", setting)]
    assert cli.run(command) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "stages sft, grpo, results;" in said[0] and "--branch NAME" in said[0]


def test_a_stage_function_refuses_too(copied):
    """Two notebooks open a run before its stage is done: the second does not replace what the first did."""
    (copied / "grpo").rename(copied / "kept")
    shutil.rmtree(copied / "baselines" / "with-rules" / "STREAM-Rec-RL")
    (copied / "results.json").unlink()
    run = opened(copied, "grpo.lr=0.002")
    (copied / "kept").rename(copied / "grpo")
    with pytest.raises(BadInput, match="the stage is finished with other settings"):
        running.run_grpo(run, 0)


def test_a_branch_reuses_what_is_the_same(copied, tmp_path, notebooks):
    """From the command line: only what depends on the setting is trained."""
    before = files(copied)
    command = [*COMMAND, "reproduce", "--preset", "smoke", "--out", str(copied), "--branch", "slower"]
    command += [part for setting in (*TINY, "grpo.lr=0.002") for part in ("--set", setting)]
    done_by = subprocess.run(command, env=environment(notebooks), capture_output=True, text=True, check=False)
    assert done_by.returncode == 0, done_by.stderr
    branch, lines = copied.with_name("tiny@slower"), done_by.stdout.splitlines()
    jobs = [line for line in lines if line.endswith(" runs")]
    assert [line.split(":")[0] for line in jobs] == ["STREAM-Rec-RL, seed 0", "results", "results"]
    assert lines[:8] == [f"{group}: done before" for group in GROUPS[:-2]] + [lines[7]]
    assert files(copied) == before  # the parent is as it was
    for name in ("data", "embeddings", "tokenizer", "baselines/TIGER/seed-0", "baselines/SASRec/seed-0"):
        assert done(branch / name) == done(copied / name) != {}
    for name in ("pretrain/seed-0", "sft/seed-0"):
        assert done(branch / name) == done(copied / name)
        weights = Path(name) / "model.safetensors"
        assert (branch / weights).read_bytes() == (copied / weights).read_bytes()
    assert done(branch / "grpo" / "seed-0")["hash"] != done(copied / "grpo" / "seed-0")["hash"]
    assert (branch / "notebooks" / "07_fine_tuning-seed-0.html").is_file()
    ours, theirs = (read_json(folder / "results.json")["models"] for folder in (branch, copied))
    assert ours["STREAM-Rec-SFT"]["0"]["test"] == theirs["STREAM-Rec-SFT"]["0"]["test"]
    assert read_json(branch / "config.json")["grpo"]["lr"] == 0.002


def test_a_notebook_tries_settings_in_a_branch(copied, monkeypatch):
    trained = []
    real = running.run_tiger
    run = opened(copied, "sft.max_epochs=1", branch="short")
    assert run.dir == copied.with_name("tiny@short")
    for name in ("train_tiger", "train_pretrain"):
        monkeypatch.setattr(f"streamrec_lite.running.model_stages.{name}", lambda *a: trained.append(a))
    row = running.run_sft(run, 0)
    assert trained == [] and row["epochs"] == 1 and Path(row["dir"]) == run.folder("sft", 0)
    assert done(copied / "sft" / "seed-0") and real(opened(copied), 0)["epochs"] == 3
    deeper = running.open_run(run.dir, "playground", "smoke", [*TINY, "sft.max_epochs=1"], branch="next")
    assert deeper.parents == [run.dir, copied]
    assert running.run_sft(deeper, 0)["test"] == row["test"]


@pytest.mark.parametrize("name", ["", " ", "a/b", "..", "@", "a@b", "-x", "x" * 61])
def test_a_branch_needs_a_name(copied, name):
    if name == "":
        assert opened(copied, branch=name).dir == copied
        return
    with pytest.raises(BadInput, match=r"a name has 1 to 60 letters"):
        opened(copied, branch=name)


def test_a_branch_needs_a_run(tmp_path):
    with pytest.raises(BadInput, match="there is no run in"):
        opened(tmp_path / "nowhere", branch="x")
    assert not list(tmp_path.iterdir())


def test_replace_does_just_the_changed_stages_anew(copied):
    before = files(copied)
    told = again(copied, "grpo.lr=0.002", replace=True)
    jobs = [line.split(":")[0] for line in told if line.endswith(" runs")]
    assert jobs == ["STREAM-Rec-RL, seed 0", "results", "results"]
    after = files(copied)
    kept = [
        path for path in before if path.parts[len(copied.parts)] in ("data", "sft", "pretrain", "tokenizer")
    ]
    assert kept and all(after[path] == before[path] for path in kept)
    assert read_json(copied / "config.json")["grpo"]["lr"] == 0.002
    assert again(copied, "grpo.lr=0.002") == [f"{group}: done before" for group in GROUPS]


def test_other_seeds_are_added_and_take_nothing_away(copied, tmp_path, monkeypatch):
    folder = write_all(tmp_path / "nothing-to-train")
    monkeypatch.setenv("STREAMREC_NOTEBOOKS", str(folder))
    before = read_json(copied / "results.json")["models"]["TIGER"]["0"]["test"]
    for stage in ("baselines/TIGER", "pretrain", "sft", "grpo"):  # seed 1, as if it had been trained
        shutil.copytree(copied / stage / "seed-0", copied / stage / "seed-1")
    config = read_json(copied / "config.json")
    write_json(copied / "config.json", {**config, "seeds": [0, 1]})
    assert reproduce._finished_seeds(running.Run(copied, Config.from_dict(config_of(config)))) == [0, 1]
    for stage in ("baselines/TIGER", "pretrain", "sft", "grpo"):
        shutil.rmtree(copied / stage / "seed-1")
    again(copied, only=["tiger"], seeds=[1])
    assert read_json(copied / "config.json")["seeds"] == [0, 1]
    assert read_json(copied / "results.json")["models"]["TIGER"]["0"]["test"] == before


def test_other_data_under_the_same_name_are_refused_and_replaced_on_request(tmp_path, monkeypatch):
    rows = [f"u{u},i{(u + t) % 9},{t}" for u in range(12) for t in range(6)]
    (tmp_path / "shop.csv").write_text("\n".join(["user,item,timestamp", *rows]))
    items = "\n".join(["item,title", *(f"i{i},thing {i}" for i in range(9))])
    (tmp_path / "shop.items.csv").write_text(items)
    folder = write_all(tmp_path / "notebooks")
    write_notebook(folder / "01_data.ipynb", f"{OPEN}\nprint(running.run_data(run)[0].n_items)")
    monkeypatch.setenv("STREAMREC_NOTEBOOKS", str(folder))
    options = {"preset": "smoke", "out": tmp_path / "run", "only": ["data"], "tell": lambda line: None}
    reproduce.reproduce(str(tmp_path / "shop.csv"), **options)
    first = done(tmp_path / "run" / "data")
    (tmp_path / "shop.items.csv").write_text(items.replace("thing", "object"))
    with pytest.raises(BadInput, match="the data have changed since its stages were finished"):
        reproduce.reproduce(str(tmp_path / "shop.csv"), **options)
    assert done(tmp_path / "run" / "data") == first
    reproduce.reproduce(str(tmp_path / "shop.csv"), replace=True, **options)
    assert done(tmp_path / "run" / "data")["fingerprint"] != first["fingerprint"]
