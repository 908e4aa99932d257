"""The benchmarks' own arithmetic: what is counted must be counted right."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from streamrec_lite.bench import common, suite
from streamrec_lite.common.errors import BadInput
from streamrec_lite.config.sections import BackboneConfig, DataConfig
from streamrec_lite.data.sources import load_dataset
from streamrec_lite.model.backbone import Backbone


@pytest.mark.parametrize("items", [3, 20])
def test_flops_equal_torchs_own_count(items):
    config = BackboneConfig(d_model=32, d_ff=64, num_layers=2, num_heads=2, d_kv=24, dropout=0.0)
    model = Backbone(config, 200).train()
    tokens, labels = torch.randint(3, 200, (4, items * 4)), torch.randint(3, 200, (4, 4))
    with FlopCounterMode(display=False) as counter:
        model(tokens, labels).sum().backward()
    want = suite.training_flops(config, 200, torch.full((4,), items))
    assert counter.get_total_flops() / 4 == pytest.approx(want, rel=0.02)


def test_random_ids_are_distinct_and_spread():
    codes = common.random_ids(5000)
    assert codes.shape == (5000, 4)
    assert len(codes.unique(dim=0)) == 5000
    assert int(codes.min()) >= 0
    assert int(codes.max()) <= 255
    assert all(len(codes[:, j].unique()) == 256 for j in range(4))
    assert torch.equal(codes, common.random_ids(5000))


def test_text_ids_are_distinct_and_share_prefixes_where_texts_are_alike():
    data = load_dataset("playground", DataConfig(playground_items=300, playground_users=200))
    codes = common.text_ids(data)
    assert codes.shape == (data.n_items, 4)
    assert len(codes.unique(dim=0)) == data.n_items
    kind = data.items["categories"].factorize()[0]
    alike = kind[:, None] == kind
    paired = (codes[:, 0, None] == codes[:, 0]).triu(1).numpy()
    assert paired.sum() > 20
    assert alike[paired].mean() > 2 * alike.mean()


def test_variants_take_turns_after_a_warm_up():
    calls = []

    def variant(name, values):
        def run():
            calls.append(name)
            return values.pop(0)

        return run

    speed = common.take_turns({"a": variant("a", [99, 1, 5, 2]), "b": variant("b", [99, 7, 7, 8])}, 3)
    assert "".join(calls) == "abababab"
    assert speed == {"a": 2, "b": 7}


def test_transformers_twin_has_the_same_weights():
    model = Backbone(
        BackboneConfig(
            d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8, dropout=0.0, recency_embeddings=0
        ),
        50,
    ).eval()
    tokens, labels = torch.randint(3, 50, (2, 8)), torch.randint(3, 50, (2, 4))
    with torch.no_grad():
        theirs = common.as_transformers_t5(model).eval()(input_ids=tokens, labels=labels).logits
        torch.testing.assert_close(model(tokens, labels), theirs, atol=1e-5, rtol=0)


def test_unknown_benchmark():
    with pytest.raises(BadInput, match="beam"):
        suite.main(["beams"])


def test_a_run_brings_its_own_data():
    with pytest.raises(BadInput, match="a run has a data set of its own"):
        suite.main(["beam"], dataset="playground", run="runs/playground")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"config\.json"):
        suite.main(["beam"], run=tmp_path)
