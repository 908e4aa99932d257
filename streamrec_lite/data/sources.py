"""Where interactions and item text come from: one word, ``spec``, names the source."""

from __future__ import annotations

from ..config import DataConfig
from ..errors import BadInput, did_you_mean
from .dataset import Dataset

__all__ = ["Dataset", "dataset_table", "load_dataset"]

KINDS = ("playground", "amazon-2018:DIR", "amazon-2023:CATEGORY", "FILE.csv", "FILE.parquet")


def load_dataset(spec: str, config: DataConfig = DataConfig()) -> Dataset:
    """The data set that ``spec`` names (see ``dataset_table``); anything unusable is ``BadInput``."""
    kind, _, rest = spec.partition(":")
    if spec == "playground":
        from .playground import make_playground

        return make_playground(config)
    if kind == "amazon-2018":
        from .amazon import load_amazon_2018

        return load_amazon_2018(rest, config.k_core)
    raise BadInput(f"dataset {spec!r}", "unknown data set", did_you_mean(spec, KINDS))
