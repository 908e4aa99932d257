"""Which notebook shows which stage, and the loop that runs what is not done."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..common.device import format_duration
from ..common.errors import BadInput
from ..common.files import write_text
from .executors import Crew, Job, StageFailed, Worker, notebook_done, notebook_hash
from .model_stages import run_results
from .results import results_done, results_hash
from .run import (
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
from .store import done

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

# Of what waits, the first of these goes first: the longest chain, then what anything can be done beside.
ORDER = (
    "data",
    "embeddings",
    "tokenizer",
    "tiger",
    "pretrain",
    "sft",
    "grpo",
    "look",
    "baselines",
    "results",
)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def upstream(stage: str) -> set[str]:
    """The stages without which ``stage`` cannot be."""
    if stage == "results":
        return set(STAGES[:-1])
    return {NEEDS[stage]} | upstream(NEEDS[stage]) if stage in NEEDS else set()


class Unit(NamedTuple):
    """A stage, or a seed of one: what can be done by itself.

    ``look``: the notebook that reads what came out of it.
    """

    stage: str
    seed: int | None = None
    look: bool = False

    @property
    def turn(self) -> int:
        """Its place in ``ORDER``."""
        return ORDER.index("look" if self.look else self.stage)


def is_done(run: Run, stage: str) -> bool:
    """Is the stage done for the run's settings and seeds? Reads markers only."""
    if stage == "results":
        return results_done(run)
    return all(hash_ and done(folder, hash_) for folder, hash_ in stage_folders(run, stage).items())


