"""Residual quantisation of item embeddings: the RQ-VAE of eqs 4-8, and plain RQ-k-means beside it."""

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

ROWS = 65536  # items that pass through the encoder or decoder at once


class Quantized(NamedTuple):
    """What the residual quantiser returns for a batch of latents (B, c)."""

    codes: Tensor  # (B, m) int64
    vector: Tensor  # (B, c), the sum of the codes' embeddings; gradients pass straight through to z
    loss: Tensor  # (B,), eq. 6 of every row
    residuals: Tensor  # (m, B, c), h_d before each level, detached


class ResidualQuantizer(nn.Module):
    """m codebooks of K embeddings; every level quantises what the levels before it left over (eq. 6)."""

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
            # h is detached from the entries: the commitment term moves the encoder alone, and
            # each codebook is moved by its own level's term alone.
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
        """The sum of the codes' embeddings, (N, m) -> (N, c)."""
        return sum(book[codes[:, d]] for d, book in enumerate(self.codebooks))


class RQVAE(nn.Module):
    """Encoder, residual quantiser and decoder: eqs 5-8.

    Inputs are shifted and scaled by the catalogue's ``mean`` and ``scale`` (buffers, saved with the
    weights), so that one learning rate suits every text encoder; losses are in these units.
    """

    def __init__(self, dim: int, config: TokenizerConfig):
        super().__init__()
        widths = (dim, *config.hidden, config.latent_dim)
        self.encoder = _mlp(widths)
        self.decoder = _mlp(widths[::-1])
        self.quantizer = ResidualQuantizer(config.m, config.K, config.latent_dim, config.beta)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))

    def losses(self, x: Tensor) -> tuple[Tensor, Tensor, Quantized]:
        """(eq. 7, eq. 6, what was quantised) of normalised inputs (B, d_w); means over the batch."""
        quantized = self.quantizer(self.encoder(x))
        recon = (x - self.decoder(quantized.vector)).square().sum(dim=1)
        return recon.mean(), quantized.loss.mean(), quantized

    def normalize(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Latents z (N, c) of embeddings (N, d_w)."""
        return torch.cat([self.encoder(self.normalize(part)) for part in x.split(ROWS)])

    @torch.no_grad()
    def decode(self, vector: Tensor) -> Tensor:
        """Embeddings (N, d_w) of quantised latents (N, c), in the units of the inputs (eq. 8)."""
        return torch.cat([self.decoder(part) * self.scale + self.mean for part in vector.split(ROWS)])


def _mlp(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        layers += [nn.ReLU()] if i else []
        layers += [nn.Linear(a, b)]
    return nn.Sequential(*layers)


def rq_kmeans(x: Tensor, config: TokenizerConfig, progress: bool = False) -> ResidualQuantizer:
    """Plain residual k-means through faiss, for comparison: the latent is the embedding x (N, d_w) itself."""
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
        size = min(config.K, len(h))  # faiss refuses fewer rows than centres; the other codes stay zero
        index = faiss.Kmeans(x.shape[1], size, niter=25, seed=seed, min_points_per_centroid=1)
        index.train(h.numpy())
        quantizer.codebooks[d, :size] = torch.from_numpy(index.centroids)
        h -= quantizer.codebooks[d][nearest(h, quantizer.codebooks[d])]
    return quantizer


def train_rqvae(
    x: Tensor, config: TokenizerConfig, log: RunLog | None = None, progress: bool = True
) -> RQVAE:
    """Train an RQ-VAE on the embeddings of all items, x (N, d_w), on x's device; eqs 5-8.

    Four phases, of ``config.epochs`` passes in all:
    1. the autoencoder alone (a tenth), so that the latents mean something before they are clustered;
    2. each codebook starts as the k-means centres of its level's residuals;
    3. L_Recon + L_Quant, with dead-code replacement over the whole catalogue after every epoch;
    4. the encoder stays fixed: the codebooks are refreshed by k-means on the final latents, and the
       decoder alone is trained on them (the last tenth). This departs from the paper, which trains
       all parts to the end: there the codebooks lag behind the encoder that they are used with.
    """
    model = _build(x, config)
    x = model.normalize(x)
    optimizer = _optimizer(model, config)
    warm_up, polish = -(-config.epochs // 10), config.epochs - config.epochs // 10
    bar = tqdm(range(config.epochs), desc="RQ-VAE", unit="epoch", disable=not progress)
    begin = time.perf_counter()
    for epoch in bar:
        phase = "warm-up" if epoch < warm_up else "train" if epoch < polish else "decoder"
        if epoch == warm_up:
            _fit_codebooks(model, x, config, fresh=True)
        if epoch == polish:
            _fit_codebooks(model, x, config, fresh=False)
            model.encoder.requires_grad_(False)
            model.quantizer.requires_grad_(False)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _rate(epoch, config.epochs)
        recon, quant = _epoch(model, x, config, optimizer, epoch, phase)
        row = {"epoch": epoch + 1, "phase": phase, "loss": recon + quant, "recon": recon, "quant": quant}
        if phase == "train":
            row["replaced"] = _replace_dead_codes(model, x, optimizer)
        bar.set_postfix(loss=f"{row['loss']:.3f}", phase=phase, refresh=False)
        if log:
            log.write(**row, seconds=round(time.perf_counter() - begin, 2))
    if polish == config.epochs:  # fewer than ten epochs: no time for the decoder
        _fit_codebooks(model, x, config, fresh=warm_up == config.epochs)
    return model.requires_grad_(False).eval()


def _build(x: Tensor, config: TokenizerConfig) -> RQVAE:
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it was
        torch.manual_seed(derive_seed(config.seed, "rqvae"))
        model = RQVAE(x.shape[1], config)
    model.mean.copy_(x.mean(dim=0))
    spread = (x - x.mean(dim=0)).square().mean().sqrt()
    model.scale.copy_(spread if spread > 0 else torch.ones(()))
    return model.to(x.device)


def _optimizer(model: RQVAE, config: TokenizerConfig) -> torch.optim.AdamW:
    books = [model.quantizer.codebooks]
    layers = [*model.encoder.parameters(), *model.decoder.parameters()]
    # Decay would pull the codebooks towards zero, away from the residuals that they describe.
    groups = [{"params": layers, "weight_decay": 1e-4}, {"params": books, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr)


def _rate(epoch: int, epochs: int) -> float:
    """Cosine from 1 to 0.05."""
    return 0.525 + 0.475 * math.cos(math.pi * epoch / epochs)


def _epoch(model: RQVAE, x: Tensor, config: TokenizerConfig, optimizer, epoch: int, phase: str):
    """One pass over all items in a shuffled order; returns the means of eq. 7 and eq. 6."""
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
    return torch.cat([model.encoder(part) for part in x.split(ROWS)])


@torch.no_grad()
def _fit_codebooks(model: RQVAE, x: Tensor, config: TokenizerConfig, fresh: bool) -> None:
    """k-means on each level's residuals, from a new start (``fresh``) or from the present codebooks."""
    h = _latents(model, x)
    for d, book in enumerate(model.quantizer.codebooks):
        if fresh:
            book.copy_(kmeans(h, config.K, derive_seed(config.seed, "kmeans", d)))
        else:
            book.copy_(lloyd(h, book, steps=20))
        h = h - book[nearest(h, book)]


@torch.no_grad()
def _replace_dead_codes(model: RQVAE, x: Tensor, optimizer) -> int:
    """Revive every level's unused codes on the residuals of the whole catalogue; returns how many."""
    h, replaced = _latents(model, x), 0
    for d, book in enumerate(model.quantizer.codebooks):
        code = nearest(h, book)
        moved = replace_dead_codes(book, h, code)
        if len(moved):
            replaced += len(moved)
            state = optimizer.state[model.quantizer.codebooks]
            for name in ("exp_avg", "exp_avg_sq"):  # the old place's moments mean nothing at the new one
                if name in state:
                    state[name][d, moved] = 0
            code = nearest(h, book)
        h = h - book[code]
    return replaced
