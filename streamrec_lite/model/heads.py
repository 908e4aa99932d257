"""MLP_s and MLP_r of section 2.3.1: the first maps summed hidden states to s, the second t - s to r."""

from __future__ import annotations

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
