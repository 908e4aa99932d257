"""``Config``: all settings of a run, section by section. ``presets`` has their sets of values.

A setting is reached by its dotted name, on the command line too: ``--set tiger.lr=0.002``. A name that does
not exist, a value that does not parse, or one that breaks a rule is ``BadInput``.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from ..common.errors import BadInput, did_you_mean
from .messages import bad_input, broken_rule, fields_of
from .reinforcement import GrpoConfig
from .renamed import new_name
from .sections import (
    MAX_THOUGHTS,
    RULES,
    BackboneConfig,
    DataConfig,
    EmbeddingConfig,
    EvalConfig,
    TokenizerConfig,
)
from .training import BaselineConfig, PretrainConfig, SftConfig, TrainConfig

Preset = Literal["smoke", "lite", "paper"]
PRESETS: tuple[str, ...] = get_args(Preset)
Section = TypeVar("Section")


@dataclass(frozen=True, config=RULES)
class Config:
    """All settings of a run. The defaults are those of the preset ``lite`` on real data."""

    preset: Preset = Field(default="lite", description="the preset that these settings started from")
    dataset: str = Field(default="playground", description="the data set: see `streamrec datasets`")
    data: DataConfig = DataConfig()
    embeddings: EmbeddingConfig = EmbeddingConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    backbone: BackboneConfig = BackboneConfig()
    tiger: TrainConfig = TrainConfig()
    pretrain: PretrainConfig = PretrainConfig()
    sft: SftConfig = SftConfig()
    grpo: GrpoConfig = GrpoConfig()
    baselines: BaselineConfig = BaselineConfig()
    evaluate: EvalConfig = EvalConfig()

    def __post_init__(self) -> None:
        """Rules between settings; one that is broken is ``BadInput``."""
        if self.evaluate.beams < 10:
            rule = "R@10 and N@10 need at least 10 beams"
            raise BadInput(f"evaluate.beams={self.evaluate.beams}", rule, "set evaluate.beams=20")
        if self.baselines.d % self.baselines.num_heads:
            rule = f"the width must be a multiple of baselines.num_heads={self.baselines.num_heads}"
            raise BadInput(f"baselines.d={self.baselines.d}", rule, "choose another width or number of heads")
        if self.grpo.ratio == "rollout" and self.grpo.credit_assignment != "rollout":
            rule = "one ratio a rollout has one advantage"
            remedy = "set grpo.credit_assignment=rollout, or grpo.ratio=token"
            raise BadInput("grpo.ratio=rollout", rule, remedy)
        self._check_similar_items()
        self._check_thoughts()

    def _check_similar_items(self) -> None:
        stage, m = self.pretrain, self.tokenizer.m
        shown = f"pretrain.n_similar={stage.n_similar}"
        if stage.n_similar > stage.similar_pool:
            rule = f"items are drawn from the pretrain.similar_pool={stage.similar_pool} nearest"
            raise BadInput(shown, rule, "draw fewer, or widen the pool")
        if stage.n_similar * m > MAX_THOUGHTS:
            rule = f"{m} codes each are more than the {MAX_THOUGHTS} thoughts that fit"
            raise BadInput(shown, rule, "draw fewer")

    def _check_thoughts(self) -> None:
        sft, m = self.sft, self.tokenizer.m
        pool = min(sft.similar_pool, self.pretrain.similar_pool)
        if sft.annotator == "nearest-items" and -(-sft.l // m) > pool:
            rule = f"{sft.l} thoughts need more items of {m} codes than there are in the pools"
            remedy = "widen sft.similar_pool and pretrain.similar_pool"
            raise BadInput("sft.annotator=nearest-items", rule, remedy)
        needed = (sft.condition_on, sft.annotator) == ("own", "residual")
        if sft.learn_thoughts_after == "own" and not needed:
            value = f"sft.condition_on={sft.condition_on}, sft.annotator={sft.annotator}"
            rule = (
                "own thoughts are corrected by residuals: needs sft.condition_on=own, sft.annotator=residual"
            )
            remedy = "set these, or sft.learn_thoughts_after=annotated"
            raise BadInput(f"sft.learn_thoughts_after=own with {value}", rule, remedy)
        if sft.thought_gradient == "straight-through" and sft.condition_on == "own":
            rule = "own thoughts are not residuals, so no gradient can pass on to one"
            remedy = "set sft.condition_on=annotated, or sft.thought_gradient=none"
            raise BadInput("sft.thought_gradient=straight-through", rule, remedy)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested values, ready for JSON."""
        return TypeAdapter(Config).dump_python(self, mode="json")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """The inverse of ``to_dict``; what is left out has its default, unknown names are ``BadInput``."""
        return read_section(cls, values)

    def override(self, assignments: list[str]) -> Config:
        """A copy with ``["tiger.lr=0.002", ...]`` applied."""
        values = self.to_dict()
        known = {f"{section}.{key}": field for section, key, field in self._fields()}
        for text in assignments:
            name, equals, raw = text.partition("=")
            name = name.strip()
            if not equals:
                raise BadInput(f"--set {text}", "a setting is KEY=VALUE", "write e.g. --set tiger.lr=0.002")
            if renamed := new_name(name):
                raise BadInput(f"setting {name}", "renamed", f"write {renamed}")
            if name not in known:
                raise BadInput(f"--set {name}", "no such setting", did_you_mean(name, known))
            section, _, key = name.partition(".")
            values[section][key] = parse(name, raw.strip(), known[name])
        return Config.from_dict(values)

    @classmethod
    def _fields(cls) -> list[tuple[str, str, FieldInfo]]:
        """(section, name, field) of every setting that ``--set`` knows."""
        return [
            (section, key, field)
            for section, part in fields_of(cls).items()
            if isinstance(part.annotation, type)
            for key, field in getattr(part.annotation, "__pydantic_fields__", {}).items()
        ]


