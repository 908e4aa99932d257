"""Tables of notebook 06, thinking: how thoughts move the model's estimate of what a user wants.

They are made from the trajectories of ``tables.trajectory``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...data.dataset import Dataset
from ...tokenizer.kmeans import nearest
from ...tokenizer.semantic_ids import SemanticTokenizer, token_name
from ...training.annotator import informativeness
from .style import titles
from .trajectory import Trajectory


def closest_items(s: Tensor, table: Tensor, k: int = 3) -> Tensor:
    """The k items with the largest s . t(item), best first: states (..., d), table (N, d) -> (..., k)."""
    return (s @ table.T).topk(min(k, len(table)), dim=-1).indices


def step_table(
    trajectory: Trajectory,
    row: int,
    tokenizer: SemanticTokenizer,
    dataset: Dataset,
    table: Tensor,
    k: int = 3,
) -> pd.DataFrame:
    """One example step by step, a row for each state s_0..s_l.

    Args:
        trajectory: of the examples.
        row: which example.
        tokenizer: for the names of thoughts.
        dataset: for the titles of items.
        table: (N, d) ``item_representations``.
        k: how many of the nearest items are named.

    Returns:
        Columns: step (i), thought (o_i, which led to s_i; "-" at step 0), residual (|r_i|, which o_i
        approximates), gap (|t - s_i|), rank (of the target under s_i) and nearest (titles of the k items
        closest to s_i).
    """
    near = closest_items(trajectory.s[row], table, k)
    return pd.DataFrame(
        {
            "step": range(trajectory.steps + 1),
            "thought": ["-", *(token_name(int(o), tokenizer.K) for o in trajectory.thought[row])],
            "residual": [np.nan, *trajectory.r[row].norm(dim=-1).tolist()],
            "gap": trajectory.norm[row].tolist(),
            "rank": trajectory.rank[row].tolist(),
            "nearest": ["; ".join(titles(dataset, items, 30)) for items in near.tolist()],
        }
    )


def median_example(trajectory: Trajectory) -> int:
    """The example whose gaps and (log) ranks are closest to the medians over all examples."""
    seen = torch.cat([trajectory.norm, trajectory.rank.log()], dim=1)
    spread = seen.std(dim=0, correction=0).clamp_min(1e-6)
    return int(((seen - seen.median(dim=0).values) / spread).square().sum(dim=1).argmin())


def toy_example(s_0: Tensor, t: Tensor, target: int, codes: Tensor, l: int) -> pd.DataFrame:
    """The annotator without a model, to be computed by hand.

    Both MLPs are the identity, and d_i is the embedding of o_i. So s_i = s_0 + o_1 + ... + o_i.

    Args:
        s_0: (d,) the first state.
        t: (N, d) item representations.
        target: an item index.
        codes: (m*K, d) code embeddings.
        l: how many thoughts.

    Returns:
        l + 1 rows: step, thought (index of a code, -1 at step 0), state, left (t - s_i), gap, rank.
    """
    s, rows, thought = s_0, [], -1
    for i in range(l + 1):
        r = t[target] - s
        rank = 1 + int((t @ s > t[target] @ s).sum())
        rows.append((i, thought, tuple(s.tolist()), tuple(r.tolist()), float(r.norm()), rank))
        thought = int(nearest(r[None], codes)[0])  # eq. 12
        s = s + codes[thought]
    return pd.DataFrame(rows, columns=["step", "thought", "state", "left", "gap", "rank"])


def mean_by_step(trajectory: Trajectory, k: int = 10) -> pd.DataFrame:
    """Mean gap, mean and median rank, and the share of targets among the first k, a row for each step."""
    rank = trajectory.rank.double()
    return pd.DataFrame(
        {
            "step": range(trajectory.steps + 1),
            "mean gap": trajectory.norm.double().mean(dim=0).tolist(),
            "mean rank": rank.mean(dim=0).tolist(),
            "median rank": rank.quantile(0.5, dim=0).tolist(),
            f"in first {k} (%)": (100 * (rank <= k).double().mean(dim=0)).tolist(),
        }
    )


def thought_information_table(
    trajectories: dict[str, Trajectory], tokenizer: SemanticTokenizer
) -> pd.DataFrame:
    """How much thoughts tell about the target, a row for each source and step; see ``informativeness``.

    Columns: thoughts (the source), step, codes used, entropy and information about the target's first code
    (bits), chance (the information about shuffled targets), own code (share of thoughts that are one of
    the target's m codes), repeated (share that equal the thought before; 0 at step 1) and the median rank
    after the step.
    """
    tokens = tokenizer.tokens.cpu()
    parts = []
    for name, trajectory in trajectories.items():
        report = informativeness(trajectory.thought, tokenizer, trajectory.target)
        own_code = (trajectory.thought[..., None] == tokens[trajectory.target][:, None]).any(dim=-1)  # (B, l)
        repeated = trajectory.thought[:, 1:] == trajectory.thought[:, :-1]
        parts.append(
            pd.DataFrame(
                {
                    "thoughts": name,
                    "step": range(1, trajectory.steps + 1),
                    "codes used": report["used"],
                    "entropy": report["entropy"],
                    "information": report["information"],
                    "chance": report["chance"],
                    "own code (%)": (100 * own_code.double().mean(dim=0)).tolist(),
                    "repeated (%)": [0.0, *(100 * repeated.double().mean(dim=0)).tolist()],
                    "median rank": trajectory.rank[:, 1:].double().quantile(0.5, dim=0).tolist(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


# A plane in which items and states are drawn


@contextmanager
def keep_torch_threads() -> Iterator[None]:
    """Restore torch's number of threads afterwards: UMAP's compiler (numba) changes it for the process."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class ItemPlane:
    """A UMAP plane of the items' representations t, in which states can be placed afterwards.

    Args:
        table: (N, d) t of all items.
        limit: up to so many items are drawn, chosen at random.
        seed: of the choice and of UMAP; the same table gives the same plane.
    """

    def __init__(self, table: Tensor, limit: int = 1500, seed: int = 0):
        import umap

        n = len(table)
        rows = np.random.default_rng(seed).choice(n, limit, replace=False) if n > limit else np.arange(n)
        self.table = np.asarray(table, dtype=np.float32)
        self.rows = np.sort(rows)  # (n,) item indices
        settings = {
            "min_dist": 0.6,
            "metric": "cosine",
            "random_state": seed,
            "n_jobs": 1,
        }  # as in notebook 02
        with keep_torch_threads():
            self.mapper = umap.UMAP(n_neighbors=min(20, len(self.rows) - 1), **settings)
            self.points = self.mapper.fit_transform(self.table[self.rows])  # (n, 2)

    def place(self, vectors: Tensor | np.ndarray) -> np.ndarray:
        """Coordinates (n, 2) of vectors (n, d)."""
        with keep_torch_threads():
            return self.mapper.transform(np.asarray(vectors, dtype=np.float32))

    def item(self, item: int) -> np.ndarray:
        """Coordinates (2,) of an item."""
        at = np.flatnonzero(self.rows == item)
        return self.points[at[0]] if len(at) else self.place(self.table[[item]])[0]
