"""``StreamRec``: a trained backbone, its semantic IDs and the items' names, ready to recommend."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..common.device import pick_device
from ..common.errors import BadInput, did_you_mean
from ..common.schemas import PAD_ITEM, Beams, Prefixes
from ..model.backbone import Backbone
from ..model.item_representation import item_table
from ..model.sequences import history_tokens
from ..tokenizer.semantic_ids import SemanticTokenizer
from .beam_search import beam_search
from .load_run import load_run
from .state_guided import find_candidates, guided_ranking
from .thinking import THINK, Thoughts, think_and_answer


class ThoughtStep(NamedTuple):
    """A state before the first thought (``thought`` is None), or after a thought."""

    thought: int | None  # the code token just read
    gap: float  # |t(first answer) - s_i|, the length of the residual
    nearest: list[str]  # titles of the items with the highest s_i . t
    entered: list[str]  # those of them that the previous step did not have
    left: list[str]  # those of the previous step that this one does not have


class Recommendations(NamedTuple):
    """Answers to B histories, best first."""

    items: list[list[str]]  # B lists of up to k item ids
    scores: list[
        list[float]
    ]  # log P(item | history); with one train of thought log P(item | thoughts, history)
    titles: list[list[str]]
    codes: list[list[tuple[int, ...]]]  # the semantic ID of each answer
    thoughts: Thoughts | None = None  # None: answered at once
    steps: list[list[ThoughtStep]] | None = (
        None  # with explain: B lists of l + 1, for the first train of thought
    )


class StreamRec:
    """Recommends items to histories.

    Args:
        model: the backbone.
        tokenizer: semantic IDs of the catalogue.
        beams: W, beams for each user.
        item_ids: the items' ids, in item order; only ``recommend`` needs them.
        titles: the items' titles, in item order.
        max_history: L, how many of the newest items are read.
        l: thoughts that the thinking decoder writes.
        think: "none" (the direct decoder answers at once), "greedy", "sample" or "beam"; the default.
        n_thoughts: trains of thought; the default.
        w: weight of the last state's scores (``state_guided``); 0: decoding as in the paper.
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
        w: float = 0.0,
        device: torch.device | str | None = None,
    ):
        self.device = torch.device(device or next(model.parameters()).device)
        self.model, self.tokenizer = model.to(self.device), tokenizer.to(self.device)
        self.beams, self.max_history = beams, max_history
        self.l, self.think, self.n_thoughts, self.w = l, think, n_thoughts, w
        self.item_ids = item_ids or [str(i) for i in range(tokenizer.n_items)]
        self.titles = titles or self.item_ids
        self._row = {item: i for i, item in enumerate(self.item_ids)}

    def beam(self, history: Tensor, k: int = 10) -> Beams:
        """Histories (B, L) of item indices, ``PAD_ITEM`` on the right -> the k best items and scores."""
        return self.answer(history, k)[0]

    def answer(
        self,
        history: Tensor,
        k: int = 10,
        think: str | None = None,
        n_thoughts: int | None = None,
        w: float | None = None,
    ) -> tuple[Beams, Thoughts | None]:
        """The k best items of each history, and the thoughts before them (None: answered at once).

        Args:
            history: (B, L) item indices, ``PAD_ITEM`` on the right.
            k: items for each user.
            think: "none", "greedy", "sample" or "beam"; default: the model's own way.
            n_thoughts: trains of thought; default: the model's own number.
            w: weight of the last state's scores; default: the model's own.
        """
        if self.w and think == "none" and w is None:
            rule = "state-guided scoring asks the state after the thoughts"
            raise BadInput("think='none'", rule, "think, or load the model without guided")
        think, n, w = think or self.think, n_thoughts or self.n_thoughts, self.w if w is None else w
        self.model.eval()
        tokens = history_tokens(self.tokenizer.tokens, history.to(self.device))
        if think == "none":
            return beam_search(self.model, self.tokenizer.trie, tokens, max(self.beams, k), k), None
        if w == 0:
            return think_and_answer(self.model, self.tokenizer.trie, tokens, self.l, think, n, self.beams, k)
        found, thoughts = find_candidates(
            self.model, self.tokenizer, tokens, self.l, think, n, max(self.beams, k)
        )
        return guided_ranking(found, w, k), thoughts

    def topk(self, prefixes: Prefixes, k: int = 10) -> Tensor:
        """The k best items of each history: (B, k) item indices, -1 if there is no k-th answer."""
        return self.beam(prefixes.history, k).item

    def recommend(
        self,
        histories: list[list[str]],
        k: int = 10,
        think: str | None = None,
        n_thoughts: int | None = None,
        explain: bool = False,
    ) -> Recommendations:
        """The k best next items of each history (a list of item ids, oldest first).

        Args:
            histories: item ids of each user, oldest first.
            k: items for each user.
            think: "none", "greedy", "sample" or "beam"; default: the model's own way.
            n_thoughts: trains of thought; default: the model's own number.
            explain: also return the nearest items after each thought.

        Raises:
            BadInput: an empty history, an unknown item, k or n_thoughts below 1, or thinking with a model
                that has no thinking decoder.
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
        steps = self._steps(thoughts, beams.item, k) if explain and thoughts is not None else None
        answers = [[i for i in row if i >= 0] for row in beams.item.tolist()]
        return Recommendations(
            items=[[self.item_ids[i] for i in row] for row in answers],
            scores=[row[: len(kept)] for row, kept in zip(beams.score.tolist(), answers, strict=True)],
            titles=[[self.titles[i] for i in row] for row in answers],
            codes=[[tuple(self.tokenizer.codes[i].tolist()) for i in row] for row in answers],
            thoughts=thoughts,
            steps=steps,
        )

    @torch.inference_mode()
    def _steps(self, thoughts: Thoughts, answers: Tensor, k: int) -> list[list[ThoughtStep]]:
        """The states of each user's first train of thought: l + 1 steps."""
        table = item_table(self.model, self.tokenizer)
        s = self.model.states(thoughts.hidden[:, 0])  # (B, l + 1, d)
        gap = (table[answers[:, 0]][:, None] - s).norm(dim=-1).tolist()
        nearest = (s @ table.T).topk(min(k, len(table)), dim=-1).indices.tolist()
        rows = []
        for user, written in enumerate(thoughts.token[:, 0].tolist()):
            steps, before = [], nearest[user][0]
            for thought, length, now in zip([None, *written], gap[user], nearest[user], strict=True):
                entered, left = [i for i in now if i not in before], [i for i in before if i not in now]
                names = ([self.titles[i] for i in items] for items in (now, entered, left))
                steps.append(ThoughtStep(thought, length, *names))
                before = now
            rows.append(steps)
        return rows

    def _histories(self, histories: list[list[str]]) -> Tensor:
        rows = []
        if not histories:
            raise BadInput("no histories", "at least one user is needed", "give a list of histories")
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
    def load(
        cls,
        run_dir: str | Path,
        seed: int = 0,
        model: str = "TIGER",
        guided: bool = False,
        device: torch.device | str | None = None,
    ) -> StreamRec:
        """A trained model of a run folder, ready to recommend.

        Args:
            run_dir: the folder of a run.
            seed: the seed of the training.
            model: "TIGER", "STREAM-Rec-PT", "STREAM-Rec-SFT" or "STREAM-Rec-RL".
            guided: use state-guided scoring, with the weight chosen on validation.
            device: where to compute; default: the GPU if there is one.

        Raises:
            BadInput: no such model, or files that are missing, broken or of another run.
        """
        found = load_run(run_dir, seed, model, guided)
        return cls(*found, device=device or pick_device())


class WithOptions:
    """A recommender with fixed options of ``StreamRec.answer``, and a fixed number of thoughts l."""

    def __init__(self, model: StreamRec, l: int | None = None, **options):
        self.model, self.l, self.options = model, model.l if l is None else l, options

    def topk(self, prefixes: Prefixes, k: int) -> Tensor:
        """The k best items of each history with these options: (B, k) item indices."""
        kept, self.model.l = self.model.l, self.l
        try:
            return self.model.answer(prefixes.history, k, **self.options)[0].item
        finally:
            self.model.l = kept
