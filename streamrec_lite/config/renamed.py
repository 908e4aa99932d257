"""Former names of settings and of their values, so that old commands are told the new ones."""

from __future__ import annotations

FORMER_TRAINING = {"embedding_lr": "embedding_lr_factor", "clip": "max_grad_norm", "ema": "ema_decay"}
FORMER_VECTORS = {"items": "item_vectors", "items_dropout": "item_vector_dropout", "pool": "similar_pool"}

FORMER_NAMES: dict[str, dict[str, str]] = {  # section -> former name -> name
    "backbone": {"recency": "recency_embeddings"},
    "tiger": FORMER_TRAINING,
    "pretrain": {**FORMER_TRAINING, **FORMER_VECTORS},
    "sft": {
        **FORMER_TRAINING,
        **FORMER_VECTORS,
        "keep": "first_guess_share",
        "similar": "similar_items_share",
        "first": "first_state_weight",
        "thought": "thought_weight",
        "align": "align_weight",
        "sharpness": "state_score_scale",
        "read": "condition_on",
        "write": "thought_decoding",
        "lesson": "learn_thoughts_after",
        "mark": "answer_token",
        "repeats": "repeated_thoughts",
        "start": "decoder_init",
    },
    "grpo": {
        **FORMER_TRAINING,
        "rollouts": "rollout_precision",
        "updates": "batches_per_block",
        "passes": "updates_per_batch",
        "bound": "likelihood_bound",
        "order": "reward_order",
        "credit": "credit_assignment",
        "direct": "target_likelihood_weight",
        "guard": "max_drop",
        "sure": "min_gain_in_std_errors",
        **{
            reward: f"{reward}_weight"
            for reward in ("format", "match", "similarity", "likelihood", "ranking", "reciprocal")
        },
    },
    "baselines": {**FORMER_TRAINING, "steps": "reasoning_steps", "reasoning": "reasoning_method"},
}

VECTOR_VALUES = {"vectors": "history-and-answer", "read": "history", "codes": "none"}
FORMER_VALUES: dict[str, dict[str, str]] = {  # setting -> former value -> value
    "pretrain.item_vectors": VECTOR_VALUES,
    "sft.item_vectors": VECTOR_VALUES,
    "grpo.reward_order": {"sum": "sum-first", "normalise": "normalise-first"},
    "grpo.credit_assignment": {"all": "rollout", "later": "later-rewards"},
}


def new_name(name: str) -> str | None:
    """The name that the setting ``name`` has now, both with their section; None if it was never renamed."""
    section, _, key = name.partition(".")
    renamed = FORMER_NAMES.get(section, {}).get(key)
    return renamed and f"{section}.{renamed}"


def new_value(name: str, value: object) -> str | None:
    """What the former ``value`` of the setting ``name`` is called now; None if it was never renamed."""
    return FORMER_VALUES.get(name, {}).get(str(value))
