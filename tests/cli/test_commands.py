"""`streamrec reproduce` with several data sets."""

from __future__ import annotations

import pytest

from streamrec_lite.cli import commands
from streamrec_lite.common.errors import BadInput, StageFailed


def test_several_data_sets_each_get_a_run(tmp_path, monkeypatch):
    done_for, told = [], []

    def fake(name, preset, out, tell, **options):
        if name == "a.csv":
            raise StageFailed("a.csv is torn")
        done_for.append((name, out))
        return out / "results.json"

    monkeypatch.setattr("streamrec_lite.running.reproduce.reproduce", fake)
    monkeypatch.setattr(commands, "check_spec", lambda name: None)
    with pytest.raises(StageFailed, match="torn"):
        commands.reproduce_all(["a.csv", "playground"], "smoke", tmp_path, told.append)
    assert done_for == [("playground", tmp_path / "playground-smoke")]
    assert told[:2] == ["a.csv, data set 1 of 2", "a.csv: FAILED: a.csv is torn"]
    bad = BadInput("a.csv", "it has no rows", "add some")

    def refuse(name, *arguments, **options):
        if name == "a.csv":
            raise bad
        return fake(name, *arguments, **options)

    monkeypatch.setattr("streamrec_lite.running.reproduce.reproduce", refuse)
    with pytest.raises(BadInput, match="no rows"):  # exit code 2, and the rest is done all the same
        commands.reproduce_all(["a.csv", "playground"], "smoke", tmp_path, told.append)
    assert len(done_for) == 2
    monkeypatch.setattr("streamrec_lite.running.reproduce.reproduce", fake)
    one = commands.reproduce_all(["playground"], "smoke", tmp_path / "x", told.append)
    assert one == [tmp_path / "x" / "results.json"]
    with pytest.raises(BadInput, match="own name"):
        commands.reproduce_all(["a.csv", "a.csv"])
