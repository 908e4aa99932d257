"""The loop that trains every model: epochs of training steps, evaluations, checkpoints.

What differs from model to model is a ``Task``: its loss, how it answers, and what it adds to the plain
loop. A killed run continues from its last epoch and ends with the same weights, because each epoch draws
its randomness from (seed, section, epoch) alone. One step is ``train_step.TrainStep``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..common.device import resolve_precision, seed_everything
from ..common.files import RunLog, load_weights, read_tensors, write_tensors
from ..common.schemas import Prefixes, Splits
from ..config.settings import Config
from ..config.training import TrainConfig
from ..data.sequences import length_batches
from ..evaluation.evaluate import Evaluation, Recommender, evaluate
from ..evaluation.metrics import gain_in_std_errors, ndcg_at
from .checkpoint import resume, save_checkpoint
from .optim import WeightAverage, learning_rate, make_optimizer, set_learning_rate
from .train_step import TrainStep


class TrainingJob(NamedTuple):
    """The arguments that all trainings share.

    splits    the data set's examples
    config    all settings; each training reads its own section and the shared ones
    seed      of the initial weights, the batches and all random draws
    work_dir  the folder for checkpoints, logs and the best weights; a training found there is continued
    device    where to compute
    progress  whether to show a progress bar
    """

    splits: Splits
    config: Config
    seed: int
    work_dir: Path
    device: torch.device | str = "cpu"
    progress: bool = True

    def on_device(self) -> TrainingJob:
        """The job with its splits on its device."""
        device = torch.device(self.device)
        return self._replace(splits=self.splits.to(device), device=device, work_dir=Path(self.work_dir))


class Hooks(NamedTuple):
    """What a task adds to the plain loop.

    prepare_epoch      (model, epoch from 1) -> entries for the log; called before each epoch, for example
                       to annotate. Its result must be the same in a resumed run. May raise
                       ``StopTraining``
    extra_inputs       (batch, row numbers of its examples) -> tensors passed to the loss after the batch;
                       None: the row numbers. Random draws and look-ups on the CPU belong here
    epoch_examples     (epoch) -> row numbers of the training prefixes of that epoch; None: all of them
    updates_per_batch  optimiser steps in a row on each batch; the loss is computed anew for each
    cuda_graph_safe    the loss has no host synchronisation and no data-dependent control flow, and only
                       weights and arguments change between calls: it may be captured as a CUDA graph
    """

    prepare_epoch: Callable[[Any, int], dict] | None = None
    extra_inputs: Callable[[Prefixes, Tensor], tuple[Tensor, ...]] | None = None
    epoch_examples: Callable[[int], Tensor] | None = None
    updates_per_batch: int = 1
    cuda_graph_safe: bool = False


class Guard(NamedTuple):
    """Limits for a model that must not get worse: its initial weights are evaluated, and may stay the best.

    max_drop                training ends if validation N@10 falls by more than this share below its best
    min_gain_in_std_errors  later weights are kept only if validation N@10 improves on the initial weights
                            by at least so many standard errors (``gain_in_std_errors``)
    keeps_last              the last weights are kept, whatever validation says; there is no limit then
    """

    max_drop: float
    min_gain_in_std_errors: float
    keeps_last: bool = False


class Task(NamedTuple):
    """What is trained.

    name         shown in the progress bar and in messages: "TIGER"
    section      the settings' section: "tiger"
    loss         (model, batch, *extra inputs) -> scalars by name, means over the batch; "loss" is minimised,
                 all are logged
    recommender  (model) -> the recommender that is evaluated on validation
    hooks        what the task adds to the plain loop
    guard        limits for a model that must not get worse, or None
    """

    name: str
    section: str
    loss: Callable[..., dict[str, Tensor]]
    recommender: Callable[[Any], Recommender]
    hooks: Hooks = Hooks()
    guard: Guard | None = None


class StopTraining(Exception):
    """Raised by ``Hooks.prepare_epoch`` to end the training; the best weights so far are kept."""


class Trained(NamedTuple):
    """The model with the weights of the best validation N@10, and the record of its training."""

    model: Any  # the module that was trained
    best: dict  # {"epoch", "N@10", "R@10", ...} on validation
    train_seconds: float  # without evaluations
    epochs: int  # epochs trained, the ones after the best included
    precision: str


def train(task: Task, model: nn.Module, job: TrainingJob, eval_batch: int = 0) -> Trained:
    """Train until validation N@10 has not improved for ``patience`` evaluations.

    Writes ``checkpoint.safetensors`` (after every epoch), ``best.safetensors`` and ``log.jsonl`` to the
    job's folder; where these exist the run continues.

    Args:
        task: the loss, the recommender, and additions to the plain loop.
        model: on the job's device; it is changed in place.
        job: with its splits on the device (``TrainingJob.on_device``).
        eval_batch: users evaluated at once; 0: ``evaluate.batch_size``.

    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    config: TrainConfig = getattr(job.config, task.section)
    work_dir, device = Path(job.work_dir), job.splits.train.target.device
    optimizer, average = make_optimizer(model, config), WeightAverage(model, config.ema_decay)
    step = TrainStep(model, task.loss, optimizer, config, device, task.hooks.cuda_graph_safe)
    log, recommender = RunLog(work_dir / "log.jsonl"), task.recommender(average.model)
    state: dict = {"epoch": 0, "step": 0, "stale": 0, "best": {}, "train_seconds": 0.0}
    state |= resume(work_dir / "checkpoint.safetensors", model, optimizer, average)
    log.drop_after(state["epoch"])

    def evaluate_and_keep_best(epoch: int) -> dict:
        users = job.splits.valid
        result = evaluate(recommender, users, batch_size=eval_batch or job.config.evaluate.batch_size)
        return _keep_if_best(task, result, average, state, work_dir, epoch)

    if task.guard and not state["best"]:
        log.write(epoch=0, **evaluate_and_keep_best(0))
        save_checkpoint(work_dir / "checkpoint.safetensors", model, optimizer, average, state)
    while state["epoch"] < config.max_epochs and state["stale"] < config.patience:
        epoch = state["epoch"] + 1
        try:
            _check_guard(task, state)
            row = _one_epoch(task, step, average, job, state)
        except StopTraining as reason:
            print(f"{task.name} ends before epoch {epoch}: {reason}")
            last = {} if state["best"] else evaluate_and_keep_best(epoch - 1)
            log.write(epoch=epoch, stopped=str(reason), **last)
            break
        if epoch % config.eval_every == 0 or epoch == config.max_epochs:
            row |= evaluate_and_keep_best(epoch)
        state["epoch"] = epoch
        log.write(**row)
        save_checkpoint(work_dir / "checkpoint.safetensors", model, optimizer, average, state)
    weights, _ = read_tensors(work_dir / "best.safetensors")
    load_weights(model, weights, work_dir / "best.safetensors")
    precision = resolve_precision(device, config.precision)
    return Trained(model.eval(), state["best"], state["train_seconds"], state["epoch"], precision)


