"""Semantic IDs: from item embeddings to m codes per item, all IDs different, and back to items."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..common.device import pick_device, torch_threads
from ..common.errors import BadInput
from ..common.files import RunLog, read_json, read_tensors, write_json, write_tensors
from ..common.schemas import FIRST_CODE, PAD
from ..config.sections import TokenizerConfig
from .collisions import repair_collisions
from .health import health_report
from .rqvae import rq_kmeans, train_rqvae
from .trie import Trie

RERUN = "delete the folder and run the tokenizer stage again"


class SemanticTokenizer:
    """The semantic IDs of N items, in the forms that the other modules need.

    codes      (N, m) int64, 0..K-1, all rows different: the IDs
    tokens     (N + 1, m) int64: the IDs as vocabulary tokens. The last row is all PAD, so that
               ``tokens[history]`` is right for short histories, which are filled with PAD_ITEM = -1
    trie       the trie of all IDs
    raw_codes  (N, m) int64, codes from the quantiser, before the collision repair
    codebooks  m tensors (K, c) float32; [] for a tokenizer made by ``from_codes``
    latents    (N, c) float32; None for a tokenizer made by ``from_codes``
    health     the health report (see ``health.health_report``)
    """

    def __init__(
        self,
        codes: Tensor,
        K: int,
        raw_codes: Tensor | None = None,
        codebooks: list[Tensor] | None = None,
        latents: Tensor | None = None,
        health: dict | None = None,
    ):
        self.codes, self.K = codes, K
        self.trie = Trie.from_codes(codes, K).to(codes.device)
        self.raw_codes = codes if raw_codes is None else raw_codes
        self.codebooks, self.latents = codebooks or [], latents
        self.health = health if health is not None else health_report(self.raw_codes, codes, K)
        offset = FIRST_CODE + K * torch.arange(self.m, device=codes.device)
        pad = torch.full((1, self.m), PAD, dtype=torch.int64, device=codes.device)
        self.tokens = torch.cat([codes + offset, pad])

    @property
    def m(self) -> int:
        """The number of code levels of an ID."""
        return self.codes.shape[1]

    @property
    def n_items(self) -> int:
        """N, the number of items."""
        return self.codes.shape[0]

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens: PAD, BOS, ANSWER and the m*K codes."""
        return FIRST_CODE + self.m * self.K

    @classmethod
    def from_codes(cls, codes: ArrayLike, K: int) -> SemanticTokenizer:
        """A tokenizer with the given IDs: (N, m), all different, values 0..K-1; ``BadInput`` otherwise."""
        codes = torch.as_tensor(codes)
        _check_codes(codes, K, "codes")
        return cls(codes.to(torch.int64), K)

    @classmethod
    def fit(
        cls, embeddings: np.ndarray, config: TokenizerConfig, log: RunLog | None = None, progress: bool = True
    ) -> SemanticTokenizer:
        """A tokenizer, on the CPU, with IDs learned from the items' embeddings by ``config.method``.

        The same embeddings, settings and machine give the same IDs.

        Args:
            embeddings: (N, d_w) finite; ``BadInput`` otherwise, or if N is more than K**m.
            config: method, sizes and training settings.
            log: gets one row per epoch of the RQ-VAE.
            progress: show a progress bar.
        """
        x = _check_embeddings(embeddings, config)
        if config.method == "rqkmeans":
            quantizer, latents = rq_kmeans(x, config, progress), x
            raw = quantizer.encode(latents)
            reconstructed = quantizer.embed(raw)
        else:
            with torch_threads(1):
                model = train_rqvae(x.to(pick_device()), config, log, progress).cpu().eval()
            quantizer, latents = model.quantizer, model.encode(x)
            raw = quantizer.encode(latents)
            reconstructed = model.decode(quantizer.embed(raw))
        books = [book.detach().clone() for book in quantizer.codebooks]
        codes = repair_collisions(raw, latents, books)
        variance = (x - x.mean(dim=0)).square().sum().item()
        error = (x - reconstructed).square().sum().item() / variance if variance > 0 else 0.0
        distinct = len(np.unique(x.numpy(), axis=0))
        return cls(codes, config.K, raw, books, latents, health_report(raw, codes, config.K, distinct, error))

    def items_of(self, tokens: Tensor) -> Tensor:
        """The items (...) whose IDs are the vocabulary tokens (..., m); -1 where no item has that ID."""
        offset = FIRST_CODE + self.K * torch.arange(self.m, device=tokens.device)
        return self.trie.lookup(tokens - offset)  # a token of another level gives a code outside 0..K-1

    def to(self, device: torch.device | str) -> SemanticTokenizer:
        """Move all tensors to ``device``, in place, and return the tokenizer itself."""
        self.codes, self.raw_codes = self.codes.to(device), self.raw_codes.to(device)
        self.tokens, self.trie = self.tokens.to(device), self.trie.to(device)
        self.codebooks = [book.to(device) for book in self.codebooks]
        self.latents = None if self.latents is None else self.latents.to(device)
        return self

    def save(self, folder: str | Path) -> None:
        """Write ``tokenizer.safetensors`` and ``tokenizer.json`` into ``folder``, each atomically."""
        folder = Path(folder)
        tensors = {"codes": self.codes.to(torch.int32), "raw_codes": self.raw_codes.to(torch.int32)}
        if self.codebooks:
            tensors["codebooks"] = torch.stack(self.codebooks)
        if self.latents is not None:
            tensors["latents"] = self.latents
        write_tensors(folder / "tokenizer.safetensors", tensors)
        about = {"schema": 1, "items": self.n_items, "m": self.m, "K": self.K, "health": self.health}
        write_json(folder / "tokenizer.json", about)

    def fingerprint(self) -> str:
        """A short hash of all IDs: a model can only be used with the IDs that it was trained with."""
        return hashlib.sha256(self.codes.cpu().numpy().astype("<i8").tobytes()).hexdigest()[:16]

    @classmethod
    def load(cls, folder: str | Path) -> SemanticTokenizer:
        """The tokenizer that ``save`` wrote; ``BadInput`` if files are missing, broken or inconsistent."""
        folder = Path(folder)
        about = read_json(folder / "tokenizer.json")
        path = folder / "tokenizer.safetensors"
        tensors, _ = read_tensors(path)
        keys = ("items", "m", "K")
        if not isinstance(about, dict) or not all(type(about.get(key)) is int for key in keys):
            raise BadInput(str(folder / "tokenizer.json"), "items, m and K must be integers", RERUN)
        items, m, K = (about[key] for key in keys)
        for name in ("codes", "raw_codes"):
            if name not in tensors or tuple(tensors[name].shape) != (items, m):
                have = tuple(tensors[name].shape) if name in tensors else "missing"
                raise BadInput(f"{path}: {name} {have}", f"its shape must be ({items}, {m})", RERUN)
            _check_codes(tensors[name], K, f"{path}: {name}")
        books, latents = tensors.get("codebooks"), tensors.get("latents")
        for name, value, shape in (("codebooks", books, (m, K)), ("latents", latents, (items,))):
            if value is not None and (tuple(value.shape[:-1]) != shape or not value.isfinite().all()):
                raise BadInput(f"{path}: {name}", f"it must be finite, of shape {(*shape, 'c')}", RERUN)
        codes, raw = (tensors[name].to(torch.int64) for name in ("codes", "raw_codes"))
        return cls(codes, K, raw, [] if books is None else list(books), latents, about.get("health"))


