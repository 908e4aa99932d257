"""Does thinking help? Metrics of one model by how it thinks, and the settings of control models.

The controls get as many training updates as the thinking model:

    deep-tiger       TIGER with more decoder layers, for as much computation as thinking adds
    item-tiger       TIGER with item vectors, as in fine-tuning
    no-thoughts      the same fine-tuning with l = 0
    random-thoughts  the same fine-tuning, with random codes as annotated thoughts
"""

from __future__ import annotations

import dataclasses

from ..common.schemas import Prefixes
from ..config.settings import Config
from ..data.sequences import sample_examples
from ..evaluation.evaluate import evaluate
from ..evaluation.metrics import ndcg_at, paired_bootstrap
from .recommender import StreamRec, WithOptions

THOUGHT_COUNTS = (0, 1, 2, 4, 6, 8)  # l
TRAIN_COUNTS = (1, 4, 16)  # n, trains of thought


def compare_ways_to_think(
    model: StreamRec, prefixes: Prefixes, max_users: int = 1000, bootstrap: int = 2000
) -> dict:
    """Metrics by the number of thoughts l (greedy), and by the number of trains of thought n (beam).

    Args:
        model: a recommender that thinks.
        prefixes: examples, on its device.
        max_users: number of examples at most; more are subsampled.
        bootstrap: number of bootstrap resamples.

    Returns:
        "users", the number of users; "l" and "n", each a dictionary from the number (as text) to metrics,
        "users_per_second", and "minus usual", the paired bootstrap of the difference in N@10 to ``model.l``
        greedy thoughts.
    """
    users = sample_examples(prefixes, max_users)
    variants = {("l", l): WithOptions(model, l, think="greedy") for l in sorted({*THOUGHT_COUNTS, model.l})}
    if model.l > 0:
        variants |= {("n", n): WithOptions(model, think="beam", n_thoughts=n) for n in TRAIN_COUNTS}
    results = {key: evaluate(variant, users, batch_size=64) for key, variant in variants.items()}
    usual = ndcg_at(results["l", model.l].ranks, 10)
    table: dict = {"users": users.n_examples, "l": {}, "n": {}}
    for (parameter, number), result in results.items():
        gain = paired_bootstrap(ndcg_at(result.ranks, 10), usual, bootstrap)
        table[parameter][str(number)] = {
            **result.metrics,
            "users_per_second": result.users_per_second,
            "minus usual": {key: gain[key] for key in ("mean_difference", "low", "high")},
        }
    return table


def control_config(config: Config, name: str) -> Config:
    """The settings of a control model, with the updates of pretraining and fine-tuning together."""
    replace = dataclasses.replace
    if name in ("deep-tiger", "item-tiger"):
        epochs = config.pretrain.max_epochs + config.sft.max_epochs
        config = replace(config, tiger=replace(config.tiger, max_epochs=epochs))
    if name == "item-tiger":
        return config
    if name == "deep-tiger":
        m, steps = config.tokenizer.m, config.sft.l + 1 + config.tokenizer.m
        layers = round(config.backbone.num_layers * steps / m)
        return replace(config, backbone=replace(config.backbone, decoder_layers=layers))
    random: dict = {"annotator": "random", "learn_thoughts_after": "annotated"}
    changes: dict = {"no-thoughts": {"l": 0}, "random-thoughts": random}[name]
    return replace(config, sft=replace(config.sft, **changes))
