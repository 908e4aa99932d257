"""What a run is: its folder, its settings, its seeds, and the hash that each stage must be done for.

A stage's hash is made of its settings and of the hashes it builds on. The data stage's hash is made
of its input files' names, sizes and times; what follows builds on the content that was read, so that
a touched file redoes little. Nothing here imports torch or reads the data.
"""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from ..common.errors import BadInput
from ..common.files import read_json, write_json
from ..config.presets import preset
from ..config.sections import Config, config_of, fingerprint
from ..data.specs import check_spec, input_files
from .store import done, part_of

STAGES = ("data", "embeddings", "tokenizer", "tiger", "baselines", "pretrain", "sft", "grpo", "results")
COUNTING = ("Popularity", "Markov", "SequentialRules")
NEURAL = ("Caser", "GRU4Rec", "SASRec", "BERT4Rec", "ReaRec")
ORACLE = "Oracle"
CONTROLS = ("deep-tiger", "item-tiger", "no-thoughts", "random-thoughts")  # see ``question``
FORMAT = 1  # raise it when a stage writes something else for the same settings


@dataclass(frozen=True)
class Run:
    """A run: its folder, its settings and its seeds. ``device`` is the GPU if there is one.

    ``overrides`` made the settings from their preset: a notebook opens the same run with them.
    """

    dir: Path
    config: Config
    seeds: tuple[int, ...] = (0,)
    overrides: tuple[str, ...] = ()

    @functools.cached_property
    def device(self):
        from ..common.device import pick_device

        return pick_device()


def open_run(
    out: str | Path,
    dataset: str = "playground",
    preset: str = "lite",
    overrides: list[str] | tuple[str, ...] = (),
    seeds: tuple[int, ...] | list[int] = (0,),
) -> Run:
    """The run in the folder ``out``, made if it is new; its config.json says what it is.

    Notebooks open the run that `streamrec reproduce` started: the seeds of a run with the same
    settings are kept. A folder that holds something else is ``BadInput``.
    """
    run = make_run(out, dataset, preset, overrides, seeds)
    found = read_json(run.dir / "config.json") if (run.dir / "config.json").exists() else {}
    kept = found.get("seeds") if config_of(found) == run.config.to_dict() else None
    kept = kept if isinstance(kept, list) else []
    if not kept or not set(run.seeds) <= set(kept):
        write_config(run, sorted({*kept, *run.seeds}))
    return run


def make_run(out, dataset, preset_name, overrides, seeds) -> Run:
    """Check everything that can be checked without reading the data; nothing is written."""
    config = preset(preset_name, dataset).override(list(overrides))
    seeds = tuple(seeds)
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise BadInput(
                f"seed {seed!r}", "a seed is an integer from 0 to 2147483647", "give e.g. --seed 0"
            )
    if not seeds or len(set(seeds)) != len(seeds):
        raise BadInput(
            f"seeds {list(seeds)}", "seeds must be given, each once", "give e.g. --seed 0 --seed 1"
        )
    check_spec(dataset)
    run = Run(Path(out), config, seeds, tuple(overrides))
    check_folder(run.dir)
    return run


def check_folder(folder: Path) -> None:
    """``BadInput`` unless ``folder`` is new, empty, or a run."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(str(folder), "a run is a folder, this is a file", "give another --out")
    if not folder.exists() or not any(not p.name.startswith(".") for p in folder.iterdir()):
        return
    if not (folder / "config.json").is_file():
        raise BadInput(str(folder), "the folder is not empty and holds no run", "give another --out")
    found = read_json(folder / "config.json")
    versions = found.get("versions") if isinstance(found, dict) else None
    if not isinstance(versions, dict) or "streamrec_lite" not in versions:
        raise BadInput(f"{folder / 'config.json'}", "it does not describe a run", "give another --out")


def write_config(run: Run, seeds: list[int]) -> None:
    versions = {"streamrec_lite": __version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "numpy"):
        versions[name] = importlib.metadata.version(name)
    write_json(run.dir / "config.json", {**run.config.to_dict(), "seeds": seeds, "versions": versions})


# Hashes. None: it builds on a stage that is not done, so it cannot be done either.


def data_hash(run: Run) -> str:
    spec, settings = run.config.dataset, run.config.to_dict()["data"]
    playground = spec == "playground"
    kept = {
        k: v for k, v in settings.items() if k.startswith("playground") == playground and k != "max_history"
    }
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in input_files(spec)]
    source = stats or spec  # the files may move or be named from elsewhere
    return fingerprint("data", FORMAT, playground, kept, source)


def content_hash(run: Run) -> str | None:
    """The fingerprint of the data that was read."""
    return done(run.dir / "data", data_hash(run)).get("fingerprint")


def _after(name: str, *settings, upstream: str | None) -> str | None:
    return upstream and fingerprint(name, FORMAT, settings, upstream)


def embeddings_hash(run: Run) -> str | None:
    settings = run.config.to_dict()["embeddings"]
    playground = run.config.dataset == "playground"  # decides what "auto" means
    return _after("embeddings", settings, playground, upstream=content_hash(run))


def tokenizer_hash(run: Run) -> str | None:
    return _after("tokenizer", run.config.to_dict()["tokenizer"], upstream=embeddings_hash(run))


def tiger_hash(run: Run, seed: int) -> str | None:
    c = run.config.to_dict()
    settings = (c["backbone"], c["tiger"], c["evaluate"]["beams"], c["data"]["max_history"], seed)
    return _after("TIGER", *settings, upstream=tokenizer_hash(run))


def pretrain_hash(run: Run, seed: int) -> str | None:
    c = run.config.to_dict()
    settings = (c["backbone"], c["pretrain"], c["evaluate"]["beams"], c["data"]["max_history"], seed)
    return _after("pretrain", *settings, upstream=tokenizer_hash(run))


def sft_hash(run: Run, seed: int) -> str | None:
    c = run.config.to_dict()
    settings = {key: value for key, value in c["sft"].items() if key != "controls"}
    return _after("sft", settings, upstream=pretrain_hash(run, seed))


def grpo_hash(run: Run, seed: int) -> str | None:
    return _after("grpo", run.config.to_dict()["grpo"], upstream=sft_hash(run, seed))


def control_hash(run: Run, name: str, seed: int) -> str | None:
    """Those that are TIGERs are trained by TIGER's settings, but belong to a fine-tuning, too."""
    more = run.config.to_dict()["tiger"] if name in ("deep-tiger", "item-tiger") else None
    return _after("control", name, more, upstream=sft_hash(run, seed))


