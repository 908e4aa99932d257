"""Atomic files, broken files, checkpoints that must fit, and the training log."""

from __future__ import annotations

import json

import pytest
import torch

from streamrec_lite.common import files
from streamrec_lite.common.errors import BadInput


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, {"a": float("nan")})
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_tensors_round_trip(tmp_path):
    path = tmp_path / "t.safetensors"
    value = {"a": torch.arange(6).view(2, 3).t(), "b": torch.tensor(1.5)}  # one of them not contiguous
    files.write_tensors(path, value, {"epoch": 3, "best": {"N@10": 0.5}})
    tensors, meta = files.read_tensors(path)
    assert torch.equal(tensors["a"], value["a"])
    assert torch.equal(tensors["b"], value["b"])
    assert meta == {"epoch": 3, "best": {"N@10": 0.5}}


@pytest.mark.parametrize("content", [None, b"", b"not safetensors", b"\x80\x04\x95pickle"])
def test_broken_tensors_are_one_line(tmp_path, content):
    path = tmp_path / "t.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        files.read_tensors(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe"])
def test_broken_json_is_one_line(tmp_path, content):
    path = tmp_path / "v.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        files.read_json(path)
    assert str(path) in str(caught.value)


def test_weights_must_fit():
    layer = torch.nn.Linear(2, 3)
    good = {k: v + 1 for k, v in layer.state_dict().items()}
    files.load_weights(layer, good, "x")
    assert torch.equal(layer.weight, good["weight"])
    with pytest.raises(BadInput, match="bias is missing"):
        files.load_weights(layer, {"weight": good["weight"]}, "x")
    with pytest.raises(BadInput, match="extra is unknown"):
        files.load_weights(layer, {**good, "extra": good["bias"]}, "x")
    with pytest.raises(BadInput, match=r"\(3,\)"):
        files.load_weights(layer, {**good, "bias": torch.zeros(4)}, "x")


def test_log_forgets_what_comes_after_the_checkpoint(tmp_path):
    log = files.RunLog(tmp_path / "log.jsonl")
    for epoch in (1, 2, 3):
        log.write(epoch=epoch, loss=1 / epoch)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"epoch": 4, "lo')  # cut short by a kill
    assert [row["epoch"] for row in log.rows()] == [1, 2, 3]
    log.drop_after(2)
    log.write(epoch=3, loss=0.0)
    assert [row["loss"] for row in log.rows()] == [1.0, 0.5, 0.0]
