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
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..common.errors import BadInput
from ..common.files import read_tensors
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
    except BadInput:
        raise
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
        raise BadInput(
            f"{path}: column {column.name} is {column.dtype}", "IDs are text or integers", "convert it"
        )
    try:
        codes, values = pd.factorize(column, use_na_sentinel=False)
    except TypeError as error:  # lists and the like
        where = f"{path}: column {column.name}: {error}"
        raise BadInput(where, "IDs are text or integers", "convert it") from None
    first = np.unique(codes, return_index=True)[1]
    prefix = f"{path}, column {column.name}, data row"
    texts = [text_id(value, f"{prefix} {row + 1}") for value, row in zip(values, first, strict=True)]
    again, ids = pd.factorize(np.array(texts, dtype=object))  # 1 and "1" are one ID
    return list(ids), again[codes]


def _times(column: pd.Series, path: Path) -> np.ndarray:
    """Times (n,) as numbers that sort: seconds, milliseconds or whatever was given, or dates as ns."""
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
    if not good.all():
        row = int(np.argmin(good))
        raise BadInput(
            f"{path}, column {column.name}, data row {row + 1}: {column.iloc[row]!r:.60}",
            "a time is a finite number that is not negative, or an ISO 8601 date, one kind a column",
            "correct or remove the row",
        )


def read_items(path: Path) -> tuple[list[str], pd.DataFrame]:
    """IDs and text of an items file, in the order of its rows; an ID that occurs twice is ``BadInput``."""
    frame = read_table(path, ("item",))
    ids, codes = _codes(frame["item"], path)
    if len(ids) < len(codes):
        row = int(np.flatnonzero(pd.Series(codes).duplicated())[0])
        raise BadInput(
            f"{path}, data row {row + 1}: item {ids[codes[row]]!r} occurs twice",
            "an item has one row",
            "remove one of them",
        )
    given = [column for column in TEXT_COLUMNS if column in frame.columns]
    rows = [[""] * len(TEXT_COLUMNS) for _ in codes]
    for column in given:
        place = TEXT_COLUMNS.index(column)
        for number, value in enumerate(frame[column]):
            rows[number][place] = text_field(value, column, f"{path}, data row {number + 1}")
    return [ids[code] for code in codes], frame_of_text(rows)


def read_vectors(path: Path, item_ids: list[str]) -> np.ndarray:
    """Embeddings (N, d_w) float32 aligned with ``item_ids``, from ``.npy`` or one-tensor safetensors."""
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
    """The one tensor of a safetensors file; half precision becomes float32."""
    tensors, _ = read_tensors(path)
    if len(tensors) != 1:
        raise BadInput(
            f"{path}: {len(tensors)} tensors ({', '.join(sorted(tensors))})", "one is needed", "save one"
        )
    (tensor,) = tensors.values()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
