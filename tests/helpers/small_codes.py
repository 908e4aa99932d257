"""Small embeddings, codes and settings for the tests of the tokenizer."""

from __future__ import annotations

import torch

from streamrec_lite.config.sections import TokenizerConfig

SMALL = TokenizerConfig(m=3, K=8, hidden=(16,), latent_dim=4, epochs=20, batch_size=32)
TINY = torch.tensor([[2, 0, 1], [0, 1, 2], [0, 1, 0], [2, 2, 2], [0, 0, 1]])  # K = 3


def clusters(n: int = 200, dim: int = 12, seed: int = 0) -> torch.Tensor:
    """Embeddings (n, dim) in twenty clusters."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(20, dim, generator=generator)
    return centres[torch.arange(n) % 20] + 0.3 * torch.randn(n, dim, generator=generator)


def different_codes(n: int, m: int, K: int, seed: int = 0) -> torch.Tensor:
    """Random codes (n, m) without a collision."""
    numbers = torch.randperm(K**m, generator=torch.Generator().manual_seed(seed))[:n]
    return torch.stack([numbers // K ** (m - 1 - j) % K for j in range(m)], dim=1)
