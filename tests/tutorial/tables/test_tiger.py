"""Tables of fast thinking: hand-made values, and the beam against the real one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from streamrec_lite.common.schemas import Prefixes
from streamrec_lite.config.sections import BackboneConfig
from streamrec_lite.data.sequences import leave_one_out
from streamrec_lite.inference.beam_search import beam_search
from streamrec_lite.model.backbone import Backbone
from streamrec_lite.tokenizer.semantic_ids import SemanticTokenizer
from streamrec_lite.tutorial.tables import tiger as tables


def test_teacher_forcing_shifts_the_labels(tiny):
    history = torch.tensor([[0, 3, -1]])
    example = Prefixes(history, torch.tensor([2]), torch.tensor([2]), torch.tensor([0]))
    encoder, steps = tables.teacher_forcing_example(tiny, example, 0)
    assert encoder == [["1:0", "2:0"], ["1:1", "2:0"]]
    assert steps["decoder reads"].tolist() == ["BOS", "1:1"]
    assert steps["must predict"].tolist() == ["1:1", "2:1"]
    assert steps["label"].tolist() == tiny.tokens[2].tolist()


def test_trie_table_and_items_below_a_node(tiny):
    table = tables.trie_table(tiny.trie)
    assert table["nodes"].tolist() == [1, 2, 4]
    assert table["mean children"].tolist() == [2, 2, 0]
    assert sorted(tables.items_below(tiny.trie, 1, 1).tolist()) == [2, 3]


def test_beam_steps_end_with_the_items_of_the_beam_search():
    torch.manual_seed(0)
    codes = torch.cartesian_prod(*[torch.arange(4)] * 3)[torch.randperm(64)[:40]]
    ids = SemanticTokenizer.from_codes(codes, 4)
    config = BackboneConfig(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8)
    model = Backbone(config, ids.vocab_size).eval()
    history = torch.tensor([3, 17, 5])
    steps = tables.beam_steps(model, ids, history, beams=10)
    real = beam_search(model, ids.trie, ids.tokens[history].reshape(1, -1), 10, 10)
    assert steps[-1]["example"].head(10).tolist() == real.item[0].tolist()
    assert steps[-1]["score"].head(10).tolist() == pytest.approx(real.score[0].tolist(), abs=1e-4)
    for before, after in pairwise(steps):
        assert after["parent"].max() < before["kept"].sum() <= 10
        parents = before["score"].iloc[after["parent"]].to_numpy()
        assert np.allclose(parents + after["log_prob"], after["score"])
    assert steps[0]["items"].sum() == 40


def test_recall_by_length_counts_every_user_once():
    ranks = torch.tensor([1, 0, 11, 10])
    table = tables.recall_by_length(ranks, torch.tensor([1, 1, 5, 5]), k=10, groups=2)
    assert table["users"].tolist() == [2, 2] and table["R@10"].tolist() == [0.5, 0.5]
    same = tables.recall_by_length(ranks, torch.tensor([3, 3, 3, 3]))
    assert same["users"].tolist() == [4]


def test_metrics_table_puts_the_oracle_last():
    row = {"test": {"R@5": 0.1, "R@10": 0.2, "N@5": 0.1, "N@10": 0.1}}
    row["test_new"] = {"R@5": 0.2, "R@10": 0.3, "N@5": 0.2, "N@10": 0.15}
    oracle = {"test": {"R@5": 0.4, "R@10": 0.5, "N@5": 0.3, "N@10": 0.4}}
    oracle["test_new"] = oracle["test"]
    table = tables.metrics_table({"Oracle": oracle, "TIGER": row})
    assert table.index.tolist() == ["TIGER", "Oracle"]
    assert table["share of oracle (%)"].tolist() == [25.0, 100.0]
    assert table["new N@10"].tolist() == [0.15, 0.4] and table["new R@10"].tolist() == [0.3, 0.5]
    assert "share of oracle (%)" not in tables.metrics_table({"TIGER": row})


def test_illustrative_example_prefers_a_rank_from_two_to_five(shop):
    splits = leave_one_out(shop, 20)

    class Fixed:
        device = torch.device("cpu")

        def topk(self, prefixes, k):
            out = torch.arange(100, 100 + k).repeat(prefixes.n_examples, 1)
            out[0, 0] = prefixes.target[0]  # rank 1
            out[4, 2] = prefixes.target[4]  # rank 3
            return out

    assert tables.illustrative_example(Fixed(), splits.test) == 4
