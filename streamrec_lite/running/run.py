"""A run: its folder, its settings, its seeds, and for each stage the hash that it must be done for.

A stage's hash is made of its settings and of the hashes it builds on. The data stage's hash is made of
its input files' names, sizes and times; what follows builds on the content that was read, so that a
touched file redoes little. A run folder belongs to its settings: others, for a stage that is finished,
are refused, and tried in a branch. Nothing here imports torch or reads the data.
"""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..common.errors import BadInput, did_you_mean
from ..common.files import read_json, write_json
from ..common.store import BRANCH_REMEDY, adopt, done
from ..config.presets import preset as make_preset
from ..config.sections import SYNTHETIC
from ..config.settings import Config, config_of, fingerprint
from ..data.specs import check_spec, input_files
from .stage_table import (
    FORMAT,
    GROUPS,
    METHODS,
    STAGES,
    TABLE,
    Stage,
    is_synthetic,
    records,
    trained_by,
)

if TYPE_CHECKING:
    import torch

    from ..data.dataset import Dataset


@dataclass(frozen=True)
class Run:
    """A run: its folder, its settings and its seeds.

    ``overrides`` made the settings from their preset: a notebook opens the same run with them. ``method`` is
    the one that is worked on, "ours" or "printed"; a run can hold both. A branch stands beside its parent,
    "runs/x@name" beside "runs/x", and takes over what is the same there.
    """

    dir: Path
    config: Config
    seeds: tuple[int, ...] = (0,)
    overrides: tuple[str, ...] = ()
    method: str = "ours"

    @functools.cached_property
    def device(self) -> torch.device:
        """The GPU if there is one, else the CPU."""
        from ..common.device import pick_device

        return pick_device()

    @functools.cached_property
    def parents(self) -> list[Path]:
        """The folders of the runs that this one is a branch of, the nearest first."""
        name, folders = self.dir.name, []
        while "@" in name:
            name = name.rpartition("@")[0]
            folders.append(self.dir.with_name(name))
        return folders

    @functools.cached_property
    def _known(self) -> dict[tuple, Any]:
        """Hashes and markers of finished stages, each read once."""
        return {}

    @functools.cached_property
    def source(self) -> Dataset:
        """The data set as it is now where it comes from."""
        from ..data.sources import load_dataset

        return load_dataset(self.config.dataset, self.config.data)

    def folder(self, name: str, seed: int | None = None) -> Path:
        """Where the stage's files are."""
        return self.dir / TABLE[name].folder.format(seed=seed)

    def hash(self, name: str, seed: int | None = None) -> str | None:
        """Hash of a stage's settings and inputs; None while the data stage is unfinished."""
        stage, key = TABLE[name], ("hash", name, seed)
        if key not in self._known:
            inputs: list[object] = [stage.values(self.config)]
            if name == "data":
                inputs = _data_inputs(self.config)
            for need in stage.needs:
                inputs.append(self.content if need == "data" else self.hash(need, seed))
            if None in inputs:
                return None
            self._known[key] = fingerprint(name, FORMAT, inputs, seed if stage.seeded else None)
        return self._known[key]

    @property
    def content(self) -> str | None:
        """The fingerprint of the data that was read, or None."""
        return self.marker("data").get("fingerprint")

    def marker(self, name: str, seed: int | None = None) -> dict:
        """What a finished stage's done.json says; {} while it is not done for these settings."""
        key = ("marker", name, seed)
        found = self._known.get(key)
        if not found:
            hash_ = self.hash(name, seed)
            found = done(self.folder(name, seed), hash_) if hash_ else {}
            if found:
                self._known[key] = found
        return found

    def is_done(self, group: str) -> bool:
        """Are all records of the group done, for every seed? (``results.results_done`` knows of results.)"""
        return all(self.marker(name, seed) for name, seed in self.parts(group))

    def parts(self, group: str) -> list[tuple[str, int | None]]:
        """(record, seed) of everything in a group; a baseline's choice of settings is part of it."""
        stages = [stage for stage in records(group, self.config) if not stage.name.endswith(" tuning")]
        return [(s.name, seed) for s in stages for seed in self.seeds_of(s)]

    def seeds_of(self, stage: Stage) -> tuple[int, ...] | tuple[None]:
        """The seeds of a record; of the method that is not worked on, those for which it is done."""
        if not stage.seeded:
            return (None,)
        if stage.method in ("", self.method):
            return self.seeds
        models = trained_by(stage.method)
        return tuple(seed for seed in self.seeds if all(self.marker(name, seed) for name in models))

    def adopt(self) -> None:
        """Copy from the run's parents every stage that is done there for the same settings."""
        for stage in STAGES if self.parents else ():
            for seed in self.seeds if stage.seeded else (None,):
                hash_ = self.hash(stage.name, seed)
                if hash_ and not self.marker(stage.name, seed):
                    others = [parent / stage.folder.format(seed=seed) for parent in self.parents]
                    adopt(self.folder(stage.name, seed), others, hash_)

    def conflicts(self) -> list[tuple[str, Path]]:
        """(group, folder) of every finished stage that these settings would replace."""
        kept = config_of(recorded(self.dir))
        seeds = sorted({*self.seeds, *kept_seeds(self.dir)})
        found = []
        plain = self.config.to_dict()
        same_data = all(kept.get(key, plain[key]) == plain[key] for key in ("dataset", "data"))
        other_data = not (same_data or self.marker("data"))
        for stage in STAGES:
            for seed in seeds if stage.seeded else (None,):
                folder, hash_ = self.folder(stage.name, seed), self.hash(stage.name, seed)
                marker = done(folder) if other_data or (hash_ and stage.name != "data") else {}
                if marker and marker["hash"] == hash_:
                    self._known["marker", stage.name, seed] = marker
                elif marker:  # files of the data stage that were only touched are read again
                    found.append((stage.group, folder))
        results, resamples = self.dir / "results.json", kept.get("evaluate", {}).get("bootstrap")
        if results.exists() and (found or resamples != self.config.evaluate.bootstrap):
            found.append(("results", results))
        return found

    def check_settings(self) -> None:
        """``BadInput`` where a finished stage would be replaced, naming the stages."""
        found = {group for group, _ in self.conflicts()}
        if found:
            order = [*GROUPS, "controls"]
            names = ", ".join(sorted(found, key=order.index))
            rule = f"it is finished with other settings, and these would replace its stages {names}"
            raise BadInput(str(self.dir), rule, BRANCH_REMEDY)


