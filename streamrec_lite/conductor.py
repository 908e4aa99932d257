"""Which notebook shows which stage, and the loop that runs what is not done."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from .errors import BadInput
from .pipeline import run_results
from .report import results_done, results_hash
from .runs import (
    NEURAL,
    SEEDED,
    STAGES,
    Run,
    counting_names,
    data_hash,
    neural_dir,
    stage_folders,
    training_log,
)
from .runtime import duration, write_text
from .stages import done
from .workers import Job, Progress, StageFailed, Worker, notebook_done, notebook_hash, run_jobs

START = "00_start_here"
NOTEBOOKS = {  # the first one of a stage does its work, a second one looks at what came out
    "data": ("01_data",),
    "embeddings": ("02_embeddings",),
    "tokenizer": ("03_semantic_ids",),
    "tiger": ("04_fast_thinking",),
    "pretrain": ("05_pretraining", "06_thinking_step_by_step"),
    "sft": ("07_fine_tuning",),
    "grpo": ("08_reinforcement",),
    "results": ("09_results",),  # it reads them, all seeds at once
}

NEEDS = {  # what each stage is made from; the results are made from all
    "embeddings": "data",
    "tokenizer": "embeddings",
    "tiger": "tokenizer",
    "baselines": "data",
    "pretrain": "tokenizer",
    "sft": "pretrain",
    "grpo": "sft",
}


def upstream(stage: str) -> set[str]:
    """The stages without which ``stage`` cannot be."""
    if stage == "results":
        return set(STAGES[:-1])
    return {NEEDS[stage]} | upstream(NEEDS[stage]) if stage in NEEDS else set()


def is_done(run: Run, stage: str) -> bool:
    """Is the stage done for the run's settings and seeds? Reads markers only."""
    if stage == "results":
        return results_done(run)
    return all(hash_ and done(folder, hash_) for folder, hash_ in stage_folders(run, stage).items())


