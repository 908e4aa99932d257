"""Item text to embeddings (eq. 4): sentence-transformers on real data, TF-IDF and SVD on the playground."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ..common.errors import BadInput
from ..common.files import read_tensors, write_tensors
from ..config.sections import OFFICIAL_MINILM, EmbeddingConfig
from ..data.dataset import TEXT_COLUMNS, Dataset
from .sentence_models import file_sha256, load_model, locate_model

BATCHES_PER_SHARD = 8  # a neural encoder saves its results after so many batches


def item_texts(dataset: Dataset) -> list[str]:
    """The text of each of N items: title, brand, categories and description, joined by spaces."""
    columns = [dataset.items[name].astype(str) for name in TEXT_COLUMNS if name in dataset.items]
    rows = zip(*columns, strict=True) if columns else ([] for _ in range(len(dataset.items)))
    return [" ".join(part.strip() for part in row if part.strip()) for row in rows]


def embed_items(
    dataset: Dataset,
    config: EmbeddingConfig,
    cache_dir: Path | None = None,
    progress: bool = True,
    work_dir: Path | None = None,
) -> np.ndarray:
    """Embeddings of all items, (N, d_w) float32; ``BadInput`` without a model or any text.

    Args:
        dataset: the items. If it has embeddings, they are returned.
        config: the model that encodes the texts, and its settings.
        cache_dir: where finished embeddings are kept, under a hash of texts, model and settings.
        progress: show a progress bar.
        work_dir: where a neural encoder saves parts (``checkpoint-*``), so that it can be resumed.
            The folder must be used for these texts and settings only.
    """
    if dataset.embeddings is not None:
        return _check_vectors(
            np.asarray(dataset.embeddings, dtype=np.float32), len(dataset.items), "given embeddings"
        )
    texts = item_texts(dataset)
    if not any(texts):
        rule = "items need a title, brand, categories or description"
        raise BadInput(
            f"data set {dataset.name}", rule, "add text, or an embeddings file beside the items file"
        )
    name = config.model
    if name == "auto":
        name = "tfidf" if dataset.world is not None else OFFICIAL_MINILM
    if name == "all-MiniLM-L6-v2":
        name = OFFICIAL_MINILM
    location = None if name == "tfidf" else locate_model(name)
    path = None
    if cache_dir is not None:
        path = Path(cache_dir) / f"{_content_hash(texts, name, config)}.safetensors"
        cached = _read_cache(path, len(texts))
        if cached is not None:
            return cached
    vectors = (
        _tfidf(texts, config.dim)
        if location is None
        else _encode(texts, name, location, config, progress, work_dir)
    )
    vectors = _check_vectors(vectors, len(texts), f"embeddings of {name}")
    if path is not None:
        import torch

        write_tensors(path, {"embeddings": torch.from_numpy(vectors)}, {"model": name, "items": len(texts)})
    return vectors


def similar_items(vectors: np.ndarray, k: int, rows_per_chunk: int = 2048) -> np.ndarray:
    """The k other items with the highest cosine similarity, most similar first: (N, k) int64.

    ``vectors`` (N, d_w). ``BadInput`` unless 1 <= k < N.
    """
    n = len(vectors)
    if not 1 <= k < n:
        raise BadInput(f"{k} similar items", f"the catalogue has {n - 1} others", "ask for fewer")
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found = np.empty((n, k), dtype=np.int64)
    for low in range(0, n, rows_per_chunk):
        rows = np.arange(low, min(low + rows_per_chunk, n))
        cosine = unit[rows] @ unit.T
        cosine[np.arange(len(rows)), rows] = -np.inf
        best = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(cosine, best, axis=1), axis=1, kind="stable")
        found[rows] = np.take_along_axis(best, order, axis=1)
    return found


def _check_vectors(vectors: np.ndarray, items: int, what: str) -> np.ndarray:
    """The vectors, contiguous; ``BadInput`` unless they are finite, of shape (items, d_w)."""
    if vectors.ndim != 2 or len(vectors) != items or not vectors.shape[1]:
        rule = f"one row an item is needed: ({items}, d_w)"
        raise BadInput(f"{what} of shape {vectors.shape}", rule, "align the file with the items file")
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise BadInput(f"{what}, row {bad[0]}", "embeddings must be finite", "mend or leave out that item")
    return np.ascontiguousarray(vectors)


def _content_hash(texts: list[str], name: str, config: EmbeddingConfig) -> str:
    """A hash of everything that the vectors depend on; for a local model its files, not its path."""
    digest = hashlib.sha256()
    if name == "tfidf":
        settings = f"tfidf dim={config.dim}"
    else:
        settings = (
            f"{_folder_hash(Path(name)) if Path(name).is_dir() else name} max_tokens={config.max_tokens}"
        )
    for part in (settings, *texts):
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()[:32]


def _folder_hash(folder: Path) -> str:
    """A hash of all files of a folder, hidden ones excepted."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        digest.update(str(path.relative_to(folder)).encode() + file_sha256(path).encode())
    return digest.hexdigest()


def _read_cache(path: Path, items: int) -> np.ndarray | None:
    """The cached vectors; None if the file is missing or damaged (they are then computed again)."""
    try:
        vectors = read_tensors(path)[0]["embeddings"].numpy()
        return _check_vectors(vectors, items, str(path))
    except (BadInput, KeyError):
        return None


def _tfidf(texts: list[str], dim: int) -> np.ndarray:
    """TF-IDF of words, then a truncated SVD: (N, at most ``dim``) at unit length; deterministic."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    try:
        matrix = TfidfVectorizer(sublinear_tf=True, max_features=50_000).fit_transform(texts)
    except ValueError as error:
        raise BadInput("item texts", f"TF-IDF needs words ({error})", "add item text or embeddings") from None
    dim = min(dim, *matrix.shape)
    vectors = TruncatedSVD(dim, random_state=0).fit_transform(matrix)
    return normalize(vectors).astype(np.float32)


def _encode(
    texts: list[str], name: str, location: str, config: EmbeddingConfig, progress: bool, work_dir: Path | None
) -> np.ndarray:
    """Vectors of the texts from the model (mean pooling for MiniLM and sentence-t5), shard by shard."""
    import torch
    from tqdm.auto import tqdm

    order = np.argsort([-len(text) for text in texts])  # longest first, as in the library: less padding
    size = BATCHES_PER_SHARD * config.batch_size
    shards, model = [order[i : i + size] for i in range(0, len(order), size)], None
    parts: list[np.ndarray] = []
    bar = tqdm(total=len(texts), desc=name, unit="item", disable=not progress)
    for number, rows in enumerate(shards):
        path = Path(work_dir) / f"checkpoint-{number}.safetensors" if work_dir else None
        part = _read_cache(path, len(rows)) if path else None
        if part is None:
            model = model or load_model(name, location, config.max_tokens)
            batches = np.split(rows, range(config.batch_size, len(rows), config.batch_size))
            encoded = [
                model.encode([texts[i] for i in batch], batch_size=config.batch_size, show_progress_bar=False)
                for batch in batches
            ]
            part = np.concatenate(encoded).astype(np.float32)
            if path:
                write_tensors(path, {"embeddings": torch.from_numpy(part)})
        parts.append(part)
        bar.update(len(rows))
    bar.close()
    vectors = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
    vectors[order] = np.concatenate(parts)
    return vectors
