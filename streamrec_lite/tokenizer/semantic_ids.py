"""Semantic IDs: from item embeddings to m codes an item, all different, and back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
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


class SemanticTokenizer:
    """The semantic IDs of a catalogue of N items, in the forms that the other modules need.

    codes      (N, m) int64, 0..K-1, all rows different: the IDs
    tokens     (N + 1, m) int64, vocabulary tokens; the last row is all PAD, so ``tokens[history]``
               works where a short history is filled with PAD_ITEM = -1
    trie       the tree of all IDs
    raw_codes  (N, m) the quantiser's codes, before collisions were repaired
    codebooks  m tensors (K, c), and latents (N, c), float32: empty and None for ``from_codes``
    health     the report (see ``health.health_report``)
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
        return self.codes.shape[1]

    @property
    def n_items(self) -> int:
        return self.codes.shape[0]

    @property
    def vocab_size(self) -> int:
        """V: PAD, BOS, ANSWER and the m*K codes."""
        return FIRST_CODE + self.m * self.K

    @classmethod
    def from_codes(cls, codes, K: int) -> SemanticTokenizer:
        """A tokenizer with given IDs (N, m), all different, values 0..K-1; ``BadInput`` otherwise."""
        codes = torch.as_tensor(codes)
        _check_codes(codes, K, "codes")
        return cls(codes.to(torch.int64), K)

    @classmethod
    def fit(
        cls, embeddings: np.ndarray, config: TokenizerConfig, log: RunLog | None = None, progress: bool = True
    ) -> SemanticTokenizer:
        """Learn the IDs of items from their embeddings (N, d_w), by ``config.method``; on the CPU after.

        The same embeddings, settings and machine give the same IDs. Raises ``BadInput`` for
        embeddings that are not a finite matrix, and where K**m IDs are too few.
        """
        x = _check_embeddings(embeddings, config)
        if config.method == "rqkmeans":
            quantizer, latents = rq_kmeans(x, config, progress), x
            raw = quantizer.encode(latents)
            rebuilt = quantizer.embed(raw)
        else:
            with torch_threads(1):
                model = train_rqvae(x.to(pick_device()), config, log, progress).cpu().eval()
            quantizer, latents = model.quantizer, model.encode(x)
            raw = quantizer.encode(latents)
            rebuilt = model.decode(quantizer.embed(raw))
        books = [book.detach().clone() for book in quantizer.codebooks]
        codes = repair_collisions(raw, latents, books)
        variance = (x - x.mean(dim=0)).square().sum().item()
        error = (x - rebuilt).square().sum().item() / variance if variance > 0 else 0.0
        distinct = len(np.unique(x.numpy(), axis=0))
        return cls(codes, config.K, raw, books, latents, health_report(raw, codes, config.K, distinct, error))

    def items_of(self, tokens: Tensor) -> Tensor:
        """The items (...) of whole IDs in vocabulary tokens (..., m); -1 where no item has that ID."""
        offset = FIRST_CODE + self.K * torch.arange(self.m, device=tokens.device)
        return self.trie.lookup(tokens - offset)  # a token of another level is no code of this one

    def to(self, device) -> SemanticTokenizer:
        """Move all tensors to ``device``, in place; returns the tokenizer."""
        self.codes, self.raw_codes = self.codes.to(device), self.raw_codes.to(device)
        self.tokens, self.trie = self.tokens.to(device), self.trie.to(device)
        self.codebooks = [book.to(device) for book in self.codebooks]
        self.latents = None if self.latents is None else self.latents.to(device)
        return self

    def save(self, folder: str | Path) -> None:
        """Write ``tokenizer.safetensors``, then ``tokenizer.json``, each whole or not at all."""
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
        """A short hash of all IDs: a model knows only the codes that it was trained with."""
        return hashlib.sha256(self.codes.cpu().numpy().astype("<i8").tobytes()).hexdigest()[:16]

    @classmethod
    def load(cls, folder: str | Path) -> SemanticTokenizer:
        """Read what ``save`` wrote; anything that does not fit together is ``BadInput``."""
        folder = Path(folder)
        about = read_json(folder / "tokenizer.json")
        path = folder / "tokenizer.safetensors"
        tensors, _ = read_tensors(path)
        keys = ("items", "m", "K")
        if not isinstance(about, dict) or not all(type(about.get(key)) is int for key in keys):
            raise BadInput(str(folder / "tokenizer.json"), "items, m and K must be integers", REDO)
        items, m, K = (about[key] for key in keys)
        for name in ("codes", "raw_codes"):
            if name not in tensors or tuple(tensors[name].shape) != (items, m):
                have = tuple(tensors[name].shape) if name in tensors else "missing"
                raise BadInput(f"{path}: {name} {have}", f"its shape must be ({items}, {m})", REDO)
            _check_codes(tensors[name], K, f"{path}: {name}")
        books, latents = tensors.get("codebooks"), tensors.get("latents")
        for name, value, shape in (("codebooks", books, (m, K)), ("latents", latents, (items,))):
            if value is not None and (tuple(value.shape[:-1]) != shape or not value.isfinite().all()):
                raise BadInput(f"{path}: {name}", f"it must be finite, of shape {(*shape, 'c')}", REDO)
        codes, raw = (tensors[name].to(torch.int64) for name in ("codes", "raw_codes"))
        return cls(codes, K, raw, [] if books is None else list(books), latents, about.get("health"))


REDO = "delete the folder and run the tokenizer stage again"


def _check_codes(codes: Tensor, K: int, what: str) -> None:
    if codes.ndim != 2 or codes.dtype.is_floating_point or codes.dtype == torch.bool or not codes.numel():
        rule = "semantic IDs are a matrix of integers, one row an item"
        raise BadInput(f"{what} of shape {tuple(codes.shape)}, {codes.dtype}", rule, "give (N, m) integers")
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= K:
        raise BadInput(f"{what} from {low} to {high}", f"codes lie in 0..{K - 1}", "check K and the codes")


def _check_embeddings(embeddings: np.ndarray, config: TokenizerConfig) -> Tensor:
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
    """A token in words: PAD, BOS, ANSWER, or ``level:code``, both from 1 and 0 as in the tables."""
    if token < FIRST_CODE:
        return ("PAD", "BOS", "ANSWER")[token]
    level, code = divmod(token - FIRST_CODE, K)
    return f"{level + 1}:{code}"