class Conductor:
    """Runs stages of ``run``; a context, at whose end the worker processes end.

    Where a job fails the rest is still done, but for the stages that need its own (of its seed, or of
    all if it serves them all). The context then ends with ``StageFailed``.

    Args:
        source: the folder of the tutorial's notebooks.
        gpus: jobs of one stage that run at once, each seeing one GPU; 0: one at a time.
        tell: prints a line for the person who waits.
        stages: all that will be conducted, for the time left.
    """

    def __init__(
        self, run: Run, source: Path, gpus: int, tell: Callable[[str], None], stages: list[str] | None = None
    ):
        self.run, self.source, self.gpus, self.tell = run, source, gpus, tell
        self.workers: list[Worker] = []
        self.failed: list[tuple[str, Job, StageFailed]] = []  # with the stage
        self.progress = Progress(sum(len(self._jobs(stage)) for stage in stages or ()))

    def __enter__(self) -> Conductor:
        return self

    def __exit__(self, kind, error, trace) -> None:
        for worker in self.workers:
            worker.close()
        failures = [] if error else [failure for *_, failure in self.failed]
        error = StageFailed.of(failures) if failures else error
        if isinstance(error, Exception) and not isinstance(error, BadInput):
            text = getattr(error, "trace", "") or "".join(traceback.format_exception(error))
            write_text(self.run.dir / "error.log", text)
            error.add_note(str(self.run.dir / "error.log"))
        if failures:
            raise error

    def conduct(self, stage: str) -> None:
        """Run ``stage`` unless it is done, and its notebook for each seed that it shows."""
        torn = {job.seed for failed, job, _ in self.failed if failed in upstream(stage)}
        if None in torn or (torn and stage == "results"):
            self.tell(f"{stage}: left out, it needs what failed")
            return
        worked = stage == "results" and not is_done(self.run, stage)
        if worked:
            begin = time.perf_counter()
            run_results(self.run)
            self.tell(f"{stage}: done in {duration(time.perf_counter() - begin)}")
        jobs = [job for job in self._jobs(stage) if job.seed not in torn]
        for seed in sorted(torn):
            self.tell(f"{stage}, seed {seed}: left out, it needs what failed")
        if not jobs:
            if not worked and not torn:
                self.tell(f"{stage}: done before")
            return
        failed = run_jobs(jobs, self._at_work(len(jobs)), self.tell, self.progress)
        self.failed += [(stage, *one) for one in failed]
        if not failed and not torn and not is_done(self.run, stage):
            raise StageFailed(f"{jobs[0].what} ended without running its stage, {stage}")

    def _jobs(self, stage: str) -> list[Job]:
        """What of a stage is not done."""
        run, jobs = self.run, []
        if stage == "baselines":
            return self._baselines()
        if stage == "data":
            jobs += self._job("start", START, None, [data_hash(run)], None)
        if stage == "results":
            return self._job(stage, *NOTEBOOKS[stage], None, [results_hash(run)], None)
        folders = stage_folders(run, stage)
        if stage not in SEEDED:
            hashes, finished = list(folders.values()), is_done(run, stage)
            return jobs + self._job(stage, *NOTEBOOKS[stage], None, hashes, None, finished)
        for seed, (folder, hash_) in zip(run.seeds, folders.items(), strict=True):
            label, finished = f"{SEEDED[stage][0]}, seed {seed}", bool(hash_ and done(folder, hash_))
            log = None if finished else training_log(run, stage, seed)
            hashes = [hash_, run.config.sft.controls] if stage == "sft" else [hash_]
            for name in NOTEBOOKS[stage]:
                jobs += self._job(label, name, seed, hashes, log, finished)
        return jobs

    def _job(self, label, name, seed, hashes, log, finished: bool = True) -> list[Job]:
        """The notebook ``name``, unless it has been executed for these ``hashes`` and its stage is done."""
        run, source = self.run, self.source / f"{name}.ipynb"
        if not source.is_file():
            raise BadInput(str(source), "the notebook is not there", "restore it from the repository")
        hash_ = notebook_hash(source, hashes, seed, run.config.preset)
        target = run.dir / "notebooks" / f"{name}{'' if seed is None else f'-seed-{seed}'}.ipynb"
        if finished and notebook_done(target, hash_):
            return []
        request = {"source": str(source), "target": str(target), "hash": hash_}
        request["parameters"] = self._parameters(seed)
        page = target.with_suffix(".html")
        return [Job(label, f"notebook {source.name}", request, log, page, seed)]

    def _baselines(self) -> list[Job]:
        """The baselines that are not done: those that only count together, each neural one by itself."""
        run, jobs, folders = self.run, [], stage_folders(self.run, "baselines")
        todo = {folder for folder, hash_ in folders.items() if not (hash_ and done(folder, hash_))}
        if any(run.dir / "baselines" / name in todo for name in counting_names(run)):
            request = {"baseline": "counting", "parameters": self._parameters(None)}
            jobs.append(Job("baselines that count", "counting", request))
        for seed in run.seeds:
            for name in NEURAL:
                if neural_dir(run, name, seed) in todo:
                    request = {"baseline": name, "parameters": self._parameters(seed)}
                    jobs.append(Job(f"{name}, seed {seed}", "training", request, seed=seed))
        return jobs

    def _parameters(self, seed: int | None) -> dict:
        """What a notebook, or a baseline's training, needs to open the run."""
        run = self.run
        return {
            "run_dir": str(run.dir),
            "dataset": run.config.dataset,
            "preset": run.config.preset,
            "seed": run.seeds[0] if seed is None else seed,
            "overrides": list(run.overrides),
        }

    def _at_work(self, jobs: int) -> list[Worker]:
        """Enough workers for ``jobs``, started when they are first needed."""
        wanted = min(jobs, max(1, self.gpus))
        listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if self.gpus else []
        gpus = [g for g in listed if g] or [str(i) for i in range(self.gpus)]
        while len(self.workers) < wanted:
            gpu = gpus[len(self.workers)] if self.gpus else None
            self.workers.append(Worker(self.run.dir / "notebooks", gpu))
        return self.workers[:wanted]
