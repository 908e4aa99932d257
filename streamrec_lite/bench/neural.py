"""The benchmark of the neural baselines: how fast SASRec trains."""

from __future__ import annotations

import torch

from ..baselines.neural import build_baseline
from ..common.device import autocast, resolve_precision, seed_everything
from ..config.training import BaselineConfig
from ..data.sequences import length_batches
from ..training.optim import make_optimizer, use_byte_dropout
from .common import Subject, clock, take_turns


def bench_sasrec(subject: Subject) -> dict:
    """SASRec's training samples/s (d 64, 2 layers, batch 256), against random batches padded to 20 items.

    The rival is the same model as it is mostly trained: batches of all lengths, padded, float32, torch's
    dropout.
    """
    splits, device, n_items = subject.splits, subject.device, subject.tokenizer.n_items
    settings, train = BaselineConfig(), splits.train
    precision = resolve_precision(device, "auto")

    def trainer(batches, precision: str, quick: bool):
        seed_everything(0, "bench")
        model = build_baseline("SASRec", splits, n_items, settings).to(device).train()
        model = use_byte_dropout(model) if quick else model
        optimizer, queue = make_optimizer(model, settings), iter(batches)

        def speed() -> float:
            chosen = [next(queue) for _ in range(8)]

            def work():
                for batch in chosen:
                    with autocast(device, precision):
                        loss = model.loss(batch)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
                    optimizer.step()

            return sum(batch.n_examples for batch in chosen) / clock(work, device)

        return speed

    rows = torch.randperm(train.n_examples, generator=torch.Generator().manual_seed(0)).to(device)
    whole = [type(train)(*(field[part] for field in train)) for part in rows.split(settings.batch_size)]
    by_length = [train.select(part) for part in length_batches(train.length, settings.batch_size, 0)]
    speed = take_turns(
        {
            "ours": trainer(by_length * 2, precision, True),
            "padded": trainer(whole * 2, "float32", False),
        },
        5,
    )
    return {
        "ours, samples/s": speed["ours"],
        "padded, samples/s": speed["padded"],
        "ratio": speed["ours"] / speed["padded"],
        "precision": precision,
    }
