"""Tables of notebook 04, fast thinking: teacher forcing, the trie, a beam search, and metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...common.files import read_tensors
from ...common.schemas import BOS, FIRST_CODE, Prefixes
from ...data.dataset import Dataset
from ...evaluation.metrics import METRIC_NAMES, rank_of_target
from ...evaluation.results_table import NEW_METRICS
from ...inference.recommender import StreamRec
from ...model.backbone import Backbone
from ...tokenizer.semantic_ids import SemanticTokenizer, token_name
from ...tokenizer.trie import Trie
from .style import titles


def teacher_forcing_example(
    tokenizer: SemanticTokenizer, prefixes: Prefixes, row: int
) -> tuple[list[list[str]], pd.DataFrame]:
    """One example as the model reads it: (encoder tokens by item, decoder input and label by step)."""
    n = int(prefixes.length[row])
    tokens, K = tokenizer.tokens.cpu(), tokenizer.K
    encoder = [[token_name(int(t), K) for t in tokens[i]] for i in prefixes.history[row, :n].cpu()]
    labels = tokens[prefixes.target[row].cpu()].tolist()
    inputs = [BOS, *labels[:-1]]
    steps = [
        {"step": t + 1, "decoder reads": token_name(x, K), "must predict": token_name(y, K), "label": y}
        for t, (x, y) in enumerate(zip(inputs, labels, strict=True))
    ]
    return encoder, pd.DataFrame(steps)


def trie_table(trie: Trie) -> pd.DataFrame:
    """A row for each depth of the trie: its nodes, and how many children they have."""
    rows = []
    for depth in range(trie.m):
        children = trie.start[depth].cpu().diff().numpy()
        mean, largest = round(float(children.mean()), 2), int(children.max())
        rows.append({"depth": depth, "nodes": len(children), "mean children": mean, "most children": largest})
    rows.append({"depth": trie.m, "nodes": len(trie.leaf_item), "mean children": 0.0, "most children": 0})
    return pd.DataFrame(rows)


def items_below(trie: Trie, depth: int, node: int) -> Tensor:
    """Indices (n,) of the items below a node of the trie; ``node`` counts the nodes of its depth."""
    low, high = node, node + 1
    for j in range(depth, trie.m):
        low, high = int(trie.start[j][low]), int(trie.start[j][high])
    return trie.leaf_item[low:high]


@torch.inference_mode()
def beam_steps(
    model: Backbone, tokenizer: SemanticTokenizer, history: Tensor, beams: int = 20, decoder: str = "direct"
) -> list[pd.DataFrame]:
    """The constrained beam search of one user, a table for each code level.

    Args:
        model: with ``decoder``.
        tokenizer: for the trie; prefixes that are not in it never appear.
        history: (n,) item indices, oldest first.
        beams: how many prefixes each step keeps.
        decoder: "direct" or "thinking".

    Returns:
        A row for each candidate prefix, best first. Columns: codes, parent (row of the previous table),
        log_prob of its last code, score (the sum so far), items (how many are below it in the trie),
        example (one of them) and kept (among the ``beams`` best).
    """
    trie = tokenizer.trie
    states, mask = model.encode(tokenizer.tokens[history].reshape(1, -1))
    alive: list[dict[Any, Any]] = [{"codes": (), "node": 0, "score": 0.0}]
    steps = []
    for depth in range(tokenizer.m):
        written = [
            [BOS, *(FIRST_CODE + j * tokenizer.K + c for j, c in enumerate(a["codes"]))] for a in alive
        ]
        inputs = torch.tensor(written, device=states.device)
        spread = states.expand(len(alive), -1, -1)
        hidden = model.decode(inputs, spread, None if mask is None else mask.expand(len(alive), -1), decoder)
        nodes = torch.tensor([a["node"] for a in alive], device=states.device)
        family = trie.padded_children(depth, nodes)
        log_probs = model.code_log_probs(hidden[:, -1], depth, trie, family).cpu()
        codes, children, real = (x.cpu() for x in family)
        rows = []
        for parent, beam in enumerate(alive):
            for place in real[parent].nonzero()[:, 0].tolist():
                code, gain = int(codes[parent, place]), float(log_probs[parent, place])
                node = int(children[parent, place])
                rows.append(((*beam["codes"], code), parent, node, gain, beam["score"] + gain))
        table = pd.DataFrame(rows, columns=["codes", "parent", "node", "log_prob", "score"])
        table = table.sort_values("score", ascending=False, kind="stable").reset_index(drop=True)
        below = [items_below(trie, depth + 1, int(node)) for node in table["node"]]
        table["items"], table["example"] = [len(b) for b in below], [int(b[0]) for b in below]
        table["kept"] = table.index < beams
        steps.append(table)
        alive = table[table["kept"]].to_dict("records")
    return steps


def recall_by_length(ranks: Tensor, length: Tensor, k: int = 10, groups: int = 5) -> pd.DataFrame:
    """R@k by the length of the history: the share of users whose next item is among the first k.

    Args:
        ranks: (users,) rank of the target; 1 is best, 0 means that it was not found.
        length: (users,) items in the history.
        k: places that count as a hit.
        groups: how many groups of about equal size the users are divided into.
    """
    frame = pd.DataFrame({"length": length.cpu().numpy(), "hit": ((ranks > 0) & (ranks <= k)).cpu().numpy()})
    edges = np.unique(np.quantile(frame["length"], np.linspace(0, 1, groups + 1)).astype(int))
    if len(edges) < 2:
        edges = np.array([edges[0], edges[0] + 1])
    bins = pd.cut(frame["length"], edges - np.r_[1, np.zeros(len(edges) - 1, int)], labels=False)
    grouped = frame.groupby(bins)
    table = grouped.agg(
        shortest=("length", "min"), longest=("length", "max"), users=("hit", "size"), hit=("hit", "mean")
    )
    table["error"] = np.sqrt(table["hit"] * (1 - table["hit"]) / table["users"])
    return table.reset_index(drop=True).rename(columns={"hit": f"R@{k}"})


def metrics_table(rows: dict[str, dict], part: str = "test") -> pd.DataFrame:
    """R@5 to N@10 of the models in ``rows`` (name: row of results.json), the oracle last.

    Beside "test" stand columns for new items only. Where there is an oracle, the last column is N@10 as a
    percentage of the oracle's.
    """
    table = pd.DataFrame({name: row[part] for name, row in rows.items()}).T[list(METRIC_NAMES)]
    if part == "test":
        for metric in NEW_METRICS:
            table[f"new {metric}"] = [row["test_new"][metric] for row in rows.values()]
    if "Oracle" in table.index:
        table = table.loc[[*(n for n in table.index if n != "Oracle"), "Oracle"]]
        table["share of oracle (%)"] = 100 * table["N@10"] / table["N@10"].iloc[-1]
    return table.round({name: 1 if "share" in str(name) else 4 for name in table})


def training_log_table(log: list[dict], limit: int = 12) -> pd.DataFrame:
    """Up to ``limit`` evenly spaced rows of the training log, the last included, with the main columns."""
    columns = ["epoch", "loss", "valid R@10", "valid N@10", "lr", "samples_per_second", "seconds"]
    table = pd.DataFrame(log)
    table = table[[c for c in columns if c in table]]
    kept = np.unique(np.linspace(0, len(table) - 1, min(limit, len(table))).round().astype(int))
    digits = {"loss": 3, "valid R@10": 4, "valid N@10": 4, "lr": 6, "samples_per_second": 0, "seconds": 1}
    return table.iloc[kept].round(digits).reset_index(drop=True)


def illustrative_example(model: StreamRec, prefixes: Prefixes, rows: int = 400) -> int:
    """One of the first ``rows`` examples: the target is ranked 2 to 5, and the history is long.

    In the beam of such an example the target is neither first at once nor lost. If there is none, it is
    the example with the best rank, then the first one.
    """
    examples = prefixes.select(torch.arange(min(rows, prefixes.n_examples)))
    ranks = rank_of_target(model.topk(examples, 10), examples.target.to(model.device)).cpu()
    preferred = (ranks >= 2) & (ranks <= 5)
    if not preferred.any():
        preferred = ranks == ranks[ranks > 0].min() if (ranks > 0).any() else ranks == 0
    return int((preferred * examples.length.clamp(max=10)).argmax())


def read_test_ranks(folder: str | Path, split: str = "test") -> Tensor:
    """Ranks (users,) of the test targets from a model's folder; 0 means not among the first ten.

    ``split`` "test_new": new items only; -1 for users that do not count.
    """
    return read_tensors(Path(folder) / "ranks.safetensors")[0][split]


def beam_table(
    step: pd.DataFrame, dataset: Dataset, target_codes: tuple | None = None, rows: int = 10
) -> pd.DataFrame:
    """The best prefixes of a step for readers, a row for each; "mark" is a star on the target's path.

    Args:
        step: one table of ``beam_steps``.
        dataset: for the titles of items.
        target_codes: the m codes of the target, if there is one.
        rows: how many prefixes.
    """
    top = step.head(rows)
    on_path = [target_codes is not None and c == target_codes[: len(c)] for c in top["codes"]]
    names = titles(dataset, top["example"], 34)
    lead = [n if i == 1 else f"{i} items, e.g. {n}" for n, i in zip(names, top["items"], strict=True)]
    return pd.DataFrame(
        {
            "mark": ["★ " if r else "" for r in on_path],
            "codes": ["·".join(map(str, c)) for c in top["codes"]],
            "leads to": lead,
            "grew from": top["parent"] + 1,
            "log_prob": top["log_prob"],
            "score": top["score"],
            "on target's path": on_path,
        }
    )
