"""Which notebook shows which stage, and the loop that runs what is not done."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from .errors import BadInput
from .report import results_done, results_hash
from .runs import SEEDED, Run, data_hash, stage_folders, training_log
from .runtime import write_text
from .stages import done
from .workers import Job, StageFailed, Worker, duration, notebook_done, notebook_hash, run_jobs

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


def is_done(run: Run, stage: str) -> bool:
    """Is the stage done for the run's settings and seeds? Reads markers only."""
    if stage == "results":
        return results_done(run)
    return all(hash_ and done(folder, hash_) for folder, hash_ in stage_folders(run, stage).items())


class Conductor:
    """Runs stages of ``run``; a context, at whose end the worker processes end.

    Args:
        source: the folder of the tutorial's notebooks.
        gpus: notebooks of one stage that run at once, each seeing one GPU; 0: one at a time.
        tell: prints a line for the person who waits.
        without_notebook: what runs the stages whose work no notebook does; one may show it afterwards.
    """

    def __init__(
        self,
        run: Run,
        source: Path,
        gpus: int,
        tell: Callable[[str], None],
        without_notebook: dict[str, Callable[[Run], object]],
    ):
        self.run, self.source, self.gpus, self.tell = run, source, gpus, tell
        self.without_notebook = without_notebook
        self.workers: list[Worker] = []

    def __enter__(self) -> Conductor:
        return self

    def __exit__(self, kind, error, trace) -> None:
        for worker in self.workers:
            worker.close()
        if isinstance(error, Exception) and not isinstance(error, BadInput):
            text = getattr(error, "trace", "") or "".join(traceback.format_exception(error))
            write_text(self.run.dir / "error.log", text)
            error.add_note(str(self.run.dir / "error.log"))

    def conduct(self, stage: str) -> None:
        """Run ``stage`` unless it is done, and its notebook for each seed that it shows."""
        worked = stage in self.without_notebook and not is_done(self.run, stage)
        if worked:
            begin = time.perf_counter()
            self.without_notebook[stage](self.run)
            self.tell(f"{stage}: done in {duration(time.perf_counter() - begin)}")
        jobs = self._jobs(stage) if stage in NOTEBOOKS else []
        if not jobs:
            if not worked:
                self.tell(f"{stage}: done before")
            return
        run_jobs(jobs, self._at_work(len(jobs)), self.tell)
        if not is_done(self.run, stage):
            name = NOTEBOOKS[stage][0]
            raise StageFailed(f"notebook {name}.ipynb ended without running its stage, {stage}")

    def _jobs(self, stage: str) -> list[Job]:
        """The notebooks of a stage that are not done."""
        run, jobs = self.run, []
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
        run, source = self.run, self.source / f"{name}.ipynb"
        if not source.is_file():
            raise BadInput(str(source), "the notebook is not there", "restore it from the repository")
        hash_ = notebook_hash(source, hashes, seed, run.config.preset)
        target = run.dir / "notebooks" / f"{name}{'' if seed is None else f'-seed-{seed}'}.ipynb"
        if finished and notebook_done(target, hash_):
            return []
        parameters = {
            "run_dir": str(run.dir),
            "dataset": run.config.dataset,
            "preset": run.config.preset,
            "seed": run.seeds[0] if seed is None else seed,
            "overrides": list(run.overrides),
        }
        return [Job(label, source, target, parameters, hash_, log)]

    def _at_work(self, jobs: int) -> list[Worker]:
        """Enough workers for ``jobs``, started when they are first needed."""
        wanted = min(jobs, max(1, self.gpus))
        listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if self.gpus else []
        gpus = [g for g in listed if g] or [str(i) for i in range(self.gpus)]
        while len(self.workers) < wanted:
            seen = {"CUDA_VISIBLE_DEVICES": gpus[len(self.workers)]} if self.gpus else {}
            self.workers.append(Worker(self.run.dir / "notebooks", seen))
        return self.workers[:wanted]
