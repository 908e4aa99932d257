"""Residual quantisation of item embeddings: the RQ-VAE of eqs 5-8, and RQ-k-means for comparison."""

from __future__ import annotations

import itertools
import math
import time
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..common.device import derive_seed
from ..common.errors import BadInput
from ..common.files import RunLog
from ..config.sections import TokenizerConfig
from .kmeans import kmeans, lloyd, nearest, replace_dead_codes

ITEMS_PER_CHUNK = 65536  # items that pass through the encoder or decoder at once


class Quantized(NamedTuple):
    """The output of the residual quantiser for latents (B, c)."""

    codes: Tensor  # (B, m) int64
    vector: Tensor  # (B, c), sum of the codebook entries; its gradient passes straight through to z
    loss: Tensor  # (B,), eq. 6 for every row
    residuals: Tensor  # (m, B, c), h_d before each level, detached


class ResidualQuantizer(nn.Module):
    """m codebooks of K entries; every level quantises the residual of the levels before it (eq. 6)."""

    def __init__(self, m: int, K: int, dim: int, beta: float = 0.25):
        super().__init__()
        self.beta = beta
        self.codebooks = nn.Parameter(torch.zeros(m, K, dim))

    def forward(self, z: Tensor) -> Quantized:
        """Codes, vector and loss of latents ``z`` (B, c)."""
        h, total = z, torch.zeros_like(z)
        codes, residuals, loss = [], [], z.new_zeros(len(z))
        for book in self.codebooks:
            code = nearest(h.detach(), book.detach())
            entry = book[code]
            loss = loss + (h.detach() - entry).square().sum(dim=1)
            loss = loss + self.beta * (h - entry.detach()).square().sum(dim=1)
            codes.append(code)
            residuals.append(h.detach())
            # Entries are detached here: the commitment term trains only the encoder, and each
            # codebook is trained only by the term of its level.
            h = h - entry.detach()
            total = total + entry.detach()
        vector = z + (total - z).detach()
        return Quantized(torch.stack(codes, dim=1), vector, loss, torch.stack(residuals))

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """Codes (N, m) of latents (N, c)."""
        h, codes = z, []
        for book in self.codebooks:
            codes.append(nearest(h, book))
            h = h - book[codes[-1]]
        return torch.stack(codes, dim=1)

    def embed(self, codes: Tensor) -> Tensor:
        """The sum of the codebook entries of codes (N, m): (N, c)."""
        return sum(book[codes[:, d]] for d, book in enumerate(self.codebooks))


