"""The stages of a run, one record each: what it needs, its settings, its folder, its notebooks, its work.

Everything else is derived from this table: hashes and folders (``run.Run``), the order of work and what
may run side by side (``scheduler``), ``--only``, and the rows of results.json (``results``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..config.printed import as_printed
from ..config.sections import SYNTHETIC
from ..config.settings import Config

FORMAT = 3  # raise it when a stage writes something else for the same settings
COUNTING = ("Popularity", "Markov", "SequentialRules")
NEURAL = ("Caser", "GRU4Rec", "SASRec", "BERT4Rec", "ReaRec")
ORACLE = "Oracle"
METHODS = ("ours", "printed")  # what ``--method`` takes
CONTROLS = ("deep-tiger", "item-tiger", "no-thoughts", "random-thoughts")  # see ``thinking_study``
WORKSHOP_MODELS = (
    "Direct, deeper",
    "Pause tokens",
    "True thoughts",
    "SFT",
    "RL",
    "More supervision",
)  # see ``workshop_stages``
START = "00_start_here"  # the notebook that belongs to no stage


def always(config: Config) -> bool:
    """The condition of a stage that every run has."""
    return True


def is_synthetic(config: Config) -> bool:
    """Is the data set a synthetic shop, whose best ranking is known?"""
    return config.dataset in SYNTHETIC


def on_workshop(config: Config) -> bool:
    """Is the data set the shop where the next item takes several steps of inference?"""
    return config.dataset == "workshop"


def tunes(config: Config) -> bool:
    """Are the neural baselines' settings chosen by a grid?"""
    return config.baselines.tune != "none"


def has_controls(config: Config) -> bool:
    """Are the controls trained, too?"""
    return config.sft.controls == "all"


class Stage(NamedTuple):
    """One record of the table.

    name       the stage, or the model where a stage has several ("SASRec")
    needs      names of the records it is made from, of the same seed
    settings   what its result depends on: dotted names of sections or settings, or functions of the Config
    folder     below the run's folder; with "{seed}" it exists once a seed
    work       "module:function" of this package, called with ``stages.Work``; it fills the folder and returns
               what the marker shall say besides. A text, so that planning imports no torch
    notebooks  the first one does the work, further ones only report on it
    model      its row in results.json, "" for none
    group      what ``--only`` calls it, "" for its name; "controls" run where ``sft.controls`` asks for them
    method     "ours" or "printed" (every equation as the paper prints it); "" for what both methods share
    applies    does a run with these settings have the stage?
    """

    name: str
    needs: tuple[str, ...]
    settings: tuple[str | Callable[[Config], object], ...]
    folder: str
    work: str
    notebooks: tuple[str, ...] = ()
    model: str = ""
    group: str = ""
    method: str = ""
    applies: Callable[[Config], bool] = always

    @property
    def seeded(self) -> bool:
        """Does every seed go through it anew?"""
        return "{seed}" in self.folder

    def config(self, config: Config) -> Config:
        """The settings by which the stage works, in a run with the settings ``config``."""
        return as_printed(config) if self.method == "printed" else config

    def values(self, config: Config) -> list[object]:
        """The settings that the stage depends on, in the order of the record."""
        config = self.config(config)
        plain, found = config.to_dict(), []
        for setting in self.settings:
            value: object = plain if isinstance(setting, str) else setting(config)
            for part in setting.split(".") if isinstance(setting, str) else ():
                value = value[part]  # type: ignore[index]
            found.append(value)
        return found


def _sft_settings(config: Config) -> object:
    """The section sft without what only says whether controls are trained beside it."""
    return {key: value for key, value in config.to_dict()["sft"].items() if key != "controls"}


def _counting(name: str) -> Stage:
    model, applies = ("", is_synthetic) if name == ORACLE else (name, always)
    work = "baseline_stages:count"
    settings = ("data.max_history",)
    return Stage(name, ("data",), settings, f"baselines/{name}", work, (), model, "baselines", "", applies)


def _neural(name: str) -> tuple[Stage, Stage]:
    """The grid that chooses a baseline's settings, and its training with them."""
    folder, settings, grid = f"baselines/{name}", ("baselines", "data.max_history"), f"{name} tuning"
    tune, train = "baseline_stages:tune_neural", "baseline_stages:train_neural"
    choice = Stage(grid, ("data",), settings, f"{folder}/tuning", tune, (), "", "baselines", "", tunes)
    return choice, Stage(name, (grid,), (), f"{folder}/seed-{{seed}}", train, (), name, "baselines")


def _control(name: str) -> Stage:
    """The controls that are TIGERs are trained by TIGER's settings, but stand beside a fine-tuning, too."""
    settings = ("tiger",) if name.endswith("tiger") else ()
    folder, work = f"sft/controls/{name}/seed-{{seed}}", "model_stages:train_control"
    return Stage(name, ("sft",), settings, folder, work, (), "", "controls", "ours", has_controls)


