"""One model asked in many ways, and the controls' settings: equal updates, equal compute."""

from __future__ import annotations

import torch
from tiny_world import SIZES, small_world

from streamrec_lite.config.presets import preset
from streamrec_lite.evaluation.evaluate import evaluate
from streamrec_lite.inference.recommender import StreamRec
from streamrec_lite.inference.thinking_study import (
    THOUGHT_COUNTS,
    WithOptions,
    compare_ways_to_think,
    control_config,
)
from streamrec_lite.model.backbone import Backbone
from streamrec_lite.running.stage_table import CONTROLS


def test_the_usual_way_differs_from_itself_by_nothing():
    model, tokenizer, users = small_world()
    slow = StreamRec(model, tokenizer, l=4, think="greedy")
    table = compare_ways_to_think(slow, users, bootstrap=50)
    assert (
        table["users"] == 6
        and set(table["l"]) == set(map(str, THOUGHT_COUNTS))
        and list(table["n"]) == ["1", "4", "16"]
    )
    assert table["l"]["4"]["minus usual"] == {"mean_difference": 0.0, "low": 0.0, "high": 0.0}
    assert table["n"]["1"]["N@10"] == table["l"]["4"]["N@10"]  # a beam of one thought is greedy
    want = evaluate(StreamRec(model, tokenizer, l=2, think="greedy"), users).metrics
    assert {name: table["l"]["2"][name] for name in want} == want
    assert slow.l == 4


def test_asking_in_another_way_leaves_the_model_as_it_was():
    model, tokenizer, users = small_world()
    slow = StreamRec(model, tokenizer, l=3, think="greedy")
    asked = WithOptions(slow, 1, think="beam", n_thoughts=2)
    want = slow.answer(users.history, 5)[0].item
    assert not torch.equal(asked.topk(users, 5), want) or slow.l == 3
    assert torch.equal(slow.topk(users, 5), want)


def test_a_model_without_thoughts_is_asked_by_l_alone():
    model, tokenizer, users = small_world()
    table = compare_ways_to_think(StreamRec(model, tokenizer, l=0, think="greedy"), users, bootstrap=50)
    assert table["n"] == {}


def test_controls_have_the_thinking_models_updates_and_steps():
    config = preset("lite", "amazon-2018:somewhere")
    deep = control_config(config, "deep-tiger")
    assert deep.tiger.max_epochs == config.pretrain.max_epochs + config.sft.max_epochs
    assert deep.backbone.decoder_layers == 4  # 2 layers, 4 steps -> 4 thoughts, ANSWER and 4 codes: 2 * 9 / 4
    items = control_config(config, "item-tiger")
    assert items.tiger.max_epochs == deep.tiger.max_epochs and items.backbone == config.backbone
    assert control_config(config, "no-thoughts").sft.l == 0
    assert control_config(config, "random-thoughts").sft.annotator == "random"
    corrected = config.override(["sft.learn_thoughts_after=own"])
    assert control_config(corrected, "random-thoughts").sft.learn_thoughts_after == "annotated"
    assert len(CONTROLS) == 4


def test_a_deeper_decoder_leaves_the_encoder_as_it_is():
    import dataclasses

    model = Backbone(dataclasses.replace(SIZES, decoder_layers=3), 21)
    assert len(model.encoder.block) == 2 and len(model.decoders["direct"].block) == 3
