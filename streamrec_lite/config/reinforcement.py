"""Settings of stage 3, reinforcement learning by GRPO (section 2.4)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from .sections import RULES
from .training import (
    Dtype,
    EmbeddingFactor,
    LearningRate,
    Patience,
    Schedule,
    Share,
    TrainConfig,
    WarmupSteps,
    Weight,
    WeightDecay,
)


@dataclass(frozen=True, config=RULES)
class GrpoConfig(TrainConfig):
    """Stage 3: reinforcement learning by GRPO (section 2.4)."""

    lr: LearningRate = 3e-5
    embedding_lr_factor: EmbeddingFactor = 1.0
    schedule: Schedule = "constant"
    warmup_steps: WarmupSteps = 20
    weight_decay: WeightDecay = 0.0
    batch_size: int = Field(default=32, ge=1, le=100_000, description="B: users in a rollout batch")
    max_epochs: int = Field(
        default=5, ge=1, le=100_000, description="blocks of updates; the model is evaluated after each block"
    )
    patience: Patience = 4
    eval_every: int = Field(
        default=1, ge=1, le=100_000, description="blocks between two evaluations on validation"
    )
    precision: Dtype = Field(
        default="float32",
        description="number format of the updates; ratios of probabilities are too fine for bfloat16",
    )
    rollout_precision: Dtype = Field(
        default="auto", description="number format in which rollouts are written and judged"
    )
    batches_per_block: int = Field(default=60, ge=1, le=1_000_000, description="rollout batches in a block")
    updates_per_batch: int = Field(default=1, ge=1, le=100, description="updates on each rollout batch")
    G: int = Field(default=16, ge=1, le=1024, description="G: rollouts of a user")
    epsilon: Share = Field(
        default=0.2, description="epsilon of eq. 20: ratios are clipped to 1 - epsilon and 1 + epsilon"
    )
    beta: float = Field(default=0.04, ge=0, le=100, description="beta of eq. 20: weight of the KL term")
    K: int = Field(default=50, ge=1, le=10_000, description="K of eq. 27: items of similar text as negatives")
    likelihood_bound: float = Field(
        default=0.0,
        ge=0,
        description="the likelihood reward is cut to this many nats either way (0: it is not cut)",
    )
    reward_order: Literal["sum-first", "normalise-first"] = Field(
        default="sum-first",
        description="rewards are summed, then normalised in the group (the paper), or the reverse",
    )
    credit_assignment: Literal["rollout", "later-rewards"] = Field(
        default="later-rewards",
        description="each token has its rollout's advantage (the paper), or that of rewards it can change",
    )
    ratio: Literal["token", "rollout"] = Field(
        default="token",
        description="ratio, clip and KL term of each token, or of a whole rollout (eq. 20)",
    )
    dropout: Literal["off", "on"] = Field(
        default="off", description="dropout in the updates; rollouts are always sampled without it"
    )
    similarity_state: Literal["last", "mean"] = Field(
        default="last",
        description="the similarity reward compares s_l, or the mean of the decoder's states (eq. 24)",
    )
    format_weight: Weight = Field(default=1.0, description="weight of the format reward (eq. 21)")
    match_weight: Weight = Field(default=1.0, description="weight of the exact match reward (eqs 22, 23)")
    similarity_weight: Weight = Field(default=1.0, description="weight of the similarity reward (eqs 24, 25)")
    likelihood_weight: Weight = Field(
        default=1.0, description="weight of the thinking likelihood reward (eq. 26)"
    )
    ranking_weight: Weight = Field(default=1.0, description="weight of the thinking ranking reward (eq. 27)")
    reciprocal_weight: Weight = Field(
        default=0.0,
        description="weight of a reward 1 / (the target's rank in the model's beam), not in the paper",
    )
    target_likelihood_weight: Weight = Field(
        default=0.0,
        description="weight of -log P(target | history, thoughts) beside the loss of GRPO (not in the paper)",
    )
    max_drop: Share = Field(
        default=0.05,
        description="training ends if validation N@10 falls by more than this share below its best",
    )
    min_gain_in_std_errors: float = Field(
        default=2.0,
        ge=0,
        description="keep new weights only if validation N@10 improves by at least this many standard errors",
    )
    final_weights: Literal["best", "last"] = Field(
        default="best", description="keep the best block by the two rules above, or always the last one"
    )
