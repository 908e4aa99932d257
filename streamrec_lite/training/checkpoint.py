"""Checkpoints of a training: everything that the next epoch needs, in one file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..common.files import load_weights, read_tensors, write_tensors
from .optim import WeightAverage


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage, state: dict
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: a safetensors file.
        model: its weights.
        optimizer: its moments.
        average: its weights, where there is an average.
        state: JSON-able: how far the training is.
    """
    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    for i, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{slot}": torch.as_tensor(t) for slot, t in slots.items()}
    if average.on:
        tensors |= {f"average.{name}": t for name, t in average.model.state_dict().items()}
    write_tensors(path, tensors, state)


def resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage) -> dict:
    """Load a checkpoint into model, optimiser and average where there is one; returns its state, or {}.

    Args:
        path: what ``save_checkpoint`` wrote.
        model: gets its weights.
        optimizer: gets its moments.
        average: gets its weights, where there is an average.
    """
    if not path.exists():
        return {}
    tensors, state = read_tensors(path)
    part: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        part[kind][rest] = tensor
    load_weights(model, part["model"], path)
    if average.on:
        load_weights(average.model, part["average"], path)
    slots: dict[int, dict] = {}
    for name, tensor in part["optimizer"].items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    return state
