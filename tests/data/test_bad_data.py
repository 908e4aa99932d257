"""One line, with value, rule and remedy, for everything that is wrong with a data set's files."""

from __future__ import annotations

import pytest
from bad_data import (
    JSON,
    SPECS,
    TABLES,
    json_case,
)
from data_files import ALL, ROWS, write_shop

from streamrec_lite.common.errors import BadInput
from streamrec_lite.config.sections import DataConfig
from streamrec_lite.data.sources import load_dataset


@pytest.mark.parametrize("name", [*TABLES, *(f"JSON {name}" for name in JSON)])
def test_bad_files(tmp_path, name):
    make, text = TABLES[name] if name in TABLES else JSON[name.removeprefix("JSON ")]
    spec = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    check(spec, text, ALL)
    assert sorted(tmp_path.rglob("*")) == before


def test_half_a_character_in_a_text_becomes_a_question_mark(tmp_path):
    """A title that was cut inside an emoji; UTF-8 has no halves, so it could not be written down."""
    spec = json_case('{"1": [1, 1, 1, 1]}', '{"1": {"title": "guitar \\ud83d"}}')(tmp_path)
    assert load_dataset(spec, ALL).items["title"].tolist() == ["guitar ?"]


@pytest.mark.parametrize("spec", SPECS)
def test_bad_specs(spec):
    check(spec, SPECS[spec], ALL)


def check(spec: str, text: str, config: DataConfig) -> None:
    with pytest.raises(BadInput, match=text) as caught:
        load_dataset(spec, config)
    line = str(caught.value)
    assert "\n" not in line and line.count("; ") >= 1 and ": " in line
    assert all((caught.value.value, caught.value.rule, caught.value.remedy))


def test_empty_after_the_core(tmp_path):
    check(write_shop(tmp_path), "no interaction is left of 7", DataConfig(k_core=5))


def test_short_users_are_dropped_by_a_core_and_named_without(tmp_path):
    rows = [*ROWS, ("u3", "a", 1), ("u3", "b", 2)]
    check(write_shop(tmp_path, rows), "user 'u3' has 2 interactions", DataConfig(k_core=2))
    rows = [(user, item, time) for user in "xyz" for time, item in enumerate("abc")] + [("w", "a", 1)]
    made = load_dataset(write_shop(tmp_path, rows), DataConfig(k_core=3))
    assert made.user_ids == ["x", "y", "z"]