def _data_inputs(config: Config) -> list[object]:
    """What the data stage depends on: settings, and the names, sizes and times of its files."""
    synthetic = is_synthetic(config)
    settings = {
        key: value
        for key, value in config.to_dict()["data"].items()
        if _world_of(key) == (config.dataset if synthetic else "") and key != "max_history"
    }
    files = input_files(config.dataset)
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return [synthetic, settings, stats or config.dataset]  # files may move or be named from elsewhere


def _world_of(key: str) -> str:
    """The synthetic data set that a setting of the section "data" belongs to, or ""."""
    prefix = key.partition("_")[0]
    return prefix if prefix in SYNTHETIC else ""


def recorded(folder: Path) -> dict:
    """What config.json says, or {}."""
    path = folder / "config.json"
    found = read_json(path) if path.exists() else {}
    return found if isinstance(found, dict) else {}


def kept_seeds(folder: Path) -> list[int]:
    """The seeds that a run has been opened for."""
    seeds = recorded(folder).get("seeds")
    return seeds if isinstance(seeds, list) and all(type(seed) is int for seed in seeds) else []


def open_run(
    out: str | Path,
    dataset: str = "playground",
    preset: str = "lite",
    overrides: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    branch: str = "",
    only_check: bool = False,
    method: str = "ours",
) -> Run:
    """The run in the folder ``out``, made if it is new; its config.json says what it is.

    Args:
        out: the run's folder.
        dataset: what `--dataset` takes.
        preset: "smoke", "lite" or "paper".
        overrides: other settings, "KEY=VALUE" each.
        seeds: added to the seeds that the run has.
        branch: a name. The run is then "OUT@NAME", whose finished stages are copied from ``out`` where they
            are the same: so other settings are tried without touching what is finished.
        only_check: write nothing, and leave finished stages of other settings to the caller.
        method: "ours", or "printed": by every equation as the paper prints it. A run can hold both.

    Raises:
        BadInput: the folder holds something else, or a finished stage that these settings would replace.
    """
    if method not in METHODS:
        raise BadInput(f"--method {method}", "no such method", did_you_mean(method, METHODS))
    config = make_preset(preset, dataset).override(list(overrides))
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
            rule = "a seed is an integer from 0 to 2147483647"
            raise BadInput(f"seed {seed!r}", rule, "give e.g. --seed 0")
    if not seeds or len(set(seeds)) != len(seeds):
        rule = "seeds must be given, each once"
        raise BadInput(f"seeds {list(seeds)}", rule, "give e.g. --seed 0 --seed 1")
    check_spec(dataset)
    folder = branch_folder(Path(out), branch) if branch else Path(out)
    check_folder(folder)
    run = Run(folder, config, tuple(seeds), tuple(overrides), method)
    if not only_check:
        run.check_settings()
        write_config(run, sorted({*kept_seeds(run.dir), *run.seeds}))
    return run


def branch_folder(parent: Path, name: str) -> Path:
    """The folder of the branch ``name``; ``BadInput`` for a name that is none, or where there is no run."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", name):
        rule = "a name has 1 to 60 letters, digits, dots, - and _, and begins with a letter or digit"
        raise BadInput(f"branch {name!r}", rule, "write e.g. --branch my-trial")
    if not (parent / "config.json").is_file():
        rule = f"there is no run in {parent} whose stages it could reuse"
        raise BadInput(f"branch {name!r}", rule, "run `streamrec reproduce` first, or leave the branch out")
    parent = parent if parent.name else parent.resolve()
    return parent.with_name(f"{parent.name}@{name}")


def check_folder(folder: Path) -> None:
    """``BadInput`` unless ``folder`` is new, empty, or a run."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(str(folder), "a run is a folder, this is a file", "give another --out")
    if not folder.exists() or not any(not p.name.startswith(".") for p in folder.iterdir()):
        return
    if not (folder / "config.json").is_file():
        raise BadInput(str(folder), "the folder is not empty and holds no run", "give another --out")
    versions = recorded(folder).get("versions")
    if not isinstance(versions, dict) or "streamrec_lite" not in versions:
        raise BadInput(f"{folder / 'config.json'}", "it does not describe a run", "give another --out")


def write_config(run: Run, seeds: list[int]) -> None:
    """Write config.json: the settings, the seeds, and the versions of what computes. Unchanged, it stays."""
    versions = {"streamrec_lite": __version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "numpy"):
        versions[name] = importlib.metadata.version(name)
    content = {**run.config.to_dict(), "seeds": seeds, "versions": versions}
    if recorded(run.dir) != content:
        write_json(run.dir / "config.json", content)
