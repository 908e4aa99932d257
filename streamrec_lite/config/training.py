"""Settings of what trains by gradient: TIGER, stages 1 and 2 of STREAM-Rec, the baselines.

``TrainConfig`` holds what all of them share (and is TIGER's own section); a stage redefines a default by
naming the setting again.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from .sections import MAX_THOUGHTS, RULES

LearningRate = Annotated[float, Field(ge=1e-9, le=1, description="AdamW learning rate after the warm-up")]
EmbeddingFactor = Annotated[
    float,
    Field(ge=0, le=1e4, description="the embedding table's learning rate is lr times this"),
]
Schedule = Annotated[
    Literal["cosine", "constant"], Field(description="after the warm-up lr falls by a cosine, or stays")
]
WarmupSteps = Annotated[int, Field(ge=0, le=1_000_000, description="steps in which lr rises from 0")]
WeightDecay = Annotated[float, Field(ge=0, le=10, description="AdamW weight decay")]
BatchSize = Annotated[int, Field(ge=1, le=1_000_000, description="training examples in a step")]
Epochs = Annotated[
    int, Field(ge=1, le=100_000, description="largest number of passes over the training examples")
]
EvalEvery = Annotated[
    int, Field(ge=1, le=100_000, description="epochs between two evaluations on validation")
]
Patience = Annotated[
    int,
    Field(ge=1, le=100_000, description="stop after this many evaluations without a better validation N@10"),
]
EmaDecay = Annotated[
    float,
    Field(
        ge=0,
        le=0.99999,
        description="evaluate a moving average of the weights with this decay a step (0: no average)",
    ),
]
Dtype = Literal["auto", "float32", "bfloat16"]
Precision = Annotated[
    Dtype, Field(description="number format in training; auto: bfloat16 on devices where it is faster")
]
ItemVectorUse = Literal["history-and-answer", "history", "none"]
VectorDropout = Annotated[
    float,
    Field(ge=0, le=0.99, description="probability that a history item goes without its vector in training"),
]
TokenLosses = Annotated[
    Literal["mean", "sum"],
    Field(description="a user's loss is the mean over tokens, or their sum (eqs 10 and 15 as printed)"),
]
Weight = Annotated[float, Field(ge=0, le=1e4)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=RULES)
class TrainConfig:
    """TIGER, and what every training has."""

    lr: LearningRate = 1.5e-3
    embedding_lr_factor: EmbeddingFactor = 20.0
    schedule: Schedule = "cosine"
    warmup_steps: WarmupSteps = 400
    weight_decay: WeightDecay = 0.05
    max_grad_norm: float = Field(
        default=1.0, ge=1e-6, le=1e6, description="gradients with a larger norm are scaled down"
    )
    batch_size: BatchSize = 64
    max_epochs: Epochs = 24
    patience: Patience = 10
    eval_every: EvalEvery = 3
    temperature: float = Field(
        default=1.0, ge=1e-3, le=1e3, description="tau of eq. 11 in training; recommendations use tau = 1"
    )
    ema_decay: EmaDecay = 0.0
    precision: Precision = "auto"


@dataclass(frozen=True, config=RULES)
class PretrainConfig(TrainConfig):
    """Stage 1: pretraining (section 2.2)."""

    schedule: Schedule = "constant"
    max_epochs: Epochs = 12
    ema_decay: EmaDecay = 0.998
    n_similar: int = Field(
        default=2, ge=1, le=16, description="similar items written before the target (eq. 9)"
    )
    similar_pool: int = Field(
        default=10,
        ge=1,
        le=10_000,
        description="similar items are drawn, anew every epoch, from this many nearest items by text",
    )
    token_losses: TokenLosses = "mean"
    item_vectors: ItemVectorUse = Field(
        default="none",
        description="as sft.item_vectors, but from pretraining on, so that the reference has them, too",
    )
    item_vector_dropout: VectorDropout = 0.3


@dataclass(frozen=True, config=RULES)
class SftConfig(TrainConfig):
    """Stage 2: supervised fine-tuning (section 2.3)."""

    max_epochs: Epochs = 12
    l: int = Field(default=4, ge=0, le=MAX_THOUGHTS, description="l: thoughts before the answer")
    annotator: Literal[
        "residual", "nearest-items", "own-codes", "random", "true-steps", "random-steps", "pause"
    ] = Field(
        default="residual",
        description="thoughts to learn: the codes nearest to the gap t - s_i (eq. 12), codes of similar "
        "items, codes of the target, or random codes; on the workshop the items on the way, a random number "
        "of steps on it, or one code that names no item",
    )
    decoder_init: Literal["thinking", "direct"] = Field(
        default="thinking",
        description="the thinking decoder starts from its own pretrained weights, or the direct one's",
    )
    epochs_per_round: int = Field(
        default=6,
        ge=1,
        le=100_000,
        description="epochs after which the training thoughts are annotated anew",
    )
    condition_on: Literal["own", "annotated"] = Field(
        default="own",
        description="in training, answer and states follow the model's own thoughts, or the annotator's",
    )
    thought_decoding: Literal["sample", "greedy"] = Field(
        default="sample",
        description="in training, the model's own thoughts are sampled, or the likeliest codes",
    )
    learn_thoughts_after: Literal["annotated", "own"] = Field(
        default="annotated",
        description="in training, a thought is learned after the annotator's thoughts, or the model's own",
    )
    answer_token: Literal["answer", "none"] = Field(
        default="answer",
        description="the token ANSWER, or nothing, stands between the thoughts and the answer",
    )
    repeated_thoughts: Literal["never", "allowed"] = Field(
        default="allowed", description="whether a code may be thought more than once"
    )
    token_losses: TokenLosses = "mean"
    state_sum: Literal["scaled", "raw"] = Field(
        default="scaled",
        description="MLP_s reads d_0 + ... + d_i scaled to one length, or as it is; then s_0 = d_0 (eq. 13)",
    )
    head_warmup_steps: int = Field(
        default=300, ge=0, le=100_000, description="steps that train MLP_s alone before the first annotation"
    )
    thought_gradient: Literal["none", "straight-through"] = Field(
        default="none",
        description="whether the gradient at a thought that is read passes on to the residual r_i; needs "
        "sft.condition_on=annotated",
    )
    item_vectors: ItemVectorUse = Field(
        default="history-and-answer",
        description="where each item has a learned vector beside its codes: in histories and answers, in "
        "histories, or nowhere",
    )
    item_vector_dropout: VectorDropout = 0.3
    lam: Weight = Field(default=0.1, description="lambda of eq. 19: weight of L_DPO")
    mu: Weight = Field(default=0.0, description="mu of eq. 19: weight of L_Quant")
    delta: Weight = Field(default=0.5, description="delta of eq. 19: weight of L_State")
    negatives: Literal["catalogue", "batch", "whole-batch"] = Field(
        default="catalogue",
        description="L_State compares the target with all other items, with the batch's other targets, or "
        "with the targets of all its users, equal ones too (eq. 14)",
    )
    first_guess_share: Share = Field(
        default=0.9,
        description="how much of the soft label of s_1..s_l is s_0's own prediction (0: only the target, "
        "eq. 14)",
    )
    similar_items_share: Share = Field(
        default=0.1, description="how much of that prediction is spread over items with similar text"
    )
    first_state_weight: Weight = Field(
        default=0.5, description="L_State: weight of the loss of s_0, which learns from the target alone"
    )
    thought_weight: Weight = Field(
        default=0.03, description="L_SFT: weight of the thoughts; the answer's weight is 1"
    )
    state_score_scale: float = Field(
        default=0.0,
        ge=0,
        le=1e3,
        description="L_State: factor of the scores s . t (1: eq. 14 as printed; 0: it is learned)",
    )
    align_weight: Weight = Field(
        default=0.01, description="weight of |s - t|^2, which pulls states to t (not in the paper)"
    )
    dpo_beta: float = Field(default=0.1, ge=0, le=1e3, description="beta of eq. 18")
    quant_beta: float = Field(default=0.25, ge=0, le=1e3, description="beta of eq. 15")
    controls: Literal["none", "all"] = Field(
        default="none", description="train the control models of notebook 07, too (twice the time)"
    )
    similar_pool: int = Field(
        default=10,
        ge=1,
        le=10_000,
        description="L_DPO's dispreferred item is drawn from this many nearest items by text (at most "
        "pretrain.similar_pool)",
    )


@dataclass(frozen=True, config=RULES)
class BaselineConfig(TrainConfig):
    """The neural baselines, each trained with the same settings but for what its grid chooses."""

    lr: LearningRate = 1e-3
    embedding_lr_factor: EmbeddingFactor = 1.0
    schedule: Schedule = "constant"
    warmup_steps: WarmupSteps = 0
    weight_decay: WeightDecay = 0.0
    batch_size: BatchSize = 256
    max_epochs: Epochs = 200
    eval_every: EvalEvery = 1
    ema_decay: EmaDecay = 0.998
    d: int = Field(
        default=64, ge=1, le=65536, description="d: width of the item embeddings and of the states"
    )
    num_layers: int = Field(default=2, ge=1, le=64, description="layers of the transformers")
    num_heads: int = Field(default=2, ge=1, le=256, description="attention heads of the transformers")
    dropout: float = Field(default=0.5, ge=0, le=0.99, description="dropout, where no grid chooses it")
    tune: Literal["grid", "none"] = Field(
        default="grid",
        description="choose lr and dropout of each model by a small grid on validation, or take those here",
    )
    reasoning_steps: int = Field(default=2, ge=1, le=64, description="ReaRec: K, steps of latent reasoning")
    reasoning_method: Literal["ERL", "PRL"] = Field(
        default="ERL", description="ReaRec: ensemble (ERL) or progressive (PRL) reasoning learning"
    )
