"""Tables of notebooks 00 to 03: users, items, embeddings and semantic IDs.

Nothing here trains anything. Each function turns what the library produced into a small table, so that a
figure, a widget and a table show the same numbers.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...common.schemas import Prefixes
from ...data.dataset import Dataset
from ...data.playground_world import PlaygroundWorld
from ...data.sequences import length_batches, padding_share
from ...tokenizer.health import codebook_usage
from ...tokenizer.kmeans import nearest
from ...tokenizer.semantic_ids import SemanticTokenizer
from .style import shorten, titles


def user_with_length(dataset: Dataset, length: int = 9) -> int:
    """The first user (row number) whose number of interactions is closest to ``length``."""
    lengths = np.array([len(s) for s in dataset.sequences])
    return int(np.abs(lengths - length).argmin())


def history_table(dataset: Dataset, user: int) -> pd.DataFrame:
    """All interactions of a user (row number), oldest first, with the split that each belongs to."""
    items = np.asarray(dataset.sequences[user])
    part = ["train"] * (len(items) - 2) + ["validation", "test"]
    return pd.DataFrame(
        {
            "position": np.arange(1, len(items) + 1),
            "item": [dataset.item_ids[i] for i in items],
            "title": titles(dataset, items),
            "category": [categories(dataset)[i] for i in items],
            "part": part[-len(items) :],
        }
    )


def categories(dataset: Dataset, limit: int = 7) -> list[str]:
    """One category for each item, from the first informative level of the category tree.

    A level on which more than 60 % of the items agree says little, so the next one is used. Only the
    ``limit`` most frequent names are kept, so that their colours can be told apart; the rest are "other".
    """
    parts = [[p.strip() for p in text.split(",") if p.strip()] for text in dataset.items["categories"]]
    for level in range(max((len(p) for p in parts), default=0)):
        names = pd.Series([p[level] if len(p) > level else "" for p in parts])
        if names.value_counts().iloc[0] <= 0.6 * len(names):
            break
    else:
        names = pd.Series(["all items"] * len(parts))
    counts = names[names != ""].value_counts()
    kept = set(counts.index[:limit])
    return [name if name in kept else "other" for name in names]


def padding_shares(prefixes: Prefixes, batch_size: int, seed: int = 0) -> pd.DataFrame:
    """Share of the computed history cells that are padding, for three ways to form batches."""
    length = prefixes.length.cpu()
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(length)))
    widest = 1 - float(length.double().mean()) / int(length.max())
    shuffled, bucketed = list(order.split(batch_size)), length_batches(length, batch_size, seed)
    shares = {
        "always as wide as the longest history": widest,
        "shuffled, as wide as the batch's longest": padding_share(length, shuffled),
        "bucketed by length": padding_share(length, bucketed),
    }
    return pd.DataFrame({"batches": list(shares), "padding": list(shares.values())})


def nearest_items(dataset: Dataset, embeddings: np.ndarray, item: int, k: int = 6) -> pd.DataFrame:
    """The k items whose text is most similar to that of ``item``, by cosine similarity.

    Args:
        dataset: for titles and brands.
        embeddings: (N, d_w) text embeddings.
        item: an item index.
        k: rows of the table.
    """
    unit = unit_rows(embeddings)
    similarity = unit @ unit[item]
    similarity[item] = -np.inf
    best = np.argsort(-similarity, kind="stable")[:k]
    table = {
        "title": titles(dataset, best),
        "brand": [shorten(b, 20) for b in dataset.items["brand"].iloc[best]],
    }
    return pd.DataFrame({**table, "cosine similarity": similarity[best].round(3)})


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Rows (N, d) divided by their lengths; an all-zero row stays zero."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def pair_similarities(
    embeddings: np.ndarray, labels: list[str], pairs: int = 20_000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine similarities of random pairs of items: (within one category, between categories).

    Args:
        embeddings: (N, d_w) text embeddings.
        labels: the category of each of the N items.
        pairs: how many pairs are drawn.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, len(embeddings), (2, pairs))
    a, b = a[a != b], b[a != b]
    unit, names = unit_rows(embeddings), np.asarray(labels)
    similarity = (unit[a] * unit[b]).sum(1)
    same = names[a] == names[b]
    return similarity[same], similarity[~same]


def umap_points(embeddings: np.ndarray, limit: int = 1500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """UMAP coordinates of up to ``limit`` items: (item indices (n,), points (n, 2))."""
    import umap

    rng = np.random.default_rng(seed)
    n = len(embeddings)
    rows = np.sort(rng.choice(n, limit, replace=False)) if n > limit else np.arange(n)
    neighbours = min(20, len(rows) - 1)
    mapper = umap.UMAP(n_neighbors=neighbours, min_dist=0.6, metric="cosine", random_state=seed, n_jobs=1)
    return rows, mapper.fit_transform(embeddings[rows])


def _latents(tokenizer: SemanticTokenizer) -> Tensor:
    """Latents (N, c) of all items, float32 on the CPU."""
    if tokenizer.latents is None:
        raise ValueError("this tokenizer was made from codes: it has no latents")
    return tokenizer.latents.detach().cpu().float()


def quantisation_table(tokenizer: SemanticTokenizer, item: int) -> pd.DataFrame:
    """Residual quantisation of one item, a row for each level (text below eq. 4, with the final codes).

    Columns: level (from 1), code, nearest (the codebook's nearest entry; the collision repair may have
    changed the last code to another one), before and after (norms of h_d and h_{d+1}), error (after as
    a share of the latent's norm) and items (how many items share the codes so far).
    """
    h = _latents(tokenizer)[item].clone()
    codes, whole = tokenizer.codes.cpu(), float(h.norm())
    same = torch.ones(len(codes), dtype=torch.bool)
    rows = []
    for level, book in enumerate(tokenizer.codebooks):
        book, code, before = book.detach().cpu().float(), int(codes[item, level]), float(h.norm())
        nearest = int((book - h).norm(dim=1).argmin())
        h = h - book[code]
        same &= codes[:, level] == code
        rows.append(
            (level + 1, code, nearest, before, float(h.norm()), float(h.norm()) / whole, int(same.sum()))
        )
    return pd.DataFrame(rows, columns=["level", "code", "nearest", "before", "after", "error", "items"])


def partial_sums(tokenizer: SemanticTokenizer, item: int) -> np.ndarray:
    """The latent and its reconstructions: (m + 1, c), row 0 is z, row d the sum of d code embeddings."""
    chosen = [b[int(tokenizer.codes[item, j])].detach().cpu() for j, b in enumerate(tokenizer.codebooks)]
    partial = torch.stack(chosen).float().cumsum(0)
    return torch.cat([_latents(tokenizer)[item : item + 1], partial]).numpy()


def items_with_prefix(tokenizer: SemanticTokenizer, item: int, level: int) -> np.ndarray:
    """Indices of the other items that share the first ``level`` codes with ``item``."""
    codes = tokenizer.codes.cpu()
    same = (codes[:, :level] == codes[item, :level]).all(1)
    same[item] = False
    return same.nonzero().flatten().numpy()


def random_code_usage(tokenizer: SemanticTokenizer, seed: int = 0) -> pd.DataFrame:
    """``code_usage`` if the codebooks were random numbers instead of learned vectors.

    Each random codebook has the mean and the standard deviation of the residuals that it quantises.
    """
    h = _latents(tokenizer).clone()
    generator = torch.Generator().manual_seed(seed)
    codes = []
    for _ in range(tokenizer.m):
        book = h.mean() + h.std() * torch.randn(tokenizer.K, h.shape[1], generator=generator)
        codes.append(nearest(h, book))
        h = h - book[codes[-1]]
    return code_usage(torch.stack(codes, 1), tokenizer.K)


def code_usage(codes: Tensor, K: int) -> pd.DataFrame:
    """Codes in use and their perplexity (exp of the entropy, 1..K) at each level of ``codes`` (N, m)."""
    used, perplexity = codebook_usage(codes, K)
    return pd.DataFrame({"level": range(1, len(used) + 1), "used": used, "perplexity": perplexity})


def collision_table(versions: dict[str, Tensor]) -> pd.DataFrame:
    """A row for each version of the codes (N, m): how many items share an ID, and the largest such group."""
    rows = {}
    for name, codes in versions.items():
        _, counts = torch.unique(codes.cpu(), dim=0, return_counts=True)
        shared = counts[counts > 1]
        rows[name] = {
            "items": len(codes),
            "different IDs": len(counts),
            "items that share an ID": int(shared.sum()),
            "largest group": int(counts.max()),
        }
    return pd.DataFrame(rows).T


def repaired_items(tokenizer: SemanticTokenizer, dataset: Dataset, limit: int = 8) -> pd.DataFrame:
    """Up to ``limit`` items whose last code the collision repair changed: title, codes before and after."""
    raw, codes = tokenizer.raw_codes.cpu(), tokenizer.codes.cpu()
    moved = (raw != codes).any(1).nonzero().flatten()[:limit].tolist()

    def join(row: Tensor) -> str:
        return "·".join(map(str, row.tolist()))

    return pd.DataFrame(
        {
            "title": titles(dataset, moved, 50),
            "quantiser's codes": [join(raw[i]) for i in moved],
            "semantic ID": [join(codes[i]) for i in moved],
        }
    )


def project_posterior(dataset: Dataset, user: int, limit: int = 7) -> pd.DataFrame | None:
    """P(project | the first t items of a user), a row for each project, a column for each t.

    None if the data set is not the playground. The ``limit`` most probable projects have a row each; all
    other projects are summed in the row "all others".
    """
    if not isinstance(dataset.world, PlaygroundWorld):
        return None
    world, sequence = dataset.world, dataset.sequences[user]
    names = pd.Series(name.split(":")[0] for name in world.slot_name)  # a slot is "project: category"
    belief = world.filter_forward([sequence[:t] for t in range(len(sequence) + 1)]).sum(1)  # (T, S)
    table = pd.DataFrame(belief.T).groupby(names, sort=False).sum()
    best = table.max(axis=1).nlargest(limit).index
    table = table.loc[[name for name in table.index if name in best]].rename_axis(None)
    table.loc["all others"] = 1 - table.sum()
    return table


def category_table(embeddings: np.ndarray, labels: list[str]) -> pd.DataFrame:
    """Items of each category, their mean cosine similarity to each other, and to all other items."""
    unit, names = unit_rows(np.asarray(embeddings, dtype=np.float64)), np.asarray(labels)
    total = unit.sum(0)
    rows = {}
    for name in pd.Series(labels).value_counts().index:
        own = unit[names == name].sum(0)
        n, rest = int((names == name).sum()), int((names != name).sum())
        within = (own @ own - n) / (n * (n - 1)) if n > 1 else np.nan  # the diagonal is left out
        rows[name] = {
            "items": n,
            "within": within,
            "to others": own @ (total - own) / (n * rest) if rest else np.nan,
        }
    return pd.DataFrame(rows).T.astype({"items": int})


def first_code_table(tokenizer: SemanticTokenizer, dataset: Dataset, limit: int = 10) -> pd.DataFrame:
    """The ``limit`` most frequent first codes: how many items have each, their main category, and an example.

    The category is the narrowest one that each item has.
    """
    labels = dataset.items["categories"].str.rsplit(",", n=1).str[-1].str.strip().to_numpy()
    first = tokenizer.codes[:, 0].cpu().numpy()
    rows = []
    for code, count in pd.Series(first).value_counts().head(limit).items():
        items = np.flatnonzero(first == code)
        leading = pd.Series(labels[items]).value_counts()
        share, example = f"{leading.iloc[0] / count:.0%}", titles(dataset, items[:1], 50)[0]
        rows.append((code, count, shorten(leading.index[0], 32), share, example))
    return pd.DataFrame(rows, columns=["first code", "items", "leading category", "its share", "example"])


def health_table(versions: dict[str, dict]) -> pd.DataFrame:
    """Health reports of several tokenizers, a column for each."""
    keys = ("used", "perplexity", "collisions_before", "collisions_after", "reconstruction_error", "passed")
    return pd.DataFrame({name: {key: str(report[key]) for key in keys} for name, report in versions.items()})
