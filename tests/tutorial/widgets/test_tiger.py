"""The beam stepper without a browser: a moved slider changes what is shown."""

from __future__ import annotations

import numpy as np

from streamrec_lite.tutorial.tables.tiger import beam_table
from streamrec_lite.tutorial.widgets import tiger as widgets


def test_stepper_shows_each_step(steps, ids, shop):
    target = int(steps[-1]["example"].iloc[0])
    stepper = widgets.BeamStepper(steps, shop, target, ids.codes)
    assert stepper.figure.get_state()["_widget_data"], "a page without a kernel shows the first step"
    for depth in (1, 2, 3):
        stepper.step.value = depth
        expected = beam_table(steps[depth - 1], shop, tuple(ids.codes[target].tolist()))
        assert stepper.table.equals(expected)
        shares = np.exp(steps[depth - 1]["score"].head(10)) * 100
        assert np.allclose(stepper.figure.data[0].x, shares[::-1])
    assert stepper.table["on target's path"].tolist().count(True) == 1
    assert stepper.table["mark"].iloc[0] == "★ "
    plain = widgets.BeamStepper(steps, shop)
    assert not plain.table["on target's path"].any()
