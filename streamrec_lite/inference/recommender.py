"""``StreamRec``: recommends items with a trained backbone, semantic IDs and item names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

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
from .thinking import THINK_MODES, Thoughts, think_and_answer

MIN_REPEAT_SHARE = 0.01  # where fewer training targets repeat an item, new items only are recommended


class ThoughtStep(NamedTuple):
    """The state s_i of one thinking step: before the first thought (i = 0) or after thought i."""

    thought: int | None  # the token of thought i; None for i = 0
    gap: float  # |t(first answer) - s_i|, the length of the residual
    nearest: list[str]  # titles of the items with the highest s_i . t
    entered: list[str]  # titles in ``nearest`` that the previous step did not have
    left: list[str]  # titles in ``nearest`` of the previous step that this step does not have


class Recommendations(NamedTuple):
    """Answers to B histories, best first."""

    items: list[list[str]]  # B lists of up to k item ids
    scores: list[list[float]]  # log P(item | history); with one train of thought, given these thoughts
    titles: list[list[str]]
    codes: list[list[tuple[int, ...]]]  # the semantic ID of each answer
    thoughts: Thoughts | None = None  # None: the direct decoder answered
    steps: list[list[ThoughtStep]] | None = (
        None  # B lists of l + 1, of the first train of thought; on request
    )


class StreamRec:
    """Recommends items to histories.

    Args:
        model: the backbone.
        tokenizer: semantic IDs of the catalogue.
        beams: W, beams per user.
        item_ids: names of the N items, for ``recommend``; default: their numbers.
        titles: titles of the N items, for ``recommend``; default: ``item_ids``.
        max_history: L; ``recommend`` uses the newest L items of a history.
        l: thoughts per train of thought.
        think: default thinking mode: "none" (the direct decoder answers), "greedy", "sample" or "beam".
        n_thoughts: default number of trains of thought.
        w: default weight of log P_state (``state_guided``); 0 is the paper's decoding.
        repeat_share: share of the training targets that are in their history, or None if it is not known;
            it decides what ``recommend`` does by default.
        device: where to compute; default: the device of the model.
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
        repeat_share: float | None = None,
        device: torch.device | str | None = None,
    ):
        self.device = torch.device(device or next(model.parameters()).device)
        self.model, self.tokenizer = model.to(self.device), tokenizer.to(self.device)
        self.beams, self.max_history = beams, max_history
        self.l, self.think, self.n_thoughts, self.w = l, think, n_thoughts, w
        self.repeat_share = repeat_share
        self.item_ids = item_ids or [str(i) for i in range(tokenizer.n_items)]
        self.titles = titles or self.item_ids
        self._row = {item: i for i, item in enumerate(self.item_ids)}

    @property
    def repeats_by_default(self) -> bool:
        """Does ``recommend`` name items of the history, unless told otherwise?

        As in the data: if at least ``MIN_REPEAT_SHARE`` of the training targets are in their history, or if
        the share is not known.
        """
        return self.repeat_share is None or self.repeat_share >= MIN_REPEAT_SHARE

    def beam(self, history: Tensor, k: int = 10) -> Beams:
        """The k best items and scores (B, k) for histories (B, L) of item indices (see ``answer``)."""
        return self.answer(history, k)[0]

    def answer(
        self,
        history: Tensor,
        k: int = 10,
        think: str | None = None,
        n_thoughts: int | None = None,
        w: float | None = None,
        exclude: Tensor | None = None,
    ) -> tuple[Beams, Thoughts | None]:
        """The k best items and scores (B, k), and the thoughts (None if the direct decoder answered).

        Args:
            history: (B, L) item indices, ``PAD_ITEM`` on the right.
            k: items per user.
            think: "none", "greedy", "sample" or "beam"; default: ``self.think``.
            n_thoughts: trains of thought; default: ``self.n_thoughts``.
            w: weight of log P_state; default: ``self.w``.
            exclude: (B, E) items that are left out, -1 is no item; default: none.
        """
        if self.w and think == "none" and w is None:
            rule = "state-guided scoring uses the state after the thoughts"
            raise BadInput("think='none'", rule, "think, or load the model without guided")
        think, n, w = think or self.think, n_thoughts or self.n_thoughts, self.w if w is None else w
        self.model.eval()
        tokens = history_tokens(self.tokenizer.tokens, history.to(self.device))
        trie, width = self.tokenizer.trie, max(self.beams, k)
        exclude = None if exclude is None else exclude.to(self.device)
        if think == "none":
            return beam_search(self.model, trie, tokens, width, k, exclude=exclude), None
        if w == 0:
            return think_and_answer(self.model, trie, tokens, self.l, think, n, self.beams, k, exclude)
        found, thoughts = find_candidates(
            self.model, self.tokenizer, tokens, self.l, think, n, width, exclude=exclude
        )
        return guided_ranking(found, w, k), thoughts

    def topk(self, prefixes: Prefixes, k: int = 10, exclude: Tensor | None = None) -> Tensor:
        """Item indices (B, k), best first, -1 if there are fewer; this is the interface of ``evaluate``.

        ``exclude`` (B, E) items that are left out, -1 is no item; None: none.
        """
        return self.answer(prefixes.history, k, exclude=exclude)[0].item

    def recommend(
        self,
        histories: list[list[str]],
        k: int = 10,
        think: str | None = None,
        n_thoughts: int | None = None,
        explain: bool = False,
        repeat: bool | None = None,
    ) -> Recommendations:
        """The k best next items for each of B histories.

        Args:
            histories: B lists of item ids, oldest first.
            k: items per user.
            think: "none", "greedy", "sample" or "beam"; default: ``self.think``.
            n_thoughts: trains of thought; default: ``self.n_thoughts``.
            explain: also return a ``ThoughtStep`` for each step of the first train of thought.
            repeat: may an answer be an item of the history? False: new items only, also if the item is older
                than the newest ``max_history`` that the model reads; fewer than k if no more are left.
                Default: ``self.repeats_by_default``.

        Raises:
            BadInput: for an empty history, an unknown item, k or n_thoughts out of range, and for thinking
                with a model that has no thinking decoder.
        """
        think = self.think if think is None else think
        n_thoughts = self.n_thoughts if n_thoughts is None else n_thoughts
        if think not in THINK_MODES:
            raise BadInput(f"think={think!r}", "unknown way of thinking", did_you_mean(think, THINK_MODES))
        if think != "none" and "thinking" not in self.model.decoders:
            raise BadInput(
                f"think={think!r}",
                "this model was trained to answer at once and has no thoughts",
                "use think=none",
            )
        if n_thoughts < 1 or not 1 <= k <= self.tokenizer.n_items:
            rule = f"k must lie between 1 and the {self.tokenizer.n_items} items, n_thoughts be at least 1"
            raise BadInput(f"k={k}, n_thoughts={n_thoughts}", rule, "correct the numbers")
        repeat = self.repeats_by_default if repeat is None else repeat
        whole = self._histories(histories)
        read = [history[-self.max_history :] for history in whole]
        exclude = None if repeat else _padded(whole)
        beams, thoughts = self.answer(_padded(read), k, think, n_thoughts, exclude=exclude)
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
        """The steps of each user's first train of thought."""
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

    def _histories(self, histories: list[list[str]]) -> list[list[int]]:
        """The item indices of each history; ``BadInput`` for empty histories and unknown items."""
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
            rows.append([self._row[item] for item in history])
        return rows

    @classmethod
    def load(
        cls,
        run_dir: str | Path,
        seed: int = 0,
        model: str = "TIGER",
        guided: bool = False,
        device: torch.device | str | None = None,
    ) -> StreamRec:
        """The recommender of a trained model in the folder of a run.

        Args:
            run_dir: the folder of the run.
            seed: seed of the training.
            model: a model of ``load_run.MODEL_FOLDERS``.
            guided: use state-guided scoring, with the weight that was chosen on validation.
            device: where to compute; default: the GPU if there is one.

        Raises:
            BadInput: unknown or untrained model, or files that are missing, broken or do not fit together.
        """
        stored = load_run(run_dir, seed, model, guided)
        return cls(**stored._asdict(), device=device or pick_device())


def _padded(rows: list[list[int]]) -> Tensor:
    """B lists of items as (B, L), padded on the right."""
    width = max(map(len, rows))
    return torch.tensor([row + [PAD_ITEM] * (width - len(row)) for row in rows])


class WithOptions:
    """A recommender for ``evaluate`` that always thinks in the same way.

    Args:
        model: the recommender.
        l: thoughts per train of thought; default: ``model.l``.
        options: keyword arguments of ``StreamRec.answer``.
    """

    def __init__(self, model: StreamRec, l: int | None = None, **options: Any):
        self.model, self.l, self.options = model, model.l if l is None else l, options

    def topk(self, prefixes: Prefixes, k: int, exclude: Tensor | None = None) -> Tensor:
        """Item indices (B, k), best first, without the items ``exclude`` (B, E)."""
        usual, self.model.l = self.model.l, self.l
        try:
            return self.model.answer(prefixes.history, k, exclude=exclude, **self.options)[0].item
        finally:
            self.model.l = usual
