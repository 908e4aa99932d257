"""Files that are whole or not there, seeds that repeat, and checkpoints that must fit."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from streamrec_lite.common import device as runtime
from streamrec_lite.common import files
from streamrec_lite.common.errors import BadInput


def test_seeds_repeat_and_differ():
    assert runtime.derive_seed(0, "tiger", 3) == runtime.derive_seed(0, "tiger", 3)
    seeds = {runtime.derive_seed(s, "tiger", e) for s in range(10) for e in range(100)}
    assert len(seeds) == 1000
    assert all(0 <= s < 2**63 for s in seeds)
    runtime.seed_everything(0, "x")
    a = torch.rand(3)
    runtime.seed_everything(0, "x")
    assert torch.equal(torch.rand(3), a)


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


def test_precision_follows_the_measurement(monkeypatch):
    cpu = torch.device("cpu")
    rates = {"float32": 100.0, "bfloat16": 151.0}
    monkeypatch.setattr(runtime, "matmul_rate", lambda kind, device: rates[kind])
    assert runtime.resolve_precision(cpu, "auto") == "bfloat16"
    rates["bfloat16"] = 149.0
    assert runtime.resolve_precision(cpu, "auto") == "float32"
    assert runtime.resolve_precision(cpu, "bfloat16") == "bfloat16"


def test_measured_rate_is_a_rate():
    assert 1e8 < runtime.matmul_rate("float32") < 1e14


def test_importing_the_package_loads_no_torch():
    code = (
        "import sys, streamrec_lite, streamrec_lite.cli.app, streamrec_lite.running.run;"
        "print([m for m in ('torch', 'transformers', 'pandas', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_threads_come_back():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), runtime.torch_threads(1):
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before
