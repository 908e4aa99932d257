"""All of a run by one command: its stages in order, each through its notebook where it has one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..common.errors import BadInput, did_you_mean
from ..common.files import read_json
from ..data.specs import check_spec
from .executors import StageFailed, notebooks_folder
from .model_stages import run_data
from .run import STAGES, Run, make_run, write_config
from .scheduler import Conductor, cores, is_done
from .store import discard, done, lock_file, locked

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


def choose_stages(only: tuple[str, ...] | list[str]) -> list[str]:
    """The stages to run, in order; ``BadInput`` for one that is unknown."""
    for stage in only:
        if stage not in STAGES:
            raise BadInput(f"--only {stage}", "no such stage", did_you_mean(stage, STAGES))
    return [stage for stage in STAGES if not only or stage in only]


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
    seeds: tuple[int, ...] | list[int] = (0,),
    out: str | Path | None = None,
    overrides: tuple[str, ...] | list[str] = (),
    only: tuple[str, ...] | list[str] = (),
    fresh: bool = False,
    gpus: int = 0,
    jobs: int = 0,
    engine: str = "local",
    tell: Callable[[str], None] = print,
) -> Path:
    """Run the stages, each through its notebook where it has one; returns the path of results.json.

    What is done is skipped, what was killed continues. ``only``: just these stages, and what they
    need if that is not done. ``fresh``: discard the run's stages first. ``gpus``: that many trainings at
    once, each on a GPU of its own; without, ``jobs`` at once, each with its share of the cores (0: two
    where there are two, because these models are too small to gain from a second core). Raises
    ``BadInput``, or ``StageFailed`` in the end for notebooks and trainings that failed, when the rest
    is done.
    """
    run = make_run(out or default_out(dataset, preset), dataset, preset, overrides, seeds)
    stages = choose_stages(only)
    check_machine(gpus, jobs, engine)
    source = notebooks_folder()
    check_same_data(run, fresh)
    read = None
    if fresh or not is_done(run, "data"):
        from ..data.sources import load_dataset

        tell(f"data: reading {dataset}")
        read = load_dataset(dataset, run.config.data)  # bad data ends here, before anything is written
    with locked(lock_file(run.dir, "run"), wait=False):
        clean(run, fresh)
        write_config(run, list(run.seeds))
        if read is not None:
            run_data(run, read)
            del read
        with Conductor(run, source, gpus, tell, jobs or min(2, cores())) as conductor:
            conductor.conduct(stages)
    return run.dir / "results.json"


def reproduce_all(
    datasets: list[str],
    preset: str = "lite",
    out: str | Path | None = None,
    tell: Callable[[str], None] = print,
    **options,
) -> list[Path]:
    """``reproduce`` for each data set in turn; returns the paths of their results.json.

    Where one fails the others are still done; what failed is raised in the end. ``out``: the run's
    folder, or with several data sets the folder that gets a run for each.
    """
    folders, many = {name: default_out(name, preset) for name in datasets}, len(datasets) > 1
    if len(set(folders.values())) < len(datasets):
        rule = "each data set needs a run's folder of its own name"
        raise BadInput(f"--dataset {' '.join(datasets)}", rule, "name each once, or run them one by one")
    if out is not None:
        folders = {name: Path(out) / folder.name if many else Path(out) for name, folder in folders.items()}
    for name in datasets:
        check_spec(name)
    results, failed = [], []
    for name, folder in folders.items():
        if many:
            tell(f"{name}, data set {len(results) + len(failed) + 1} of {len(datasets)}")
        try:
            results.append(reproduce(name, preset, out=folder, tell=tell, **options))
        except (BadInput, StageFailed) as error:
            failed.append(error)
            if many:
                tell(f"{name}: FAILED: {error}")
    if len(failed) == 1 or (failed and all(isinstance(error, BadInput) for error in failed)):
        raise failed[0]
    if failed:
        raise StageFailed.of(failed)
    return results


def check_same_data(run: Run, fresh: bool) -> None:
    """``BadInput`` where the folder holds a run of other data: its stages would be replaced one by one."""
    if fresh or is_done(run, "data") or not done(run.dir / "data"):
        return
    before = read_json(run.dir / "config.json").get("dataset")
    if before != run.config.dataset:
        rule = f"the folder holds a run of {before!r}, this is {run.config.dataset!r}"
        raise BadInput(str(run.dir), rule, "give another --out, or --fresh to discard that run")


def clean(run: Run, fresh: bool) -> None:
    """Remove temporary files of killed runs, and with ``fresh`` all that stages wrote, by known names."""
    patterns = (".trash-*", ".*.tmp", "*/.*.tmp*", "error.log")
    for leftover in [path for pattern in patterns for path in run.dir.glob(pattern)]:
        discard(leftover)
    if fresh:
        for name in DELIVERED:
            for suffix in ("", ".part", ".old"):
                discard(run.dir / f"{name}{suffix}")
