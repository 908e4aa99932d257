"""The presets: what differs from the settings' defaults, which are those of ``lite`` on real data."""

from __future__ import annotations

import dataclasses

from ..common.errors import BadInput, did_you_mean
from .sections import BackboneConfig
from .settings import PRESETS, Config


def preset(name: str = "lite", dataset: str = "playground") -> Config:
    """The settings of a preset: ``smoke`` (seconds, for tests), ``lite`` (two CPU cores), ``paper``."""
    if name not in PRESETS:
        raise BadInput(f"preset {name!r}", "unknown preset", did_you_mean(name, PRESETS))
    config = Config.from_dict({"preset": name, "dataset": dataset})
    if name == "smoke":
        return _smoke_workshop(_smoke(config)) if dataset == "workshop" else _smoke(config)
    if name == "paper":
        return _paper(config, dataset)
    if dataset == "workshop":
        return _lite_workshop(config)
    return _lite_playground(config) if dataset == "playground" else config


def _smoke(config: Config) -> Config:
    """Sizes that train in seconds."""
    replace = dataclasses.replace
    config = replace(
        config,
        data=replace(config.data, playground_items=120, playground_users=200),
        embeddings=replace(config.embeddings, dim=16),
        tokenizer=replace(config.tokenizer, K=16, m=3, hidden=(32,), latent_dim=8, epochs=60, batch_size=32),
        backbone=BackboneConfig(d_model=32, d_ff=64, num_layers=1, num_heads=2, d_kv=16),
        tiger=replace(config.tiger, max_epochs=2, warmup_steps=10, eval_every=1),
        pretrain=replace(config.pretrain, max_epochs=2, warmup_steps=10, eval_every=1),
        sft=replace(config.sft, max_epochs=2, warmup_steps=10, eval_every=1, epochs_per_round=1, l=2),
        grpo=replace(config.grpo, max_epochs=2, batches_per_block=3, batch_size=8, G=4, K=10, warmup_steps=1),
        baselines=replace(config.baselines, max_epochs=2, d=16, num_layers=1, tune="none"),
        evaluate=replace(config.evaluate, bootstrap=200),
    )
    return config


def _lite_playground(config: Config) -> Config:
    """The playground has 600 items: 64 codes a level are enough."""
    replace = dataclasses.replace
    config = replace(
        config,
        tokenizer=replace(config.tokenizer, K=64, m=3, hidden=(256, 128), epochs=200),
        backbone=BackboneConfig(d_model=96, d_ff=256, num_layers=2, num_heads=4, d_kv=24),
        tiger=replace(config.tiger, max_epochs=9, warmup_steps=200, eval_every=3),
        pretrain=replace(config.pretrain, max_epochs=5, warmup_steps=200, eval_every=5),
        sft=replace(
            config.sft,
            lr=1e-3,
            max_epochs=4,
            warmup_steps=100,
            eval_every=2,
            epochs_per_round=2,
        ),
        grpo=replace(config.grpo, max_epochs=3, batches_per_block=20),
        baselines=replace(config.baselines, lr=0.003, dropout=0.2, max_epochs=10, eval_every=5, tune="none"),
    )
    return config


def _lite_workshop(config: Config) -> Config:
    """One code names each of the 76 items, so that a thought is an item. Chosen in trials with seed 0."""
    replace = dataclasses.replace
    shared: dict = {"lr": 3e-3, "embedding_lr_factor": 5.0, "batch_size": 128, "warmup_steps": 100}
    return replace(
        config,
        embeddings=replace(config.embeddings, dim=32),
        tokenizer=replace(config.tokenizer, m=1, K=96, hidden=(64,), batch_size=32, epochs=60),
        backbone=BackboneConfig(
            d_model=96, d_ff=192, num_layers=2, num_heads=4, d_kv=24, dropout=0.0, recency_embeddings=16
        ),
        tiger=replace(config.tiger, max_epochs=3, eval_every=3, **shared),
        pretrain=replace(config.pretrain, max_epochs=1, eval_every=1, **shared),
        sft=replace(config.sft, max_epochs=3, eval_every=3, epochs_per_round=3, **shared),
        grpo=replace(config.grpo, lr=3e-4, max_epochs=4, batches_per_block=50),
        baselines=replace(
            config.baselines, lr=0.003, dropout=0.1, batch_size=128, max_epochs=3, eval_every=3, tune="none"
        ),
        evaluate=replace(config.evaluate, beams=10),
    )


def _smoke_workshop(config: Config) -> Config:
    """Sizes that train in seconds, as in ``_smoke``."""
    replace = dataclasses.replace
    return replace(
        config,
        data=replace(config.data, workshop_parts=24, workshop_users=400),
        tokenizer=replace(config.tokenizer, m=1, K=48),
    )


def _paper(config: Config, dataset: str) -> Config:
    """Sizes and rates: section 3.1.4. Batches and epochs: eight minutes of a large GPU."""
    replace = dataclasses.replace
    long = {"lr": 1e-3, "batch_size": 1024, "warmup_steps": 150}
    config = replace(
        config,
        data=replace(config.data, playground_items=10_000, playground_users=50_000),
        backbone=BackboneConfig(d_model=256, d_ff=1024, num_layers=4, num_heads=4, d_kv=64),
        tiger=replace(config.tiger, max_epochs=36, eval_every=9, **long),
        pretrain=replace(config.pretrain, max_epochs=18, eval_every=9, **long),
        sft=replace(config.sft, max_epochs=18, eval_every=6, epochs_per_round=6, **long),
        grpo=replace(config.grpo, lr=1e-5, batch_size=128, batches_per_block=60, max_epochs=4, patience=10),
        evaluate=replace(config.evaluate, batch_size=512),
    )
    if dataset != "playground":
        model = replace(config.embeddings, model="sentence-transformers/sentence-t5-base")
        config = replace(config, embeddings=model)
    return config
