"""Checkpoints of a training: all that the next epoch needs in one file, and files of tensors beside it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..common.errors import BadInput
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


def read_checked_tensors(path: Path, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """The tensors at ``path``, which an earlier round or an interrupted run wrote.

    Raises:
        BadInput: a tensor named in ``shapes`` is missing or has another shape: the file is of other data.
    """
    found, _ = read_tensors(path)
    for name, shape in shapes.items():
        if name not in found or found[name].shape != shape:
            actual = tuple(found[name].shape) if name in found else "nothing"
            rule = f"{name} must have the shape {shape}, one row a training prefix, and has {actual}"
            raise BadInput(str(path), rule, "delete the file, or start again with --fresh")
    return found