def _check_codes(codes: Tensor, K: int, what: str) -> None:
    """``BadInput`` unless codes are a matrix (N, m) of integers 0..K-1; ``what`` is for the message."""
    if codes.ndim != 2 or codes.dtype.is_floating_point or codes.dtype == torch.bool or not codes.numel():
        rule = "semantic IDs are a matrix of integers, one row an item"
        raise BadInput(f"{what} of shape {tuple(codes.shape)}, {codes.dtype}", rule, "give (N, m) integers")
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= K:
        raise BadInput(f"{what} from {low} to {high}", f"codes lie in 0..{K - 1}", "check K and the codes")


def _check_embeddings(embeddings: np.ndarray, config: TokenizerConfig) -> Tensor:
    """Embeddings as a float32 tensor (N, d_w); ``BadInput`` unless it is finite, with N <= K**m."""
    x = torch.as_tensor(np.asarray(embeddings, dtype=np.float32))
    if x.ndim != 2 or not x.numel():
        rule = "embeddings are a matrix, one row an item"
        raise BadInput(f"embeddings of shape {tuple(x.shape)}", rule, "give (N, d_w) numbers")
    bad = (~x.isfinite().all(dim=1)).nonzero()[:, 0]
    if len(bad):
        rule = "embeddings must be finite"
        raise BadInput(f"embedding of item {int(bad[0])} ({len(bad)} in all)", rule, "mend these rows")
    if len(x) > config.K**config.m:
        rule = f"{config.m} levels of {config.K} codes give only {config.K**config.m} IDs"
        raise BadInput(f"{len(x)} items", rule, "raise tokenizer.K or tokenizer.m")
    return x


def token_name(token: int, K: int) -> str:
    """A token as text: PAD, BOS, ANSWER, or ``level:code`` with levels from 1 and codes from 0."""
    if token < FIRST_CODE:
        return ("PAD", "BOS", "ANSWER")[token]
    level, code = divmod(token - FIRST_CODE, K)
    return f"{level + 1}:{code}"
