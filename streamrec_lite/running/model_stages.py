"""What the stages do that train TIGER and STREAM-Rec (see ``stage_table``): train, evaluate, keep a row."""

from __future__ import annotations

from pathlib import Path

from ..baselines.tiger import train_tiger as fit_tiger
from ..common.schemas import Splits
from ..config.settings import Config
from ..evaluation.rows import evaluate_splits, save_row
from ..inference.recommender import StreamRec
from ..inference.state_guided import choose_weight
from ..inference.thinking_study import compare_ways_to_think, control_config
from ..model.backbone import Backbone
from ..training.channel import measure_channel
from ..training.finetune import finetune
from ..training.loop import Trained, TrainingJob
from ..training.optim import use_byte_dropout
from ..training.pretrain import pretrain
from ..training.reinforce import reinforce
from .run import Run
from .stages import Work, run_data, run_neighbours, run_tokenizer


def _recommender(run: Run, result: Trained, l: int | None = None, w: float = 0.0) -> StreamRec:
    """The trained model as it is asked: with ``l`` greedy thoughts, or directly (None)."""
    think = "none" if l is None else "greedy"
    return StreamRec(
        result.model,
        run_tokenizer(run),
        beams=run.config.evaluate.beams,
        l=l or 0,
        think=think,
        w=w,
        device=run.device,
    )


def train_tiger(work: Work) -> None:
    """TIGER: the encoder with the direct decoder."""
    run, _, seed, part = work
    splits = run_data(run)[1]
    result = fit_tiger(TrainingJob(splits, run.config, seed, part, run.device), run_tokenizer(run))
    _keep(run, result, _recommender(run, result), splits, part)


def train_pretrain(work: Work) -> None:
    """Stage 1: both decoders on one encoder; the row is the thinking decoder's, "direct" the other's."""
    run, _, seed, part = work
    splits, tokenizer = run_data(run)[1], run_tokenizer(run)
    job = TrainingJob(splits, work.config, seed, part, run.device)
    result = pretrain(job, tokenizer, run_neighbours(run))
    slow = _recommender(run, result, l=run.config.pretrain.n_similar * tokenizer.m)
    _keep(run, result, slow, splits, part, direct=_recommender(run, result))


def train_sft(work: Work) -> None:
    """Stage 2: annotation and fine-tuning; does thinking help, and does the answer read the thoughts?"""
    run, part = work.run, work.part
    result, splits = _finetuned(work, work.config)
    slow = _recommender(run, result, l=run.config.sft.l)
    users, resamples = splits.test.to(run.device), run.config.evaluate.bootstrap
    question = compare_ways_to_think(slow, users, bootstrap=resamples)
    channel = measure_channel(slow, users, bootstrap=resamples)
    _keep_guided(run, result, slow, splits, part, {"question": question, "channel": channel})


def train_grpo(work: Work) -> None:
    """Stage 3: reinforcement of the fine-tuned model."""
    run, _, seed, part = work
    splits, tokenizer = run_data(run)[1], run_tokenizer(run)
    model, reference = Backbone.load(work.folder_of("sft")), Backbone.load(work.folder_of("pretrain"))
    use_byte_dropout(model, run.device)
    near = run_neighbours(run, run.config.grpo.K)
    job = TrainingJob(splits, work.config, seed, part, run.device)
    result = reinforce(model, reference, job, tokenizer, near)
    slow = _recommender(run, result, l=run.config.sft.l)
    channel = measure_channel(slow, splits.test.to(run.device), bootstrap=run.config.evaluate.bootstrap)
    more = {"best_block": result.best["epoch"], "channel": channel}
    _keep_guided(run, result, slow, splits, part, more)


def train_control(work: Work) -> None:
    """A control of ``thinking_study``: another model with as many updates."""
    run, name, seed, part = work
    config = control_config(run.config, name)
    if name in ("deep-tiger", "item-tiger"):
        splits, items = run_data(run)[1], name == "item-tiger"
        job = TrainingJob(splits, config, seed, part, run.device)
        result = fit_tiger(job, run_tokenizer(run), items)
        _keep(run, result, _recommender(run, result), splits, part)
        return
    result, splits = _finetuned(work, config)
    _keep_guided(run, result, _recommender(run, result, l=config.sft.l), splits, part)


def _finetuned(work: Work, config: Config) -> tuple[Trained, Splits]:
    """A fine-tuning by ``config``, which starts at the method's stage 1, and the split."""
    run, _, seed, part = work
    splits, tokenizer, neighbours = run_data(run)[1], run_tokenizer(run), run_neighbours(run)
    model = Backbone.load(work.folder_of("pretrain"))
    use_byte_dropout(model, run.device)
    job = TrainingJob(splits, config, seed, part, run.device)
    result = finetune(model, job, tokenizer, neighbours)
    return result, splits


def _keep_guided(
    run: Run, result: Trained, slow: StreamRec, splits: Splits, part: Path, more: dict | None = None
) -> None:
    """Choose the last state's weight on validation, and keep the row of both ways to answer."""
    users = splits.valid.to(run.device)
    w, weights = choose_weight(slow.model, slow.tokenizer, users, slow.l, slow.beams)
    guided = _recommender(run, result, l=slow.l, w=w)
    more = {"l": slow.l, "w": w, "weights": weights, **(more or {})}
    _keep(run, result, slow, splits, part, more, guided=guided)


def _keep(
    run: Run,
    result: Trained,
    model: StreamRec,
    splits: Splits,
    part: Path,
    more: dict | None = None,
    **others: StreamRec,
) -> None:
    """Save a trained model with its row, to which ``more`` is added.

    ``others``: further ways to ask it, by name; their ranks are kept as "NAME test" and so on, beside "test".
    """
    size = run.config.evaluate.batch_size
    result.model.save(part)
    row, ranks = evaluate_splits(model, splits, run.device, size)
    row |= {
        "train_seconds": result.train_seconds,
        "epochs": result.epochs,
        "parameters": sum(p.numel() for p in result.model.parameters()),
        "precision": result.precision,
        "ids": model.tokenizer.fingerprint(),
        **(more or {}),
    }
    for name, other in others.items():
        row[name], seen = evaluate_splits(other, splits, run.device, size)
        ranks |= {f"{name} {split}": values for split, values in seen.items()}
    save_row(part, row, ranks)
