"""Loads a data set from its specification (``spec``), e.g. "playground" or "amazon-2018:DIR"."""

from __future__ import annotations

from pathlib import Path

from ..common.errors import BadInput, did_you_mean
from ..config.sections import SPECS, DataConfig
from .dataset import Dataset
from .specs import TABLE_SUFFIXES

DEFAULTS = DataConfig()  # settings of a call without any


def load_dataset(spec: str, config: DataConfig = DEFAULTS) -> Dataset:
    """The data set that ``spec`` names (see ``dataset_table``); ``BadInput`` for unusable data.

    The k-core filter with ``config.k_core`` is applied to every source except the synthetic ones.
    """
    try:
        return _load(spec, config)
    except OSError as error:  # no permission, a name too long, a broken disk
        raise BadInput(f"dataset {spec!r:.200}", f"it cannot be read ({error})", "check the path") from None


def _load(spec: str, config: DataConfig) -> Dataset:
    kind, colon, rest = spec.partition(":")
    if spec == "playground":
        from .playground import make_playground

        return make_playground(config)
    if spec == "workshop":
        from .workshop import make_workshop

        return make_workshop(config)
    if kind in ("amazon-2018", "amazon-2023"):
        if not rest:
            part = "DIR" if kind == "amazon-2018" else "CATEGORY"
            raise BadInput(f"dataset {spec!r}", f"{kind} needs a {part}", f"write {kind}:{part}")
        if kind == "amazon-2018":
            from .amazon import load_amazon_2018

            return load_amazon_2018(rest, config.k_core)
        from .amazon_hub import load_amazon_2023

        return load_amazon_2023(rest, config.k_core)
    if Path(spec).suffix in TABLE_SUFFIXES:
        from .tables import load_table

        return load_table(spec, config.k_core)
    if spec and Path(spec).exists():
        what = "a folder" if Path(spec).is_dir() else "no table"
        remedy = f"write amazon-2018:{spec}" if Path(spec).is_dir() else "give a .csv or .parquet file"
        raise BadInput(f"dataset {spec!r}", f"this path is {what}", remedy)
    raise BadInput(f"dataset {spec!r}", "unknown data set", did_you_mean(kind if colon else spec, SPECS))


def dataset_table() -> list[dict[str, str]]:
    """The kinds of sources, for ``streamrec datasets``: rows with "spec", "what", "size" and "download"."""
    rows = (
        (
            "playground",
            "synthetic shop with a known best ranking; the default",
            "20 to 2,000,000 items, by data.playground_items and data.playground_users",
            "no",
        ),
        (
            "workshop",
            "synthetic shop where the next item takes one to four steps of inference",
            "24 to 5,000 parts and any number of users, by data.workshop_parts and data.workshop_users",
            "no",
        ),
        (
            "amazon-2018:DIR",
            "a folder with one *.inter.json {user: [item, ...]} and one *.item.json {item: text}",
            "e.g. Scientific: 8,317 users, 4,344 items",
            "no",
        ),
        (
            "amazon-2023:CATEGORY[@DIR]",
            "Amazon Reviews 2023, 5-core, from the Hugging Face hub or a copy of its files in DIR",
            "e.g. Industrial_and_Scientific: 50,985 users, 25,848 items",
            "yes, once",
        ),
        (
            "FILE.csv, FILE.parquet",
            "your own: user, item, timestamp; beside it FILE.items.csv (item, title, brand, categories, "
            "description) and, if you like, FILE.embeddings.npy",
            "any",
            "no",
        ),
    )
    return [dict(zip(("spec", "what", "size", "download"), row, strict=True)) for row in rows]
