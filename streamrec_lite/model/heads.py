"""MLP_s and MLP_r of section 2.3.1: from decoder states to states s, from gaps to residuals r."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Head(nn.Module):
    """An MLP that starts as the identity: x + W_2 gelu(W_1 x), with W_2 zero at first."""

    def __init__(self, d: int):
        super().__init__()
        self.inner, self.outer = nn.Linear(d, d), nn.Linear(d, d)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x + W_2 gelu(W_1 x), (..., d) -> (..., d)."""
        return x + self.outer(F.gelu(self.inner(x)))
