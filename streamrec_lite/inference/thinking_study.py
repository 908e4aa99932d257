"""Does thinking help? One model asked in many ways, and the controls that stand beside it.

The controls are other models with as many training updates as the thinking one:

    deep-tiger       TIGER with a decoder deepened to the steps that thinking adds
    item-tiger       TIGER whose items have vectors of their own, as fine-tuning gives them
    no-thoughts      the same fine-tuning with l = 0
    random-thoughts  the same fine-tuning, the lessons in thinking being any codes
"""

from __future__ import annotations

import dataclasses

from ..common.schemas import Prefixes
from ..config.settings import Config
from ..data.sequences import sample_examples
from ..evaluation.evaluate import evaluate
from ..evaluation.metrics import ndcg_at, paired_bootstrap
from .recommender import Asked, StreamRec

NUMBERS = (0, 1, 2, 4, 6, 8)  # l
TRAINS = (1, 4, 16)  # n


def ask_in_many_ways(model: StreamRec, prefixes: Prefixes, most: int = 1000, bootstrap: int = 2000) -> dict:
    """Metrics of ``most`` users by the number of thoughts l (greedy) and of trains of thought n (beam).

    Args:
        model: a recommender that thinks.
        prefixes: examples, on its device.
        most: users at most.
        bootstrap: resamples.

    Returns:
        "users", and "l" and "n": the number as text -> metrics, "users_per_second", and "minus usual",
        the paired bootstrap of N@10 against the usual way, l greedy thoughts.
    """
    users = sample_examples(prefixes, most)
    ways = {("l", l): Asked(model, l, think="greedy") for l in sorted({*NUMBERS, model.l})}
    if model.l > 0:
        ways |= {("n", n): Asked(model, think="beam", n_thoughts=n) for n in TRAINS}
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
