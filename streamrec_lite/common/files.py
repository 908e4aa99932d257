"""Atomic files (written completely or not at all): text, JSON, safetensors, and the training log."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BadInput

if TYPE_CHECKING:  # importing the package loads no torch
    from torch import Tensor, nn


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    """Write indented JSON atomically; ``ValueError`` for NaN or infinity."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """The value of a JSON file; ``BadInput`` if the file is missing or broken."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(str(path), "the file does not exist", "check the path") from None
    except IsADirectoryError:
        raise BadInput(str(path), "it is a folder, and a file is needed", "remove it") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON
        raise BadInput(str(path), f"the file must be UTF-8 JSON ({error})", "mend or delete it") from None


def write_tensors(path: str | Path, tensors: dict[str, Tensor], meta: dict | None = None) -> None:
    """Write named tensors, and ``meta`` (any JSON object), as one safetensors file, atomically."""
    from safetensors.torch import save_file

    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"meta": json.dumps(meta or {})})


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Read what ``write_tensors`` wrote: (tensors on the CPU, meta). ``BadInput`` for a broken file."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise BadInput(
            str(path), "the file does not exist", "check the path, or run the stage that writes it"
        )
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {}).get("meta", "{}"))
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, meta
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise BadInput(
            str(path), f"the file must be safetensors ({error})", "delete it and run the stage again"
        ) from None


def load_weights(module: nn.Module, tensors: dict[str, Tensor], source: str | Path) -> None:
    """Load ``tensors`` into ``module``; ``BadInput`` for one that is missing, unknown or misshapen.

    ``source`` is the file that the tensors come from, for the error message.
    """
    expected = module.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or name not in expected:
            state = "is missing" if name in expected else "is unknown"
            raise BadInput(
                f"{source}: tensor {name} {state}",
                "a checkpoint must match the model",
                "use the run's own config.json",
            )
        if expected[name].shape != tensors[name].shape:
            have, want = tuple(tensors[name].shape), tuple(expected[name].shape)
            raise BadInput(
                f"{source}: tensor {name} has shape {have}",
                f"the model needs {want}",
                "use the run's own config.json",
            )
    module.load_state_dict(tensors)


class RunLog:
    """The log of a training: a JSONL file with one row per line, appended as soon as it is known."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **row: object) -> None:
        """Append one row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict]:
        """All rows, oldest first; [] if there is no file. A line cut short by a kill is skipped."""
        if not self.path.exists():
            return []
        rows = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        return rows

    def drop_after(self, epoch: int) -> None:
        """Remove the rows of later epochs: a resumed run repeats them."""
        kept = [row for row in self.rows() if row.get("epoch", 0) <= epoch]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