def _mixture(stage: str, model: str) -> Stage:
    """A model that answers, in its best way, together with the sequential rules (``with_rules``)."""
    name = f"{model}, with rules" if model == "TIGER" else f"{model}, state-guided, with rules"
    folder, work = f"baselines/with-rules/{model}/seed-{{seed}}", "baseline_stages:mix_with_rules"
    method = "" if model == "TIGER" else "ours"
    return Stage(name, (stage, "SequentialRules"), (), folder, work, (), name, "results", method)


def _workshop(name: str) -> Stage:
    """A model that only the workshop has (``workshop_stages``)."""
    needs: tuple[str, ...] = ("tokenizer",)
    settings: tuple[str | Callable[[Config], object], ...] = ("backbone", _sft_settings, *_SHARED)
    if name == "Direct, deeper":
        settings = ("backbone", "tiger", "sft.l", *_SHARED)
    if name in ("RL", "More supervision"):
        needs, settings = ("SFT",), ("grpo",)
    folder, work = f"workshop/{name}/seed-{{seed}}", "workshop_stages:train_workshop"
    return Stage(name, needs, settings, folder, work, (), name, "workshop", "", on_workshop)


def _printed(stage: Stage) -> Stage:
    """The record of the same stage by the equations as the paper prints them; it has no notebook."""
    needs = tuple(f"{name}-printed" if name in ("pretrain", "sft") else name for name in stage.needs)
    return stage._replace(
        name=f"{stage.name}-printed",
        needs=needs,
        folder=f"printed/{stage.folder}",
        notebooks=(),
        model=f"{stage.model}, as printed",
        group=stage.name,
        method="printed",
    )


_SHARED = ("evaluate.beams", "data.max_history")
_STREAM_REC = (
    Stage(
        "pretrain",
        ("tokenizer",),
        ("backbone", "pretrain", *_SHARED),
        "pretrain/seed-{seed}",
        "model_stages:train_pretrain",
        ("05_pretraining", "06_thinking_step_by_step"),
        "STREAM-Rec-PT",
        method="ours",
    ),
    Stage(
        "sft",
        ("pretrain",),
        (_sft_settings,),
        "sft/seed-{seed}",
        "model_stages:train_sft",
        ("07_fine_tuning",),
        "STREAM-Rec-SFT",
        method="ours",
    ),
    Stage(
        "grpo",
        ("sft",),
        ("grpo",),
        "grpo/seed-{seed}",
        "model_stages:train_grpo",
        ("08_reinforcement",),
        "STREAM-Rec-RL",
        method="ours",
    ),
)
_RECORDS = (
    Stage("data", (), (), "data", "shared_stages:read_data", ("01_data",)),
    Stage(  # whether the data set is synthetic decides what the model "auto" means
        "embeddings",
        ("data",),
        ("embeddings", is_synthetic),
        "embeddings",
        "shared_stages:embed",
        ("02_embeddings",),
    ),
    Stage(
        "tokenizer",
        ("embeddings",),
        ("tokenizer",),
        "tokenizer",
        "shared_stages:fit_tokenizer",
        ("03_semantic_ids",),
    ),
    Stage(
        "tiger",
        ("tokenizer",),
        ("backbone", "tiger", *_SHARED),
        "baselines/TIGER/seed-{seed}",
        "model_stages:train_tiger",
        ("04_fast_thinking",),
        "TIGER",
    ),
    *(_counting(name) for name in (*COUNTING, ORACLE)),
    *(stage for name in NEURAL for stage in _neural(name)),
    *_STREAM_REC,
    *(_printed(stage) for stage in _STREAM_REC),
    *(_workshop(name) for name in WORKSHOP_MODELS),
    *(_control(name) for name in CONTROLS),
    _mixture("tiger", "TIGER"),
    _mixture("sft", "STREAM-Rec-SFT"),
    _mixture("grpo", "STREAM-Rec-RL"),
)
STAGES: tuple[Stage, ...] = tuple(stage._replace(group=stage.group or stage.name) for stage in _RECORDS)
TABLE = {stage.name: stage for stage in STAGES}
GROUPS = (*dict.fromkeys(s.group for s in STAGES if s.group not in ("controls", "results")), "results")
NOTEBOOKS = {**{s.group: s.notebooks for s in STAGES if s.notebooks}, "results": ("09_results",)}
WORKSHOP_NOTEBOOK = "10_when_thinking_pays"  # the only one of a run on the workshop


def trained_by(method: str) -> tuple[str, ...]:
    """The records of a method that train: stages 1, 2 and 3."""
    return tuple(s.name for s in STAGES if s.method == method and s.group in ("pretrain", "sft", "grpo"))


def records(group: str, config: Config) -> list[Stage]:
    """The records of a group that a run with these settings has."""
    return [stage for stage in STAGES if stage.group == group and stage.applies(config)]
