"""TIGER in slow motion, as tables: teacher forcing, the trie, a beam search, right and wrong answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...common.files import read_tensors
from ...common.schemas import BOS, FIRST_CODE, Prefixes
from ...evaluation.evaluate import evaluate
from ...evaluation.metrics import rank_of_target
from ...inference.recommender import Asked
from ...tokenizer.semantic_ids import token_name


def teacher_forcing(tokenizer, prefixes: Prefixes, row: int) -> tuple[list[list[str]], pd.DataFrame]:
    """One example as the model reads it: (encoder tokens an item, decoder input and label a step)."""
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


def trie_shape(trie) -> pd.DataFrame:
    """A row a depth of the trie: nodes there, and how many children they have."""
    rows = []
    for depth in range(trie.m):
        children = trie.start[depth].cpu().diff().numpy()
        mean, most = round(float(children.mean()), 2), int(children.max())
        rows.append({"depth": depth, "nodes": len(children), "mean children": mean, "most children": most})
    rows.append({"depth": trie.m, "nodes": len(trie.leaf_item), "mean children": 0.0, "most children": 0})
    return pd.DataFrame(rows)


def leaves(trie, depth: int, node: int) -> Tensor:
    """The items below a node of the trie."""
    low, high = node, node + 1
    for j in range(depth, trie.m):
        low, high = int(trie.start[j][low]), int(trie.start[j][high])
    return trie.leaf_item[low:high]


@torch.inference_mode()
def beam_steps(
    model, tokenizer, history: Tensor, beams: int = 20, decoder: str = "direct"
) -> list[pd.DataFrame]:
    """The constrained beam search of one user in slow motion: a table a code level.

    ``history`` holds item indices (n,). Every row is a candidate prefix, best first: codes, parent
    (row of the previous table), log_prob of its last code, score (the sum so far), items (below
    it in the trie), example (one of them) and kept (among the ``beams`` best). The candidates
    that the trie rules out never appear.
    """
    trie = tokenizer.trie
    states, mask = model.encode(tokenizer.tokens[history].reshape(1, -1))
    alive = [{"codes": (), "node": 0, "score": 0.0}]
    steps = []
    for depth in range(tokenizer.m):
        inputs = [[BOS, *(FIRST_CODE + j * tokenizer.K + c for j, c in enumerate(a["codes"]))] for a in alive]
        inputs = torch.tensor(inputs, device=states.device)
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
        below = [leaves(trie, depth + 1, int(node)) for node in table["node"]]
        table["items"], table["example"] = [len(b) for b in below], [int(b[0]) for b in below]
        table["kept"] = table.index < beams
        steps.append(table)
        alive = table[table["kept"]].to_dict("records")
    return steps


def hits_by_length(ranks: Tensor, length: Tensor, k: int = 10, groups: int = 5) -> pd.DataFrame:
    """Share of users whose next item is among the first k, by the length of their history."""
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


def results_table(rows: dict[str, dict], part: str = "test") -> pd.DataFrame:
    """R@5 to N@10 of the models in ``rows`` (name: row of results.json), the oracle last.

    Where there is an oracle, the last column is N@10 as a percentage of the oracle's.
    """
    table = pd.DataFrame({name: row[part] for name, row in rows.items()}).T[["R@5", "R@10", "N@5", "N@10"]]
    if "Oracle" in table.index:
        table = table.loc[[*(n for n in table.index if n != "Oracle"), "Oracle"]]
        table["share of oracle (%)"] = 100 * table["N@10"] / table.loc["Oracle", "N@10"]
    return table.round({"R@5": 4, "R@10": 4, "N@5": 4, "N@10": 4, "share of oracle (%)": 1})


def training_table(log: list[dict], most: int = 12) -> pd.DataFrame:
    """Rows of the training log, evenly spaced and the last among them, without what pictures show best."""
    columns = ["epoch", "loss", "valid R@10", "valid N@10", "lr", "samples_per_second", "seconds"]
    table = pd.DataFrame(log)
    table = table[[c for c in columns if c in table]]
    kept = np.unique(np.linspace(0, len(table) - 1, min(most, len(table))).round().astype(int))
    digits = {"loss": 3, "valid R@10": 4, "valid N@10": 4, "lr": 6, "samples_per_second": 0, "seconds": 1}
    return table.iloc[kept].round(digits).reset_index(drop=True)


def telling_user(model, prefixes: Prefixes, rows: int = 400) -> int:
    """Among the first ``rows`` examples one with a long history whose target is ranked 2 to 5.

    A beam in which the truth is neither trivially first nor lost shows most. Falls back to the
    example with the best rank, then to the first one.
    """
    some = prefixes.select(torch.arange(min(rows, prefixes.n_examples)))
    ranks = rank_of_target(model.topk(some, 10), some.target.to(model.device)).cpu()
    preferred = (ranks >= 2) & (ranks <= 5)
    if not preferred.any():
        preferred = ranks == ranks[ranks > 0].min() if (ranks > 0).any() else ranks == 0
    return int((preferred * some.length.clamp(max=10)).argmax())


def kept_ranks(folder: str | Path) -> Tensor:
    """Ranks of the test targets (0: not among the first ten) that a model's folder keeps."""
    return read_tensors(Path(folder) / "ranks.safetensors")[0]["test"]


def by_thoughts(model, prefixes: Prefixes, numbers: tuple[int, ...] = (1, 4), k: int = 10) -> pd.DataFrame:
    """Metrics and cost of answering at once, and after the n most likely trains of thought.

    A row a way of thinking, "at once", "n = 1", ...: N@10, R@10 and milliseconds a user.
    """
    ways = {"at once": ("none", 1)} | {f"n = {n}": ("beam", n) for n in numbers}
    rows = {}
    for name, (think, n) in ways.items():
        asked = Asked(model, think=think, n_thoughts=n)
        result = evaluate(asked, prefixes, k=k, batch_size=64)
        rows[name] = {key: result.metrics[key] for key in ("N@10", "R@10")}
        rows[name]["ms a user"] = 1000 / result.users_per_second
    return pd.DataFrame(rows).T