def counting_hash(run: Run, name: str) -> str | None:
    """SequentialRules and the oracle read no more of a history than the models do."""
    return _after(name, run.config.data.max_history, upstream=content_hash(run))


def tuning_hash(run: Run, name: str) -> str | None:
    c = run.config.to_dict()
    return _after(f"{name} tuned", c["baselines"], c["data"]["max_history"], upstream=content_hash(run))


def neural_hash(run: Run, name: str, seed: int) -> str | None:
    return _after(name, seed, upstream=tuning_hash(run, name))


def tuning_dir(run: Run, name: str) -> Path:
    return run.dir / "baselines" / name / "tuning"


def neural_dir(run: Run, name: str, seed: int) -> Path:
    return run.dir / "baselines" / name / f"seed-{seed}"


def tiger_dir(run: Run, seed: int) -> Path:
    return run.dir / "baselines" / "TIGER" / f"seed-{seed}"


def pretrain_dir(run: Run, seed: int) -> Path:
    return run.dir / "pretrain" / f"seed-{seed}"


def sft_dir(run: Run, seed: int) -> Path:
    return run.dir / "sft" / f"seed-{seed}"


def grpo_dir(run: Run, seed: int) -> Path:
    return run.dir / "grpo" / f"seed-{seed}"


def control_dir(run: Run, name: str, seed: int) -> Path:
    return run.dir / "sft" / "controls" / name / f"seed-{seed}"


# Stages that every seed goes through anew: the model that they deliver, its folder, its hash.
SEEDED = {
    "tiger": ("TIGER", tiger_dir, tiger_hash),
    "pretrain": ("STREAM-Rec-PT", pretrain_dir, pretrain_hash),
    "sft": ("STREAM-Rec-SFT", sft_dir, sft_hash),
    "grpo": ("STREAM-Rec-RL", grpo_dir, grpo_hash),
}


MIXED = ("tiger", "sft", "grpo")  # stages whose models are asked together with the rules, too


def mixed_name(model: str) -> str:
    """The row of a model that answers, in its best way, together with the sequential rules (``memory``)."""
    return f"{model}, with rules" if model == "TIGER" else f"{model}, state-guided, with rules"


def mixed_hash(run: Run, stage: str, seed: int) -> str | None:
    rules = counting_hash(run, "SequentialRules")
    return rules and _after("mixed", rules, upstream=SEEDED[stage][2](run, seed))


def mixed_dir(run: Run, stage: str, seed: int) -> Path:
    return run.dir / "baselines" / "with-rules" / SEEDED[stage][0] / f"seed-{seed}"


def counting_names(run: Run) -> tuple[str, ...]:
    return (*COUNTING, ORACLE) if run.config.dataset == "playground" else COUNTING


def stage_folders(run: Run, stage: str) -> dict[Path, str | None]:
    """The folders that a stage delivers, each with the hash that it must be done for."""
    if stage in SEEDED:
        _, folder, hash_ = SEEDED[stage]
        return {folder(run, seed): hash_(run, seed) for seed in run.seeds}
    if stage == "baselines":
        counted = {run.dir / "baselines" / name: counting_hash(run, name) for name in counting_names(run)}
        pairs = [(name, seed) for name in NEURAL for seed in run.seeds]
        return counted | {neural_dir(run, *pair): neural_hash(run, *pair) for pair in pairs}
    hashes = {"data": data_hash, "embeddings": embeddings_hash, "tokenizer": tokenizer_hash}
    return {run.dir / stage: hashes[stage](run)}


def training_log(run: Run, stage: str, seed: int) -> Path:
    """The log that grows while a seeded stage trains."""
    return part_of(SEEDED[stage][1](run, seed)) / "log.jsonl"
