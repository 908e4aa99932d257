"""All of a run by one command: its stages in order, each through its notebook where it has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace as changed
from pathlib import Path

from ..common.errors import BadInput, did_you_mean
from ..common.store import discard, done, lock_file, locked
from ..data.specs import check_spec
from .executors import StageFailed
from .notebooks import notebooks_folder
from .run import Run, kept_seeds, make_run, recorded, write_config
from .scheduler import Scheduler, cores, is_done
from .stage_table import GROUPS, STAGES

# What --fresh discards: results first, so that none outlive what they were made from.
DELIVERED = ("results.json", "table2.md", "error.log", "notebooks", "figures", "grpo", "sft", "pretrain")
DELIVERED += ("baselines", "tokenizer", "embeddings", "data")


def default_out(dataset: str, preset: str) -> Path:
    """runs/playground, runs/scientific-2018-smoke: the data set, and a preset that is not lite."""
    kind, _, rest = dataset.partition(":")
    name = Path(dataset).stem
    if rest:  # amazon-2023:CATEGORY@FOLDER is named by its category, amazon-2018:FOLDER by its folder
        name = rest.partition("@")[0] if kind == "amazon-2023" else Path(rest).resolve().name
    return Path("runs") / (name if preset == "lite" else f"{name}-{preset}")


def choose_stages(only: Sequence[str]) -> list[str]:
    """The groups of stages to do, in order; ``BadInput`` for one that is unknown."""
    for group in only:
        if group not in GROUPS:
            raise BadInput(f"--only {group}", "no such stage", did_you_mean(group, GROUPS))
    return [group for group in GROUPS if not only or group in only]


def check_machine(gpus: int, jobs: int, engine: str) -> None:
    """``BadInput`` for an engine, or a number of GPUs or cores, that is not there."""
    if engine == "ray":
        raise BadInput("--engine ray", "not available yet", "use --engine local")
    if engine != "local":
        raise BadInput(f"--engine {engine}", "no such engine", did_you_mean(engine, ("local", "ray")))
    if not 0 <= jobs <= cores():
        rule = f"the number lies between 1 and the {cores()} cores that there are"
        raise BadInput(f"--jobs {jobs}", rule, "leave it out to run two at once")
    if gpus < 0:
        raise BadInput(f"--gpus {gpus}", "the number is at least 0", "leave it out to use what is there")
    if gpus:
        import torch

        if gpus > torch.cuda.device_count():
            rule = f"this machine has {torch.cuda.device_count()}"
            raise BadInput(f"--gpus {gpus}", rule, "give fewer, or leave it out")


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
        tell: prints a line for the person who waits.

    Raises:
        BadInput: anything that was given cannot be used; nothing has been changed.
        StageFailed: in the end, for what failed, when the rest is done.
    """
    run = make_run(out or default_out(dataset, preset), dataset, preset, overrides, seeds, branch)
    groups, source = choose_stages(only), notebooks_folder()
    check_machine(gpus, jobs, engine)
    if not fresh:
        check_same_data(run)
        if not replace:
            run.check_settings()
    if branch and not fresh:
        with locked(lock_file(run.dir, "run"), wait=False):
            run.adopt()
    if fresh or not is_done(run, "data"):
        from ..data.sources import load_dataset

        tell(f"data: reading {dataset}")
        fingerprint = load_dataset(dataset, run.config.data).fingerprint()  # bad data end here
        before = done(run.folder("data")).get("fingerprint", fingerprint)
        fresh = fresh or (replace and before != fingerprint)  # other data: nothing of the run stays
    with locked(lock_file(run.dir, "run"), wait=False):
        run = changed(run, seeds=tuple(sorted({*run.seeds, *([] if fresh else _finished_seeds(run))})))
        clean(run, fresh, replace)
        write_config(run, sorted({*run.seeds, *kept_seeds(run.dir)}))
        if not is_done(run, "data"):
            from .stages import ensure

            ensure(run, "data")
            if not replace:
                run.check_settings()
        with Scheduler(run, source, gpus, tell, jobs or min(2, cores())) as scheduler:
            scheduler.work(groups)
    return run.dir / "results.json"


def reproduce_all(
    datasets: list[str],
    preset: str = "lite",
    out: str | Path | None = None,
    tell: Callable[[str], None] = print,
    **options,
) -> list[Path]:
    """``reproduce`` for each data set in turn; returns the paths of their results.json.

    Where one fails the others are still done; what failed is raised in the end.

    Args:
        datasets: what ``reproduce`` takes, each once.
        preset: as there.
        out: the run's folder, or with several data sets the folder that gets a run for each.
        tell: prints a line for the person who waits.
        options: everything else that ``reproduce`` takes.
    """
    folders, many = {name: default_out(name, preset) for name in datasets}, len(datasets) > 1
    if len(set(folders.values())) < len(datasets):
        rule = "each data set needs a run's folder of its own name"
        raise BadInput(f"--dataset {' '.join(datasets)}", rule, "name each once, or run them one by one")
    if out is not None:
        folders = {name: Path(out) / folder.name if many else Path(out) for name, folder in folders.items()}
    for name in datasets:
        check_spec(name)
    results: list[Path] = []
    failed: list[Exception] = []
    for name, folder in folders.items():
        if many:
            tell(f"{name}, data set {len(results) + len(failed) + 1} of {len(datasets)}")
        try:
            results.append(reproduce(name, preset, out=folder, tell=tell, **options))
        except (BadInput, StageFailed) as error:
            failed.append(error)
            if many:
                tell(f"{name}: FAILED: {error}")
    if failed and all(isinstance(error, BadInput) for error in failed):
        raise failed[0]
    if failed:
        raise StageFailed.of(failed)
    return results


def check_same_data(run: Run) -> None:
    """``BadInput`` where the folder holds a run of another data set."""
    before = recorded(run.dir).get("dataset", run.config.dataset)
    if before != run.config.dataset and done(run.folder("data")):
        rule = f"the folder holds a run of {before!r}, this is {run.config.dataset!r}"
        raise BadInput(str(run.dir), rule, "give another --out, or --fresh to discard that run")


def _finished_seeds(run: Run) -> list[int]:
    """Seeds of which all trained models are there: they stay in the results."""
    stages = [stage.name for stage in STAGES if stage.seeded and stage.notebooks]
    return [seed for seed in kept_seeds(run.dir) if all(done(run.folder(name, seed)) for name in stages)]


def clean(run: Run, fresh: bool, replace: bool) -> None:
    """Remove temporary files of killed runs, and what is to be done anew, by known names."""
    patterns = (".trash-*", ".*.tmp", "*/.*.tmp*", "error.log")
    for leftover in [path for pattern in patterns for path in run.dir.glob(pattern)]:
        discard(leftover)
    for path in [path for _, path in run.conflicts()] if replace and not fresh else ():
        discard(path)
    for name in DELIVERED if fresh else ():
        for suffix in ("", ".part", ".old"):
            discard(run.dir / f"{name}{suffix}")