def _one_epoch(task: Task, step: TrainStep, average: WeightAverage, job: TrainingJob, state: dict) -> dict:
    """One pass over the training prefixes; advances ``state`` and returns the log row."""
    from tqdm.auto import tqdm

    epoch, model, config, hooks = state["epoch"] + 1, step.model, step.config, task.hooks
    train, optimizer = job.splits.train, step.optimizer
    assert optimizer is not None
    start = time.perf_counter()
    sums: dict[str, Tensor] = {}
    norms: list[Tensor] = []
    seed_everything(job.seed, task.section, "prepare", epoch)
    prepared = hooks.prepare_epoch(model, epoch) if hooks.prepare_epoch else {}
    batches, examples = _epoch_batches(task, config, job, epoch)
    total_steps, begin = config.max_epochs * len(batches), time.perf_counter()
    model.train()
    title = f"{task.name} epoch {epoch}/{config.max_epochs}"
    bar = tqdm(batches, desc=title, disable=not job.progress, leave=False)
    for rows in bar:
        lr = learning_rate(config, state["step"], total_steps)
        set_learning_rate(optimizer, lr)
        batch = train.select(rows)
        extra = hooks.extra_inputs(batch, rows) if hooks.extra_inputs else (rows,)
        losses = step(batch, extra)  # zero_grad, forward, backward, clip, optimiser step
        state["step"] += 1
        average.update(model, state["step"])
        norms.append(losses.pop("grad_norm"))
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value * len(rows)
        if job.progress and state["step"] % 20 == 0:
            bar.set_postfix(loss=f"{float(losses['loss']):.3f}", best=_best_text(state))
    means = {name: float(value) / examples for name, value in sums.items()}
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
        "samples_per_second": examples / (end - begin),
        "seconds": end - start,
        "seconds_left": (config.max_epochs - epoch) * state["train_seconds"] / epoch,
    }


