"""What of a run is not done, in which order: tasks derived from the stage table, done side by side.

A stage begins as soon as what it needs is there. Where a task fails the rest is still done, except for
what needs it; the results, which need everything, are then left out.
"""

from __future__ import annotations

import graphlib
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..common.device import cores
from ..common.errors import BadInput, StageFailed
from ..common.files import write_text
from ..common.store import part_of
from .executors import LOG, Job, LocalExecutor
from .notebooks import copy_executed, notebook_done, notebook_hash
from .results import results_done, results_hash
from .run import Run
from .stage_table import (
    GROUPS,
    NOTEBOOKS,
    START,
    TABLE,
    WORKSHOP_NOTEBOOK,
    Stage,
    on_workshop,
    records,
)

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class Task(NamedTuple):
    """A job, and what it is for.

    job       what is to be done
    group     of the stage table
    delivers  (record, seed) that must be done afterwards; none for a notebook that only reports
    needs     (record, seed) that must be done before, if they are done at all in this call
    """

    job: Job
    group: str
    delivers: tuple[tuple[str, int | None], ...]
    needs: tuple[tuple[str, int | None], ...]

    @property
    def turn(self) -> tuple[int, int]:
        """Of what may begin, the smallest goes first: the longest chain, then what can be done beside it."""
        beside = 2 if self.group == "baselines" else 0 if self.delivers else 1
        return beside, GROUPS.index(self.group)


def _needs(stage: Stage, seed: int | None) -> tuple[tuple[str, int | None], ...]:
    """(record, seed) of what a stage needs."""
    return tuple((name, seed if TABLE[name].seeded else None) for name in stage.needs)


def is_done(run: Run, group: str) -> bool:
    """Is the group done for the run's settings and seeds? Reads markers only."""
    return results_done(run) if group == "results" else run.is_done(group)


