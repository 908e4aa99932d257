"""Checks the specification of a data set without reading the data (and without pandas or torch)."""

from __future__ import annotations

from pathlib import Path

from ..common.errors import BadInput, did_you_mean
from ..config.sections import SPECS, SYNTHETIC

TABLE_SUFFIXES = (".csv", ".parquet")
VECTOR_SUFFIXES = (".npy", ".safetensors")


def check_spec(spec: str) -> None:
    """Raise ``BadInput`` if ``spec`` names no data set, or files that do not exist."""
    kind, _, rest = spec.partition(":")
    if spec in SYNTHETIC or (kind == "amazon-2023" and rest):
        return
    if kind in ("amazon-2018", "amazon-2023") and not rest:
        raise BadInput(
            f"dataset {spec!r}", "the part after the colon is missing", f"choose one of {', '.join(SPECS)}"
        )
    if kind == "amazon-2018":
        if not Path(rest).is_dir():
            raise BadInput(f"dataset {spec!r}", "the folder does not exist", "check the path")
    elif Path(spec).is_dir():
        raise BadInput(f"dataset {spec!r}", "this path is a folder", f"write amazon-2018:{spec}")
    elif Path(spec).suffix not in TABLE_SUFFIXES:
        raise BadInput(f"dataset {spec!r}", "unknown data set", did_you_mean(kind, SPECS))
    elif not Path(spec).is_file():
        raise BadInput(f"dataset {spec!r}", "the file does not exist", "check the path")


def input_files(spec: str) -> list[Path]:
    """The existing local files that a data set is read from; [] for synthetic data and the hub."""
    kind, _, rest = spec.partition(":")
    if kind == "amazon-2018":
        folder = Path(rest)
        return sorted([*folder.glob("*.inter.json"), *folder.glob("*.item.json")])
    if kind == "amazon-2023" and "@" in rest:
        category, _, copy = rest.partition("@")
        return sorted(path for path in Path(copy).rglob(f"*{category}*") if path.is_file())
    source = Path(spec)
    if source.suffix not in TABLE_SUFFIXES:
        return []
    names = [f"{source.stem}.items{suffix}" for suffix in TABLE_SUFFIXES]
    names += [f"{source.stem}.embeddings{suffix}" for suffix in VECTOR_SUFFIXES]
    return [path for path in (source, *map(source.with_name, names)) if path.is_file()]


def default_out(dataset: str, preset: str) -> Path:
    """runs/playground, runs/scientific-2018-smoke: the data set, and a preset that is not lite."""
    kind, _, rest = dataset.partition(":")
    name = Path(dataset).stem
    if rest:  # amazon-2023:CATEGORY@FOLDER is named by its category, amazon-2018:FOLDER by its folder
        name = rest.partition("@")[0] if kind == "amazon-2023" else Path(rest).resolve().name
    return Path("runs") / (name if preset == "lite" else f"{name}-{preset}")
