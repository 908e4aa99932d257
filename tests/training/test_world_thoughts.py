"""Thoughts of the workshop: the true steps, a random number of steps, and pauses."""

import dataclasses

import pytest
import torch

from streamrec_lite.common.errors import BadInput
from streamrec_lite.common.schemas import FIRST_CODE
from streamrec_lite.config.sections import DataConfig
from streamrec_lite.data.sequences import split_examples
from streamrec_lite.data.sources import load_dataset
from streamrec_lite.tokenizer.semantic_ids import SemanticTokenizer
from streamrec_lite.training.world_thoughts import STOP_AFTER, pause_token, world_thoughts


@pytest.fixture(scope="module")
def shop():
    dataset = load_dataset("workshop", DataConfig(workshop_users=2000, workshop_parts=24))
    codes = torch.randperm(40, generator=torch.Generator().manual_seed(0))[: dataset.n_items, None]
    return dataset, SemanticTokenizer.from_codes(codes, 40), split_examples(dataset, 20).train


def test_true_steps_are_the_items_on_the_way(shop):
    dataset, tokenizer, train = shop
    thought, target = world_thoughts("true-steps", dataset, tokenizer, train, 4)
    assert torch.equal(tokenizer.items_of(thought[..., None]), dataset.world.path(train, 4))
    assert torch.equal(target, train.target)


def test_an_item_of_two_codes_takes_two_thoughts(shop):
    dataset, _, train = shop
    number = torch.arange(dataset.n_items)
    tokenizer = SemanticTokenizer.from_codes(torch.stack([number // 8, number % 8], dim=1), 8)
    thought, _ = world_thoughts("true-steps", dataset, tokenizer, train, 4)
    first, second = tokenizer.items_of(thought[:, :2]), tokenizer.items_of(thought[:, 2:])
    assert torch.equal(torch.stack([first, second], dim=1), dataset.world.path(train, 2))


def test_random_steps_follow_the_path_then_stay_and_end_at_their_target(shop):
    dataset, tokenizer, train = shop
    thought, target = world_thoughts("random-steps", dataset, tokenizer, train, 4, seed=3)
    items = tokenizer.items_of(thought[..., None])
    path = dataset.world.path(train, 4, overrun=True)
    # The number of steps that explains a row: the last position that differs from the one before it.
    for row, way in zip(items[:200].tolist(), path[:200].tolist(), strict=True):
        assert any(row == way[: r + 1] + [way[r]] * (3 - r) for r in range(4))
    assert torch.equal(items[:, -1], target)
    stays_at_once = (items[:, :1] == items).all(dim=1).float().mean()
    assert abs(float(stays_at_once) - STOP_AFTER[0]) < 0.08  # 1,640 draws, and paths that come back
    again, _ = world_thoughts("random-steps", dataset, tokenizer, train, 4, seed=3)
    other, _ = world_thoughts("random-steps", dataset, tokenizer, train, 4, seed=4)
    assert torch.equal(thought, again) and not torch.equal(thought, other)


def test_pauses_are_one_code_that_no_item_has(shop):
    dataset, tokenizer, train = shop
    thought, target = world_thoughts("pause", dataset, tokenizer, train, 3)
    assert thought.unique().tolist() == [pause_token(tokenizer)]
    assert (tokenizer.codes[:, 0] != pause_token(tokenizer) - FIRST_CODE).all()
    assert torch.equal(target, train.target)
    full = SemanticTokenizer.from_codes(torch.arange(4)[:, None], 4)
    assert pause_token(full) == FIRST_CODE


def test_other_data_have_no_true_steps(shop):
    dataset, tokenizer, train = shop
    other = dataclasses.replace(dataset, name="mine", world=None)
    with pytest.raises(BadInput, match=r"sft.annotator=true-steps on mine: .*workshop"):
        world_thoughts("true-steps", other, tokenizer, train, 4)


def test_no_thoughts_leave_the_targets_alone(shop):
    dataset, tokenizer, train = shop
    thought, target = world_thoughts("random-steps", dataset, tokenizer, train, 0)
    assert thought.shape == (train.n_examples, 0)
    assert torch.equal(target, train.target)
