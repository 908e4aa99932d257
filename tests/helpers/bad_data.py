"""Unusable data sets: name -> (function that writes files and returns the spec, part of the message)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from data_files import META, RATINGS, VECTORS, write_2023, write_shop
from safetensors.torch import save_file


def changed_file(name: str, content):
    """A correct shop in CSV, with one file replaced, removed (None) or written by a function."""

    def make(folder: Path) -> str:
        spec = write_shop(folder)
        path = folder / name
        if content is None:
            path.unlink()
        elif callable(content):
            content(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return spec

    return make


def interactions(*lines: str):
    """A shop with these lines as its interactions."""
    return changed_file("shop.csv", "user,item,timestamp\n" + "\n".join(lines) + "\n")


def parquet(**columns):
    """A shop in Parquet with these columns in its interactions."""
    frame = pd.DataFrame({"user": ["u"] * 3, "item": ["a", "b", "c"], "timestamp": [1, 2, 3], **columns})

    def make(folder: Path) -> str:
        write_shop(folder, suffix=".parquet")
        frame.to_parquet(folder / "shop.parquet")
        return str(folder / "shop.parquet")

    return make


def vectors(array, **options):
    """A shop with these vectors in a .npy file."""
    return changed_file("shop.embeddings.npy", lambda path: np.save(path, array, **options))


def tensors(**named):
    """A shop with these tensors in a safetensors file."""
    return changed_file("shop.embeddings.safetensors", lambda path: save_file(named, path))


def two_items_files(folder: Path) -> str:
    write_shop(folder, suffix=".parquet")
    return write_shop(folder)


TABLES = {
    "no such file": (lambda folder: str(folder / "none.csv"), "does not exist"),
    "no items file": (changed_file("shop.items.csv", None), "shop.items.csv or shop.items.parquet"),
    "two items files": (two_items_files, "only one may exist"),
    "the items file itself": (lambda f: write_shop(f).replace("shop.csv", "shop.items.csv"), "an items file"),
    "missing column": (changed_file("shop.csv", "user,item\nu,a\n"), "no column 'timestamp'"),
    "column twice": (
        changed_file("shop.csv", "user,item,timestamp,item\nu,a,1,b\n"),
        "'item' occurs twice: column names",
    ),
    "nothing in it": (changed_file("shop.csv", ""), "valid csv|no column"),
    "header alone": (interactions(), "no rows"),
    "latin-1": (changed_file("shop.items.csv", "item,title\na,Gitarre für\n".encode("latin-1")), "UTF-8"),
    "latin-1 header": (
        changed_file("shop.csv", "user,item,timestamp,grö\nu,a,1,2\n".encode("latin-1")),
        "UTF-8",
    ),
    "row too long": (interactions("u,a,1", "u,b,2,3"), "valid csv"),
    "all rows too long": (interactions("u,a,1,9", "u,b,2,9"), "valid csv"),
    "row too short": (interactions("u,a,1", "u,b"), "data row 2"),
    "open quote": (interactions('u,"a,1', "u,b,2"), "valid csv"),
    "empty user": (interactions("u,a,1", ",b,2"), "column user, data row 2: ID ''"),
    "blank item": (interactions("u,a,1", "u,  ,2"), "column item, data row 2"),
    "nan item": (interactions("u,a,1", "u,nan,2"), "ID 'nan'"),
    "inf user": (interactions("inf,a,1"), "ID 'inf'"),
    "unknown item": (interactions("u,a,1", "u,zzz,2"), "item 'zzz'"),
    "empty time": (interactions("u,a,1", "u,b,"), "column timestamp, data row 2"),
    "words for time": (interactions("u,a,yesterday"), "'yesterday'"),
    "numbers and dates": (interactions("u,a,2024-01-01", "u,b,5"), "'2024-01-01'"),
    "nan time": (interactions("u,a,nan", "u,b,2"), "data row 1: 'nan'"),
    "inf time": (interactions("u,a,1", "u,b,inf"), "data row 2: 'inf'"),
    "negative time": (interactions("u,a,1", "u,b,-1"), "data row 2: '-1'"),
    "no such month": (interactions("u,a,2024-13-01"), "'2024-13-01'"),
    "item twice": (
        changed_file("shop.items.csv", "item,title\na,x\nb,y\na,z\n"),
        "data row 3: item 'a' occurs twice",
    ),
    "item without ID": (changed_file("shop.items.csv", "item,title\na,x\n,y\n"), "data row 2: ID ''"),
    "items without item": (changed_file("shop.items.csv", "id,title\na,x\n"), "no column 'item'"),
    "no text": (changed_file("shop.items.csv", "item,title\na,\nb,\nc,\n"), "no item has any text"),
    "parquet that is none": (
        lambda f: (write_shop(f, suffix=".parquet"), (f / "shop.parquet").write_bytes(b"PAR1?"))[0],
        "valid parquet",
    ),
    "parquet nan ID": (parquet(user=[1.0, np.nan, 1.0]), "data row 2: ID nan"),
    "parquet inf ID": (parquet(user=[1.0, 1.0, np.inf]), "data row 3: ID inf"),
    "parquet half ID": (parquet(user=[1.0, 1.5, 1.0]), "ID 1.5"),
    "parquet bool ID": (parquet(user=[True, False, True]), "column user is bool"),
    "parquet date ID": (parquet(user=pd.to_datetime(["2024-01-01"] * 3)), "column user is datetime"),
    "parquet null ID": (parquet(item=["a", None, "c"]), "data row 2: ID"),
    "parquet lists for IDs": (parquet(user=[[1], [2], [3]]), "column user"),
    "parquet nan time": (parquet(timestamp=[1.0, np.nan, 2.0]), "column timestamp, data row 2"),
    "parquet no time": (
        parquet(timestamp=pd.to_datetime(["2024-01-01", None, "2024-01-02"])),
        "column timestamp, data row 2",
    ),
    "parquet bool time": (parquet(timestamp=[True, True, False]), "column timestamp"),
    "vectors of fewer rows": (vectors(VECTORS[:3]), r"shape \(3, 2\)"),
    "vectors of one dimension": (vectors(VECTORS[:, 0]), r"shape \(4,\)"),
    "vectors of width 0": (vectors(VECTORS[:, :0]), r"shape \(4, 0\)"),
    "vectors with NaN": (vectors(np.where(VECTORS == 4, np.nan, VECTORS)), "row 2: the vector of item 'b'"),
    "vectors too large": (vectors(VECTORS.astype(float) * 1e300), "NaN or infinity"),
    "vectors of integers": (vectors(VECTORS.astype(int)), "int64"),
    "vectors of words": (vectors(np.array([["a"] * 2] * 4)), "vectors are floats"),
    "pickled objects": (vectors(VECTORS.astype(object), allow_pickle=True), "without pickle"),
    "vectors cut short": (changed_file("shop.embeddings.npy", b"\x93NUMPY\x01\x00"), "without pickle"),
    "vectors in a zip": (changed_file("shop.embeddings.npy", b"PK\x03\x04 not a zip"), "without pickle"),
    "vectors of no bytes": (changed_file("shop.embeddings.npy", b""), "without pickle"),
    "safetensors that is none": (
        changed_file("shop.embeddings.safetensors", b"12345678"),
        "must be safetensors",
    ),
    "two tensors": (tensors(a=torch.zeros(4, 2), b=torch.zeros(4, 2)), r"2 tensors \(a, b\): one is needed"),
    "tensor of integers": (tensors(a=torch.zeros(4, 2, dtype=torch.int64)), "vectors are floats"),
}


def json_case(inter: str | bytes, item: str | bytes):
    """A folder of Amazon 2018 with these contents."""

    def make(folder: Path) -> str:
        (folder / "X.inter.json").write_bytes(inter if isinstance(inter, bytes) else inter.encode())
        (folder / "X.item.json").write_bytes(item if isinstance(item, bytes) else item.encode())
        return f"amazon-2018:{folder}"

    return make


GOOD_INTER, GOOD_ITEM = '{"1": [1, 1, 1]}', '{"1": {"title": "t"}}'


def two_data_sets(folder: Path) -> str:
    json_case(GOOD_INTER, GOOD_ITEM)(folder)
    (folder / "Y.inter.json").write_text(GOOD_INTER)
    return f"amazon-2018:{folder}"


def file_2023(ratings=RATINGS, meta=META):
    """A folder of Amazon 2023 with these contents."""
    return lambda folder: write_2023(folder, ratings, meta)


JSON = {
    "no folder": (lambda f: f"amazon-2018:{f}/none", "folder does not exist"),
    "no folder given": (lambda f: "amazon-2018:", "needs a DIR"),
    "a file": (lambda f: f"amazon-2018:{write_shop(f)}", "folder does not exist"),
    "empty folder": (lambda f: f"amazon-2018:{f}", "no file match"),
    "two files": (two_data_sets, r"2 files \(X.inter.json, Y.inter.json\)"),
    "broken": (json_case(GOOD_INTER[:-1], GOOD_ITEM), "must be JSON"),
    "not UTF-8": (json_case(GOOD_INTER, '{"1": {"title": "für"}}'.encode("latin-1")), "must be UTF-8"),
    "a list": (json_case("[]", GOOD_ITEM), "one JSON object"),
    "no users": (json_case("{}", GOOD_ITEM), "no users"),
    "history is text": (json_case('{"1": "1"}', GOOD_ITEM), "user '1' has '1'"),
    "empty history": (json_case('{"1": []}', GOOD_ITEM), r"user '1' has \[\]"),
    "item is null": (json_case('{"1": [1, null, 1]}', GOOD_ITEM), "user '1': ID None"),
    "item of a thousand digits": (json_case('{"1": [' + "1" * 5000 + "]}", GOOD_ITEM), "must be JSON"),
    "item is half a character": (json_case('{"1": ["\\ud83d"]}', GOOD_ITEM), "half of a character"),
    "item is true": (json_case('{"1": [1, true, 1]}', GOOD_ITEM), "ID True"),
    "item is a half": (json_case('{"1": [1, 1.5, 1]}', GOOD_ITEM), "ID 1.5"),
    "item is NaN": (json_case('{"1": [1, NaN, 1]}', GOOD_ITEM), "NaN"),
    "item is empty": (json_case('{"1": [1, "", 1]}', GOOD_ITEM), "ID ''"),
    "item unknown": (json_case('{"1": [1, 2, 1]}', GOOD_ITEM), "user '1' took item 2"),
    "user twice": (json_case('{"1": [1, 1, 1], "1": [1]}', GOOD_ITEM), "'1' occurs twice"),
    "users alike": (json_case('{"1": [1, 1, 1], "1 ": [1, 1, 1]}', GOOD_ITEM), "'1' occurs twice"),
    "items alike": (json_case(GOOD_INTER, '{"1": {}, " 1": {}}'), "'1' occurs twice"),
    "item twice": (json_case(GOOD_INTER, '{"1": {}, "1": {}}'), "'1' occurs twice"),
    "item is text": (json_case(GOOD_INTER, '{"1": "title"}'), "item '1' is 'title'"),
    "title is a number": (json_case(GOOD_INTER, '{"1": {"title": 5}}'), "title 5"),
    "two interactions": (json_case('{"1": [1, 1]}', GOOD_ITEM), "user '1' has 2 interactions"),
    "2023 without category": (lambda f: "amazon-2023:", "needs a CATEGORY"),
    "2023 unknown": (lambda f: "amazon-2023:Musical_Instrument", "did you mean 'Musical_Instruments'"),
    "2023 without 5-core": (lambda f: "amazon-2023:Digital_Music", "no 5-core of"),
    "2023 folder": (lambda f: f"amazon-2023:Gift_Cards@{f}/none", "folder .* does not exist"),
    "2023 empty folder": (lambda f: f"amazon-2023:Gift_Cards@{f}", "file does not exist"),
    "2023 no folder": (lambda f: "amazon-2023:Gift_Cards@", "folder .* does not exist"),
    "2023 column": (file_2023(RATINGS.replace("parent_asin", "asin")), "no column 'parent_asin'"),
    "2023 time": (file_2023(RATINGS.replace("1600000000300", "soon")), "data row 1: 'soon'"),
    "2023 broken line": (file_2023(meta=[META[0], META[0][:-3]]), "line 2"),
    "2023 line is a list": (file_2023(meta=[META[0], "[1]"]), "line 2"),
    "2023 no metadata": (file_2023(meta=[META[1]]), "none of 3 rated items"),
}


SPECS = {
    "": "unknown data set",
    "playgroud": "did you mean 'playground'",
    "playground:5": "unknown data set",
    "amazon-2019:x": "did you mean 'amazon-201",
    "shop.tsv": "unknown data set",
    "x" * 5000: "File name too long",
    "\0.csv": "cannot be read|does not exist",
    "shop.csv": "does not exist",
    ".": "this path is a folder",
    __file__: "this path is no table",
}
