"""Amazon review data of 2018, preprocessed into a folder of two JSON files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..common.errors import BadInput
from .dataset import TEXT_COLUMNS, Dataset, build_dataset, text_field, text_frame, text_id


def load_amazon_2018(folder: str, k: int) -> Dataset:
    """The data set of a folder with two files, after the k-core filter with ``k``.

    ``*.inter.json`` holds {user: [item, ...]}, oldest item first; ``*.item.json`` holds
    {item: {title, description, brand, categories}}. IDs may be integers or text in either file.
    """
    root = Path(folder)
    if not root.is_dir():
        raise BadInput(f"amazon-2018:{folder}", "the folder does not exist", "check the path")
    inter_path, item_path = (_single_match(root, f"*.{kind}.json") for kind in ("inter", "item"))
    text = _read_object(item_path)
    item_ids = [text_id(item, str(item_path)) for item in text]
    items = text_frame(_item_row(item, row, item_path) for item, row in text.items())
    item_row = _rows_by_id(item_ids, item_path)
    histories = _read_object(inter_path)
    user_ids = [text_id(user, str(inter_path)) for user in histories]
    _rows_by_id(user_ids, inter_path)  # refuses an ID that occurs twice
    codes: list[int] = []
    counts: list[int] = []
    for user, history in histories.items():
        if not isinstance(history, list) or not history:
            raise BadInput(
                f"{inter_path}: user {user!r} has {history!r:.60}",
                "a history is a list of at least one item",
                "correct or remove the user",
            )
        for item in history:
            row = item_row.get(text_id(item, f"{inter_path}: user {user!r}"))
            if row is None:
                raise BadInput(
                    f"{inter_path}: user {user!r} took item {item!r}",
                    f"every item needs an entry in {item_path.name}",
                    "add the item or remove the interaction",
                )
            codes.append(row)
        counts.append(len(history))
    if not counts:
        raise BadInput(f"{inter_path}: no users", "a data set needs interactions", "check the file")
    return build_dataset(
        f"amazon-2018:{inter_path.name.removesuffix('.inter.json')}",
        user_ids,
        np.repeat(np.arange(len(counts)), counts),
        item_ids,
        np.array(codes, dtype=np.int64),
        items,
        k,
    )


def _rows_by_id(ids: list[str], path: Path) -> dict[str, int]:
    """ID -> its row; ``BadInput`` if an ID occurs twice (the blanks around it do not count)."""
    index = {name: row for row, name in enumerate(ids)}
    for row, name in enumerate(ids):
        if index[name] != row:
            raise BadInput(f"{path}: key {name!r} occurs twice", "keys must be unique", "remove one")
    return index


def _single_match(root: Path, pattern: str) -> Path:
    """The only file that matches; ``BadInput`` for none or several."""
    found = sorted(root.glob(pattern))
    if len(found) != 1:
        what = "no file" if not found else f"{len(found)} files ({', '.join(p.name for p in found)})"
        raise BadInput(
            f"{root}: {what} match {pattern}", "exactly one must", "give a folder that holds one data set"
        )
    return found[0]


def _read_object(path: Path) -> dict:
    """A JSON object without repeated keys and without NaN."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        made: dict[str, object] = {}
        for key, value in pairs:
            if key in made:
                raise BadInput(f"{path}: key {key!r} occurs twice", "keys must be unique", "remove one")
            made[key] = value
        return made

    def refuse(constant: str) -> None:
        raise BadInput(f"{path}: {constant}", "JSON has no NaN or infinity", "replace the value")

    try:
        value = json.loads(
            path.read_bytes().decode("utf-8-sig"), object_pairs_hook=unique, parse_constant=refuse
        )
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: {error}", "the file must be UTF-8", "convert it to UTF-8") from None
    except BadInput:
        raise
    except (ValueError, RecursionError) as error:  # JSONDecodeError, and numbers of thousands of digits
        raise BadInput(f"{path}: {error}", "the file must be JSON", "download or write it again") from None
    if not isinstance(value, dict):
        raise BadInput(f"{path}: a {type(value).__name__}", "the file must hold one JSON object", "check it")
    return value


def _item_row(item: str, row: object, path: Path) -> list[str]:
    """The text of one item, in the order of ``TEXT_COLUMNS``; a missing field is ""."""
    where = f"{path}: item {item!r}"
    if not isinstance(row, dict):
        raise BadInput(f"{where} is {row!r:.60}", "an item is an object of text fields", "correct it")
    return [text_field(row.get(column), column, where) for column in TEXT_COLUMNS]
