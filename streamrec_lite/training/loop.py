"""The loop that trains every model: learning rate, batch, loss, clip, step, evaluate, checkpoint.

What differs from model to model is a ``Task``: its loss, how it answers, and what it prepares before
an epoch. A killed run continues from its last epoch and ends with the same weights, because each
epoch draws its randomness from (seed, section, epoch) alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..common.device import resolve_precision, seed_everything
from ..common.files import RunLog, load_weights, read_tensors, write_tensors
from ..common.schemas import Prefixes, Splits
from ..config.sections import TrainConfig
from ..data.sequences import length_batches
from ..evaluation.evaluate import Recommender, evaluate
from ..evaluation.metrics import gain_in_std_errors, ndcg_at
from .optim import Average, learning_rate, make_optimizer, set_learning_rate
from .train_step import Step


class Task(NamedTuple):
    """What is trained.

    loss        (model, batch, *given) -> scalars by name, means over the batch; "loss" is minimised, all
                are logged
    recommender (model) -> what the evaluator asks
    prepare     (model, epoch from 1) -> entries for the log; called before each epoch, e.g. to annotate.
                It must come to the same whether or not the run was killed in between. May raise ``Stop``
    given       (batch, its rows among the training prefixes) -> what the loss is given beside the batch,
                tensors; None: the rows. What is looked up or drawn for a batch on the CPU belongs here
    rows        (epoch) -> the training prefixes of that epoch (None: all of them)
    passes      optimiser steps in a row on each batch; ``loss`` is asked anew for each
    guard       >= 0: the model must not get worse. It is evaluated before the first epoch, so that its
                first weights may stay the best, and training ends where N@10 has lost that share
    sure        with a guard: later weights are better than the first ones only where validation N@10
                gains at least so many standard errors (``gain_in_std_errors``)
    steady      the loss does the same work on every batch of one shape: it never waits for the device to
                decide what comes next, and reads nothing that changes but weights and arguments. On a
                GPU the step is then recorded (``steps``)
    """

    name: str
    section: str  # of the settings, for the advice in errors: "tiger"
    loss: Callable[..., dict[str, Tensor]]
    recommender: Callable[[nn.Module], Recommender]
    prepare: Callable[[nn.Module, int], dict] | None = None
    given: Callable[[Prefixes, Tensor], tuple[Tensor, ...]] | None = None
    rows: Callable[[int], Tensor] | None = None
    passes: int = 1
    guard: float = -1.0
    sure: float = 0.0
    steady: bool = False


class Stop(Exception):
    """Raised by ``Task.prepare``: training ends here, with the best weights so far, and says why."""


class Trained(NamedTuple):
    """The model with its best validation N@10, and how it came about."""

    model: nn.Module
    best: dict  # {"epoch", "N@10", "R@10", ...} on validation
    train_seconds: float  # without evaluations
    epochs: int  # epochs trained, the ones after the best included
    precision: str


def train(
    task: Task,
    model: nn.Module,
    splits: Splits,
    config: TrainConfig,
    seed: int,
    work_dir: str | Path,
    eval_batch: int = 64,
    progress: bool = True,
) -> Trained:
    """Train until validation N@10 has not improved for ``patience`` evaluations.

    ``model`` and ``splits`` are on the device to train on. Writes ``checkpoint.safetensors`` (after
    every epoch), ``best.safetensors`` and ``log.jsonl`` to ``work_dir``; where these exist the run
    continues. Raises ``FloatingPointError`` if the loss is no longer finite.
    """
    work_dir, device = Path(work_dir), splits.train.target.device
    precision = resolve_precision(device, config.precision)
    optimizer = make_optimizer(model, config)
    average = Average(model, config.ema_decay)
    step = Step(model, task.loss, config, device, record=task.steady)
    log = RunLog(work_dir / "log.jsonl")
    state = {"epoch": 0, "step": 0, "stale": 0, "best": {}, "train_seconds": 0.0}
    state |= _resume(work_dir / "checkpoint.safetensors", model, optimizer, average)
    log.drop_after(state["epoch"])

    recommender = task.recommender(average.model)

    def look(epoch: int) -> dict:
        """Evaluate on validation, and keep the weights if they are the best so far."""
        result = evaluate(recommender, splits.valid, batch_size=eval_batch)
        row = {f"valid {name}": value for name, value in result.metrics.items()}
        if task.guard >= 0:
            row["gain in errors"] = _gain(result.ranks, work_dir / "start-ranks.safetensors", epoch)
        sure = row.get("gain in errors", 0.0) >= task.sure or epoch == 0
        if sure and result.metrics["N@10"] > state["best"].get("N@10", -1.0):
            state["best"], state["stale"] = {"epoch": epoch, **result.metrics}, 0
            write_tensors(work_dir / "best.safetensors", average.model.state_dict(), state["best"])
        else:
            state["stale"] += 1
        state["last"] = result.metrics["N@10"]
        return row

    if task.guard >= 0 and not state["best"]:
        log.write(epoch=0, **look(0))
        _checkpoint(work_dir / "checkpoint.safetensors", model, optimizer, average, state)
    while state["epoch"] < config.max_epochs and state["stale"] < config.patience:
        epoch = state["epoch"] + 1
        try:
            _check_guard(task, state)
            row = _one_epoch(task, step, optimizer, average, splits.train, config, seed, state, progress)
        except Stop as reason:
            print(f"{task.name} ends before epoch {epoch}: {reason}")
            log.write(epoch=epoch, stopped=str(reason), **({} if state["best"] else look(epoch - 1)))
            break
        if epoch % config.eval_every == 0 or epoch == config.max_epochs:
            row |= look(epoch)
        state["epoch"] = epoch
        log.write(**row)
        _checkpoint(work_dir / "checkpoint.safetensors", model, optimizer, average, state)
    weights, _ = read_tensors(work_dir / "best.safetensors")
    load_weights(model, weights, work_dir / "best.safetensors")
    return Trained(model.eval(), state["best"], state["train_seconds"], state["epoch"], precision)


def _one_epoch(
    task, step: Step, optimizer, average, train: Prefixes, config: TrainConfig, seed, state, progress
):
    """One pass over the training prefixes; advances ``state`` and returns the log row."""
    from tqdm.auto import tqdm

    epoch, model, device = state["epoch"] + 1, step.model, train.target.device
    start, sums, norms = time.perf_counter(), {}, []
    seed_everything(seed, task.section, "prepare", epoch)
    prepared = task.prepare(model, epoch) if task.prepare else {}
    epoch_seed = seed_everything(seed, task.section, "epoch", epoch)
    chosen = task.rows(epoch) if task.rows else torch.arange(train.n_examples, device=device)
    batches = length_batches(train.length[chosen], config.batch_size, epoch_seed)
    batches = [rows for rows in (chosen[rows] for rows in batches) for _ in range(task.passes)]
    total_steps = config.max_epochs * len(batches)
    begin = time.perf_counter()
    model.train()
    bar = tqdm(
        batches, desc=f"{task.name} epoch {epoch}/{config.max_epochs}", disable=not progress, leave=False
    )
    for rows in bar:
        lr = learning_rate(config, state["step"], total_steps)
        set_learning_rate(optimizer, lr)
        batch = train.select(rows)
        losses = step(batch, task.given(batch, rows) if task.given else (rows,))
        norms.append(losses.pop("grad_norm"))
        optimizer.step()
        state["step"] += 1
        average.update(model, state["step"])
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value * len(rows)
        if progress and state["step"] % 20 == 0:
            bar.set_postfix(loss=f"{float(losses['loss']):.3f}", best=_best_text(state))
    means = {name: float(value) / (len(chosen) * task.passes) for name, value in sums.items()}
    if not torch.isfinite(torch.tensor(means["loss"])):
        what, section = f"the loss of {task.name} is {means['loss']} in epoch {epoch}", task.section
        raise FloatingPointError(f"{what}; lower {section}.lr or {section}.max_grad_norm")
    end = time.perf_counter()
    state["train_seconds"] += end - start
    return {
        "epoch": epoch,
        **means,
        **prepared,
        "lr": lr,
        "grad_norm": float(torch.stack(norms).mean()),
        "samples_per_second": len(chosen) * task.passes / (end - begin),
        "seconds": end - start,
        "seconds_left": (config.max_epochs - epoch) * state["train_seconds"] / epoch,
    }


def _gain(ranks: Tensor, path: Path, epoch: int) -> float:
    """The gain of N@10 over epoch 0, whose ranks are kept at ``path``, in its standard errors."""
    if epoch == 0:
        write_tensors(path, {"ranks": ranks})
        return 0.0
    return gain_in_std_errors(ndcg_at(ranks, 10), ndcg_at(read_tensors(path)[0]["ranks"], 10))


def _check_guard(task: Task, state: dict) -> None:
    """``Stop`` where validation has lost more than the task allows."""
    last, best = state.get("last"), state["best"].get("N@10", 0.0)
    if task.guard >= 0 and last is not None and last < (1 - task.guard) * best:
        remedy = f"the best weights, of epoch {state['best']['epoch']}, are kept; lower {task.section}.lr"
        raise Stop(f"validation N@10 fell from {best:.4f} to {last:.4f}; {remedy}")


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