class RQVAE(nn.Module):
    """Encoder, residual quantiser and decoder: eqs 5-8.

    Inputs are normalised by the catalogue's ``mean`` and ``scale`` (buffers, saved with the weights),
    so that one learning rate suits every text encoder. Losses are in these normalised units.
    """

    mean: Tensor  # (d_w,)
    scale: Tensor  # ()

    def __init__(self, dim: int, config: TokenizerConfig):
        super().__init__()
        widths = (dim, *config.hidden, config.latent_dim)
        self.encoder = _mlp(widths)
        self.decoder = _mlp(widths[::-1])
        self.quantizer = ResidualQuantizer(config.m, config.K, config.latent_dim, config.beta)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))

    def losses(self, x: Tensor) -> tuple[Tensor, Tensor, Quantized]:
        """(eq. 7, eq. 6, quantiser output) for normalised inputs (B, d_w); losses are batch means."""
        quantized = self.quantizer(self.encoder(x))
        recon = (x - self.decoder(quantized.vector)).square().sum(dim=1)
        return recon.mean(), quantized.loss.mean(), quantized

    def normalize(self, x: Tensor) -> Tensor:
        """Embeddings (N, d_w) with the catalogue's mean subtracted, in units of its scale."""
        return (x - self.mean) / self.scale

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Latents z (N, c) of embeddings (N, d_w)."""
        return torch.cat([self.encoder(self.normalize(part)) for part in x.split(ITEMS_PER_CHUNK)])

    @torch.no_grad()
    def decode(self, vector: Tensor) -> Tensor:
        """Reconstructed embeddings (N, d_w), in the units of the inputs, of latents (N, c) (eq. 8)."""
        return torch.cat(
            [self.decoder(part) * self.scale + self.mean for part in vector.split(ITEMS_PER_CHUNK)]
        )


def _mlp(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers of these widths, with ReLU between them."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        layers += [nn.ReLU()] if i else []
        layers += [nn.Linear(a, b)]
    return nn.Sequential(*layers)


def rq_kmeans(x: Tensor, config: TokenizerConfig, progress: bool = False) -> ResidualQuantizer:
    """RQ-k-means by faiss, for comparison: residual k-means on the embeddings x (N, d_w) themselves."""
    try:
        import faiss
    except ImportError:
        raise BadInput(
            "tokenizer.method=rqkmeans",
            "RQ-k-means needs faiss, which is not installed",
            "pip install -e '.[faiss]', or use rqvae",
        ) from None
    quantizer = ResidualQuantizer(config.m, config.K, x.shape[1], config.beta).requires_grad_(False)
    h = x.cpu().float().clone()
    for d in tqdm(range(config.m), desc="RQ-k-means", unit="level", disable=not progress):
        seed = derive_seed(config.seed, "rqkmeans", d) % 2**31
        size = min(config.K, len(h))  # faiss needs as many rows as centres; the other codes stay zero
        index = faiss.Kmeans(x.shape[1], size, niter=25, seed=seed, min_points_per_centroid=1)
        index.train(h.numpy())
        quantizer.codebooks[d, :size] = torch.from_numpy(index.centroids)
        h -= quantizer.codebooks[d][nearest(h, quantizer.codebooks[d])]
    return quantizer


def train_rqvae(
    x: Tensor, config: TokenizerConfig, log: RunLog | None = None, progress: bool = True
) -> RQVAE:
    """An RQ-VAE trained on the embeddings of all items (eqs 5-8), in four phases.

    1. The autoencoder is trained without quantisation (the first tenth of the epochs), so that the
       latents are meaningful before they are clustered.
    2. Each codebook is initialised with the k-means centres of the residuals at its level.
    3. L_Recon + L_Quant is minimised; after every epoch, dead codes are replaced, using all items.
    4. The encoder is frozen, the codebooks are refitted by k-means on the final latents, and only the
       decoder is trained (the last tenth). This departs from the paper, which trains all parts until
       the end: the codebooks would then lag behind the encoder.

    Args:
        x: (N, d_w) embeddings; training runs on their device.
        config: sizes, learning rate, batch size, and the number of epochs of all phases together.
        log: gets one row per epoch.
        progress: show a progress bar.
    """
    model = _build(x, config)
    x = model.normalize(x)
    optimizer = _optimizer(model, config)
    warm_up_end, train_end = -(-config.epochs // 10), config.epochs - config.epochs // 10
    bar = tqdm(range(config.epochs), desc="RQ-VAE", unit="epoch", disable=not progress)
    begin = time.perf_counter()
    for epoch in bar:
        phase = "warm-up" if epoch < warm_up_end else "train" if epoch < train_end else "decoder"
        if epoch == warm_up_end:
            _fit_codebooks(model, x, config, fresh=True)
        if epoch == train_end:
            _fit_codebooks(model, x, config, fresh=False)
            model.encoder.requires_grad_(False)
            model.quantizer.requires_grad_(False)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _learning_rate_factor(epoch, config.epochs)
        recon, quant = _train_epoch(model, x, config, optimizer, epoch, phase)
        row = {"epoch": epoch + 1, "phase": phase, "loss": recon + quant, "recon": recon, "quant": quant}
        if phase == "train":
            row["replaced"] = _replace_dead_codes_of_all_levels(model, x, optimizer)
        bar.set_postfix(loss=f"{row['loss']:.3f}", phase=phase, refresh=False)
        if log:
            log.write(**row, seconds=round(time.perf_counter() - begin, 2))
    if train_end == config.epochs:  # fewer than ten epochs: there was no decoder phase
        _fit_codebooks(model, x, config, fresh=warm_up_end == config.epochs)
    return model.requires_grad_(False).eval()


def _build(x: Tensor, config: TokenizerConfig) -> RQVAE:
    """A new model, seeded, with the mean and scale of x (N, d_w)."""
    with torch.random.fork_rng(devices=[]):  # leaves the caller's random state unchanged
        torch.manual_seed(derive_seed(config.seed, "rqvae"))
        model = RQVAE(x.shape[1], config)
    model.mean.copy_(x.mean(dim=0))
    spread = (x - x.mean(dim=0)).square().mean().sqrt()
    model.scale.copy_(spread if spread > 0 else torch.ones(()))
    return model.to(x.device)


def _optimizer(model: RQVAE, config: TokenizerConfig) -> torch.optim.AdamW:
    """AdamW, with weight decay for the layers only."""
    books = [model.quantizer.codebooks]
    layers = [*model.encoder.parameters(), *model.decoder.parameters()]
    # Weight decay would pull the codebooks towards zero, away from the residuals that they represent.
    groups = [{"params": layers, "weight_decay": 1e-4}, {"params": books, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr)


def _learning_rate_factor(epoch: int, epochs: int) -> float:
    """A cosine schedule from 1 to 0.05."""
    return 0.525 + 0.475 * math.cos(math.pi * epoch / epochs)


def _train_epoch(
    model: RQVAE,
    x: Tensor,
    config: TokenizerConfig,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    phase: str,
) -> list[float]:
    """One pass over all items in random order; returns the means of eq. 7 and eq. 6."""
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "rqvae", epoch))
    order = torch.randperm(len(x), generator=generator).to(x.device)
    sums = torch.zeros(2, device=x.device)
    for rows in order.split(config.batch_size):
        batch = x[rows]
        if phase == "warm-up":
            recon = (batch - model.decoder(model.encoder(batch))).square().sum(dim=1).mean()
            quant = torch.zeros_like(recon)
        else:
            recon, quant, _ = model.losses(batch)
        loss = recon + quant  # eq. 5
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        sums += torch.stack([recon.detach(), quant.detach()]) * len(rows) / len(x)
    return sums.tolist()


def _latents(model: RQVAE, x: Tensor) -> Tensor:
    """Latents (N, c) of normalised embeddings (N, d_w)."""
    return torch.cat([model.encoder(part) for part in x.split(ITEMS_PER_CHUNK)])


@torch.no_grad()
def _fit_codebooks(model: RQVAE, x: Tensor, config: TokenizerConfig, fresh: bool) -> None:
    """k-means on each level's residuals, from new centres (``fresh``) or from the present codebooks."""
    h = _latents(model, x)
    for d, book in enumerate(model.quantizer.codebooks):
        if fresh:
            book.copy_(kmeans(h, config.K, derive_seed(config.seed, "kmeans", d)))
        else:
            book.copy_(lloyd(h, book, steps=20))
        h = h - book[nearest(h, book)]


@torch.no_grad()
def _replace_dead_codes_of_all_levels(model: RQVAE, x: Tensor, optimizer: torch.optim.Optimizer) -> int:
    """Replace the unused codes of every level, given the residuals of all items; returns their number."""
    h, replaced = _latents(model, x), 0
    for d, book in enumerate(model.quantizer.codebooks):
        code = nearest(h, book)
        moved = replace_dead_codes(book, h, code)
        if len(moved):
            replaced += len(moved)
            state = optimizer.state[model.quantizer.codebooks]
            for name in ("exp_avg", "exp_avg_sq"):  # Adam's moments belong to the old entry
                if name in state:
                    state[name][d, moved] = 0
            code = nearest(h, book)
        h = h - book[code]
    return replaced
