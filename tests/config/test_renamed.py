"""Former names and values: each is refused in one line that holds the new one, and the new one exists."""

from __future__ import annotations

import pytest

from streamrec_lite.cli import app as cli
from streamrec_lite.common.errors import BadInput
from streamrec_lite.config.presets import preset
from streamrec_lite.config.renamed import FORMER_NAMES, FORMER_VALUES
from streamrec_lite.config.settings import Config
from streamrec_lite.config.table import describe

NAMES = [(section, old, new) for section, names in FORMER_NAMES.items() for old, new in names.items()]
VALUES = [(name, old, new) for name, values in FORMER_VALUES.items() for old, new in values.items()]


@pytest.mark.parametrize(("section", "old", "new"), NAMES)
def test_a_former_name_is_told_the_new_one(section, old, new):
    known = {name for name, *_ in describe(preset())}
    assert f"{section}.{new}" in known and f"{section}.{old}" not in known
    said = f"setting {section}.{old}: renamed; write {section}.{new}"
    with pytest.raises(BadInput) as caught:
        preset().override([f"{section}.{old}=0.5"])
    assert str(caught.value) == said
    with pytest.raises(BadInput) as caught:
        Config.from_dict({section: {old: 0.5}})
    assert str(caught.value) == said


@pytest.mark.parametrize(("name", "old", "new"), VALUES)
def test_a_former_value_is_told_the_new_one(name, old, new):
    preset().override([f"{name}={new}"])
    section, _, key = name.partition(".")
    said = f"{name}='{old}': the value was renamed; write {name}={new}"
    with pytest.raises(BadInput) as caught:
        preset().override([f"{name}={old}"])
    assert str(caught.value) == said
    with pytest.raises(BadInput) as caught:
        Config.from_dict({section: {key: old}})
    assert str(caught.value) == said


def test_the_command_line_refuses_a_former_name_with_code_2(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["reproduce", "--preset", "smoke", "--set", "sft.keep=0.5"]) == 2
    said = capsys.readouterr().err.strip()
    assert said == "streamrec: setting sft.keep: renamed; write sft.first_guess_share"
    assert not list(tmp_path.iterdir())
