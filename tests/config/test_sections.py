"""Settings: presets, dotted overrides, and the refusal of everything unknown."""

from __future__ import annotations

import dataclasses
import json

import pytest

from streamrec_lite.common.errors import BadInput
from streamrec_lite.config.presets import preset
from streamrec_lite.config.settings import PRESETS, Config, fingerprint
from streamrec_lite.config.table import describe


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("dataset", ["playground", "amazon-2018:x"])
def test_presets_survive_json(name, dataset):
    config = preset(name, dataset)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_paper_preset_is_section_3_1_4():
    config = preset("paper", "amazon-2018:x")
    sizes = config.backbone
    assert (sizes.num_layers, sizes.d_model, sizes.d_ff, sizes.num_heads, sizes.d_kv) == (4, 256, 1024, 4, 64)
    assert (config.tokenizer.m, config.tokenizer.K, config.tokenizer.beta) == (4, 256, 0.25)
    assert (config.tiger.patience, config.tiger.lr, config.data.max_history) == (10, 1e-3, 20)


def test_every_setting_has_a_sentence():
    assert all(len(text) > 5 for _, _, text in describe(preset()))


def test_override_by_dotted_name():
    config = preset().override(
        ["tiger.lr=0.5", "tokenizer.hidden=64,32", "embeddings.model=tfidf", "data.k_core=0"]
    )
    assert config.tiger.lr == 0.5
    assert config.tokenizer.hidden == (64, 32)
    assert config.embeddings.model == "tfidf"
    assert dataclasses.replace(config.data, k_core=5) == preset().data
    assert preset().override([]) == preset()


BAD = [
    ("tiger.lr", "KEY=VALUE"),
    ("tiger.lrr=1", "tiger.lr"),  # did you mean
    ("lr=1", "no such setting"),
    ("preset=smoke", "no such setting"),
    ("tiger.lr=fast", "float"),
    ("tiger.lr=nan", "finite"),
    ("tiger.lr=0", "at least"),
    ("tiger.lr=-1", "at least"),
    ("tiger.batch_size=2.5", "int"),
    ("tiger.schedule=linear", "cosine"),
    ("tokenizer.method=vq", "rqvae"),
    ("tokenizer.m=1", "at least 2"),
    ("tokenizer.hidden=a,b", "integers"),
    ("tokenizer.hidden=", "positive"),
    ("tokenizer.hidden=8,0", "positive"),
    ("backbone.dropout=1.0", "at most"),
    ("evaluate.beams=5", "10 beams"),
    ("data.max_history=0", "at least 1"),
]


@pytest.mark.parametrize("other", ["sft.condition_on=annotated", "sft.annotator=random"])
def test_a_lesson_after_own_thoughts_needs_own_thoughts_and_residuals(other):
    preset().override(["sft.learn_thoughts_after=own"])
    with pytest.raises(BadInput, match=other) as caught:
        preset().override(["sft.learn_thoughts_after=own", other])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "word"), BAD)
def test_bad_overrides_are_one_line(text, word):
    with pytest.raises(BadInput, match=word) as caught:
        preset().override([text])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"tigre": {}}, "tiger"),
        ({"tiger": {"epochs": 3}}, "tiger.epochs"),
        ({"tiger": 3}, "mapping"),
        ({"tiger": {"lr": "0.1"}}, "type float"),
        ({"tiger": {"batch_size": True}}, "type int"),
        ({"tokenizer": {"K": 3.0}}, "type int"),
        ({"dataset": 7}, "type str"),
        ({"preset": "large"}, "choices"),
        ({"tokenizer": {"hidden": [1.5]}}, "tuple"),
    ],
)
def test_bad_config_files_are_one_line(change, word):
    with pytest.raises(BadInput, match=word):
        Config.from_dict(change)


def test_unknown_preset_names_the_known():
    with pytest.raises(BadInput, match="lite, paper, smoke"):
        preset("huge")


def test_fingerprint_sees_every_value():
    base = preset().to_dict()
    assert fingerprint(base) == fingerprint(preset().to_dict())
    assert fingerprint(base) != fingerprint(preset().override(["tiger.lr=0.5"]).to_dict())
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
