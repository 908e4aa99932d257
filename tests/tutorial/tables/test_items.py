"""The tables behind figures and widgets: hand-made values, and the beam against the real one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from streamrec_lite.common.schemas import Prefixes
from streamrec_lite.config.sections import BackboneConfig, DataConfig
from streamrec_lite.data.dataset import Dataset
from streamrec_lite.data.playground import make_playground
from streamrec_lite.data.sequences import leave_one_out
from streamrec_lite.inference.beam_search import beam_search
from streamrec_lite.model.backbone import Backbone
from streamrec_lite.tokenizer.semantic_ids import SemanticTokenizer
from streamrec_lite.tutorial.tables import items as walkthrough
from streamrec_lite.tutorial.tables import tiger as slow_motion


@pytest.fixture(scope="module")
def shop():
    return make_playground(DataConfig(playground_items=60, playground_users=40))


@pytest.fixture
def tiny():
    """Two levels of two codes; the residuals of all four items are easy to write down."""
    books = [torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])]
    latents = torch.tensor([[4.0, 1.0], [5.0, 0.0], [0.0, 5.0], [0.0, 6.0]])
    raw = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 0]])
    codes = torch.tensor([[0, 0], [0, 1], [1, 1], [1, 0]])  # the repair moved item 2
    return SemanticTokenizer(codes, 2, raw, books, latents)


def frame(categories):
    n = len(categories)
    return pd.DataFrame(
        {"title": [f"item {i}" for i in range(n)], "brand": "b", "categories": categories, "description": ""}
    )


def dataset_of(categories):
    n = len(categories)
    return Dataset("t", ["u"], [str(i) for i in range(n)], [np.arange(n)], frame(categories))


def test_short_keeps_short_titles_and_cuts_long_ones():
    assert walkthrough.short("a  b") == "a b"
    assert walkthrough.short("one two three four", 12) == "one two thr…"
    assert walkthrough.short("x" * 50, 10) == "x" * 9 + "…"
    assert walkthrough.short("") == "(no title)"


def test_categories_take_the_first_level_that_tells_items_apart():
    data = dataset_of(["Shop,A,x", "Shop,A,y", "Shop,B", "Shop,B", "Shop"])
    assert walkthrough.categories(data) == ["A", "A", "B", "B", "other"]
    assert walkthrough.categories(data, most=1) == ["A", "A", "other", "other", "other"]
    assert set(walkthrough.categories(dataset_of(["", "", ""]))) == {"all items"}


def test_history_table_names_the_parts(shop):
    user = walkthrough.typical_user(shop, 8)
    table = walkthrough.history_table(shop, user)
    assert abs(len(table) - 8) == min(abs(len(s) - 8) for s in shop.sequences)
    assert table["part"].tolist() == ["train"] * (len(table) - 2) + ["validation", "test"]
    assert table["item"].iloc[-1] == shop.item_ids[shop.sequences[user][-1]]


def test_padding_shares_are_ordered_and_right_for_the_widest():
    length = torch.tensor([1, 4] * 8)
    history = torch.zeros(16, 4, dtype=torch.int64)
    table = walkthrough.padding_shares(Prefixes(history, length, length, length), 4, seed=0)
    always, shuffled, bucketed = table["padding"]
    assert always == pytest.approx(1 - 40 / 64)
    assert always >= shuffled >= bucketed == 0


def test_similarities_by_hand():
    x = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
    within, between = walkthrough.pair_similarities(x, ["a", "a", "b", "b"], pairs=200)
    assert np.allclose(within, 1) and np.allclose(between, 0)
    table = walkthrough.category_table(x, ["a", "a", "b", "b"])
    assert table["within"].tolist() == [1.0, 1.0] and table["to others"].tolist() == [0.0, 0.0]
    near = walkthrough.nearest_items(dataset_of(["a"] * 4), x, 0, k=2)
    assert near["title"].tolist() == ["item 1", "item 2"]
    assert near["cosine similarity"].tolist() == [1.0, 0.0]


def test_residual_walk_by_hand(tiny):
    walk = walkthrough.residual_walk(tiny, 0)  # z = (4, 1): code 0 leaves (0, 1), code 0 leaves nothing
    assert walk["code"].tolist() == [0, 0] and walk["nearest"].tolist() == [0, 0]
    assert walk["before"].tolist() == pytest.approx([17**0.5, 1.0])
    assert walk["after"].tolist() == pytest.approx([1.0, 0.0])
    assert walk["error"].tolist() == pytest.approx([17**-0.5, 0.0])
    assert walk["items"].tolist() == [2, 1]
    moved = walkthrough.residual_walk(tiny, 2)  # z = (0, 5): the repair chose (1, 0) instead of (0, 1)
    assert moved["nearest"].tolist() == [1, 0] and moved["code"].tolist() == [1, 1]
    assert moved["after"].tolist() == pytest.approx([1.0, 2**0.5])


def test_reconstructions_and_peers(tiny):
    assert walkthrough.reconstructions(tiny, 1).tolist() == [[5, 0], [4, 0], [5, 0]]
    assert walkthrough.prefix_peers(tiny, 3, 1).tolist() == [2]
    assert walkthrough.prefix_peers(tiny, 3, 2).tolist() == []


def test_collisions_and_repairs(tiny):
    table = walkthrough.collision_table({"before": tiny.raw_codes, "after": tiny.codes})
    assert table.loc["before"].tolist() == [4, 3, 2, 2]
    assert table.loc["after"].tolist() == [4, 4, 0, 1]
    repaired = walkthrough.repaired_items(tiny, dataset_of(["a"] * 4))
    assert repaired.to_numpy().tolist() == [["item 2", "1·0", "1·1"]]


def test_usage_tables(tiny):
    table = walkthrough.code_usage(tiny.codes, 2)
    assert table["used"].tolist() == [2, 2] and table["perplexity"].tolist() == pytest.approx([2, 2])
    naive = walkthrough.untrained_usage(tiny, 0)
    assert naive["used"].between(1, 2).all() and naive.equals(walkthrough.untrained_usage(tiny, 0))


def test_beliefs_are_probabilities_and_absent_without_a_world(shop):
    table = walkthrough.project_belief(shop, 3)
    assert table.shape[1] == len(shop.sequences[3]) + 1
    assert np.allclose(table.sum(), 1) and (table.to_numpy() >= -1e-12).all()
    prior = walkthrough.project_belief(shop, 3, most=1000)[0]
    starts = shop.world.initial_slot[shop.world.initial_slot > 0]
    assert np.allclose(np.sort(prior[prior > 1e-12]), np.sort(starts))
    assert walkthrough.project_belief(dataset_of(["a"] * 5), 0) is None


def test_teacher_forcing_shifts_the_labels(tiny):
    history = torch.tensor([[0, 3, -1]])
    example = Prefixes(history, torch.tensor([2]), torch.tensor([2]), torch.tensor([0]))
    encoder, steps = slow_motion.teacher_forcing(tiny, example, 0)
    assert encoder == [["1:0", "2:0"], ["1:1", "2:0"]]
    assert steps["decoder reads"].tolist() == ["BOS", "1:1"]
    assert steps["must predict"].tolist() == ["1:1", "2:1"]
    assert steps["label"].tolist() == tiny.tokens[2].tolist()


def test_trie_shape_and_leaves(tiny):
    table = slow_motion.trie_shape(tiny.trie)
    assert table["nodes"].tolist() == [1, 2, 4]
    assert table["mean children"].tolist() == [2, 2, 0]
    assert sorted(slow_motion.leaves(tiny.trie, 1, 1).tolist()) == [2, 3]


def test_beam_in_slow_motion_ends_where_the_real_beam_does():
    torch.manual_seed(0)
    codes = torch.cartesian_prod(*[torch.arange(4)] * 3)[torch.randperm(64)[:40]]
    ids = SemanticTokenizer.from_codes(codes, 4)
    config = BackboneConfig(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8)
    model = Backbone(config, ids.vocab_size).eval()
    history = torch.tensor([3, 17, 5])
    steps = slow_motion.beam_steps(model, ids, history, beams=10)
    real = beam_search(model, ids.trie, ids.tokens[history].reshape(1, -1), 10, 10)
    assert steps[-1]["example"].head(10).tolist() == real.item[0].tolist()
    assert steps[-1]["score"].head(10).tolist() == pytest.approx(real.score[0].tolist(), abs=1e-4)
    for before, after in pairwise(steps):
        assert after["parent"].max() < before["kept"].sum() <= 10
        parents = before["score"].iloc[after["parent"]].to_numpy()
        assert np.allclose(parents + after["log_prob"], after["score"])
    assert steps[0]["items"].sum() == 40


def test_hits_by_length_counts_every_user_once():
    ranks = torch.tensor([1, 0, 11, 10])
    table = slow_motion.hits_by_length(ranks, torch.tensor([1, 1, 5, 5]), k=10, groups=2)
    assert table["users"].tolist() == [2, 2] and table["R@10"].tolist() == [0.5, 0.5]
    same = slow_motion.hits_by_length(ranks, torch.tensor([3, 3, 3, 3]))
    assert same["users"].tolist() == [4]


def test_results_table_puts_the_oracle_last():
    row = {"test": {"R@5": 0.1, "R@10": 0.2, "N@5": 0.1, "N@10": 0.1}}
    oracle = {"test": {"R@5": 0.4, "R@10": 0.5, "N@5": 0.3, "N@10": 0.4}}
    table = slow_motion.results_table({"Oracle": oracle, "TIGER": row})
    assert table.index.tolist() == ["TIGER", "Oracle"]
    assert table["share of oracle (%)"].tolist() == [25.0, 100.0]
    assert "share of oracle (%)" not in slow_motion.results_table({"TIGER": row})


def test_telling_user_prefers_a_rank_from_two_to_five(shop):
    splits = leave_one_out(shop, 20)

    class Fixed:
        device = torch.device("cpu")

        def topk(self, prefixes, k):
            out = torch.arange(100, 100 + k).repeat(prefixes.n_examples, 1)
            out[0, 0] = prefixes.target[0]  # too easy
            out[4, 2] = prefixes.target[4]  # third: tells most
            return out

    assert slow_motion.telling_user(Fixed(), splits.test) == 4


def test_stacked_names_the_tables():
    a = pd.DataFrame({"x": [1, 2]})
    assert walkthrough.stacked([a, a], "step")["step"].tolist() == [1, 1, 2, 2]
    assert walkthrough.stacked({"m": a}, "model")["model"].tolist() == ["m", "m"]
