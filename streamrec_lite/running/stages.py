"""One function a stage: it does the stage, and what that needs, unless done, and returns what came out.

A notebook opens its run by ``open_run`` and calls its stage with one line, e.g. ``run_sft(run, seed)``;
`streamrec reproduce` (``reproduce``) executes the notebooks.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..common.files import read_json, read_tensors
from ..common.store import run_stage
from .run import Run
from .stage_table import NEURAL, ORACLE, TABLE, records, trained_by

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ..common.schemas import Splits
    from ..config.settings import Config
    from ..data.dataset import Dataset
    from ..tokenizer.semantic_ids import SemanticTokenizer


class Work(NamedTuple):
    """What the work of a stage is given: the run, the record's name, a seed, and the folder to fill.

    The seed is 0 for a stage that serves all seeds.
    """

    run: Run
    name: str
    seed: int
    part: Path

    @property
    def config(self) -> Config:
        """The settings by which the record works: the run's, or those as printed."""
        return TABLE[self.name].config(self.run.config)

    def folder_of(self, group: str) -> Path:
        """The folder of a stage before this one, of the same method: "pretrain" or "sft"."""
        method = TABLE[self.name].method
        (name,) = [name for name in trained_by(method) if TABLE[name].group == group]
        return self.run.folder(name, self.seed)


def ensure(run: Run, name: str, seed: int | None = None) -> dict:
    """Do the record ``name`` of the stage table, and what it needs, unless done; returns its marker."""
    stage = TABLE[name]
    for need in stage.needs:
        ensure(run, need, seed)
    if not stage.applies(run.config):
        return {}
    seed = seed if stage.seeded else None
    folder, hash_ = run.folder(name, seed).relative_to(run.dir).as_posix(), run.hash(name, seed)
    assert hash_, "the data stage comes before all others"

    def work(part: Path) -> dict | None:
        module, _, function = stage.work.partition(":")
        done = getattr(importlib.import_module(f".{module}", __package__), function)
        return done(Work(run, name, seed or 0, part))

    replace = name == "data"  # the same content from files that were touched; ``read_data`` refuses another
    return run_stage(run.dir, folder, hash_, work, run.parents, replace)


def row_of(run: Run, name: str, seed: int | None = None) -> dict:
    """A model's row of results.json, with "dir", the folder of its files."""
    ensure(run, name, seed)
    folder = run.folder(name, seed)
    return {**read_json(folder / "row.json"), "dir": str(folder)}


def run_data(run: Run) -> tuple[Dataset, Splits]:
    """The data set and its split, on the CPU."""
    from ..data.saved import read_dataset
    from ..data.sequences import split_examples

    marker = ensure(run, "data")
    dataset = read_dataset(run.folder("data"), run.config, marker["fingerprint"])
    return dataset, split_examples(dataset, run.config.data.max_history)


def run_embeddings(run: Run) -> np.ndarray:
    """Item text as vectors: (N, d_w) float32."""
    ensure(run, "embeddings")
    return read_tensors(run.folder("embeddings") / "embeddings.safetensors")[0]["embeddings"].numpy()


def run_tokenizer(run: Run) -> SemanticTokenizer:
    """The semantic IDs, on the CPU."""
    from ..tokenizer.semantic_ids import SemanticTokenizer

    ensure(run, "tokenizer")
    return SemanticTokenizer.load(run.folder("tokenizer"))


def run_neighbours(run: Run, count: int = 0) -> Tensor:
    """The ``count`` nearest items by text (0: the pool of pretraining), nearest first: (N, count) int64."""
    import torch

    from ..tokenizer.embeddings import similar_items

    return torch.from_numpy(similar_items(run_embeddings(run), count or run.config.pretrain.similar_pool))


def run_baselines(run: Run) -> dict[str, dict]:
    """Rows of the models that only count, and of the oracle on the playground, by name.

    They do not depend on the seed: results.json has one row of each, under seed "0".
    """
    counted = [s.name for s in records("baselines", run.config) if s.work.endswith(":count")]
    return {name: row_of(run, name) for name in counted}


def run_neural(run: Run, seed: int = 0) -> dict[str, dict]:
    """Rows of Caser, GRU4Rec, SASRec, BERT4Rec and ReaRec, by name, each with its "tuning"."""
    return {name: row_of(run, name, seed) for name in NEURAL}


def run_tuning(run: Run, name: str) -> list[dict]:
    """What each point of a baseline's grid gave on validation, best first; [] where the run does not tune."""
    grid = f"{name} tuning"
    return read_json(run.folder(grid) / "tuning.json") if ensure(run, grid) else []


def run_tiger(run: Run, seed: int = 0) -> dict:
    """Train and evaluate TIGER: its row of results.json, with "dir", the folder of its files."""
    return row_of(run, "tiger", seed)


def run_pretrain(run: Run, seed: int = 0) -> dict:
    """Stage 1: the row of STREAM-Rec-PT, with "direct", the metrics of its direct decoder."""
    return row_of(run, "pretrain", seed)


def run_sft(run: Run, seed: int = 0) -> dict:
    """Stage 2: the row of STREAM-Rec-SFT, with "guided", its metrics by state-guided scoring.

    The row also has the number of thoughts ("l"), the state's weight ("w"), validation metrics by weight
    ("weights"), metrics of some test users by number of thoughts and of trains of thought ("question"), and
    after thoughts that the model did not write ("channel"; runs of earlier releases lack it).
    """
    return row_of(run, "sft", seed)


def run_grpo(run: Run, seed: int = 0) -> dict:
    """Stage 3: the row of STREAM-Rec-RL, with what that of ``run_sft`` has, except "question"."""
    return row_of(run, "grpo", seed)


def run_controls(run: Run, seed: int = 0) -> dict[str, dict]:
    """Rows of the controls (``thinking_study``), by name; {} unless the run's ``sft.controls`` is "all"."""
    return {stage.name: row_of(run, stage.name, seed) for stage in records("controls", run.config)}


def run_workshop(run: Run, seed: int = 0, train: bool = True) -> dict[str, dict]:
    """Rows of the models that notebook 10 compares, by name, on the workshop.

    Direct (TIGER's row), ReaRec, STREAM-Rec-SFT, the models of ``workshop_stages`` and the oracle, which is
    the same for every seed; STREAM-Rec-SFT as printed where it is done.

    Args:
        run: on the workshop.
        seed: of the models.
        train: False leaves out the models that are not done.
    """
    stages = [TABLE["tiger"], TABLE["ReaRec"], TABLE["sft-printed"], TABLE["sft"]]
    stages += [*records("workshop", run.config), TABLE[ORACLE]]
    found = {}
    for stage in stages:
        name, number = stage.model or ORACLE, seed if stage.seeded else None
        wanted = train and stage.method != "printed"
        if wanted or run.marker(stage.name, number):
            found["Direct" if name == "TIGER" else name] = row_of(run, stage.name, number)
    return found


def run_mixture(run: Run, stage: str, seed: int = 0) -> dict:
    """The row of a stage's model together with the rules: "w", chosen on validation, and all "shares"."""
    name = next(mixture.name for mixture in records("results", run.config) if mixture.needs[0] == stage)
    return row_of(run, name, seed)


def run_results(run: Run) -> dict:
    """Gather the rows of all models in results.json and table2.md; returns what results.json holds.

    ``BadInput`` if a model of this release has no row yet.
    """
    from .results import check_rows, write_results

    check_rows(run)  # before minutes are spent on mixtures
    for name, seed in run.parts("results"):
        ensure(run, name, seed)
    return write_results(run)
