"""Saves a data set in the folder of a run, and reads it back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..common.errors import BadInput
from ..common.files import atomic_path, read_json, read_tensors, write_json, write_tensors
from ..config.sections import SYNTHETIC
from ..config.settings import Config
from .dataset import Dataset
from .sources import load_dataset


def save_dataset(dataset: Dataset, folder: Path) -> dict:
    """Write ``items.json`` (names), ``items.parquet`` (text) and ``interactions.safetensors``.

    Returns the entries of the stage's marker: the fingerprint of the content, and the sizes.
    """
    titles = [str(title) for title in dataset.items["title"]]
    write_json(folder / "items.json", {"item_ids": dataset.item_ids, "titles": titles})
    write_json(folder / "users.json", {"name": dataset.name, "user_ids": dataset.user_ids})
    with atomic_path(folder / "items.parquet") as temporary:
        dataset.items.reset_index(drop=True).to_parquet(temporary)
    lengths = [len(sequence) for sequence in dataset.sequences]
    tensors = {
        "items": torch.from_numpy(np.concatenate(dataset.sequences).astype(np.int64)),
        "lengths": torch.tensor(lengths, dtype=torch.int64),
    }
    if dataset.embeddings is not None:
        tensors["embeddings"] = torch.from_numpy(np.ascontiguousarray(dataset.embeddings))
    if dataset.split is not None:
        tensors["split"] = torch.from_numpy(dataset.split.astype(np.int64))
    write_tensors(folder / "interactions.safetensors", tensors)
    sizes = {"users": dataset.n_users, "items": dataset.n_items, "interactions": dataset.n_interactions}
    return {"fingerprint": dataset.fingerprint(), "sizes": sizes}


def read_dataset(folder: Path, config: Config, fingerprint: str) -> Dataset:
    """The data set that ``save_dataset`` wrote; a synthetic one is generated again, with its oracle.

    ``BadInput`` if what is generated has another ``fingerprint``.
    """
    if config.dataset in SYNTHETIC:
        dataset = load_dataset(config.dataset, config.data)
        if dataset.fingerprint() != fingerprint:
            rule = f"the {config.dataset} that this version makes is another one"
            raise BadInput(str(folder), rule, "start again with --fresh, or choose another --out")
        return dataset
    names, users = read_json(folder / "items.json"), read_json(folder / "users.json")
    tensors, _ = read_tensors(folder / "interactions.safetensors")
    items, lengths = tensors["items"].numpy(), tensors["lengths"].numpy()
    embeddings = tensors.get("embeddings")
    return Dataset(
        name=users["name"],
        user_ids=users["user_ids"],
        item_ids=names["item_ids"],
        sequences=np.split(items, np.cumsum(lengths)[:-1]),
        items=pd.read_parquet(folder / "items.parquet"),
        embeddings=None if embeddings is None else embeddings.numpy(),
    )