def read_section(section: type[Section], values: dict[str, Any], prefix: str = "") -> Section:
    """A ``Config`` or one section of it from plain values; ``BadInput`` says what is wrong with them.

    Args:
        section: the dataclass.
        values: its settings by name, as JSON has them.
        prefix: what stands before the names of its settings in a message, e.g. "tiger.".
    """
    try:
        return TypeAdapter(section).validate_json(json.dumps(values))
    except ValidationError as error:
        raise bad_input(error, section, prefix) from None


def parse(name: str, raw: str, field: FieldInfo) -> object:
    """The text of ``--set NAME=raw`` as a value of the setting's type; its range is checked later.

    Args:
        name: of the setting, with its section.
        raw: the text.
        field: the setting.
    """
    kind: Any = field.annotation
    if get_origin(kind) is Literal or kind is str:
        return raw
    try:
        if get_origin(kind) is tuple:
            parts = [part.strip() for part in raw.strip("()[]").split(",")]
            return [TypeAdapter(int).validate_strings(part) for part in parts if part]
        if kind is int and "." in raw:  # pydantic would read 3.0 as 3
            raise BadInput(f"{name}={raw}", "the value must be an int number", "correct the value")
        return TypeAdapter(kind).validate_strings(raw)
    except ValidationError as error:
        if get_origin(kind) is tuple:
            rule = "the value must be integers with commas"
            raise BadInput(f"{name}={raw}", rule, "give e.g. 512,256,128") from None
        raise broken_rule(name, raw, error.errors()[0]["type"], field) from None


def config_of(found: dict[str, Any]) -> dict[str, Any]:
    """The settings in a run's config.json, without what else stands there."""
    return {key: value for key, value in found.items() if key not in ("seeds", "versions")}


def fingerprint(*parts: object) -> str:
    """A short hash of JSON-able parts: two runs with one fingerprint do the same work."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
