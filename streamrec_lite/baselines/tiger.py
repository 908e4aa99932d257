"""TIGER, fast thinking (Rajput et al., 2023): history codes in, the next item's codes out.

The loop is the whole of it: learning rate, batch, loss, clip, step, evaluate, checkpoint. A killed
run continues from its last epoch and ends with the same weights, because each epoch draws its
randomness from (seed, epoch) alone.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..backbone import Backbone, history_tokens, shift_right
from ..config import Config, TrainConfig
from ..data.sequences import length_batches
from ..decoding import answer_log_probs
from ..evaluate import evaluate
from ..optim import Average, learning_rate, make_optimizer, quicken_dropout, set_learning_rate
from ..recommender import StreamRec
from ..runtime import (
    RunLog,
    autocast,
    load_weights,
    read_tensors,
    resolve_precision,
    seed_everything,
    write_tensors,
)
from ..schemas import Prefixes, Splits


class TigerResult(NamedTuple):
    """The model with its best validation N@10, and how it came about."""

    model: Backbone
    best: dict  # {"epoch", "N@10", "R@10", ...} on validation
    train_seconds: float  # without evaluations
    epochs: int  # epochs trained, the ones after the best included
    precision: str


def tiger_loss(model: Backbone, tokenizer, batch: Prefixes, config: TrainConfig) -> Tensor:
    """Mean of -log P(c_j | c_<j, history) over the m codes of each target (eqs 10 and 11).

    The encoder reads the codes of the history, the decoder [BOS, c_1..c_{m-1}] of the target.
    """
    states, mask = model.encode(history_tokens(tokenizer.tokens, batch.history))
    inputs = shift_right(tokenizer.tokens[batch.target])
    hidden = model.decode(inputs, states, mask, "direct")
    return -answer_log_probs(model, tokenizer, hidden, batch.target, config.temperature).mean()


def train_tiger(
    splits: Splits,
    tokenizer,
    config: Config,
    seed: int,
    work_dir: str | Path,
    device="cpu",
    progress: bool = True,
) -> TigerResult:
    """Train until validation N@10 has not improved for ``patience`` evaluations.

    Writes ``checkpoint.safetensors`` (after every epoch), ``best.safetensors`` and ``log.jsonl`` to
    ``work_dir``; where these exist the run continues. Raises ``FloatingPointError`` if the loss is
    no longer finite.
    """
    work_dir, tiger = Path(work_dir), config.tiger
    device = torch.device(device)
    precision = resolve_precision(device, tiger.precision)
    seed_everything(seed, "tiger", "weights")
    model = quicken_dropout(Backbone(config.backbone, tokenizer.vocab_size)).to(device)
    optimizer = make_optimizer(model, tiger)
    average = Average(model, tiger.ema)
    log = RunLog(work_dir / "log.jsonl")
    state = {"epoch": 0, "step": 0, "stale": 0, "best": {}, "train_seconds": 0.0}
    state |= _resume(work_dir / "checkpoint.safetensors", model, optimizer, average)
    log.keep_until(state["epoch"])

    tokenizer = tokenizer.to(device)
    train, valid = splits.train.to(device), splits.valid.to(device)
    recommender = StreamRec(average.model, tokenizer, beams=config.evaluate.beams)
    while state["epoch"] < tiger.max_epochs and state["stale"] < tiger.patience:
        epoch = state["epoch"] + 1
        row = _one_epoch(model, optimizer, average, train, tokenizer, tiger, seed, state, precision, progress)
        if epoch % tiger.eval_every == 0 or epoch == tiger.max_epochs:
            result = evaluate(recommender, valid, batch_size=config.evaluate.batch_size)
            row |= {f"valid {name}": value for name, value in result.metrics.items()}
            if result.metrics["N@10"] > state["best"].get("N@10", -1.0):
                state["best"], state["stale"] = {"epoch": epoch, **result.metrics}, 0
                write_tensors(work_dir / "best.safetensors", average.model.state_dict(), state["best"])
            else:
                state["stale"] += 1
        state["epoch"] = epoch
        log.write(**row)
        _checkpoint(work_dir / "checkpoint.safetensors", model, optimizer, average, state)
    weights, _ = read_tensors(work_dir / "best.safetensors")
    load_weights(model, weights, work_dir / "best.safetensors")
    return TigerResult(model.eval(), state["best"], state["train_seconds"], state["epoch"], precision)


def _one_epoch(
    model, optimizer, average, train: Prefixes, tokenizer, tiger, seed, state, precision, progress
):
    """One pass over the training prefixes; advances ``state`` and returns the log row."""
    from tqdm.auto import tqdm

    epoch = state["epoch"] + 1
    epoch_seed = seed_everything(seed, "tiger", "epoch", epoch)
    batches = length_batches(train.length, tiger.batch_size, epoch_seed)
    total_steps = tiger.max_epochs * len(batches)
    device = train.target.device
    start, losses, norms = time.perf_counter(), [], []
    model.train()
    bar = tqdm(batches, desc=f"TIGER epoch {epoch}/{tiger.max_epochs}", disable=not progress, leave=False)
    for rows in bar:
        batch = train.take(rows)
        lr = learning_rate(tiger, state["step"], total_steps)
        set_learning_rate(optimizer, lr)
        with autocast(device, precision):
            loss = tiger_loss(model, tokenizer, batch, tiger)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), tiger.clip))
        optimizer.step()
        state["step"] += 1
        average.update(model, state["step"])
        losses.append(loss.detach() * len(rows))
        if progress and len(losses) % 20 == 0:
            bar.set_postfix(loss=f"{float(losses[-1]) / len(rows):.3f}", best=_best_text(state))
    mean_loss = float(torch.stack(losses).sum()) / train.rows
    if not torch.isfinite(torch.tensor(mean_loss)):
        raise FloatingPointError(
            f"TIGER's loss is {mean_loss} in epoch {epoch}; lower tiger.lr or tiger.clip"
        )
    seconds = time.perf_counter() - start
    state["train_seconds"] += seconds
    return {
        "epoch": epoch,
        "loss": mean_loss,
        "lr": lr,
        "grad_norm": float(torch.stack(norms).mean()),
        "samples_per_second": train.rows / seconds,
        "seconds": seconds,
        "seconds_left": (tiger.max_epochs - epoch) * state["train_seconds"] / epoch,
    }


def _best_text(state: dict) -> str:
    return f"{state['best']['N@10']:.4f}" if state["best"] else "-"


def _checkpoint(path: Path, model, optimizer, average, state: dict) -> None:
    """Everything that the next epoch needs, in one file that is whole or not there."""
    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    for i, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{slot}": torch.as_tensor(t) for slot, t in slots.items()}
    if average.on:
        tensors |= {f"average.{name}": t for name, t in average.model.state_dict().items()}
    write_tensors(path, tensors, state)


def _resume(path: Path, model, optimizer, average) -> dict:
    """Load a checkpoint where there is one; returns its state, or nothing."""
    if not path.exists():
        return {}
    tensors, state = read_tensors(path)
    part = {"model": {}, "average": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        part[kind][rest] = tensor
    load_weights(model, part["model"], path)
    if average.on:
        load_weights(average.model, part["average"], path)
    slots: dict[int, dict] = {}
    for name, tensor in part["optimizer"].items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    return state
