"""Seeds that repeat, the measured precision, and the number of threads."""

from __future__ import annotations

import pytest
import torch

from streamrec_lite.common import device


def test_seeds_repeat_and_differ():
    assert device.derive_seed(0, "tiger", 3) == device.derive_seed(0, "tiger", 3)
    seeds = {device.derive_seed(s, "tiger", e) for s in range(10) for e in range(100)}
    assert len(seeds) == 1000
    assert all(0 <= s < 2**63 for s in seeds)
    device.seed_everything(0, "x")
    a = torch.rand(3)
    device.seed_everything(0, "x")
    assert torch.equal(torch.rand(3), a)


def test_precision_follows_the_measurement(monkeypatch):
    cpu = torch.device("cpu")
    rates = {"float32": 100.0, "bfloat16": 151.0}
    monkeypatch.setattr(device, "matmul_rate", lambda kind, device_name: rates[kind])
    assert device.resolve_precision(cpu, "auto") == "bfloat16"
    rates["bfloat16"] = 149.0
    assert device.resolve_precision(cpu, "auto") == "float32"
    assert device.resolve_precision(cpu, "bfloat16") == "bfloat16"


def test_measured_rate_is_a_rate():
    assert 1e8 < device.matmul_rate("float32") < 1e14


def test_threads_come_back():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), device.torch_threads(1):
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before
