"""StreamRec: from item ids to item ids, and one clear line where that cannot be."""

from __future__ import annotations

import json

import pytest
import torch

from streamrec_lite.common.errors import BadInput
from streamrec_lite.common.files import write_json, write_tensors
from streamrec_lite.common.schemas import PAD, Prefixes
from streamrec_lite.config.presets import preset
from streamrec_lite.config.sections import BackboneConfig
from streamrec_lite.inference.recommender import StreamRec
from streamrec_lite.model.backbone import Backbone
from streamrec_lite.model.sequences import history_tokens
from streamrec_lite.tokenizer.semantic_ids import SemanticTokenizer

IDS = [f"item-{i}" for i in range(30)]


@pytest.fixture()
def recommender():
    torch.manual_seed(0)
    codes = torch.tensor([[i // 9, i // 3 % 3, i % 3] for i in range(30)])
    tokenizer = SemanticTokenizer.from_codes(codes, 4)
    model = Backbone(
        BackboneConfig(d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8), tokenizer.vocab_size
    )
    return StreamRec(model, tokenizer, item_ids=IDS, titles=[i.upper() for i in IDS], max_history=3)


def test_history_tokens_by_hand():
    table = torch.tensor([[3, 7], [4, 8], [PAD, PAD]])
    history = torch.tensor([[0, 1], [1, -1]])
    assert history_tokens(table, history).tolist() == [[3, 7, 4, 8], [4, 8, PAD, PAD]]


def test_recommend_equals_topk(recommender):
    answer = recommender.recommend([["item-3"], ["item-4", "item-5"]], k=5)
    history = torch.tensor([[3, -1], [4, 5]])
    items = recommender.topk(Prefixes(history, torch.tensor([1, 2]), history[:, 0], history[:, 0]), 5)
    assert answer.items == [[IDS[i] for i in row] for row in items.tolist()]
    assert answer.titles[0][0] == answer.items[0][0].upper()
    assert answer.codes[0][0] == tuple(recommender.tokenizer.codes[items[0, 0]].tolist())
    assert answer.scores[0] == sorted(answer.scores[0], reverse=True)
    assert all(score < 0 for score in answer.scores[0])
    assert answer.thoughts is None


def test_only_the_newest_items_are_read(recommender):
    long = ["item-9", "item-1", "item-2", "item-3"]
    assert recommender.recommend([long], 5) == recommender.recommend([long[1:]], 5)


def test_more_answers_than_beams_widens_the_beam(recommender):
    assert len(set(recommender.recommend([["item-1"]], k=30).items[0])) == 30


def test_new_items_only_leaves_the_whole_history_out(recommender):
    long = ["item-9", "item-1", "item-2", "item-3", "item-3"]  # the model reads the newest three
    every = recommender.recommend([long, ["item-9"]], k=30)
    new = recommender.recommend([long, ["item-9"]], k=30, repeat=False)
    assert new.items[0] == [item for item in every.items[0] if item not in long]
    assert new.items[1] == [item for item in every.items[1] if item != "item-9"]
    assert len(recommender.recommend([long], k=10, repeat=False).items[0]) == 10
    assert recommender.recommend([long, ["item-9"]], k=30, repeat=True) == every


def test_by_default_as_the_users_of_the_data_do(recommender):
    assert recommender.repeats_by_default  # nothing is known
    for share, repeats in ((0.0, False), (0.0099, False), (0.01, True), (0.3, True)):
        recommender.repeat_share = share
        assert recommender.repeats_by_default is repeats
        assert ("item-1" in recommender.recommend([["item-1"]], k=30).items[0]) is repeats


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"histories": [[]]}, "at least one item"),
        ({"histories": [["nobody"]]}, "catalogue"),
        ({"histories": [["item-1"]], "k": 0}, "between"),
        ({"histories": [["item-1"]], "k": 31}, "between"),
        ({"histories": [["item-1"]], "n_thoughts": 0}, "n_thoughts"),
        ({"histories": [["item-1"]], "think": "deeply"}, "greedy"),
        ({"histories": [["item-1"]], "think": "greedy"}, "think=none"),
    ],
)
def test_bad_input(recommender, arguments, word):
    with pytest.raises(BadInput, match=word) as caught:
        recommender.recommend(**arguments)
    assert "\n" not in str(caught.value)


def test_load_from_a_run_folder(recommender, tmp_path):
    config = preset("smoke").override(["data.max_history=3"])
    write_json(tmp_path / "config.json", config.to_dict())
    write_json(tmp_path / "data" / "items.json", {"item_ids": IDS, "titles": IDS})
    recommender.tokenizer.save(tmp_path / "tokenizer")
    recommender.model.save(tmp_path / "baselines" / "TIGER" / "seed-0")
    loaded = StreamRec.load(tmp_path)
    assert loaded.recommend([["item-7"]]).items == recommender.recommend([["item-7"]]).items
    assert loaded.repeat_share is None
    # training targets: 2, 1 (a repeat) and 4
    tensors = {"items": torch.tensor([1, 2, 1, 3, 4, 3, 4, 1, 2]), "lengths": torch.tensor([5, 4])}
    write_tensors(tmp_path / "data" / "interactions.safetensors", tensors)
    assert StreamRec.load(tmp_path).repeat_share == pytest.approx(1 / 3)
    with pytest.raises(BadInput, match="STREAM-Rec-PT"):
        StreamRec.load(tmp_path, model="STREAM-Rec")
    with pytest.raises(BadInput, match=r"TIGER seed-0"):  # the remedy names what is there
        StreamRec.load(tmp_path, seed=4)
    sizes = json.loads((tmp_path / "baselines/TIGER/seed-0/model.json").read_text())
    other = Backbone(BackboneConfig(**sizes["backbone"]), 99)
    other.save(tmp_path / "baselines" / "TIGER" / "seed-1")
    with pytest.raises(BadInput, match="99 tokens"):
        StreamRec.load(tmp_path, seed=1)


def test_a_model_with_thoughts_loads_thinking(tmp_path):
    config = preset("smoke").override(["data.max_history=3", "pretrain.n_similar=2"])
    write_json(tmp_path / "config.json", config.to_dict())
    write_json(tmp_path / "data" / "items.json", {"item_ids": IDS, "titles": IDS})
    codes = torch.tensor([[i // 9, i // 3 % 3, i % 3] for i in range(30)])
    tokenizer = SemanticTokenizer.from_codes(codes, 4)
    tokenizer.save(tmp_path / "tokenizer")
    sizes = BackboneConfig(d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8)
    torch.manual_seed(0)
    Backbone(sizes, tokenizer.vocab_size, ("direct", "thinking")).save(tmp_path / "pretrain" / "seed-0")
    model = StreamRec.load(tmp_path, model="STREAM-Rec-PT")
    slow = model.recommend([["item-7"], ["item-1", "item-2"]], k=5)
    assert slow.thoughts.token.shape == (2, 1, 6)  # greedy: two similar items of three codes
    with pytest.raises(BadInput, match="no histories"):
        model.recommend([])
    model.w = 0.5
    with pytest.raises(BadInput, match="state-guided"):
        model.recommend([["item-7"]], k=5, think="none")
    model.w = 0.0
    several = model.recommend([["item-7"]], k=5, think="beam", n_thoughts=4)
    assert several.thoughts.token.shape == (1, 4, 6)
    assert model.recommend([["item-7"]], k=5, think="none").thoughts is None
    history = torch.tensor([[7]])
    assert [IDS[i] for i in model.answer(history, 5)[0].item[0].tolist()] == slow.items[0]
