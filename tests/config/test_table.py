"""The tables of settings, and docs/settings.md, which is made from them."""

from __future__ import annotations

from pathlib import Path

from streamrec_lite.config.presets import preset
from streamrec_lite.config.settings import Config
from streamrec_lite.config.table import COMMAND, describe, presets_table, settings_page, settings_table

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_every_setting_has_a_sentence():
    assert all(len(text) > 5 for _, _, text in describe(preset()))


def test_the_table_has_a_row_for_every_setting_with_its_value_and_what_it_may_be():
    table = settings_table(Config())
    for name, _, text in describe(Config()):
        if "." in name:
            assert f"| `{name}` |" in table and text.replace("|", "\\|") in table, name
    assert "| `sft.first_guess_share` | `0.9` | number, 0 to 1 |" in table
    assert "| `tokenizer.hidden` | `512,256,128` | integers with commas |" in table
    assert "| `sft.condition_on` | `own` | `own`, `annotated` |" in table
    assert "| `data.playground_seed` | `0` | integer, 0 or more |" in table


def test_the_table_of_presets_names_what_they_change_alone():
    table = presets_table()
    assert "| `sft.l` | `4` | `4` | `2` | `4` | `4` |" in table
    assert "`sft.lam`" not in table


def test_the_page_is_what_the_code_says():
    assert PAGE.read_text(encoding="utf-8") == settings_page(), f"make it anew: {COMMAND}"
