"""Settings of the data, the text embeddings, the semantic IDs, the backbone and the evaluation.

Every section is a frozen dataclass that pydantic checks: a wrong type, a number outside its range and an
unknown name are refused when an instance is made (``pydantic.ValidationError``). Whoever reads settings
from a file or a command line uses ``settings.Config``, which says the same as ``BadInput``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

SPECS = ("playground", "workshop", "amazon-2018:DIR", "amazon-2023:CATEGORY", "FILE.csv", "FILE.parquet")
SYNTHETIC = ("playground", "workshop")  # data sets that are generated, with a known best ranking
MAX_THOUGHTS = 64  # with the answer well within the 128 positions that T5's relative bias tells apart
OFFICIAL_MINILM = "sentence-transformers/all-MiniLM-L6-v2"
RULES = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)  # 3.0 and true are not integers


@dataclass(frozen=True, config=RULES)
class DataConfig:
    """Which interactions are kept, and how large the synthetic shops are."""

    k_core: int = Field(
        default=5, ge=0, le=1000, description="keep users and items with at least this many interactions"
    )
    max_history: int = Field(
        default=20, ge=1, le=1000, description="L: the model sees the L newest items of a history"
    )
    playground_items: int = Field(default=600, ge=20, le=2_000_000, description="playground: number of items")
    playground_users: int = Field(
        default=2500, ge=10, le=10_000_000, description="playground: number of users"
    )
    playground_seed: int = Field(
        default=0, ge=0, description="playground: seed of its items and of its users"
    )
    workshop_parts: int = Field(default=64, ge=24, le=5000, description="workshop: number of parts")
    workshop_users: int = Field(
        default=40_000, ge=100, le=10_000_000, description="workshop: number of users, with one errand each"
    )


@dataclass(frozen=True, config=RULES)
class EmbeddingConfig:
    """How an item's text becomes a vector."""

    model: str = Field(
        default="auto",
        description="auto (tfidf on the playground, else all-MiniLM-L6-v2), tfidf, or the name or folder "
        "of a sentence-transformers model",
    )
    dim: int = Field(default=64, ge=2, le=4096, description="tfidf: dimensions that the truncated SVD keeps")
    batch_size: int = Field(default=64, ge=1, le=65536, description="items encoded at once")
    max_tokens: int = Field(
        default=128, ge=8, le=8192, description="tokens of an item's text that the model reads"
    )


@dataclass(frozen=True, config=RULES)
class TokenizerConfig:
    """How semantic IDs are learned (section 2.2.1)."""

    method: Literal["rqvae", "rqkmeans"] = Field(
        default="rqvae", description="semantic IDs by an RQ-VAE (the paper) or by residual k-means"
    )
    m: int = Field(default=4, ge=1, le=8, description="m: codes in a semantic ID, one for each level")
    K: int = Field(default=256, ge=2, le=65536, description="K: codes to choose from at each level")
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(512, 256, 128),
        min_length=1,
        description="widths of the encoder's hidden layers; the decoder has the same in reverse",
    )
    latent_dim: int = Field(
        default=32, ge=1, le=4096, description="c: width of the latent z and of the code embeddings"
    )
    beta: float = Field(default=0.25, ge=0, le=10, description="beta of eq. 6: weight of the commitment loss")
    lr: float = Field(default=1e-3, ge=1e-8, le=1, description="AdamW learning rate")
    batch_size: int = Field(default=256, ge=1, le=1_000_000, description="items in a training step")
    epochs: int = Field(default=100, ge=1, le=100_000, description="passes over the items")
    seed: int = Field(
        default=0,
        ge=0,
        description="seed of the semantic IDs; all seeds of a run share them, so only models differ",
    )


@dataclass(frozen=True, config=RULES)
class BackboneConfig:
    """Sizes of the T5 encoder and decoders (section 2.2.2)."""

    d_model: int = Field(default=128, ge=2, le=65536, description="d: width of the token states")
    d_ff: int = Field(default=512, ge=1, le=262144, description="width of the feed-forward layers")
    num_layers: int = Field(default=2, ge=1, le=64, description="layers of the encoder and of each decoder")
    decoder_layers: int = Field(
        default=0, ge=0, le=64, description="layers of each decoder; 0: as many as the encoder (num_layers)"
    )
    num_heads: int = Field(default=4, ge=1, le=256, description="attention heads")
    d_kv: int = Field(default=32, ge=1, le=1024, description="width of an attention head")
    dropout: float = Field(default=0.1, ge=0, le=0.99, description="dropout in all layers")
    recency_embeddings: int = Field(
        default=80,
        ge=0,
        le=8192,
        description="number of newest history tokens that get a learned embedding of their distance "
        "from the end (0: none, as in T5)",
    )
    softmax: Literal["trie", "vocabulary"] = Field(
        default="trie",
        description="the softmax of eq. 11 covers only codes that lead to an item, or all codes",
    )


@dataclass(frozen=True, config=RULES)
class EvalConfig:
    """How models are evaluated."""

    beams: int = Field(
        default=20, ge=1, le=10_000, description="W: width of the beam search for a user's items"
    )
    batch_size: int = Field(
        default=64, ge=1, le=1_000_000, description="users ranked at once; 64 suits a CPU's caches"
    )
    bootstrap: int = Field(
        default=2000,
        ge=10,
        le=1_000_000,
        description="resamples of the paired bootstrap behind the 95 % intervals",
    )
