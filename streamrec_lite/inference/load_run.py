"""Reads a trained model from a run's folder: weights, semantic IDs, the items' names and options."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..common.errors import BadInput, did_you_mean
from ..common.files import read_json
from ..config.settings import Config, config_of
from ..model.backbone import Backbone
from ..tokenizer.semantic_ids import SemanticTokenizer

FOLDERS = {  # model -> its folder in a run
    "TIGER": "baselines/TIGER",
    "STREAM-Rec-PT": "pretrain",
    "STREAM-Rec-SFT": "sft",
    "STREAM-Rec-RL": "grpo",
}


class StoredModel(NamedTuple):
    """The arguments of ``StreamRec``, in its order."""

    model: Backbone
    tokenizer: SemanticTokenizer
    beams: int
    item_ids: list[str]
    titles: list[str]
    max_history: int
    l: int
    think: str
    n_thoughts: int
    w: float


def load_run(run_dir: str | Path, seed: int, model: str, guided: bool) -> StoredModel:
    """Read the trained ``model`` of a run.

    Args:
        run_dir: the folder of the run.
        seed: the seed of the training.
        model: a key of ``FOLDERS``.
        guided: use state-guided scoring, with the weight chosen on validation.

    Raises:
        BadInput: no such model, or files that are missing, broken or of another run.
    """
    run_dir = Path(run_dir)
    config = Config.from_dict(config_of(_object(run_dir / "config.json")))
    if model not in FOLDERS:
        raise BadInput(f"model {model!r}", "unknown model", did_you_mean(model, tuple(FOLDERS)))
    if guided and model not in ("STREAM-Rec-SFT", "STREAM-Rec-RL"):
        rule = "state-guided scoring needs states that were trained to score items"
        raise BadInput(f"model {model!r}", rule, "name STREAM-Rec-SFT or -RL, or leave it out")
    folder = run_dir / FOLDERS[model] / f"seed-{seed}"
    if not (folder / "model.json").exists():
        places = {name: run_dir.glob(f"{at}/seed-*/model.json") for name, at in FOLDERS.items()}
        found = [f"{name} {p.parent.name}" for name, paths in places.items() for p in sorted(paths)]
        rule = f"no trained model there; trained are: {', '.join(found) or 'none'}"
        raise BadInput(str(folder), rule, "run `streamrec reproduce` for it, or name another model or seed")
    tokenizer = SemanticTokenizer.load(run_dir / "tokenizer")
    backbone = Backbone.load(folder)
    if backbone.vocab_size != tokenizer.vocab_size:
        rule = f"its {backbone.vocab_size} tokens are not the tokenizer's {tokenizer.vocab_size}"
        raise BadInput(str(folder), rule, "run `streamrec reproduce` again")
    thinks = model in ("STREAM-Rec-SFT", "STREAM-Rec-RL")
    row = {}
    if thinks or (folder / "row.json").exists():
        row = _object(folder / "row.json", *(("l", "w") if thinks else ()))
    ids = tokenizer.fingerprint()
    if row.get("ids", ids) != ids:
        rule = "it was trained with other semantic IDs than the run's tokenizer has now"
        raise BadInput(str(folder), rule, "run `streamrec reproduce` again")
    names = run_dir / "data" / "items.json"
    items = _object(names, "item_ids", "titles")
    for what in ("item_ids", "titles"):
        if not isinstance(items[what], list) or len(items[what]) != tokenizer.n_items:
            rule = f"{what} must name the tokenizer's {tokenizer.n_items} items"
            raise BadInput(str(names), rule, "run `streamrec reproduce` again")
    l, w = 0, 0.0
    if model == "STREAM-Rec-PT":
        l = config.pretrain.n_similar * tokenizer.m
    elif thinks:
        l, w = row["l"], row["w"] if guided else 0.0
    return StoredModel(
        backbone,
        tokenizer,
        config.evaluate.beams,
        items["item_ids"],
        items["titles"],
        config.data.max_history,
        l,
        "none" if model == "TIGER" else "greedy",
        1,
        w,
    )


def _object(path: Path, *keys: str) -> dict:
    """A JSON object with these keys; else ``BadInput``."""
    found = read_json(path)
    if not isinstance(found, dict) or not found.keys() >= set(keys):
        rule = f"it must be an object with the keys {', '.join(keys)}" if keys else "it must be an object"
        raise BadInput(str(path), rule, "run `streamrec reproduce` again")
    return found
