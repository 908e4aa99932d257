"""MLP_s and MLP_r of section 2.3.1: the first maps summed hidden states to s, the second t - s to r."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Head(nn.Module):
    """A residual MLP, x + W_2 gelu(W_1 x). W_2 starts at zero, so it starts as the identity."""

    def __init__(self, d: int):
        super().__init__()
        self.inner, self.outer = nn.Linear(d, d), nn.Linear(d, d)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x + W_2 gelu(W_1 x), (..., d) -> (..., d)."""
        return x + self.outer(F.gelu(self.inner(x)))


def scaled(total: Tensor, scale: Tensor) -> Tensor:
    """Vectors (..., d) scaled to a root mean square of ``scale``."""
    return total * total.square().mean(-1, keepdim=True).add(1e-6).rsqrt() * scale


def replaced(embedded: Tensor, start: int, by: Tensor | None) -> Tensor:
    """Embeddings (B, T, d), those from ``start`` on replaced by ``by`` (B, n, d) unless it is None."""
    if by is None:
        return embedded
    return torch.cat([embedded[:, :start], by, embedded[:, start + by.shape[1] :]], dim=1)