def _epoch_batches(task: Task, config: TrainConfig, job: TrainingJob, epoch: int) -> tuple[list[Tensor], int]:
    """Row numbers of each step's batch, and the number of examples in all; seeds the epoch's draws."""
    train, hooks = job.splits.train, task.hooks
    epoch_seed = seed_everything(job.seed, task.section, "epoch", epoch)
    everyone = torch.arange(train.n_examples, device=train.target.device)
    chosen = hooks.epoch_examples(epoch) if hooks.epoch_examples else everyone
    batches = length_batches(train.length[chosen], config.batch_size, epoch_seed)
    repeated = [rows for rows in (chosen[rows] for rows in batches) for _ in range(hooks.updates_per_batch)]
    return repeated, len(chosen) * hooks.updates_per_batch


def _keep_if_best(
    task: Task, result: Evaluation, average: WeightAverage, state: dict, work_dir: Path, epoch: int
) -> dict:
    """Keep the evaluated weights if validation N@10 is the best so far; returns the log's entries."""
    row = {f"valid {name}": value for name, value in result.metrics.items()}
    is_significant, keeps_last = True, bool(task.guard and task.guard.keeps_last)
    if task.guard:
        gain = _gain_over_start(result.ranks, work_dir / "start-ranks.safetensors", epoch)
        row["gain in errors"] = gain
        is_significant = epoch == 0 or gain >= task.guard.min_gain_in_std_errors
    if keeps_last or (is_significant and result.metrics["N@10"] > state["best"].get("N@10", -1.0)):
        state["best"], state["stale"] = {"epoch": epoch, **result.metrics}, 0
        write_tensors(work_dir / "best.safetensors", average.model.state_dict(), state["best"])
    else:
        state["stale"] += 1
    state["last"] = result.metrics["N@10"]
    return row


def _gain_over_start(ranks: Tensor, path: Path, epoch: int) -> float:
    """The gain of N@10 over epoch 0, in standard errors; the ranks of epoch 0 are stored at ``path``."""
    if epoch == 0:
        write_tensors(path, {"ranks": ranks})
        return 0.0
    return gain_in_std_errors(ndcg_at(ranks, 10), ndcg_at(read_tensors(path)[0]["ranks"], 10))


def _check_guard(task: Task, state: dict) -> None:
    """``StopTraining`` if validation N@10 has fallen by more than the task's guard allows."""
    last, best = state.get("last"), state["best"].get("N@10", 0.0)
    if task.guard and last is not None and last < (1 - task.guard.max_drop) * best:
        remedy = f"the best weights, of epoch {state['best']['epoch']}, are kept; lower {task.section}.lr"
        raise StopTraining(f"validation N@10 fell from {best:.4f} to {last:.4f}; {remedy}")


def _best_text(state: dict) -> str:
    """The best validation N@10 so far, for the progress bar."""
    return f"{state['best']['N@10']:.4f}" if state["best"] else "-"
