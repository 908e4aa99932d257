"""Your own data: CSV or Parquet tables of interactions and items, and optional item embeddings.

The items of ``shop.csv`` (user, item, timestamp) are in ``shop.items.csv`` or ``shop.items.parquet``
(item, and any of title, brand, categories, description). Vectors, if there are any, are in
``shop.embeddings.npy`` or ``shop.embeddings.safetensors``, one row per row of the items file.

Interactions are sorted by time; rows with equal times keep the order of the file. A row with the same
user, item and time as an earlier one is a duplicate of the export and is removed. A purchase that is
repeated at another time stays.
"""

from __future__ import annotations

import csv
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..common.errors import BadInput
from ..common.files import read_tensors
from .dataset import TEXT_COLUMNS, Dataset, build_dataset, text_field, text_frame, text_id
from .specs import TABLE_SUFFIXES, VECTOR_SUFFIXES

INTERACTION_COLUMNS = ("user", "item", "timestamp")


def load_table(path: str, k: int) -> Dataset:
    """The data set of an interactions file and the files beside it, after the k-core filter with ``k``."""
    source = Path(path)
    stem = source.name.removesuffix(source.suffix)
    if stem.endswith(".items"):
        raise BadInput(path, "this is an items file", f"give the interactions, {stem[:-6]}{source.suffix}")
    frame = read_table(source, INTERACTION_COLUMNS)
    items_path = _file_beside(source, [f"{stem}.items{suffix}" for suffix in TABLE_SUFFIXES])
    if items_path is None:
        raise BadInput(
            f"{source}: no {' or '.join(f'{stem}.items{suffix}' for suffix in TABLE_SUFFIXES)} beside it",
            "interactions need their items",
            "write one: a column item, and title, brand, categories, description",
        )
    vectors_path = _file_beside(source, [f"{stem}.embeddings{suffix}" for suffix in VECTOR_SUFFIXES])
    item_ids, items = read_items(items_path)
    if vectors_path is None and not (items != "").any(axis=None):
        raise BadInput(
            f"{items_path}: no item has any text",
            f"an item needs one of {', '.join(TEXT_COLUMNS)}, or a vector",
            f"add a column, or {stem}.embeddings.npy",
        )
    vectors = None if vectors_path is None else read_vectors(vectors_path, item_ids)
    user_ids, user, found_ids, found = in_time_order(frame, INTERACTION_COLUMNS, source)
    index = {item: row for row, item in enumerate(item_ids)}
    for name in found_ids:
        if name not in index:
            raise BadInput(
                f"{source}: item {name!r}",
                f"every item needs a row in {items_path.name}",
                "add the row or remove the interactions",
            )
    item = np.array([index[name] for name in found_ids], dtype=np.int64)[found]
    return build_dataset(stem, user_ids, user, item_ids, item, items, k, vectors)


def _file_beside(source: Path, names: list[str]) -> Path | None:
    """The one of ``names`` that exists in the folder of ``source``; ``BadInput`` if several exist."""
    found = [source.with_name(name) for name in names if source.with_name(name).is_file()]
    if len(found) > 1:
        raise BadInput(f"{' and '.join(str(p) for p in found)}", "only one may exist", "remove the other")
    return found[0] if found else None


def read_table(path: Path, required: Sequence[str]) -> pd.DataFrame:
    """A CSV file (all cells as text) or a Parquet file (with its types) that has the ``required`` columns."""
    if path.suffix not in TABLE_SUFFIXES:
        raise BadInput(str(path), "a table is a .csv or .parquet file", "convert it")
    if not path.is_file():
        raise BadInput(str(path), "the file does not exist", "check the path")
    try:
        frame = _read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: {error}", "the file must be UTF-8", "convert it to UTF-8") from None
    except BadInput:
        raise
    except (ValueError, OSError, csv.Error, pd.errors.ParserWarning) as error:  # includes pyarrow's errors
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
    repeated = [name for name in header if header.count(name) > 1]
    if repeated:  # pandas would rename the second one
        raise BadInput(f"{path}: column {repeated[0]!r} occurs twice", "column names differ", "rename one")
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
        return pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig")


def in_time_order(
    frame: pd.DataFrame, columns: Sequence[str], path: Path
) -> tuple[list[str], np.ndarray, list[str], np.ndarray]:
    """``(user_ids, user, item_ids, item)`` of n interactions in order of time, without exact duplicates.

    ``columns`` are the names of the user, item and time columns; ``user`` and ``item`` (n,) are
    indices into the IDs; ``path`` is for messages.
    """
    user_ids, user = _codes(frame[columns[0]], path)
    item_ids, item = _codes(frame[columns[1]], path)
    time = _times(frame[columns[2]], path)
    is_first = ~pd.DataFrame({"user": user, "item": item, "time": time}).duplicated().to_numpy()
    rows = np.flatnonzero(is_first)
    rows = rows[np.argsort(time[rows], kind="stable")]
    return user_ids, user[rows], item_ids, item[rows]


