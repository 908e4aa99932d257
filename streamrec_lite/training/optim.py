"""What every training loop shares: AdamW, the learning rate, the weights' average, quick dropout."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from ..config.training import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only, not on norms, embeddings or attention biases.

    Embedding tables learn ``embedding_lr_factor`` times as fast. T5 starts it with deviation 1 and its
    matrices with about d**-0.5; Adam's steps have one size for all, so that without a factor the
    table hardly moves, and codes keep the meaning of noise. (T5's own Adafactor scales its steps by
    each matrix's root mean square, which comes to the same.)
    """
    kinds: dict[str, list] = {"matrices": [], "table": [], "others": []}
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for name, parameter in model.named_parameters():
        plain = parameter.ndim < 2 or "relative_attention_bias" in name
        table = id(parameter) in tables and not plain
        kinds["table" if table else "others" if plain else "matrices"].append(parameter)
    groups = [
        {"params": kinds["matrices"], "weight_decay": config.weight_decay, "lr_factor": 1.0},
        {"params": kinds["table"], "weight_decay": 0.0, "lr_factor": config.embedding_lr_factor},
        {"params": kinds["others"], "weight_decay": 0.0, "lr_factor": 1.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group of ``make_optimizer`` its share of ``lr``."""
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
    """An exponential moving average of the weights: what is evaluated and kept, if ``decay`` > 0.

    The first steps use a smaller decay, min(decay, (1 + n) / (10 + n)), so that the random start is
    forgotten quickly. With decay 0 the average is the model itself.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.on, self.decay = decay > 0, decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False) if self.on else model

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards ``model``, whose optimiser has done ``step`` steps (from 1)."""
        if not self.on:
            return
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        averages = list(self.model.parameters())
        torch._foreach_lerp_(averages, [p.detach() for p in model.parameters()], weight)


class ByteDropout(nn.Module):
    """Dropout whose mask is drawn a byte an element: eight masks from one 64-bit random number.

    torch's own CPU dropout spends 9 ns an element on its Bernoulli draws, which is a sixth of T5's
    training time here; this one spends 0.5 ns. The share dropped is p rounded to 1/256, and the
    scale uses that rounded share, so the expectation is exact.
    """

    def __init__(self, p: float):
        super().__init__()
        self.cut = round(p * 256)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.cut == 0:
            return x
        draws = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device)
        noise = draws.random_(-(2**63), None).view(torch.uint8)[: x.numel()].view(x.shape)
        return x * (noise >= self.cut).to(x.dtype).mul_(256 / (256 - self.cut))


def quicken_dropout(model: nn.Module, device="cpu") -> nn.Module:
    """Replace every ``nn.Dropout`` inside ``model`` by ``ByteDropout``, on a CPU; returns the model.

    A GPU has one kernel for torch's own dropout, and would need five for this.
    """
    if torch.device(device).type != "cpu":
        return model
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, ByteDropout(child.p))
    return model
