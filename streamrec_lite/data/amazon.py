"""Amazon review data of 2018, as processed folders of two JSON files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..common.errors import BadInput
from .dataset import TEXT_COLUMNS, Dataset, assemble, frame_of_text, text_field, text_id


def load_amazon_2018(folder: str, k: int) -> Dataset:
    """A folder with one ``*.inter.json`` {user: [item, ...]}, oldest first, and one ``*.item.json``
    {item: {title, description, brand, categories}}. IDs may be integers or text in either file."""
    root = Path(folder)
    if not root.is_dir():
        raise BadInput(f"amazon-2018:{folder}", "the folder does not exist", "check the path")
    inter_path, item_path = (_only(root, f"*.{kind}.json") for kind in ("inter", "item"))
    text = _read_object(item_path)
    item_ids = [text_id(item, str(item_path)) for item in text]
    items = frame_of_text(_item_row(item, row, item_path) for item, row in text.items())
    index = _index(item_ids, item_path)
    histories = _read_object(inter_path)
    user_ids = [text_id(user, str(inter_path)) for user in histories]
    _index(user_ids, inter_path)
    codes, counts = [], []
    for user, taken in histories.items():
        if not isinstance(taken, list) or not taken:
            raise BadInput(
                f"{inter_path}: user {user!r} has {taken!r:.60}",
                "a history is a list of at least one item",
                "correct or remove the user",
            )
        for item in taken:
            row = index.get(text_id(item, f"{inter_path}: user {user!r}"))
            if row is None:
                raise BadInput(
                    f"{inter_path}: user {user!r} took item {item!r}",
                    f"every item needs an entry in {item_path.name}",
                    "add the item or remove the interaction",
                )
            codes.append(row)
        counts.append(len(taken))
    if not counts:
        raise BadInput(f"{inter_path}: no users", "a data set needs interactions", "check the file")
    return assemble(
        f"amazon-2018:{inter_path.name.removesuffix('.inter.json')}",
        user_ids,
        np.repeat(np.arange(len(counts)), counts),
        item_ids,
        np.array(codes, dtype=np.int64),
        items,
        k,
    )


def _index(ids: list[str], path: Path) -> dict[str, int]:
    """ID -> row; IDs that differ by blanks alone are one, and one has one row."""
    index = {name: row for row, name in enumerate(ids)}
    for row, name in enumerate(ids):
        if index[name] != row:
            raise BadInput(f"{path}: key {name!r} occurs twice", "keys must be unique", "remove one")
    return index


def _only(root: Path, pattern: str) -> Path:
    """The one file that matches; none or several are ``BadInput``."""
    found = sorted(root.glob(pattern))
    if len(found) != 1:
        what = "no file" if not found else f"{len(found)} files ({', '.join(p.name for p in found)})"
        raise BadInput(
            f"{root}: {what} match {pattern}", "exactly one must", "give a folder that holds one data set"
        )
    return found[0]


def _read_object(path: Path) -> dict:
    """A JSON object without repeated keys and without NaN."""

    def unique(pairs):
        made = dict(pairs)
        if len(made) < len(pairs):
            seen: set = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            raise BadInput(f"{path}: key {twice!r} occurs twice", "keys must be unique", "remove one")
        return made

    def refuse(constant):
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


def _item_row(item: str, row, path: Path) -> list[str]:
    """The text of one item; fields that are absent are ""."""
    where = f"{path}: item {item!r}"
    if not isinstance(row, dict):
        raise BadInput(f"{where} is {row!r:.60}", "an item is an object of text fields", "correct it")
    return [text_field(row.get(column), column, where) for column in TEXT_COLUMNS]