def _codes(column: pd.Series, path: Path) -> tuple[list[str], np.ndarray]:
    """The distinct IDs of a column as text, and each row's index into them."""
    if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_datetime64_any_dtype(column.dtype):
        raise BadInput(
            f"{path}: column {column.name} is {column.dtype}", "IDs are text or integers", "convert it"
        )
    try:
        codes, values = pd.factorize(column, use_na_sentinel=False)
    except TypeError as error:  # e.g. cells that are lists
        where = f"{path}: column {column.name}: {error}"
        raise BadInput(where, "IDs are text or integers", "convert it") from None
    first = np.unique(codes, return_index=True)[1]
    prefix = f"{path}, column {column.name}, data row"
    texts = [text_id(value, f"{prefix} {row + 1}") for value, row in zip(values, first, strict=True)]
    merged, ids = pd.factorize(np.array(texts, dtype=object))  # 1 and "1" are the same ID
    return list(ids), merged[codes]


def _times(column: pd.Series, path: Path) -> np.ndarray:
    """Times (n,) as sortable numbers: numbers in the unit of the file, dates in nanoseconds."""
    if pd.api.types.is_bool_dtype(column.dtype):
        _check_times(np.zeros(len(column), dtype=bool), column, path)
    if not pd.api.types.is_datetime64_any_dtype(column.dtype):
        numbers = pd.to_numeric(column, errors="coerce")
        if numbers.notna().any():
            good = np.isfinite(numbers.to_numpy(dtype=float, na_value=np.nan)) & (numbers >= 0).fillna(False)
            _check_times(good.to_numpy(dtype=bool), column, path)
            return numbers.to_numpy()
        column = column.astype(object).where(column.notna(), None)
    dates = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
    _check_times(dates.notna().to_numpy(), column, path)
    return dates.astype("int64").to_numpy()


def _check_times(good: np.ndarray, column: pd.Series, path: Path) -> None:
    """``BadInput`` for the first row (n,) that is not ``good``."""
    if not good.all():
        row = int(np.argmin(good))
        raise BadInput(
            f"{path}, column {column.name}, data row {row + 1}: {column.iloc[row]!r:.60}",
            "a time is a finite number that is not negative, or an ISO 8601 date, one kind a column",
            "correct or remove the row",
        )


def read_items(path: Path) -> tuple[list[str], pd.DataFrame]:
    """IDs and text of the items file, in the order of its rows; ``BadInput`` if an ID occurs twice."""
    frame = read_table(path, ("item",))
    ids, codes = _codes(frame["item"], path)
    if len(ids) < len(codes):
        row = int(np.flatnonzero(pd.Series(codes).duplicated())[0])
        raise BadInput(
            f"{path}, data row {row + 1}: item {ids[codes[row]]!r} occurs twice",
            "an item has one row",
            "remove one of them",
        )
    present = [column for column in TEXT_COLUMNS if column in frame.columns]
    rows = [[""] * len(TEXT_COLUMNS) for _ in codes]
    for column in present:
        position = TEXT_COLUMNS.index(column)
        for number, value in enumerate(frame[column]):
            rows[number][position] = text_field(value, column, f"{path}, data row {number + 1}")
    return [ids[code] for code in codes], text_frame(rows)


def read_vectors(path: Path, item_ids: list[str]) -> np.ndarray:
    """Embeddings (N, d_w) float32, one row per item ID, from ``.npy`` or safetensors with one tensor."""
    try:
        vectors = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _only_tensor(path)
    except BadInput:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise BadInput(
            f"{path}: {error}", "vectors are a .npy file without pickle, or safetensors", "save them again"
        ) from None
    if not isinstance(vectors, np.ndarray) or vectors.dtype.kind != "f":
        raise BadInput(
            f"{path}: {getattr(vectors, 'dtype', type(vectors).__name__)}",
            "vectors are floats",
            "save float32",
        )
    if vectors.ndim != 2 or vectors.shape[1] < 1 or len(vectors) != len(item_ids):
        raise BadInput(
            f"{path}: shape {vectors.shape}",
            f"one row an item of the items file is needed, ({len(item_ids)}, d_w)",
            "write them in the order of the items file",
        )
    with np.errstate(over="ignore"):
        vectors = vectors.astype(np.float32)
    good = np.isfinite(vectors).all(axis=1)
    if not good.all():
        row = int(np.argmin(good))
        raise BadInput(
            f"{path}, row {row}: the vector of item {item_ids[row]!r} has NaN or infinity",
            "vectors are finite float32",
            "compute that row again",
        )
    return vectors


def _only_tensor(path: Path) -> np.ndarray:
    """The only tensor of a safetensors file; any floating-point type becomes float32."""
    tensors, _ = read_tensors(path)
    if len(tensors) != 1:
        raise BadInput(
            f"{path}: {len(tensors)} tensors ({', '.join(sorted(tensors))})", "one is needed", "save one"
        )
    (tensor,) = tensors.values()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
