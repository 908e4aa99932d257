"""The presets: they survive a config.json, and ``paper`` has the paper's sizes."""

from __future__ import annotations

import json

import pytest

from streamrec_lite.common.errors import BadInput
from streamrec_lite.config.presets import preset
from streamrec_lite.config.settings import PRESETS, Config


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


def test_unknown_preset_names_the_known():
    with pytest.raises(BadInput, match="lite, paper, smoke"):
        preset("huge")


def test_a_data_set_that_is_no_text_is_bad_input():
    with pytest.raises(BadInput):
        preset("lite", "\udcff")  # what the command line makes of a byte that is no UTF-8