class Scheduler:
    """Does stages of ``run``; a context, at whose end all processes end.

    The context ends with ``StageFailed`` where a task failed.

    Args:
        run: the run.
        source: the folder of the tutorial's notebooks.
        gpus: jobs that run at once, each seeing one GPU; 0: see ``jobs``.
        tell: prints a line for the person who waits.
        jobs: without ``gpus``, jobs that run at once, each with its share of the processor's cores.
    """

    def __init__(self, run: Run, source: Path, gpus: int, tell: Callable[[str], None], jobs: int = 1):
        self.run, self.source, self.gpus, self.jobs, self.tell = run, source, gpus, jobs, tell
        self.executor: LocalExecutor | None = None
        self.failed: list[Exception] = []

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.executor:
            self.executor.close()
        failures = [] if error else self.failed
        raised = StageFailed.of(failures) if failures else error
        if isinstance(raised, Exception) and not isinstance(raised, BadInput):
            text = getattr(raised, "trace", "") or "".join(traceback.format_exception(raised))
            write_text(self.run.dir / "error.log", text)
            raised.add_note(str(self.run.dir / "error.log"))
        if failures and raised:
            raise raised

    def work(self, groups: list[str]) -> None:
        """Do the groups' stages, unless done, each with its notebook for each seed that it shows."""
        tasks = [task for group in groups for task in self.tasks(group)]
        for group in groups:
            has_work = group == "results" or self.run.parts(group)
            if has_work and not any(task.group == group for task in tasks):
                self.tell(f"{group}: done before")
        makers = {part: i for i, task in enumerate(tasks) for part in task.delivers}
        graph = {i: {makers[part] for part in task.needs if part in makers} for i, task in enumerate(tasks)}
        for i, task in enumerate(tasks):
            if task.group == "results":
                graph[i] |= {j for j in graph if j < i}
        sorter = graphlib.TopologicalSorter(graph)
        sorter.prepare()
        numbers = {task.job: i for i, task in enumerate(tasks)}
        self.executor = LocalExecutor(self._places(), self.run.dir / "notebooks" / LOG, self.tell, len(tasks))
        left = set(numbers.values())
        while True:
            ready = [i for i in sorter.get_ready() if not (self.failed and tasks[i].group == "results")]
            self.executor.waiting += [tasks[i].job for i in ready]
            self.executor.waiting.sort(key=lambda job: tasks[numbers[job]].turn)
            if not self.executor.open:
                break
            for job, failure in self.executor.step():
                number = numbers[job]
                left.discard(number)
                if self._succeeded(tasks[number], failure):
                    sorter.done(number)
        for label in dict.fromkeys(tasks[i].job.label for i in sorted(left)):
            self.tell(f"{label}: left out, it needs what failed")

    def _succeeded(self, task: Task, failure: StageFailed | None) -> bool:
        """May what needs the task go on? Its stages may be done, though its notebook failed later."""
        delivered = all(self._is_there(*part) for part in task.delivers)
        if not failure and not delivered:
            failure = StageFailed(f"{task.job.what} ended without running its stage, {task.group}")
        if failure:
            self.failed.append(failure)
        return delivered

    def _is_there(self, name: str, seed: int | None) -> bool:
        return results_done(self.run) if name == "results" else bool(self.run.marker(name, seed))

    def tasks(self, group: str) -> list[Task]:
        """What of a group is not done."""
        if group == "baselines":
            return self._baselines()
        if group == "results":
            return self._results()
        run, found = self.run, []
        if group == "data" and not on_workshop(run.config):
            found += self._notebook("start", group, START, None, [run.hash("data")], (), ())
        for stage in records(group, run.config):
            shown = stage.notebooks and not on_workshop(run.config)
            tasks_of = self._with_notebooks if shown else self._alone
            for seed in run.seeds_of(stage) if stage.method in ("", run.method) else ():
                found += tasks_of(stage, seed)
        return found

    def _with_notebooks(self, stage: Stage, seed: int | None) -> list[Task]:
        """A stage's own notebook, and those that report on it."""
        run, group, part = self.run, stage.group, (stage.name, seed)
        label = f"{stage.model}, seed {seed}" if stage.seeded else group
        hashes: list = [run.hash(*part), *([run.config.sft.controls] if group == "sft" else [])]
        first, *reports = stage.notebooks
        found = self._notebook(label, group, first, seed, hashes, (part,), _needs(stage, seed))
        for name in reports:
            found += self._notebook(label, group, name, seed, hashes, (), (part,))
        return found

    def _alone(self, stage: Stage, seed: int | None) -> list[Task]:
        """A stage without a notebook, in a process of its own, unless it is done."""
        part, label = (stage.name, seed), f"{stage.model}, seed {seed}" if stage.seeded else stage.name
        if self.run.marker(*part):
            return []
        log = part_of(self.run.folder(*part)) / "log.jsonl"
        job = Job(label, "training", self._stage_parameters(seed), stages=(stage.name,), log=log)
        return [Task(job, stage.group, (part,), _needs(stage, seed))]

    def _notebook(
        self,
        label: str,
        group: str,
        name: str,
        seed: int | None,
        hashes: list,
        delivers: tuple,
        needs: tuple,
    ) -> list[Task]:
        """The notebook ``name``, unless it was executed for ``hashes`` and what it delivers is there."""
        run, source = self.run, self.source / f"{name}.ipynb"
        if not source.is_file():
            raise BadInput(str(source), "the notebook is not there", "restore it from the repository")
        hash_ = notebook_hash(source, hashes, seed, run.config.preset)
        target = run.dir / "notebooks" / f"{name}{'' if seed is None else f'-seed-{seed}'}.ipynb"
        there = all(self._is_there(*part) for part in delivers)
        if there and (notebook_done(target, hash_) or copy_executed(target, hash_, run.parents)):
            return []
        log = None if there else part_of(run.folder(group, seed)) / "log.jsonl"
        log = log if group in TABLE and TABLE[group].seeded else None
        notebook = (source, target, hash_)
        job = Job(label, f"notebook {source.name}", self._parameters(seed), notebook, log=log)
        return [Task(job, group, delivers, needs)]

    def _baselines(self) -> list[Task]:
        """Those that only count together, in one process, and each neural one in its own."""
        run, found = self.run, []
        missing = [part for part in run.parts("baselines") if not run.marker(*part)]
        counted = tuple(part for part in missing if not TABLE[part[0]].seeded)
        chosen = [("baselines that count", "counting", counted)] if counted else []
        for name, seed in missing:
            if TABLE[name].seeded:
                chosen.append((f"{name}, seed {seed}", "training", ((name, seed),)))
        for label, what, parts in chosen:
            stages, seed = tuple(name for name, _ in parts), parts[0][1]
            job = Job(label, what, self._stage_parameters(seed), stages=stages)
            found.append(Task(job, "baselines", parts, (("data", None),)))
        return found

    def _results(self) -> list[Task]:
        """The rows of all models, gathered once the models are there, and the notebook that shows them."""
        run, (name,) = self.run, NOTEBOOKS["results"]
        if on_workshop(run.config):
            name = WORKSHOP_NOTEBOOK
        part = ("results", None)
        gather = Job("results", "gathering", self._stage_parameters(None), stages=("results",))
        gathering = [] if results_done(run) else [Task(gather, "results", (part,), ())]
        if run.seeds_of(TABLE["sft"]) != run.seeds:  # the notebook shows our method, which is not done
            return gathering
        show = self._notebook("results", "results", name, None, [results_hash(run)], (), (part,))
        return gathering + show

    def _stage_parameters(self, seed: int | None) -> dict:
        """What a process needs to open the run and to do stages of it."""
        return {**self._parameters(seed), "seeds": self.run.seeds, "method": self.run.method}

    def _parameters(self, seed: int | None) -> dict:
        """What a notebook, or a process, needs to open the run."""
        run = self.run
        return {
            "run_dir": str(run.dir),
            "dataset": run.config.dataset,
            "preset": run.config.preset,
            "seed": run.seeds[0] if seed is None else seed,
            "overrides": list(run.overrides),
        }

    def _places(self) -> list[dict[str, str]]:
        """The environment of each place: a GPU of its own, or a share of the cores."""
        paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
        common = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        if self.gpus:
            listed = [g for g in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if g]
            seen = (listed or list(map(str, range(self.gpus))))[: self.gpus]
            return [{**common, "CUDA_VISIBLE_DEVICES": gpu} for gpu in seen]
        share = {} if self.jobs == 1 else {name: str(cores() // self.jobs) for name in THREADS}
        kept = {name: os.environ.get(name, value) for name, value in share.items()}
        return [{**common, **kept} for _ in range(max(1, self.jobs))]
