"""``StreamRec``: a trained backbone, its semantic IDs and the items' names, ready to recommend."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .backbone import Backbone, history_tokens
from .decoding import beam_search
from .errors import BadInput, did_you_mean
from .runtime import pick_device, read_json
from .schemas import PAD_ITEM, Beams, Prefixes
from .semantic_ids import SemanticTokenizer
from .thinking import THINK, Thoughts, think_and_answer

FOLDERS = {"TIGER": "baselines/TIGER", "STREAM-Rec-PT": "pretrain"}  # of a run, by model


class Recommendations(NamedTuple):
    """Answers to B histories, best first."""

    items: list[list[str]]  # B lists of up to k item ids
    scores: list[list[float]]  # log P(item | history), or after one train of thought: given it
    titles: list[list[str]]
    codes: list[list[tuple[int, ...]]]  # the semantic ID of each answer
    thoughts: Thoughts | None = None  # fast thinking has none


class StreamRec:
    """Recommends items to histories.

    Args:
        model: the backbone.
        tokenizer: semantic IDs of the catalogue.
        beams: W, beams a user.
        item_ids, titles: the catalogue's names, in item order; only ``recommend`` needs them.
        max_history: L, the newest items that are read.
        l: thoughts that the thinking decoder writes, where there is one.
        think, n_thoughts: how it thinks unless asked otherwise ("none": the direct decoder answers).
        device: where to compute; default: where the model is.
    """

    def __init__(
        self,
        model: Backbone,
        tokenizer: SemanticTokenizer,
        beams: int = 20,
        item_ids: list[str] | None = None,
        titles: list[str] | None = None,
        max_history: int = 20,
        l: int = 0,
        think: str = "none",
        n_thoughts: int = 1,
        device=None,
    ):
        self.device = torch.device(device or next(model.parameters()).device)
        self.model, self.tokenizer = model.to(self.device), tokenizer.to(self.device)
        self.beams, self.max_history = beams, max_history
        self.l, self.think, self.n_thoughts = l, think, n_thoughts
        self.item_ids = item_ids or [str(i) for i in range(tokenizer.n_items)]
        self.titles = titles or self.item_ids
        self._row = {item: i for i, item in enumerate(self.item_ids)}

    def beam(self, history: Tensor, k: int = 10) -> Beams:
        """Histories (B, L) of item indices, ``PAD_ITEM`` on the right -> the k best items and scores."""
        return self.answer(history, k)[0]

    def answer(
        self, history: Tensor, k: int = 10, think: str | None = None, n_thoughts: int | None = None
    ) -> tuple[Beams, Thoughts | None]:
        """The k best items of each history, and the thoughts before them (None: answered at once)."""
        think, n = think or self.think, n_thoughts or self.n_thoughts
        self.model.eval()
        tokens = history_tokens(self.tokenizer.tokens, history.to(self.device))
        if think == "none":
            return beam_search(self.model, self.tokenizer.trie, tokens, max(self.beams, k), k), None
        return think_and_answer(self.model, self.tokenizer.trie, tokens, self.l, think, n, self.beams, k)

    def topk(self, prefixes: Prefixes, k: int = 10) -> Tensor:
        """The evaluator's question: (B, k) item indices, -1 where there is no k-th answer."""
        return self.beam(prefixes.history, k).item

    def recommend(
        self, histories: list[list[str]], k: int = 10, think: str | None = None, n_thoughts: int | None = None
    ) -> Recommendations:
        """The k best next items of each history (a list of item ids, oldest first).

        ``think`` and ``n_thoughts`` default to the model's own. Raises ``BadInput`` for an empty
        history, an unknown item, k or n_thoughts below 1, and for thinking with a model that has no
        thinking decoder.
        """
        think = self.think if think is None else think
        n_thoughts = self.n_thoughts if n_thoughts is None else n_thoughts
        if think not in THINK:
            raise BadInput(f"think={think!r}", "unknown way of thinking", did_you_mean(think, THINK))
        if think != "none" and "thinking" not in self.model.decoders:
            raise BadInput(
                f"think={think!r}",
                "this model was trained to answer at once and has no thoughts",
                "use think=none",
            )
        if n_thoughts < 1 or not 1 <= k <= self.tokenizer.n_items:
            rule = f"k must lie between 1 and the {self.tokenizer.n_items} items, n_thoughts be at least 1"
            raise BadInput(f"k={k}, n_thoughts={n_thoughts}", rule, "correct the numbers")
        beams, thoughts = self.answer(self._histories(histories), k, think, n_thoughts)
        answers = [[i for i in row if i >= 0] for row in beams.item.tolist()]
        return Recommendations(
            items=[[self.item_ids[i] for i in row] for row in answers],
            scores=[row[: len(kept)] for row, kept in zip(beams.score.tolist(), answers, strict=True)],
            titles=[[self.titles[i] for i in row] for row in answers],
            codes=[[tuple(self.tokenizer.codes[i].tolist()) for i in row] for row in answers],
            thoughts=thoughts,
        )

    def _histories(self, histories: list[list[str]]) -> Tensor:
        rows = []
        for history in histories:
            if not history:
                raise BadInput(
                    "history ''",
                    "a history needs at least one item",
                    "name the items a user had, oldest first",
                )
            for item in history:
                if item not in self._row:
                    raise BadInput(f"item {item!r}", "not in the catalogue", "use ids of the run's data set")
            rows.append([self._row[item] for item in history[-self.max_history :]])
        width = max(map(len, rows), default=1)
        return torch.tensor([row + [PAD_ITEM] * (width - len(row)) for row in rows])

    @classmethod
    def load(cls, run_dir: str | Path, seed: int = 0, model: str = "TIGER", device=None) -> StreamRec:
        """The trained ``model`` of a run folder: "TIGER" or "STREAM-Rec-PT"."""
        run_dir = Path(run_dir)
        config = read_json(run_dir / "config.json")
        if model not in FOLDERS:
            raise BadInput(f"model {model!r}", "unknown model", did_you_mean(model, tuple(FOLDERS)))
        folder = run_dir / FOLDERS[model] / f"seed-{seed}"
        if not (folder / "model.json").exists():
            places = {name: run_dir.glob(f"{at}/seed-*/model.json") for name, at in FOLDERS.items()}
            found = [f"{name} {p.parent.name}" for name, paths in places.items() for p in sorted(paths)]
            rule = f"no trained model there; trained are: {', '.join(found) or 'none'}"
            raise BadInput(
                str(folder), rule, "run `streamrec reproduce` for it, or name another model or seed"
            )
        tokenizer = SemanticTokenizer.load(run_dir / "tokenizer")
        backbone = Backbone.load(folder)
        if backbone.vocab_size != tokenizer.vocab_size:
            rule = f"its {backbone.vocab_size} tokens are not the tokenizer's {tokenizer.vocab_size}"
            raise BadInput(str(folder), rule, "run `streamrec reproduce` again")
        items = read_json(run_dir / "data" / "items.json")
        return cls(
            backbone,
            tokenizer,
            beams=config["evaluate"]["beams"],
            item_ids=items["item_ids"],
            titles=items["titles"],
            max_history=config["data"]["max_history"],
            l=config["pretrain"]["n_similar"] * tokenizer.m if model == "STREAM-Rec-PT" else 0,
            think="greedy" if model == "STREAM-Rec-PT" else "none",
            device=device or pick_device(),
        )
