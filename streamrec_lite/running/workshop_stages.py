"""The models of the workshop, beside those of every run: what pays, thoughts or only more computation?

    Direct, deeper     TIGER with as many decoder layers as four thoughts add up to
    Pause tokens       thinks in one code that says nothing: the computation of thoughts without their content
    True thoughts      has learned the items on the way as its thoughts
    SFT                has learned to take a random number of steps: it knows how, and not how far
    RL                 SFT, reinforced by the answer alone
    More supervision   SFT with as many updates on the same answers, by their likelihood: the control of RL

All begin with random weights; what is fine-tuned keeps its last weights.
"""

from __future__ import annotations

import dataclasses

from ..baselines.tiger import train_tiger as fit_tiger
from ..common.device import seed_everything
from ..common.schemas import Prefixes
from ..config.settings import Config
from ..data.dataset import Dataset
from ..data.workshop_world import MAX_STEPS, errand_steps
from ..evaluation.evaluate import evaluate
from ..evaluation.rows import accuracy_by_steps
from ..inference.recommender import StreamRec, WithOptions
from ..inference.thinking_study import control_config
from ..model.backbone import Backbone
from ..training.channel import measure_channel
from ..training.finetune import finetune
from ..training.loop import Trained, TrainingJob
from ..training.reinforce import reinforce
from ..training.world_thoughts import world_thoughts
from .model_stages import keep, recommender_of, true_thoughts
from .stage_table import WORKSHOP_MODELS
from .stages import Work, run_data, run_neighbours, run_tokenizer

DEEPER, PAUSE, TRUE, SFT, RL, MORE = WORKSHOP_MODELS
STRATEGY = {PAUSE: "pause", TRUE: "true-steps", SFT: "random-steps"}  # see ``world_thoughts``
THOUGHT_COUNTS = tuple(range(MAX_STEPS + 3))  # l
TRAIN_COUNTS = (1, 4, 16)  # n, sampled trains of thought


def workshop_config(config: Config, name: str) -> Config:
    """The settings of a workshop model.

    True steps do not leak the target: the model can find them itself. So answers follow them in training, as
    the paper prints it, and thoughts weigh as much as the answer. The last weights are kept: validation asks
    for the right number of steps, and SFT is not to know it. A coin decides whether SFT goes on, so that it
    takes later steps more rarely; it sees all users twice as often.
    """
    replace = dataclasses.replace
    if name == DEEPER:
        deeper = control_config(config, "deep-tiger")
        return replace(deeper, tiger=config.tiger)
    epochs = config.sft.max_epochs * (2 if name in (SFT, RL, MORE) else 1)
    sft = replace(
        config.sft,
        max_epochs=epochs,
        condition_on="annotated",
        thought_weight=1.0,
        item_vectors="none",
        lam=0.0,
        delta=0.1,
        first_guess_share=0.0,
        similar_items_share=0.0,
        epochs_per_round=epochs,
        eval_every=epochs,
    )
    weights = {f"{reward}_weight": 0.0 for reward in ("format", "similarity", "likelihood", "ranking")}
    weights |= {"match_weight": 0.0, "target_likelihood_weight": 1.0} if name == MORE else {}
    grpo = replace(config.grpo, **weights, credit_assignment="rollout", beta=0.01, max_drop=1.0)
    return replace(config, sft=sft, grpo=grpo)


def train_workshop(work: Work) -> None:
    """Train and evaluate a workshop model; the row has its accuracy by the number of thoughts."""
    run, name, seed, part = work
    config, data = workshop_config(run.config, name), run_data(run)
    (dataset, splits), resamples = data, config.evaluate.bootstrap
    job = TrainingJob(splits, config, seed, part, run.device)
    if name == DEEPER:
        result = fit_tiger(job, run_tokenizer(run))
        keep(run, result, recommender_of(run, result), data, part)
        return
    result = _reinforced(work, job) if name in (RL, MORE) else _finetuned(work, job, dataset)
    model = recommender_of(run, result, l=config.sft.l)
    users = splits.test.to(run.device)
    more = {
        "l": model.l,
        "longer": accuracy_by_thinking(model, dataset, splits.test),
        "channel": measure_channel(model, users, true_thoughts(model, data), bootstrap=resamples),
    }
    keep(run, result, model, data, part, more)


def _finetuned(work: Work, job: TrainingJob, dataset: Dataset) -> Trained:
    """A model with random weights, fine-tuned on the world's thoughts."""
    run, name, seed, _ = work
    tokenizer, train = run_tokenizer(run), job.splits.train
    thoughts = world_thoughts(STRATEGY[name], dataset, tokenizer, train, job.config.sft.l, seed)
    job = job._replace(splits=job.splits._replace(train=train._replace(target=thoughts[1])))
    seed_everything(seed, "workshop", "weights")
    model = Backbone(job.config.backbone, tokenizer.vocab_size, ("direct", "thinking"))
    return finetune(model, job, tokenizer, run_neighbours(run), thoughts[0])


def _reinforced(work: Work, job: TrainingJob) -> Trained:
    """SFT with further updates: by the reward of its answers, or (the control) by their likelihood."""
    run, _, seed, _ = work
    model, reference = (Backbone.load(run.folder(SFT, seed)) for _ in range(2))
    return reinforce(model, reference, job, run_tokenizer(run), run_neighbours(run, job.config.grpo.K))


def accuracy_by_thinking(
    model: StreamRec, dataset: Dataset, test: Prefixes
) -> dict[str, dict[str, dict[str, float]]]:
    """R@1 by the steps that an errand takes, for l greedy thoughts, and for n sampled trains of thought.

    Returns {"l": {"0": {"1": R@1, ...}, ...}, "n": the same}.
    """
    variants = {("l", l): WithOptions(model, l, think="greedy") for l in THOUGHT_COUNTS}
    variants |= {("n", n): WithOptions(model, think="sample", n_thoughts=n) for n in TRAIN_COUNTS}
    steps = errand_steps(dataset, test)
    assert steps is not None, "only the workshop counts steps"
    found: dict[str, dict[str, dict[str, float]]] = {"l": {}, "n": {}}
    for (parameter, number), variant in variants.items():
        seed_everything("workshop", "thinking", parameter, number)
        ranks = evaluate(variant, test.to(model.device), batch_size=256).ranks
        found[parameter][str(number)] = accuracy_by_steps(steps, ranks)
    return found
