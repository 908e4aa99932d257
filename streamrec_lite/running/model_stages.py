"""What the stages do that train TIGER and STREAM-Rec (see ``stage_table``): train, evaluate, keep a row."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..baselines.tiger import train_tiger as fit_tiger
from ..common.schemas import Splits
from ..config.settings import Config
from ..data.dataset import Dataset
from ..data.workshop_world import WorkshopWorld, errand_steps
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
from ..training.world_thoughts import WORLD_STRATEGIES, world_thoughts
from .run import Run
from .stages import Work, run_data, run_neighbours, run_tokenizer

Data = tuple[Dataset, Splits]


def recommender_of(run: Run, result: Trained, l: int | None = None, w: float = 0.0) -> StreamRec:
    """The trained model as it is asked.

    Args:
        run: gives the semantic IDs, the number of beams and the device.
        result: the trained model.
        l: greedy thoughts; None: it answers directly.
        w: weight of the last state in the scores of items.
    """
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
    data = run_data(run)
    result = fit_tiger(TrainingJob(data[1], run.config, seed, part, run.device), run_tokenizer(run))
    keep(run, result, recommender_of(run, result), data, part)


def train_pretrain(work: Work) -> None:
    """Stage 1: both decoders on one encoder; the row is the thinking decoder's, "direct" the other's."""
    run, _, seed, part = work
    data, tokenizer = run_data(run), run_tokenizer(run)
    job = TrainingJob(data[1], work.config, seed, part, run.device)
    result = pretrain(job, tokenizer, run_neighbours(run))
    slow = recommender_of(run, result, l=run.config.pretrain.n_similar * tokenizer.m)
    keep(run, result, slow, data, part, direct=recommender_of(run, result))


def train_sft(work: Work) -> None:
    """Stage 2: annotation and fine-tuning; does thinking help, and does the answer read the thoughts?"""
    run, part = work.run, work.part
    result, data = _finetuned(work, work.config)
    slow = recommender_of(run, result, l=run.config.sft.l)
    users, resamples = data[1].test.to(run.device), run.config.evaluate.bootstrap
    question = compare_ways_to_think(slow, users, bootstrap=resamples)
    channel = measure_channel(slow, users, true_thoughts(slow, data), bootstrap=resamples)
    _keep_guided(run, result, slow, data, part, {"question": question, "channel": channel})


def train_grpo(work: Work) -> None:
    """Stage 3: reinforcement of the fine-tuned model."""
    run, _, seed, part = work
    data, tokenizer = run_data(run), run_tokenizer(run)
    model, reference = Backbone.load(work.folder_of("sft")), Backbone.load(work.folder_of("pretrain"))
    use_byte_dropout(model, run.device)
    near = run_neighbours(run, run.config.grpo.K)
    job = TrainingJob(data[1], work.config, seed, part, run.device)
    result = reinforce(model, reference, job, tokenizer, near)
    slow = recommender_of(run, result, l=run.config.sft.l)
    users, resamples = data[1].test.to(run.device), run.config.evaluate.bootstrap
    channel = measure_channel(slow, users, true_thoughts(slow, data), bootstrap=resamples)
    more = {"best_block": result.best["epoch"], "channel": channel}
    _keep_guided(run, result, slow, data, part, more)


def train_control(work: Work) -> None:
    """A control of ``thinking_study``: another model with as many updates."""
    run, name, seed, part = work
    config = control_config(run.config, name)
    if name in ("deep-tiger", "item-tiger"):
        data, items = run_data(run), name == "item-tiger"
        job = TrainingJob(data[1], config, seed, part, run.device)
        result = fit_tiger(job, run_tokenizer(run), items)
        keep(run, result, recommender_of(run, result), data, part)
        return
    result, data = _finetuned(work, config)
    _keep_guided(run, result, recommender_of(run, result, l=config.sft.l), data, part)


def _finetuned(work: Work, config: Config) -> tuple[Trained, Data]:
    """A fine-tuning by ``config``, which starts at the method's stage 1, and the data."""
    run, _, seed, part = work
    (dataset, splits), tokenizer, neighbours = run_data(run), run_tokenizer(run), run_neighbours(run)
    thoughts = None
    if config.sft.annotator in WORLD_STRATEGIES:
        strategy, l = config.sft.annotator, config.sft.l
        thoughts, target = world_thoughts(strategy, dataset, tokenizer, splits.train, l, seed)
        splits = splits._replace(train=splits.train._replace(target=target))
    model = Backbone.load(work.folder_of("pretrain"))
    use_byte_dropout(model, run.device)
    job = TrainingJob(splits, config, seed, part, run.device)
    result = finetune(model, job, tokenizer, neighbours, thoughts)
    return result, (dataset, splits)


def true_thoughts(model: StreamRec, data: Data) -> Tensor | None:
    """The steps that lead to the test users' targets (n, l), code tokens; None where they are not known."""
    dataset, splits = data
    if not isinstance(dataset.world, WorkshopWorld):
        return None
    found = world_thoughts("true-steps", dataset, model.tokenizer, splits.test, model.l)[0]
    return found.to(model.device)


def _keep_guided(
    run: Run, result: Trained, slow: StreamRec, data: Data, part: Path, more: dict | None = None
) -> None:
    """Choose the last state's weight on validation, and keep the row of both ways to answer."""
    users = data[1].valid.to(run.device)
    w, weights = choose_weight(slow.model, slow.tokenizer, users, slow.l, slow.beams)
    guided = recommender_of(run, result, l=slow.l, w=w)
    more = {"l": slow.l, "w": w, "weights": weights, **(more or {})}
    keep(run, result, slow, data, part, more, guided=guided)


def keep(
    run: Run,
    result: Trained,
    model: StreamRec,
    data: Data,
    part: Path,
    more: dict | None = None,
    **others: StreamRec,
) -> None:
    """Save a trained model with its row.

    Args:
        run: its settings say how the model is evaluated.
        result: the trained model.
        model: how it is asked.
        data: the data set and its split.
        part: the folder to save to.
        more: further entries of the row.
        others: further ways to ask it, by name; their ranks are kept as "NAME test" and so on, beside "test".
    """
    (dataset, splits), size = data, run.config.evaluate.batch_size
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
    save_row(part, row, ranks, errand_steps(dataset, splits.test))
