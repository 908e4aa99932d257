"""The command line on bad input: exit code 2, one clear line, no traceback, nothing half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bad_data import JSON, SPECS, TABLES

from streamrec_lite.cli import app as cli
from streamrec_lite.common.files import write_json
from streamrec_lite.config.presets import preset
from streamrec_lite.config.sections import BackboneConfig
from streamrec_lite.model.backbone import Backbone
from streamrec_lite.tokenizer.semantic_ids import SemanticTokenizer

FILES = {**TABLES, **{f"JSON {name}": case for name, case in JSON.items()}}


def refuse(capsys, arguments: list[str], *words: str) -> None:
    """Run the command; it must refuse with one line that holds ``words``."""
    assert cli.run(arguments) == 2
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("streamrec: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("name", FILES)
def test_malformed_data_sets(tmp_path, capsys, name):
    spec = FILES[name][0](tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    out = tmp_path / "run"
    refuse(
        capsys,
        ["reproduce", "--dataset", spec, "--preset", "smoke", "--out", str(out), "--set", "data.k_core=0"],
    )
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("spec", [s for s in SPECS if "\0" not in s])
def test_unknown_data_sets(tmp_path, capsys, spec):
    refuse(capsys, ["reproduce", "--dataset", spec, "--preset", "smoke", "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


OPTIONS = {
    "unknown command": (["reprodce"], ["reprodce"]),
    "unknown option": (["reproduce", "--sed", "1"], ["--sed"]),
    "preset": (["reproduce", "--preset", "tiny"], ["tiny", "lite"]),
    "seed is a word": (["reproduce", "--seed", "one"], ["one"]),
    "seed is negative": (["reproduce", "--seed", "-1"], ["-1", "0 to"]),
    "seed twice": (["reproduce", "--seed", "1", "--seed", "1"], ["each once"]),
    "stage": (["reproduce", "--only", "tokeniser"], ["tokeniser", "tokenizer"]),
    "engine": (["reproduce", "--engine", "spark"], ["spark", "local"]),
    "engine not there yet": (["reproduce", "--engine", "ray"], ["--engine local"]),
    "gpus negative": (["reproduce", "--gpus", "-1"], ["-1"]),
    "gpus too many": (["reproduce", "--gpus", "999"], ["999", "this machine has"]),
    "set without value": (["reproduce", "--set", "tiger.lr"], ["KEY=VALUE"]),
    "set unknown": (["reproduce", "--set", "tiger.rate=1"], ["tiger.rate"]),
    "set not a number": (["reproduce", "--set", "tiger.lr=quick"], ["quick"]),
    "set out of range": (["reproduce", "--set", "backbone.dropout=2"], ["at most"]),
    "recommend without a run": (["recommend", "--history", "1"], ["--run"]),
    "bench": (["bench", "speed"], ["speed", "beam"]),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_bad_options(tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    arguments, words = OPTIONS[name]
    refuse(capsys, arguments, *words)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_run_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    refuse(capsys, ["reproduce", "--out", str(tmp_path), "--fresh", "--preset", "smoke"], "holds no run")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_out_is_a_file(tmp_path, capsys):
    (tmp_path / "run").write_text("x")
    refuse(capsys, ["reproduce", "--out", str(tmp_path / "run"), "--preset", "smoke"], "a run is a folder")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run folder with what `recommend` reads."""
    run = tmp_path_factory.mktemp("trained") / "run"
    ids = [f"i{n}" for n in range(12)]
    tokenizer = SemanticTokenizer.from_codes(torch.tensor([[n // 4, n % 4, 0] for n in range(12)]), 4)
    sizes = BackboneConfig(d_model=8, d_ff=8, num_layers=1, num_heads=1, d_kv=8)
    versions = {"versions": {"streamrec_lite": "0"}, "seeds": [0]}
    write_json(run / "config.json", {**preset("smoke").to_dict(), **versions})
    write_json(run / "data" / "items.json", {"item_ids": ids, "titles": ids})
    tokenizer.save(run / "tokenizer")
    Backbone(sizes, tokenizer.vocab_size).save(run / "baselines" / "TIGER" / "seed-0")
    return run


def edit(name: str, change):
    def damage(run: Path):
        path = run / name
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return damage


def cut(name: str, size: int):
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:size])


def gone(name: str):
    return lambda run: (run / name).unlink()


def folder(name: str):
    return lambda run: ((run / name).unlink(), (run / name).mkdir())


MODEL, IDS = "baselines/TIGER/seed-0/model", "tokenizer/tokenizer"
ROW = "baselines/TIGER/seed-0/row.json"
CHECKPOINTS = {
    "no such run": (lambda run: shutil.rmtree(run), "not a run"),
    "config cut short": (cut("config.json", 50), "config.json"),
    "config is a list": (lambda run: write_json(run / "config.json", []), "config.json"),
    "config with another type": (edit("config.json", lambda v: v.update(evaluate=3)), "evaluate"),
    "no items": (gone("data/items.json"), "items.json"),
    "no titles": (edit("data/items.json", lambda v: v.pop("titles")), "titles"),
    "fewer names": (edit("data/items.json", lambda v: v["item_ids"].pop()), "12 items"),
    "names in a folder": (folder("data/items.json"), "folder"),
    "row is a list": (lambda run: write_json(run / ROW, []), "row.json"),
    "other IDs": (lambda run: write_json(run / ROW, {"ids": "x"}), "other semantic"),
    "negative width": (edit(f"{MODEL}.json", lambda v: v["backbone"].update(d_model=-5)), "model.json"),
    "half of the vectors' sizes": (
        edit(f"{MODEL}.json", lambda v: v.update(item_vectors=[600])),
        "model.json",
    ),
    "model gone": (gone(f"{MODEL}.json"), "no trained model"),
    "weights gone": (gone(f"{MODEL}.safetensors"), "model.safetensors"),
    "weights cut short": (cut(f"{MODEL}.safetensors", 500), "safetensors"),
    "weights empty": (cut(f"{MODEL}.safetensors", 0), "safetensors"),
    "weights pickled": (lambda run: torch.save({}, run / f"{MODEL}.safetensors"), "safetensors"),
    "wrong width": (edit(f"{MODEL}.json", lambda v: v["backbone"].update(d_ff=16)), "shape"),
    "more layers": (edit(f"{MODEL}.json", lambda v: v["backbone"].update(num_layers=2)), "missing"),
    "unknown size": (edit(f"{MODEL}.json", lambda v: v["backbone"].update(width=2)), "model.json"),
    "no sizes": (edit(f"{MODEL}.json", lambda v: v.pop("backbone")), "model.json"),
    "unknown decoder": (edit(f"{MODEL}.json", lambda v: v.update(decoders=["slow"])), "slow"),
    "another vocabulary": (edit(f"{MODEL}.json", lambda v: v.update(vocab_size=99)), "shape"),
    "IDs gone": (gone(f"{IDS}.safetensors"), "tokenizer.safetensors"),
    "IDs cut short": (cut(f"{IDS}.safetensors", 100), "safetensors"),
    "fewer items": (edit(f"{IDS}.json", lambda v: v.update(items=11)), "shape"),
    "fewer codes": (edit(f"{IDS}.json", lambda v: v.update(K=2)), "0..1"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_damaged_runs(trained, tmp_path, capsys, name):
    damage, word = CHECKPOINTS[name]
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    damage(run)
    refuse(capsys, ["recommend", "--run", str(run), "--history", "i1 i2", "-k", "3"], word)


QUESTIONS = {
    "empty history": (["--history", " "], "at least one item"),
    "unknown item": (["--history", "i1 i99"], "i99"),
    "an id with a space": (["--history", 'i1 "i 9"'], "item 'i 9'"),
    "an open quote": (["--history", 'i1 "i9'], "not closed"),
    "no answers": (["--history", "i1", "-k", "0"], "k=0"),
    "too many answers": (["--history", "i1", "-k", "13"], "k=13"),
    "unknown thinking": (["--history", "i1", "--think", "hard"], "hard"),
    "no thoughts here": (["--history", "i1", "--think", "beam"], "think=none"),
    "unknown model": (["--history", "i1", "--model", "SASRec"], "SASRec"),
    "unknown seed": (["--history", "i1", "--seed", "3"], "seed-3"),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_bad_questions(trained, capsys, name):
    arguments, word = QUESTIONS[name]
    refuse(capsys, ["recommend", "--run", str(trained), *arguments], word)


def test_a_good_question_is_answered(trained, capsys):
    assert cli.run(["recommend", "--run", str(trained), "--history", "i1 i2", "-k", "3", "--explain"]) == 0
    assert "i1" in capsys.readouterr().out


def test_the_real_command_too(tmp_path):
    command = [
        sys.executable,
        "-m",
        "streamrec_lite.cli.app",
        "reproduce",
        "--dataset",
        str(tmp_path / "no.csv"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
