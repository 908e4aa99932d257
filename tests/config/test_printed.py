"""The printed method's settings: known, in one group each, and applied without touching anything else."""

from __future__ import annotations

import pytest
from places import ROOT

from streamrec_lite.common.errors import BadInput
from streamrec_lite.config.presets import preset
from streamrec_lite.config.printed import GROUPS, as_printed
from streamrec_lite.config.table import describe

SETTINGS = [printed for group in GROUPS.values() for printed in group]


def values(config) -> dict[str, object]:
    return {name: value for name, value, _ in describe(config)}


@pytest.mark.parametrize("name", ["smoke", "lite", "paper"])
@pytest.mark.parametrize("dataset", ["playground", "real"])
def test_the_printed_values_and_no_others_are_set(name, dataset):
    ours = preset(name, dataset)
    before, after = values(ours), values(as_printed(ours))
    wanted = {printed.setting: printed.value for printed in SETTINGS}
    assert {key: after[key] for key in wanted} == wanted
    assert all(after[key] == before[key] for key in before if key not in wanted)


def test_a_setting_is_in_one_group_and_groups_are_few():
    names = [printed.setting for printed in SETTINGS]
    assert len(names) == len(set(names)) and len(GROUPS) <= 8
    assert all(printed.equation and printed.reason for printed in SETTINGS)


@pytest.mark.parametrize("group", GROUPS)
def test_each_group_can_be_turned_back_alone_and_be_left_out_alone(group):
    ours = preset()
    changed = {key for key, value in values(as_printed(ours, [group])).items() if value != values(ours)[key]}
    assert changed and changed <= {printed.setting for printed in GROUPS[group]}
    others = as_printed(ours, [name for name in GROUPS if name != group])
    assert as_printed(others, [group]) == as_printed(ours) != others


def test_an_unknown_group_is_refused():
    with pytest.raises(BadInput, match="did you mean 'states'"):
        as_printed(preset(), ["state"])


def test_settings_that_need_each_other_are_refused_apart():
    with pytest.raises(BadInput, match=r"sft\.thought_gradient=straight-through: own thoughts"):
        preset().override(["sft.thought_gradient=straight-through"])
    with pytest.raises(BadInput, match=r"grpo\.ratio=rollout: one ratio a rollout has one advantage"):
        preset().override(["grpo.ratio=rollout"])


def test_the_page_of_departures_names_every_setting():
    page = (ROOT / "docs" / "departures.md").read_text(encoding="utf-8")
    assert not [printed.setting for printed in SETTINGS if f"`{printed.setting}`" not in page]
