"""Which data set a command names, and the run that is named after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamrec_lite.data.specs import default_out


@pytest.mark.parametrize(
    "spec, name",
    [
        ("playground", "playground"),
        ("shops/a.csv", "a"),
        ("amazon-2018:data/sci.v2", "sci.v2"),
        ("amazon-2023:Gift_Cards", "Gift_Cards"),
        ("amazon-2023:Gift_Cards@data/hub", "Gift_Cards"),
    ],
)
def test_a_run_is_named_after_its_data(spec, name):
    assert default_out(spec, "lite") == Path("runs") / name
