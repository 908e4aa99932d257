"""Does thinking help? One model with different numbers of thoughts, and control models.

The controls have as many training updates as the thinking model:

    deep-tiger       TIGER with more decoder layers, for as much computation as thinking adds
    item-tiger       TIGER with item vectors, as fine-tuning adds them
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
TRAIN_OF_THOUGHT_COUNTS = (1, 4, 16)  # n


def compare_ways_to_think(
    model: StreamRec, prefixes: Prefixes, max_users: int = 1000, bootstrap: int = 2000
) -> dict:
    """Metrics of ``max_users`` users by the number of thoughts l (greedy) and of trains of thought n (beam).

    Args:
        model: a recommender that thinks.
        prefixes: examples, on the model's device.
        max_users: the study uses at most so many users.
        bootstrap: number of bootstrap resamples.

    Returns:
        "users", and "l" and "n": the number as text -> metrics, "users_per_second", and "minus usual",
        the paired bootstrap of N@10 against the model's default, l greedy thoughts.
    """
    users = sample_examples(prefixes, max_users)
    ways = {("l", l): WithOptions(model, l, think="greedy") for l in sorted({*THOUGHT_COUNTS, model.l})}
    if model.l > 0:
        ways |= {("n", n): WithOptions(model, think="beam", n_thoughts=n) for n in TRAIN_OF_THOUGHT_COUNTS}
    seen = {way: evaluate(asked, users, batch_size=64) for way, asked in ways.items()}
    usual = ndcg_at(seen["l", model.l].ranks, 10)
    table: dict = {"users": users.n_examples, "l": {}, "n": {}}
    for (what, number), result in seen.items():
        gain = paired_bootstrap(ndcg_at(result.ranks, 10), usual, bootstrap)
        table[what][str(number)] = {
            **result.metrics,
            "users_per_second": result.users_per_second,
            "minus usual": {key: gain[key] for key in ("mean_difference", "low", "high")},
        }
    return table


def control_config(config: Config, name: str) -> Config:
    """The settings of a control: as many updates as pretraining and fine-tuning have together."""
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
