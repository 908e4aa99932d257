"""Settings: dotted overrides, and the refusal of everything unknown or out of range."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from pydantic import ValidationError

from streamrec_lite.common.errors import BadInput
from streamrec_lite.config.presets import preset
from streamrec_lite.config.sections import BackboneConfig
from streamrec_lite.config.settings import Config, fingerprint, read_section


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
    ("tiger.lr=inf", "finite"),
    ("tiger.lr=1e999", "finite"),
    ("tiger.lr=", "float"),
    ("tiger.batch_size=2.5", "int"),
    ("tiger.batch_size=3.0", "int"),
    ("tiger.batch_size=true", "int"),
    ("grpo.min_gain_in_std_errors=-1", "at least 0; give"),
    ("tiger.schedule=linear", "cosine"),
    ("tokenizer.method=vq", "rqvae"),
    ("tokenizer.m=0", "at least 1"),
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
        ({"tokenizer": {"hidden": []}}, "positive"),
        ({"tokenizer": {"hidden": [8, 0]}}, "positive"),
        ({"tiger": {"lr": float("nan")}}, "tiger.lr=nan: the value must be finite"),
        ({"tiger": {"lr": float("inf")}}, "finite"),
        ({"tiger": {"lr": 10**400}}, "finite"),
        ({"tiger": {"lr": True}}, "type float"),
        ({"tiger": {"lr": None}}, "type float"),
        ({"tiger": {"schedule": 3}}, "cosine"),
        ({"sft": {"l": 65}}, "sft.l=65: the value must be at least 0 and at most 64; give one in that range"),
        ({"evaluate": {"beams": 9}}, "set evaluate.beams=20"),
        ({"baselines": {"d": 65}}, "baselines.d=65: the width must be a multiple"),
        ({"pretrain": {"n_similar": 16}}, "pretrain.n_similar=16"),
        ({"dataset": "\udcff"}, "config: Invalid JSON"),
        ([], "mapping"),
    ],
)
def test_bad_config_files_are_one_line(change, word):
    with pytest.raises(BadInput, match=word) as caught:
        Config.from_dict(change)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_fingerprint_sees_every_value():
    base = preset().to_dict()
    assert fingerprint(base) == fingerprint(preset().to_dict())
    assert fingerprint(base) != fingerprint(preset().override(["tiger.lr=0.5"]).to_dict())
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_sections_are_checked_when_they_are_made_and_frozen():
    with pytest.raises(ValidationError, match="keep"):
        dataclasses.replace(preset().sft, keep=0.5)
    for wrong in ({"l": -1}, {"l": 2.0}, {"l": True}, {"lam": float("nan")}, {"annotator": "own_codes"}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            dataclasses.replace(preset().sft, **wrong)
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset().sft.l = 3


def test_an_integer_is_a_number_and_a_list_of_widths_a_tuple():
    config = Config.from_dict({"sft": {"lam": 1}, "tokenizer": {"hidden": [8, 4]}})
    assert isinstance(config.sft.lam, float) and config.tokenizer.hidden == (8, 4)


def test_a_section_alone_says_where_it_was_read():
    assert read_section(BackboneConfig, {"d_model": 8}).d_model == 8
    with pytest.raises(BadInput, match=r"^model.json: backbone.d_model=-5: the value must be at least 2"):
        read_section(BackboneConfig, {"d_model": -5}, "model.json: backbone.")
    with pytest.raises(BadInput, match=r"setting model.json: backbone.width: no such setting"):
        read_section(BackboneConfig, {"width": 5}, "model.json: backbone.")


def test_settings_are_read_without_the_heavy_libraries():
    code = "import streamrec_lite.config.table, sys; print(*{'torch', 'pandas', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