def cores() -> int:
    """How many of the processor's cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Conductor:
    """Runs stages of ``run``; a context, at whose end the worker processes end.

    A stage begins as soon as the ones that it is made from are there, so that those which do not need
    each other run side by side, as many as there are workers. Where a job fails the rest is still done,
    but for what needs it (of its seed, or of all if it serves them all). The context then ends with
    ``StageFailed``.

    Args:
        source: the folder of the tutorial's notebooks.
        gpus: jobs that run at once, each seeing one GPU; 0: see ``jobs``.
        jobs: without ``gpus``, jobs that run at once, each with its share of the processor's cores.
        tell: prints a line for the person who waits.
    """

    def __init__(self, run: Run, source: Path, gpus: int, tell: Callable[[str], None], jobs: int = 1):
        self.run, self.source, self.gpus, self.jobs, self.tell = run, source, gpus, jobs, tell
        self.crew: Crew | None = None
        self.begun: dict[Job, Unit] = {}  # what a job belongs to
        self.failed: list[tuple[Unit, StageFailed]] = []

    def __enter__(self) -> Conductor:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self.crew:
            self.crew.close()
        failures = [] if error else [failure for _, failure in self.failed]
        error = StageFailed.of(failures) if failures else error
        if isinstance(error, Exception) and not isinstance(error, BadInput):
            text = getattr(error, "trace", "") or "".join(traceback.format_exception(error))
            write_text(self.run.dir / "error.log", text)
            error.add_note(str(self.run.dir / "error.log"))
        if failures:
            raise error

    def conduct(self, stages: list[str]) -> None:
        """Run ``stages``, unless done, each with its notebook for each seed that it shows."""
        waiting = [unit for stage in stages for unit in self._units(stage)]
        total = sum(len(self._jobs(unit)) for unit in waiting)
        self.crew = Crew(max(1, self.gpus or self.jobs), self._worker, self.tell, total)
        quiet = set(stages)  # nothing was to be done
        while waiting or self.crew.open:
            for unit in [unit for unit in waiting if self._may_begin(unit, waiting)]:
                waiting.remove(unit)
                if self._begin(unit):
                    quiet.discard(unit.stage)
                elif unit.stage in quiet and all(unit.stage != other.stage for other in waiting):
                    self.tell(f"{unit.stage}: done before")
            for job, failure in self.crew.step():
                self._ended(job, failure)

    def _units(self, stage: str) -> list[Unit]:
        seeds = self.run.seeds if stage in SEEDED else (None,)
        looks = (False, True) if len(NOTEBOOKS.get(stage, ())) > 1 else (False,)
        return [Unit(stage, seed, look) for seed in seeds for look in looks]

    def _open(self, unit: Unit) -> bool:
        """Does a job of ``unit`` wait or run?"""
        return any(self.begun[job] == unit for job in self.crew.open)

    def _may_begin(self, unit: Unit, waiting: list[Unit]) -> bool:
        """Is what ``unit`` needs there, or will it never be?"""
        if unit.stage == "results":
            return len(waiting) == 1 and not self.crew.open
        if unit.look:
            need = unit._replace(look=False)
        elif unit.stage in NEEDS:
            stage = NEEDS[unit.stage]
            need = Unit(stage, unit.seed if stage in SEEDED else None)
        else:
            return True
        return self._is_done(need) or not (need in waiting or self._open(need))

    def _is_done(self, unit: Unit) -> bool:
        if unit.stage not in SEEDED:
            return is_done(self.run, unit.stage)
        _, folder, hash_ = SEEDED[unit.stage]
        hash_ = hash_(self.run, unit.seed)
        return bool(hash_ and done(folder(self.run, unit.seed), hash_))

    def _begin(self, unit: Unit) -> bool:
        """Have the unit's jobs done; was there anything to do?"""
        stage, seed, _ = unit
        lost = {failed.seed for failed, _ in self.failed if self._loses(unit, failed)}
        if None in lost or seed in lost or (lost and stage == "results"):
            what = stage if seed is None else f"{stage}, seed {seed}"
            self.tell(f"{what}: left out, it needs what failed")
            return True
        worked = stage == "results" and not is_done(self.run, stage)
        if worked:
            begin = time.perf_counter()
            run_results(self.run)
            self.tell(f"{stage}: done in {format_duration(time.perf_counter() - begin)}")
        jobs = self._jobs(unit)
        self.begun |= {job: unit for job in jobs}
        self.crew.waiting += jobs
        self.crew.waiting.sort(key=lambda job: self.begun[job].turn)
        return worked or bool(jobs)

    def _loses(self, unit: Unit, failed: Unit) -> bool:
        """Can ``unit`` not be done, of the seed at least, since ``failed`` has failed?"""
        if unit.stage == "results":
            return True
        above = upstream(unit.stage) | ({unit.stage} if unit.look else set())
        return failed.stage in above and not self._is_done(failed)

    def _ended(self, job: Job, failure: StageFailed | None) -> None:
        unit = self.begun[job]
        if failure:  # of a baseline: its seed's, or of those that count
            self.failed.append((Unit(unit.stage, job.seed), failure))
            return
        torn = any(failed.stage == unit.stage for failed, _ in self.failed)
        if not (torn or self._open(unit) or self._is_done(unit)):
            raise StageFailed(f"{job.what} ended without running its stage, {unit.stage}")

    def _jobs(self, unit: Unit) -> list[Job]:
        """What of a unit is not done."""
        run, jobs, (stage, seed, look) = self.run, [], unit
        if stage == "baselines":
            return self._baselines()
        if stage == "data":
            jobs += self._job("start", START, None, [data_hash(run)], None)
        if stage == "results":
            return self._job(stage, *NOTEBOOKS[stage], None, [results_hash(run)], None)
        finished = self._is_done(unit)
        if stage not in SEEDED:
            hashes = list(stage_folders(run, stage).values())
            return jobs + self._job(stage, *NOTEBOOKS[stage], None, hashes, None, finished)
        model, _, hash_ = SEEDED[stage]
        log = None if finished or look else training_log(run, stage, seed)
        hashes = [hash_(run, seed), *([run.config.sft.controls] if stage == "sft" else [])]
        return self._job(f"{model}, seed {seed}", NOTEBOOKS[stage][look], seed, hashes, log, finished)

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

    def _worker(self, number: int) -> Worker:
        """Start a worker: with a GPU of its own, or with a share of the cores."""
        share = {} if self.jobs == 1 else {name: str(cores() // self.jobs) for name in THREADS}
        surroundings = {name: os.environ.get(name, value) for name, value in share.items()}
        if self.gpus:
            listed = [g for g in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if g]
            surroundings = {"CUDA_VISIBLE_DEVICES": (listed or list(map(str, range(self.gpus))))[number]}
        return Worker(self.run.dir / "notebooks", surroundings)
