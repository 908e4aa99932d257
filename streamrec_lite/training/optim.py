"""The optimiser, its learning rate, the moving average of the weights, and a fast dropout for CPUs."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..config.training import TrainConfig

Model = TypeVar("Model", bound=nn.Module)


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only, not on norms, embeddings or attention biases.

    Embedding tables have ``embedding_lr_factor`` times the learning rate. T5 initialises them with a
    standard deviation of 1, and its matrices with about d**-0.5. AdamW's steps have the same size for both,
    so without the factor the tables would hardly change. (Adafactor, T5's own optimiser, scales its steps
    by each matrix's root mean square, which has the same effect.)
    """
    kinds: dict[str, list] = {"matrices": [], "table": [], "others": []}
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for name, parameter in model.named_parameters():
        is_other = parameter.ndim < 2 or "relative_attention_bias" in name
        is_table = id(parameter) in tables and not is_other
        kinds["table" if is_table else "others" if is_other else "matrices"].append(parameter)
    groups = [
        {"params": kinds["matrices"], "weight_decay": config.weight_decay, "lr_factor": 1.0},
        {"params": kinds["table"], "weight_decay": 0.0, "lr_factor": config.embedding_lr_factor},
        {"params": kinds["others"], "weight_decay": 0.0, "lr_factor": 1.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set each parameter group of ``make_optimizer`` to ``lr`` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """Linear warm-up over ``warmup_steps``, then constant, or a cosine down to a hundredth."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    return config.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


class WeightAverage:
    """An exponential moving average of the weights; it is evaluated and kept in the model's place.

    Step n uses the decay min(decay, (1 + n) / (10 + n)), so that the random initial weights soon lose
    their influence. With decay 0 the average is the model itself.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.on, self.decay = decay > 0, decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False) if self.on else model

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards ``model`` after its optimiser's step number ``step`` (from 1)."""
        if not self.on:
            return
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        averages: list[Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(averages, [p.detach() for p in model.parameters()], weight)


class ByteDropout(nn.Module):
    """Dropout that draws one random byte an element: eight of them from one 64-bit random number.

    On a CPU torch's own dropout takes 9 ns an element, a sixth of T5's training time here; this one takes
    0.5 ns. The probability p is rounded to a multiple of 1/256. The scale uses the rounded value, so the
    expectation is exact.
    """

    def __init__(self, p: float):
        super().__init__()
        self.threshold = round(p * 256)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of any shape; in training with elements dropped and the others scaled."""
        if not self.training or self.threshold == 0:
            return x
        draws = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device)
        noise = draws.random_(-(2**63), None).view(torch.uint8)[: x.numel()].view(x.shape)
        return x * (noise >= self.threshold).to(x.dtype).mul_(256 / (256 - self.threshold))


def use_byte_dropout(model: Model, device: torch.device | str = "cpu") -> Model:
    """Replace every ``nn.Dropout`` of ``model`` by ``ByteDropout`` if ``device`` is a CPU; returns the model.

    On a GPU torch's own dropout is one kernel, and ``ByteDropout`` would be five.
    """
    if torch.device(device).type != "cpu":
        return model
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, ByteDropout(child.p))
    return model
