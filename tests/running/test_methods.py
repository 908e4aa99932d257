"""Both methods in one run: the printed one stands beside ours, and neither touches the other."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from tiny_runs import GROUPS, MIXED, TRAINED, again, opened

from streamrec_lite.cli import app as cli
from streamrec_lite.common.errors import BadInput
from streamrec_lite.common.files import read_json
from streamrec_lite.common.store import done
from streamrec_lite.config.printed import as_printed
from streamrec_lite.running import reproduce
from streamrec_lite.running.stage_table import TABLE, trained_by

PRINTED = [f"{model}, as printed" for model in TRAINED[1:]]


def jobs(told: list[str]) -> list[str]:
    return [line.split(": ")[0] for line in told if line.endswith(" runs")]


def weights(run: Path) -> dict[Path, bytes]:
    """The weights of every model of ours, and of TIGER."""
    return {path: path.read_bytes() for path in run.rglob("model.safetensors") if "printed" not in path.parts}


def test_the_printed_method_is_added_to_a_run_and_leaves_ours_alone(copied, capsys):
    before, ours = weights(copied), read_json(copied / "results.json")["models"]
    told = again(copied, method="printed")
    assert jobs(told) == [*(f"{model}, seed 0" for model in PRINTED), "results", "results"]
    assert weights(copied) == before
    results = read_json(copied / "results.json")
    models = results["models"]
    assert set(models) == {*ours, *PRINTED}
    assert all(models[name] == rows for name, rows in ours.items())
    assert all(models[name]["0"]["test"].keys() == models["TIGER"]["0"]["test"].keys() for name in PRINTED)
    assert set(results["versus_TIGER"]) >= set(PRINTED)
    assert results["command"].count("streamrec reproduce") == 2
    assert results["command"].endswith("--method printed")
    table = (copied / "table2.md").read_text()
    assert all(f"| {name}" in table for name in PRINTED)
    # both methods are finished now: nothing is left to do for either
    assert again(copied, method="printed") == [f"{group}: done before" for group in GROUPS]
    assert again(copied) == [f"{group}: done before" for group in GROUPS]
    history = " ".join(read_json(copied / "data" / "items.json")["item_ids"][:2])
    for model in PRINTED:
        assert cli.run(["recommend", "--run", str(copied), "--history", history, "--model", model]) == 0
    answers = [line for line in capsys.readouterr().out.splitlines() if line.split()[0].isdigit()]
    assert len(answers) == 30
    saved = read_json(copied / "printed" / "sft" / "seed-0" / "model.json")
    assert saved["raw_states"] and not saved["reads_answer_token"] and saved["item_vectors"] is None
    assert saved["backbone"]["softmax"] == "vocabulary" and saved["backbone"]["recency_embeddings"] == 0
    reproduce.clean(opened(copied), fresh=True)
    assert not (copied / "printed").exists()


def test_the_printed_method_alone_has_results_without_ours(copied):
    for name in ("pretrain", "sft", "grpo", "baselines/with-rules", "results.json", "table2.md"):
        path = copied / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    told = again(copied, method="printed")
    assert jobs(told) == [*(f"{model}, seed 0" for model in PRINTED), "results"]  # notebook 09 shows ours
    models = set(read_json(copied / "results.json")["models"])
    assert models.isdisjoint({*TRAINED[1:], *MIXED[1:]}) and models >= {*PRINTED, "TIGER", MIXED[0]}
    assert reproduce._finished_seeds(opened(copied)) == [0]
    assert not (copied / "pretrain").exists()


def test_a_printed_stage_depends_on_the_settings_of_its_own_method(copied):
    run = opened(copied)
    assert trained_by("printed") == ("pretrain-printed", "sft-printed", "grpo-printed")
    for name in trained_by("printed"):
        stage = TABLE[name]
        assert stage.folder.startswith("printed/") and stage.config(run.config) == as_printed(run.config)
        assert run.hash(name, 0) != run.hash(stage.group, 0)

    def with_setting(setting: str):
        return dataclasses.replace(run, config=run.config.override([setting]))

    other = with_setting("sft.align_weight=0.02")  # a weight that only ours has
    assert run.hash("sft", 0) != other.hash("sft", 0)
    assert run.hash("sft-printed", 0) == other.hash("sft-printed", 0)
    assert run.hash("sft-printed", 0) != with_setting("sft.max_epochs=3").hash("sft-printed", 0)


def test_an_unknown_method_is_refused(copied):
    with pytest.raises(BadInput, match="--method print: no such method; did you mean 'printed'"):
        again(copied, method="print")
    assert not done(copied / "printed" / "pretrain" / "seed-0")
