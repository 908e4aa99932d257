"""All of a run by one command: its stages in order, each through its notebook where it has one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace as changed
from pathlib import Path

from ..common.device import check_machine, cores
from ..common.errors import BadInput, did_you_mean
from ..common.store import discard, done, lock_file, locked
from ..data.specs import default_out
from .notebooks import notebooks_folder
from .run import Run, kept_seeds, open_run, recorded, write_config
from .scheduler import Scheduler, is_done
from .stage_table import GROUPS, METHODS, trained_by
from .stages import ensure

# What --fresh discards: results first, so that none outlive what they were made from.
DELIVERED: tuple[str, ...] = (
    "results.json",
    "table2.md",
    "error.log",
    "notebooks",
    "figures",
    "grpo",
    "sft",
    "pretrain",
    "printed",
)
DELIVERED += ("baselines", "tokenizer", "embeddings", "data")


def choose_stages(only: Sequence[str]) -> list[str]:
    """The groups of stages to do, in order; ``BadInput`` for one that is unknown."""
    for group in only:
        if group not in GROUPS:
            raise BadInput(f"--only {group}", "no such stage", did_you_mean(group, GROUPS))
    return [group for group in GROUPS if not only or group in only]


def reproduce(
    dataset: str = "playground",
    preset: str = "lite",
    seeds: Sequence[int] = (0,),
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    branch: str = "",
    replace: bool = False,
    fresh: bool = False,
    gpus: int = 0,
    jobs: int = 0,
    engine: str = "local",
    method: str = "ours",
    tell: Callable[[str], None] = print,
) -> Path:
    """Do the stages, each through its notebook where it has one; returns the path of results.json.

    What is done is skipped, what was killed continues.

    Args:
        dataset, preset, seeds, overrides: what the run is of (see ``open_run``). Seeds that the run has
            finished before stay in its results.
        out: the run's folder; default: below runs/, named by the data set.
        only: just these stages, and what they need if that is not done.
        branch: try the settings in the run "OUT@NAME", which reuses the stages of ``out`` that stay the same.
        replace: do the finished stages anew that these settings change; without it they are refused.
        fresh: discard all of the run's stages first.
        gpus: that many jobs at once, each on one GPU.
        jobs: without ``gpus``, that many at once, each with its share of the cores (0: two where there are
            two, because these models are too small to gain from a second core).
        engine: "local".
        method: "ours", or "printed": the stages pretrain, sft and grpo by every equation as the paper prints
            it. They stand beside those of the other method, which stay as they are.
        tell: prints a line for the person who waits.

    Raises:
        BadInput: anything that was given cannot be used; nothing has been changed.
        StageFailed: in the end, for what failed, when the rest is done.
    """
    out = out or default_out(dataset, preset)
    run = open_run(out, dataset, preset, overrides, seeds, branch, only_check=True, method=method)
    groups, source = choose_stages(only), notebooks_folder()
    if engine != "local":
        rule = "not available yet" if engine == "ray" else "no such engine"
        raise BadInput(f"--engine {engine}", rule, "use --engine local")
    check_machine(gpus, jobs)
    if not fresh:
        check_same_data(run)
        run = changed(run, seeds=tuple(sorted({*run.seeds, *_finished_seeds(run)})))
    if not (fresh or replace):
        run.check_settings()
    with locked(lock_file(run.dir, "run"), wait=False) if branch else contextlib.nullcontext():
        run.adopt()
    if fresh or not is_done(run, "data"):
        tell(f"data: reading {dataset}")
        fingerprint = run.source.fingerprint()  # bad data end here, before anything is written
        before = done(run.folder("data")).get("fingerprint", fingerprint)
        fresh = fresh or (replace and before != fingerprint)  # other data: nothing of the run stays
    with locked(lock_file(run.dir, "run"), wait=False):
        _make_ready(run, fresh, replace)
        with Scheduler(run, source, gpus, tell, jobs or min(2, cores())) as scheduler:
            scheduler.work(groups)
    return run.dir / "results.json"


def _make_ready(run: Run, fresh: bool, replace: bool) -> None:
    """Discard what is to be done anew, write the run's settings, read its data."""
    clean(run, fresh)
    write_config(run, sorted({*run.seeds, *kept_seeds(run.dir)}))
    if not is_done(run, "data"):
        ensure(run, "data")
    for _, path in run.conflicts() if replace else ():
        discard(path)
    run.check_settings()


def check_same_data(run: Run) -> None:
    """``BadInput`` where the folder holds a run of another data set."""
    before = recorded(run.dir).get("dataset", run.config.dataset)
    if before != run.config.dataset and done(run.folder("data")):
        rule = f"the folder holds a run of {before!r}, this is {run.config.dataset!r}"
        raise BadInput(str(run.dir), rule, "give another --out, or --fresh to discard that run")


def _finished_seeds(run: Run) -> list[int]:
    """Seeds of which TIGER and all models of a method are there: they stay in the results."""
    return [
        seed
        for seed in kept_seeds(run.dir)
        if any(all(done(run.folder(s, seed)) for s in ("tiger", *trained_by(m))) for m in METHODS)
    ]


def clean(run: Run, fresh: bool) -> None:
    """Remove temporary files of killed runs, and with ``fresh`` all that stages wrote, by known names."""
    patterns = (".trash-*", ".*.tmp", "*/.*.tmp*", "error.log")
    for leftover in [path for pattern in patterns for path in run.dir.glob(pattern)]:
        discard(leftover)
    for name in DELIVERED if fresh else ():
        for suffix in ("", ".part", ".old"):
            discard(run.dir / f"{name}{suffix}")
