"""Amazon Reviews 2023, read as plain files of its data set repository on the Hugging Face hub.

``benchmark/5core/rating_only/{Category}.csv`` has the columns user_id, parent_asin, rating, timestamp
(ms) of a category's 5-core. ``raw/meta_categories/meta_{Category}.jsonl`` has one line per product, a
JSON object. The loading script of the repository is not run. The text of an item without metadata is
empty.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from textwrap import shorten

from ..common.errors import BadInput, did_you_mean
from .dataset import TEXT_COLUMNS, Dataset, build_dataset, replace_lone_surrogates, text_frame
from .tables import in_time_order, read_table

REPOSITORY = "McAuley-Lab/Amazon-Reviews-2023"
REVISION = "2b6d039ed471f2ba5fd2acb718bf33b0a7e5598e"
RATING_COLUMNS = ("user_id", "parent_asin", "timestamp")
CATEGORIES = (
    "All_Beauty", "Arts_Crafts_and_Sewing", "Automotive", "Baby_Products", "Beauty_and_Personal_Care",
    "Books", "CDs_and_Vinyl", "Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry",
    "Electronics", "Gift_Cards", "Grocery_and_Gourmet_Food", "Health_and_Household",
    "Home_and_Kitchen", "Industrial_and_Scientific", "Kindle_Store", "Magazine_Subscriptions",
    "Movies_and_TV", "Musical_Instruments", "Office_Products", "Patio_Lawn_and_Garden",
    "Pet_Supplies", "Software", "Sports_and_Outdoors", "Tools_and_Home_Improvement",
    "Toys_and_Games", "Video_Games",
)  # fmt: skip
CATEGORIES_WITHOUT_5CORE = (
    "Amazon_Fashion", "Appliances", "Digital_Music", "Handmade_Products", "Health_and_Personal_Care",
    "Subscription_Boxes",
)  # fmt: skip
_ASIN = re.compile(rb'"parent_asin"\s*:\s*"([^"\\]*)"')


def load_amazon_2023(spec: str, k: int) -> Dataset:
    """The data set of ``CATEGORY`` from the hub, or of ``CATEGORY@DIR`` from a copy of its files.

    The folder DIR holds the same two paths as the repository. ``k`` is that of the k-core filter.
    """
    category, at_sign, folder = spec.partition("@")
    if category in CATEGORIES_WITHOUT_5CORE:
        raise BadInput(
            f"amazon-2023:{category}",
            f"there is no 5-core of {', '.join(CATEGORIES_WITHOUT_5CORE)}",
            f"choose one of {', '.join(CATEGORIES)}",
        )
    if category not in CATEGORIES:
        raise BadInput(f"amazon-2023:{category}", "unknown category", did_you_mean(category, CATEGORIES))
    if at_sign and not (folder and Path(folder).is_dir()):
        raise BadInput(f"amazon-2023:{spec}", f"the folder {folder!r} does not exist", "check the path")
    ratings_path = _fetch(f"benchmark/5core/rating_only/{category}.csv", folder)
    meta_path = _fetch(f"raw/meta_categories/meta_{category}.jsonl", folder)
    ratings = read_table(ratings_path, RATING_COLUMNS)
    user_ids, user, item_ids, item = in_time_order(ratings, RATING_COLUMNS, ratings_path)
    text = read_meta(meta_path, set(item_ids))
    if not text:
        raise BadInput(
            f"{meta_path}: none of {len(item_ids)} rated items", "items need metadata", "check both files"
        )
    blank = ("",) * len(TEXT_COLUMNS)
    items = text_frame([text.get(name, blank) for name in item_ids])
    return build_dataset(f"amazon-2023:{category}", user_ids, user, item_ids, item, items, k)


def _fetch(filename: str, folder: str) -> Path:
    """The path of a file in the folder, or else in the hub's cache (downloaded at the pinned revision)."""
    if folder:
        path = Path(folder) / filename
        if not path.is_file():
            raise BadInput(str(path), "the file does not exist", f"put {filename} of {REPOSITORY} there")
        return path
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError
    from huggingface_hub.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # one warning per attempt would hide our single line
    try:
        return Path(hf_hub_download(REPOSITORY, filename, repo_type="dataset", revision=REVISION))
    except RemoteEntryNotFoundError:
        raise BadInput(
            f"{REPOSITORY}/{filename}", f"no such file at revision {REVISION}", "choose another category"
        ) from None
    except Exception as error:  # offline, timeout, refused: the hub's errors have no common base class
        reason = shorten(str(error), 120, placeholder=" ...") or type(error).__name__
        raise BadInput(
            f"{REPOSITORY}/{filename}: {reason}",
            "the hub must be reachable, or the file be cached",
            "connect, or copy the files and give amazon-2023:CATEGORY@DIR",
        ) from None
    finally:
        logging.set_verbosity(verbosity)


def read_meta(path: Path, wanted: set[str]) -> dict[str, tuple[str, ...]]:
    """Text of the ``wanted`` items in the order of ``TEXT_COLUMNS``; the first line of an item counts.

    The file is read line by line, because the metadata of a category can exceed the memory.
    """
    found: dict[str, tuple[str, ...]] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            named = _ASIN.findall(line)
            if named and not any(asin.decode("utf-8", "replace") in wanted for asin in named):
                continue  # skips most lines without parsing them
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (UnicodeDecodeError, json.JSONDecodeError) as error:
                raise BadInput(
                    f"{path}, line {number}: {error}", "a line is one JSON object", "download it again"
                ) from None
            asin = row.get("parent_asin") if isinstance(row, dict) else None
            if not isinstance(asin, str):
                raise BadInput(
                    f"{path}, line {number}: {line[:60]!r}",
                    "a line is an object with a text parent_asin",
                    "download it again",
                )
            if asin in wanted and asin not in found:
                found[asin] = _text_of(row)
    return found


def _text_of(row: dict) -> tuple[str, ...]:
    """Title, brand, categories and description of a product, whose fields are free-form."""
    details = row.get("details")
    if isinstance(details, str):  # some exports store it as a JSON string
        try:
            details = json.loads(details)
        except json.JSONDecodeError:
            details = None
    brand = row.get("store") or (details.get("Brand") if isinstance(details, dict) else None)
    categories = row.get("categories") or row.get("main_category")
    return _plain(row.get("title")), _plain(brand), _plain(categories, ","), _plain(row.get("description"))


def _plain(value: object, separator: str = " ") -> str:
    """Free-form metadata as text: lists joined, white space collapsed, anything else left out."""
    if isinstance(value, list):
        return separator.join(filter(None, (_plain(part) for part in value)))
    return replace_lone_surrogates(" ".join(value.split())) if isinstance(value, str) else ""
