"""Bring your own data: CSV or Parquet tables of interactions and items, and item embeddings.

``shop.csv`` (user, item, timestamp) finds its items in ``shop.items.csv`` or ``shop.items.parquet``
(item, and any of title, brand, categories, description) and, if there, vectors in
``shop.embeddings.npy`` or ``shop.embeddings.safetensors``, one row a row of the items file.

Rows are put in order of time; equal times keep the file's order. A row that repeats user, item and
time exactly is an export's double and dropped; a purchase repeated at another time stays.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import BadInput
from .dataset import TEXT_COLUMNS, Dataset, assemble, frame_of_text, text_field, text_id

SUFFIXES = (".csv", ".parquet")
COLUMNS = ("user", "item", "timestamp")


def load_table(path: str, k: int) -> Dataset:
    """The data set of an interactions file and the files beside it."""
    source = Path(path)
    stem = source.name.removesuffix(source.suffix)
    if stem.endswith(".items"):
        raise BadInput(path, "this is an items file", f"give the interactions, {stem[:-6]}{source.suffix}")
    frame = read_table(source, COLUMNS)
    items_path = _beside(source, [f"{stem}.items{suffix}" for suffix in SUFFIXES], needed=True)
    vectors_path = _beside(source, [f"{stem}.embeddings{s}" for s in (".npy", ".safetensors")], needed=False)
    item_ids, items = read_items(items_path)
    if vectors_path is None and not (items != "").any(axis=None):
        raise BadInput(
            f"{items_path}: no item has any text",
            f"an item needs one of {', '.join(TEXT_COLUMNS)}, or a vector",
            f"add a column, or {stem}.embeddings.npy",
        )
    vectors = None if vectors_path is None else read_vectors(vectors_path, item_ids)
    user_ids, user, taken_ids, taken = in_order(frame, COLUMNS, source)
    index = {item: row for row, item in enumerate(item_ids)}
    for name in taken_ids:
        if name not in index:
            raise BadInput(
                f"{source}: item {name!r}",
                f"every item needs a row in {items_path.name}",
                "add the row or remove the interactions",
            )
    item = np.array([index[name] for name in taken_ids], dtype=np.int64)[taken]
    return assemble(stem, user_ids, user, item_ids, item, items, k, vectors)


def _beside(source: Path, names: list[str], needed: bool) -> Path | None:
    found = [source.with_name(name) for name in names if source.with_name(name).is_file()]
    if len(found) > 1:
        raise BadInput(f"{' and '.join(str(p) for p in found)}", "only one may exist", "remove the other")
    if not found and needed:
        raise BadInput(
            f"{source}: no {' or '.join(names)} beside it",
            "interactions need their items",
            "write one: a column item, and title, brand, categories, description",
        )
    return found[0] if found else None


def read_table(path: Path, required: Sequence[str]) -> pd.DataFrame:
    """A CSV file (every cell as text) or a Parquet file (its own types) with the ``required`` columns."""
    if path.suffix not in SUFFIXES:
        raise BadInput(str(path), "a table is a .csv or .parquet file", "convert it")
    if not path.is_file():
        raise BadInput(str(path), "the file does not exist", "check the path")
    try:
        frame = _read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: {error}", "the file must be UTF-8", "convert it to UTF-8") from None
    except (ValueError, OSError, csv.Error, pd.errors.ParserWarning) as error:  # pyarrow's errors too
        raise BadInput(f"{path}: {error}", f"the file must be valid {path.suffix[1:]}", "mend it") from None
    missing = [column for column in required if column not in frame.columns]
    if missing:
        raise BadInput(
            f"{path}: no column {missing[0]!r} among {', '.join(map(str, frame.columns))}",
            f"the columns {', '.join(required)} are needed",
            "rename or add it",
        )
    if frame.empty:
        raise BadInput(f"{path}: no rows", "a table needs at least one row", "check the file")
    return frame


def _read_csv(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    twice = [name for name in header if header.count(name) > 1]
    if twice:  # pandas would rename the second one
        raise BadInput(f"{path}: column {twice[0]!r} occurs twice", "column names differ", "rename one")
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
        return pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig")


def in_order(frame: pd.DataFrame, columns: Sequence[str], path: Path):
    """``(user_ids, user, item_ids, item)`` in order of time, without exact doubles.

    ``columns`` name the user, the item and the time; ``user`` and ``item`` (n,) are codes into the IDs.
    """
    user_ids, user = _codes(frame[columns[0]], path)
    item_ids, item = _codes(frame[columns[1]], path)
    time = _times(frame[columns[2]], path)
    first = ~pd.DataFrame({"user": user, "item": item, "time": time}).duplicated().to_numpy()
    rows = np.flatnonzero(first)
    rows = rows[np.argsort(time[rows], kind="stable")]
    return user_ids, user[rows], item_ids, item[rows]


def _codes(column: pd.Series, path: Path) -> tuple[list[str], np.ndarray]:
    """The distinct IDs of a column as text, and the code of each row."""
    if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_datetime64_any_dtype(column.dtype):
        raise BadInput(f"{path}: column {column.name} is {column.dtype}", "IDs are text or integers", "convert it")
    codes, values = pd.factorize(column, use_na_sentinel=False)
    first = np.unique(codes, return_index=True)[1]
    where = [f"{path}, data row {row + 1}, {column.name}" for row in first] if len(first) < 1000 else None
    texts = []
    for code, value in enumerate(values):
        place = where[code] if where else _Lazy(path, first[code], column.name)
        texts.append(text_id(value, place))
    again, ids = pd.factorize(np.array(texts, dtype=object))  # 1 and "1" are one ID
    return list(ids), again[codes]
