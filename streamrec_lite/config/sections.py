"""All settings: frozen dataclasses, a sentence beside each field. ``presets`` has their sets of values.

A setting is reached by its dotted name, on the command line too: ``--set tiger.lr=0.002``. A name
that does not exist, a value that does not parse, or one outside its range is ``BadInput``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field

from ..common.errors import BadInput, did_you_mean
from .fields import build, check, leaves, opt, parse, types

PRESETS = ("smoke", "lite", "paper")
SPECS = ("playground", "amazon-2018:DIR", "amazon-2023:CATEGORY", "FILE.csv", "FILE.parquet")
LONGEST = 64  # thoughts; with the answer well within the 128 places that T5's relative positions tell apart
OFFICIAL_MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class DataConfig:
    k_core: int = opt(5, "keep users and items with at least this many interactions", 0, 1000)
    max_history: int = opt(20, "L: items of a history that a model sees, the newest ones", 1, 1000)
    playground_items: int = opt(600, "playground: items of the shop", 20, 2_000_000)
    playground_users: int = opt(2500, "playground: users who shop", 10, 10_000_000)
    playground_seed: int = opt(0, "playground: seed of the world and of its users", 0)


@dataclass(frozen=True)
class EmbeddingConfig:
    model: str = opt(
        "auto",
        "'auto' (playground: tfidf, else all-MiniLM-L6-v2), 'tfidf', a sentence-transformers name or folder",
    )
    dim: int = opt(64, "tfidf: dimensions after the truncated SVD", 2, 4096)
    batch_size: int = opt(64, "items encoded at once", 1, 65536)
    max_tokens: int = opt(128, "tokens of an item's text that are read", 8, 8192)


@dataclass(frozen=True)
class TokenizerConfig:
    method: str = opt("rqvae", "how semantic IDs are learned", among=("rqvae", "rqkmeans"))
    m: int = opt(4, "m: code levels of a semantic ID", 2, 8)
    K: int = opt(256, "K: codes a level", 2, 65536)
    hidden: tuple[int, ...] = opt((512, 256, 128), "widths of the encoder's layers, mirrored in the decoder")
    latent_dim: int = opt(32, "c: width of the latent z and of the code embeddings", 1, 4096)
    beta: float = opt(0.25, "beta of eq. 6, the commitment weight", 0.0, 10.0)
    lr: float = opt(1e-3, "AdamW learning rate", 1e-8, 1.0)
    batch_size: int = opt(256, "items a step", 1, 1_000_000)
    epochs: int = opt(100, "passes over the items", 1, 100_000)
    seed: int = opt(0, "one tokenizer serves every seed of a run, so that rows differ by model alone", 0)


@dataclass(frozen=True)
class BackboneConfig:
    d_model: int = opt(128, "d: width of the token states", 2, 65536)
    d_ff: int = opt(512, "width of the feed-forward layers", 1, 262144)
    num_layers: int = opt(2, "layers of the encoder, and of each decoder", 1, 64)
    decoder_layers: int = opt(0, "layers of each decoder where they are to differ; 0: num_layers", 0, 64)
    num_heads: int = opt(4, "attention heads", 1, 256)
    d_kv: int = opt(32, "width of a head", 1, 1024)
    dropout: float = opt(0.1, "dropout in all layers", 0.0, 0.99)
    recency_embeddings: int = opt(
        80, "newest history tokens whose distance from the end has an embedding of its own; 0: none", 0, 8192
    )
    softmax: str = opt(
        "trie", "eq. 11 runs over codes that lead to an item, or over all", among=("trie", "vocabulary")
    )


@dataclass(frozen=True)
class TrainConfig:
    lr: float = opt(1.5e-3, "AdamW peak learning rate", 1e-8, 1.0)
    embedding_lr_factor: float = opt(20.0, "how many times faster the embedding table learns", 0.0, 1e4)
    schedule: str = opt("cosine", "after the warm-up", among=("cosine", "constant"))
    warmup_steps: int = opt(400, "steps of linear warm-up", 0, 1_000_000)
    weight_decay: float = opt(0.05, "AdamW weight decay", 0.0, 10.0)
    max_grad_norm: float = opt(1.0, "largest gradient norm", 1e-6, 1e6)
    batch_size: int = opt(64, "training prefixes a step", 1, 1_000_000)
    max_epochs: int = opt(24, "passes over the training prefixes", 1, 100_000)
    patience: int = opt(10, "evaluations without a better validation N@10 before the loop stops", 1, 100_000)
    eval_every: int = opt(3, "epochs between evaluations on validation", 1, 100_000)
    temperature: float = opt(1.0, "tau of eq. 11 in training; whoever answers does so at 1", 1e-3, 1e3)
    ema_decay: float = opt(
        0.0, "decay a step of the weights' moving average that is evaluated; 0: off", 0.0, 0.99999
    )
    precision: str = opt(
        "auto", "auto: bfloat16 where measured faster", among=("auto", "float32", "bfloat16")
    )


@dataclass(frozen=True)
class PretrainConfig(TrainConfig):
    schedule: str = opt("constant", "after the warm-up", among=("cosine", "constant"))
    ema_decay: float = opt(
        0.998, "decay a step of the weights' moving average that is evaluated; 0: off", 0.0, 0.99999
    )
    max_epochs: int = opt(12, "passes over the training prefixes", 1, 100_000)
    eval_every: int = opt(3, "epochs between evaluations on validation", 1, 100_000)
    n_similar: int = opt(2, "items of similar text that are written before the target (eq. 9)", 1, 16)
    similar_pool: int = opt(10, "nearest items that they are drawn from, anew every epoch", 1, 10_000)
    item_vectors: str = opt(
        "none",
        "as sft.item_vectors, from pretraining on",
        among=("none", "history-and-answer", "history"),
    )
    item_vector_dropout: float = opt(0.3, "how often an item of a history goes without its vector", 0.0, 0.99)


@dataclass(frozen=True)
class SftConfig(TrainConfig):
    lr: float = opt(1.5e-3, "AdamW peak learning rate", 1e-8, 1.0)
    max_epochs: int = opt(12, "passes over the training prefixes", 1, 100_000)
    l: int = opt(4, "l: thoughts before the answer", 0, 64)
    annotator: str = opt(
        "residual", "where thoughts come from", among=("residual", "nearest-items", "own-codes", "random")
    )
    decoder_init: str = opt(
        "thinking",
        "the thinking decoder starts as stage 1 left it, or as a copy of the direct one",
        among=("thinking", "direct"),
    )
    epochs_per_round: int = opt(6, "epochs between two annotations", 1, 100_000)
    condition_on: str = opt(
        "own", "whose thoughts answers and states are learned after", among=("own", "annotated")
    )
    thought_decoding: str = opt(
        "sample", "how the model's own thoughts are written", among=("sample", "greedy")
    )
    learn_thoughts_after: str = opt(
        "annotated",
        "what is to be thought next is learned after the annotator's thoughts, or after the model's own",
        among=("annotated", "own"),
    )
    answer_token: str = opt(
        "answer",
        "what is read between thoughts and answer: the token ANSWER, or none",
        among=("answer", "none"),
    )
    repeated_thoughts: str = opt("allowed", "may a thought come twice?", among=("never", "allowed"))
    item_vectors: str = opt(
        "history-and-answer",
        "an item is its codes and a vector of its own (read: which names no answer), or its codes alone",
        among=("history-and-answer", "history", "none"),
    )
    item_vector_dropout: float = opt(0.3, "how often an item of a history goes without its vector", 0.0, 0.99)
    lam: float = opt(0.1, "lambda of eq. 19: weight of L_DPO", 0.0, 1e4)
    mu: float = opt(0.0, "mu of eq. 19: weight of L_Quant", 0.0, 1e4)
    delta: float = opt(0.5, "delta of eq. 19: weight of L_State", 0.0, 1e4)
    negatives: str = opt(
        "catalogue", "of L_State: all other items, or the batch's (eq. 14)", among=("catalogue", "batch")
    )
    first_guess_share: float = opt(
        0.9,
        "share of L_State's labels after a thought that is the first guess, what s_0 takes for the target",
        0.0,
        1.0,
    )
    similar_items_share: float = opt(
        0.1, "share of that guess which is spread on items of similar text", 0.0, 1.0
    )
    first_state_weight: float = opt(
        0.5, "weight of s_0 in L_State, which learns from the target alone", 0.0, 1e4
    )
    thought_weight: float = opt(0.03, "weight of the thoughts in L_SFT, beside the answer's 1", 0.0, 1e4)
    state_score_scale: float = opt(
        0.0, "scale of the scores s . t in L_State; 1: eq. 14 as printed, 0: it is learned", 0.0, 1e3
    )
    align_weight: float = opt(0.01, "weight of |s - sg[t]|^2, which is not in the paper", 0.0, 1e4)
    dpo_beta: float = opt(0.1, "beta of eq. 18", 0.0, 1e3)
    quant_beta: float = opt(0.25, "beta of eq. 15", 0.0, 1e3)
    controls: str = opt(
        "none", "train the controls of notebook 07 too (they double the time)", among=("none", "all")
    )
    similar_pool: int = opt(
        10,
        "dispreferred: one of so many nearest items (at most pretrain.similar_pool), drawn anew every time",
        1,
        10_000,
    )


@dataclass(frozen=True)
class GrpoConfig(TrainConfig):
    lr: float = opt(3e-5, "AdamW peak learning rate", 1e-9, 1.0)
    embedding_lr_factor: float = opt(1.0, "how many times faster the embedding table learns", 0.0, 1e4)
    schedule: str = opt("constant", "after the warm-up", among=("cosine", "constant"))
    warmup_steps: int = opt(20, "steps of linear warm-up", 0, 1_000_000)
    weight_decay: float = opt(0.0, "AdamW weight decay", 0.0, 10.0)
    batch_size: int = opt(32, "B: users of a rollout batch", 1, 100_000)
    max_epochs: int = opt(5, "blocks of updates, each followed by an evaluation", 1, 100_000)
    patience: int = opt(4, "evaluations without a better validation N@10 before the loop stops", 1, 100_000)
    eval_every: int = opt(1, "blocks between evaluations on validation", 1, 100_000)
    precision: str = opt(
        "float32", "ratios of probabilities are too fine for bfloat16", among=("auto", "float32", "bfloat16")
    )
    rollout_precision: str = opt(
        "auto", "as precision, for writing and judging rollouts", among=("auto", "float32", "bfloat16")
    )
    batches_per_block: int = opt(60, "rollout batches of a block", 1, 1_000_000)
    updates_per_batch: int = opt(1, "updates on each rollout batch", 1, 100)
    G: int = opt(16, "G: rollouts a user", 1, 1024)
    epsilon: float = opt(0.2, "epsilon of eq. 20: how far a ratio may move", 0.0, 1.0)
    beta: float = opt(0.04, "beta of eq. 20: weight of the KL term", 0.0, 100.0)
    K: int = opt(50, "K of eq. 27: negatives of similar text", 1, 10_000)
    likelihood_bound: float = opt(0.0, "the likelihood reward is kept within +-bound nats; 0: unbounded", 0.0)
    reward_order: str = opt(
        "sum-first",
        "sum the rewards, then normalise (the paper), or the reverse",
        among=("sum-first", "normalise-first"),
    )
    credit_assignment: str = opt(
        "later-rewards",
        "a token has its rollout's advantage (the paper), or that of what it can change",
        among=("rollout", "later-rewards"),
    )
    format_weight: float = opt(1.0, "weight of the format reward (eq. 21)", 0.0, 1e4)
    match_weight: float = opt(1.0, "weight of the exact match reward (eqs 22, 23)", 0.0, 1e4)
    similarity_weight: float = opt(1.0, "weight of the similarity reward (eqs 24, 25)", 0.0, 1e4)
    likelihood_weight: float = opt(1.0, "weight of the thinking likelihood reward (eq. 26)", 0.0, 1e4)
    ranking_weight: float = opt(1.0, "weight of the thinking ranking reward (eq. 27)", 0.0, 1e4)
    reciprocal_weight: float = opt(
        0.0, "weight of 1/rank in the model's own beam, not in the paper", 0.0, 1e4
    )
    target_likelihood_weight: float = opt(
        0.0, "weight of the target's own likelihood after the thoughts, which GRPO leaves out", 0.0, 1e4
    )
    max_drop: float = opt(
        0.05, "training ends where validation N@10 has lost this share of its best", 0.0, 1.0
    )
    min_gain_in_std_errors: float = opt(
        2.0, "a block's weights are kept where validation N@10 gains so many of its standard errors", 0.0
    )


@dataclass(frozen=True)
class BaselineConfig(TrainConfig):
    lr: float = opt(1e-3, "AdamW peak learning rate, where no grid chooses it", 1e-8, 1.0)
    embedding_lr_factor: float = opt(1.0, "how many times faster the embedding table learns", 0.0, 1e4)
    schedule: str = opt("constant", "after the warm-up", among=("cosine", "constant"))
    warmup_steps: int = opt(0, "steps of linear warm-up", 0, 1_000_000)
    weight_decay: float = opt(0.0, "AdamW weight decay", 0.0, 10.0)
    batch_size: int = opt(256, "training prefixes a step", 1, 1_000_000)
    max_epochs: int = opt(200, "passes over the training prefixes", 1, 100_000)
    eval_every: int = opt(1, "epochs between evaluations on validation", 1, 100_000)
    ema_decay: float = opt(
        0.998, "decay a step of the weights' moving average that is evaluated; 0: off", 0.0, 0.99999
    )
    d: int = opt(64, "d: width of the items' table and of the states", 1, 65536)
    num_layers: int = opt(2, "layers of the transformers", 1, 64)
    num_heads: int = opt(2, "attention heads of the transformers", 1, 256)
    dropout: float = opt(0.5, "dropout, where no grid chooses it", 0.0, 0.99)
    tune: str = opt(
        "grid",
        "choose each model's lr and dropout on validation by a small grid",
        among=("grid", "none"),
    )
    reasoning_steps: int = opt(2, "ReaRec: K, steps of latent reasoning", 1, 64)
    reasoning_method: str = opt("ERL", "ReaRec: how its steps are trained", among=("ERL", "PRL"))


@dataclass(frozen=True)
class EvalConfig:
    beams: int = opt(20, "W: beams a user", 1, 10_000)
    batch_size: int = opt(64, "users ranked at once; 64: a CPU's caches hold their beams", 1, 1_000_000)
    bootstrap: int = opt(2000, "resamples of the paired bootstrap", 10, 1_000_000)


@dataclass(frozen=True)
class Config:
    preset: str = opt("lite", "the preset these settings started from", among=PRESETS)
    dataset: str = opt("playground", "what is loaded: see `streamrec datasets`")
    data: DataConfig = field(default_factory=DataConfig)
    embeddings: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    tiger: TrainConfig = field(default_factory=TrainConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    baselines: BaselineConfig = field(default_factory=BaselineConfig)
    evaluate: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self):
        for name, value, meta in leaves(self):
            check(name, value, meta)
        if self.evaluate.beams < 10:
            rule = "R@10 and N@10 need at least 10 beams"
            raise BadInput(f"evaluate.beams={self.evaluate.beams}", rule, "set evaluate.beams=20")
        first, sft, rivals = self.pretrain, self.sft, self.baselines
        if first.n_similar > first.similar_pool:
            rule = f"items are drawn from the pretrain.similar_pool={first.similar_pool} nearest"
            raise BadInput(f"pretrain.n_similar={first.n_similar}", rule, "draw fewer, or widen the pool")
        if first.n_similar * self.tokenizer.m > LONGEST:
            rule = f"{self.tokenizer.m} codes each are more than the {LONGEST} thoughts that fit"
            raise BadInput(f"pretrain.n_similar={first.n_similar}", rule, "draw fewer")
        if sft.annotator == "nearest-items" and -(-sft.l // self.tokenizer.m) > min(
            sft.similar_pool, first.similar_pool
        ):
            rule = f"{sft.l} thoughts need more items of {self.tokenizer.m} codes than there are in the pools"
            raise BadInput(
                "sft.annotator=nearest-items", rule, "widen sft.similar_pool and pretrain.similar_pool"
            )
        if sft.learn_thoughts_after == "own" and (sft.condition_on, sft.annotator) != ("own", "residual"):
            rule = "own thoughts are corrected by residuals: it needs sft.condition_on=own and sft.annotator=residual"
            value = f"sft.learn_thoughts_after=own with sft.condition_on={sft.condition_on}, sft.annotator={sft.annotator}"
            raise BadInput(value, rule, "set these, or sft.learn_thoughts_after=annotated")
        if rivals.d % rivals.num_heads:
            rule = f"the width must be a multiple of baselines.num_heads={rivals.num_heads}"
            raise BadInput(f"baselines.d={rivals.d}", rule, "choose another width or number of heads")

    def to_dict(self) -> dict:
        """Plain nested values, ready for JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: dict) -> Config:
        """The inverse of ``to_dict``; unknown keys are rejected."""
        return build(cls, values, "")

    def override(self, assignments: list[str]) -> Config:
        """A copy with ``["tiger.lr=0.002", ...]`` applied."""
        values = self.to_dict()
        known = {name: kind for name, kind in types(self)}
        for text in assignments:
            key, equals, raw = text.partition("=")
            key = key.strip()
            if not equals:
                raise BadInput(f"--set {text}", "a setting is KEY=VALUE", "write e.g. --set tiger.lr=0.002")
            if key not in known or key in ("preset", "dataset"):
                choices = set(known) - {"preset", "dataset"}
                raise BadInput(f"--set {key}", "no such setting", did_you_mean(key, choices))
            node = values
            *path, leaf = key.split(".")
            for part in path:
                node = node[part]
            node[leaf] = parse(key, raw.strip(), known[key])
        return Config.from_dict(values)


def config_of(found: dict) -> dict:
    """The settings in a run's config.json, without what else stands there."""
    return {key: value for key, value in found.items() if key not in ("seeds", "versions")}


def fingerprint(*parts) -> str:
    """A short hash of JSON-able parts: two runs with one fingerprint do the same work."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe(config: Config) -> list[tuple[str, object, str]]:
    """(dotted name, value, help) of every setting, for tables."""
    return [(name, value, meta["help"]) for name, value, meta in leaves(config)]
