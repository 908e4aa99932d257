"""The workshop's models: true thoughts find combinations that were never seen; what says nothing does not."""

import json

import pytest
import torch

from streamrec_lite.evaluation.rows import accuracy_by_steps
from streamrec_lite.running import open_run
from streamrec_lite.running.results import model_rows
from streamrec_lite.running.stage_table import WORKSHOP_MODELS, records
from streamrec_lite.running.stages import row_of
from streamrec_lite.running.workshop_stages import MORE, PAUSE, RL, SFT, TRUE, workshop_config

SMALL = [
    "data.workshop_users=13000",
    "backbone.d_model=48",
    "backbone.dropout=0.0",
    *(f"{section}.{setting}" for section in ("tiger", "sft") for setting in ("lr=5e-3", "batch_size=64")),
    *(f"{section}.{setting}" for section in ("tiger", "sft") for setting in ("max_epochs=3", "eval_every=3")),
    "tiger.embedding_lr_factor=3.0",
    "sft.embedding_lr_factor=3.0",
    "sft.l=4",
    "evaluate.bootstrap=20",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(tmp_path_factory.mktemp("workshop") / "run", "workshop", "smoke", SMALL)


def held_out(row: dict) -> float:
    """Mean R@1 over errands of two steps and more."""
    found = [accuracy for steps, accuracy in row["by_steps"].items() if int(steps) > 1]
    return sum(found) / len(found)


def test_true_thoughts_find_what_direct_answers_and_pauses_cannot(run):
    true, direct, pause = (row_of(run, name, 0) for name in (TRUE, "tiger", PAUSE))
    assert min(row["by_steps"]["1"] for row in (true, direct, pause)) > 0.8, "one step was seen by all"
    assert held_out(true) > held_out(direct) + 0.25  # measured: 0.50 against 0.1
    assert held_out(true) > held_out(pause) + 0.25
    longer = true["longer"]["l"]
    assert set(longer) == set("0123456")
    assert longer["1"]["3"] < longer["4"]["3"], "three steps do not fit into one thought"
    after = true["channel"]["after"]
    assert after["true"]["N@10"] > after["another"]["N@10"] + 0.2, "its answers read the thoughts"


def test_the_oracle_misses_only_the_noise(run):
    row = row_of(run, "Oracle")
    # a purchase is any of 24 parts with probability 0.05: 0.952 at best; 650 users, standard error 0.008
    assert abs(row["test"]["R@5"] - (0.95 + 0.05 * 5 / 24)) < 0.03
    assert all(abs(accuracy - 0.952) < 0.06 for accuracy in row["by_steps"].values())


def test_only_the_workshop_has_these_models(run):
    assert [stage.name for stage in records("workshop", run.config)] == list(WORKSHOP_MODELS)
    assert set(WORKSHOP_MODELS) <= set(model_rows(run))
    other = open_run(run.dir.with_name("other"), "playground", "smoke")
    assert records("workshop", other.config) == []
    assert not set(WORKSHOP_MODELS) & set(model_rows(other))


def test_reinforcement_and_its_control_differ_in_the_signal_alone(run):
    rl, more = (workshop_config(run.config, name) for name in (RL, MORE))
    assert rl.sft == more.sft == workshop_config(run.config, SFT).sft
    changed = {key for key, value in vars(rl.grpo).items() if value != getattr(more.grpo, key)}
    assert changed == {"match_weight", "target_likelihood_weight"}
    assert rl.grpo.match_weight == 1 and rl.grpo.target_likelihood_weight == 0
    assert more.grpo.match_weight == 0 and more.grpo.target_likelihood_weight == 1


def test_accuracy_by_steps_by_hand(tmp_path):
    steps, ranks = torch.tensor([1, 2, 2, 3, 2]), torch.tensor([1, 1, 0, 2, 1])
    assert accuracy_by_steps(steps, ranks) == {"1": 1.0, "2": 2 / 3, "3": 0.0}
    assert json.loads(json.dumps(accuracy_by_steps(steps, ranks)))
