"""Reading a trained model from the folder of a run: weights, semantic IDs, item names, and how it thinks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..common.errors import BadInput, did_you_mean
from ..common.files import read_json, read_tensors
from ..config.settings import Config, config_of
from ..data.sequences import repeat_shares
from ..model.backbone import Backbone
from ..tokenizer.semantic_ids import SemanticTokenizer

MODEL_FOLDERS = {  # within a run
    "TIGER": "baselines/TIGER",
    "STREAM-Rec-PT": "pretrain",
    "STREAM-Rec-SFT": "sft",
    "STREAM-Rec-RL": "grpo",
    "STREAM-Rec-PT, as printed": "printed/pretrain",
    "STREAM-Rec-SFT, as printed": "printed/sft",
    "STREAM-Rec-RL, as printed": "printed/grpo",
}
TRAINED_STATES = tuple(name for name in MODEL_FOLDERS if "SFT" in name or "RL" in name)  # with L_State


class StoredModel(NamedTuple):
    """A trained model with its settings; the fields are the arguments of ``StreamRec``."""

    model: Backbone
    tokenizer: SemanticTokenizer
    beams: int  # W
    item_ids: list[str]  # of the N items
    titles: list[str]  # of the N items
    max_history: int  # L, the newest items that the model reads
    l: int  # thoughts per train of thought
    think: str  # thinking mode
    w: float  # weight of state-guided scoring
    repeat_share: float | None  # share of training targets that are in their history; None: not known


def load_run(run_dir: str | Path, seed: int, model: str, guided: bool) -> StoredModel:
    """Read the trained ``model`` of a run.

    Args:
        run_dir: the folder of the run.
        seed: seed of the training.
        model: one of ``MODEL_FOLDERS``.
        guided: use state-guided scoring, with the weight that was chosen on validation.

    Raises:
        BadInput: the model is unknown or not trained, or files are missing, broken or do not fit together.
    """
    run_dir = Path(run_dir)
    config = Config.from_dict(config_of(_read_object(run_dir / "config.json")))
    if guided and model in MODEL_FOLDERS and model not in TRAINED_STATES:
        rule = "state-guided scoring needs states that were trained to score items"
        raise BadInput(f"model {model!r}", rule, "name STREAM-Rec-SFT or -RL, or leave it out")
    folder = _model_folder(run_dir, seed, model)
    tokenizer = SemanticTokenizer.load(run_dir / "tokenizer")
    backbone = Backbone.load(folder)
    if backbone.vocab_size != tokenizer.vocab_size:
        rule = f"its {backbone.vocab_size} tokens are not the tokenizer's {tokenizer.vocab_size}"
        raise BadInput(str(folder), rule, "run `streamrec reproduce` again")
    row = {}
    if model in TRAINED_STATES or (folder / "row.json").exists():
        row = _read_object(folder / "row.json", *(("l", "w") if model in TRAINED_STATES else ()))
    ids = tokenizer.fingerprint()
    if row.get("ids", ids) != ids:
        rule = "it was trained with other semantic IDs than the run's tokenizer has now"
        raise BadInput(str(folder), rule, "run `streamrec reproduce` again")
    item_ids, titles = _item_names(run_dir / "data" / "items.json", tokenizer.n_items)
    similar = config.pretrain.n_similar * tokenizer.m  # in stage 1 the thoughts are codes of similar items
    return StoredModel(
        model=backbone,
        tokenizer=tokenizer,
        beams=config.evaluate.beams,
        item_ids=item_ids,
        titles=titles,
        max_history=config.data.max_history,
        l=row["l"] if model in TRAINED_STATES else similar if "PT" in model else 0,
        think="none" if model == "TIGER" else "greedy",
        w=row["w"] if guided else 0.0,
        repeat_share=_repeat_share(run_dir / "data" / "interactions.safetensors"),
    )


def _model_folder(run_dir: Path, seed: int, model: str) -> Path:
    """The folder of a trained model; ``BadInput`` names the trained ones if there is none."""
    if model not in MODEL_FOLDERS:
        raise BadInput(f"model {model!r}", "unknown model", did_you_mean(model, tuple(MODEL_FOLDERS)))
    folder = run_dir / MODEL_FOLDERS[model] / f"seed-{seed}"
    if not (folder / "model.json").exists():
        files = {name: run_dir.glob(f"{path}/seed-*/model.json") for name, path in MODEL_FOLDERS.items()}
        trained = [f"{name} {p.parent.name}" for name, paths in files.items() for p in sorted(paths)]
        rule = f"no trained model there; trained are: {', '.join(trained) or 'none'}"
        raise BadInput(str(folder), rule, "run `streamrec reproduce` for it, or name another model or seed")
    return folder


def _item_names(path: Path, n_items: int) -> tuple[list[str], list[str]]:
    """IDs and titles of the N items."""
    items = _read_object(path, "item_ids", "titles")
    for key in ("item_ids", "titles"):
        if not isinstance(items[key], list) or len(items[key]) != n_items:
            rule = f"{key} must name the tokenizer's {n_items} items"
            raise BadInput(str(path), rule, "run `streamrec reproduce` again")
    return items["item_ids"], items["titles"]


def _repeat_share(path: Path) -> float | None:
    """The share of the run's training targets that are in their history; None without the run's data."""
    if not path.is_file():
        return None
    tensors, _ = read_tensors(path)
    items, lengths = tensors["items"], tensors["lengths"].tolist()
    split = tensors["split"].numpy() if "split" in tensors else None
    return repeat_shares([part.numpy() for part in items.split(lengths)], split)["train"]


def _read_object(path: Path, *keys: str) -> dict:
    """A JSON object that has these keys; ``BadInput`` for anything else."""
    found = read_json(path)
    if not isinstance(found, dict) or not found.keys() >= set(keys):
        rule = f"it must be an object with the keys {', '.join(keys)}" if keys else "it must be an object"
        raise BadInput(str(path), rule, "run `streamrec reproduce` again")
    return found
