"""How a stage survives being killed at any moment: a folder is whole and marked, or it is not there.

    NAME.part/       work in progress; stage.json holds the hash that it works for
    NAME/            the finished folder
    NAME/done.json   the marker: the hash of settings and inputs, and each file's size
    NAME.old/        the folder that is being replaced, for the instant between two renames

Commit: stage.json becomes the complete record (inside NAME.part) -> NAME to NAME.old, if there is one
-> NAME.part to NAME -> done.json. Whatever a kill leaves behind, ``recover`` finishes or undoes.
Nothing here imports torch, so that finding everything done is quick.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import BadInput
from .files import write_json

DONE, RECORD = "done.json", "stage.json"
TRANSIENT = ("checkpoint*", ".*", "*.tmp", DONE, RECORD)  # not part of what a stage delivers
BRANCH_REMEDY = (
    'try them in a run of their own (--branch NAME, branch="NAME" in a notebook; stages that stay the same '
    "are reused), do just these stages anew (--replace), or give another --out"
)


def _sibling(folder: Path, suffix: str) -> Path:
    return folder.with_name(folder.name + suffix)


def part_of(folder: Path) -> Path:
    """The folder in which the work for ``folder`` goes on."""
    return _sibling(folder, ".part")


def _files(folder: Path) -> dict[str, int]:
    """Size in bytes of each file that the stage delivers."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(fnmatch.fnmatch(path.name, pattern) for pattern in TRANSIENT)
    }


def _record(path: Path) -> dict:
    """A done.json or stage.json, or {} if it is missing or broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) and isinstance(value.get("hash"), str) else {}


def _complete(folder: Path, name: str) -> dict:
    """The record ``name`` of ``folder``, if every file that it lists is there in its size; else {}."""
    record = _record(folder / name)
    files = record.get("files")
    if not isinstance(files, dict):
        return {}
    for file, size in files.items():
        try:
            if (folder / file).stat().st_size != size:
                return {}
        except OSError:
            return {}
    return record


def done(folder: Path, hash_: str | None = None) -> dict:
    """The marker of a finished stage, or {}: unfinished, damaged, or done for another hash."""
    record = _complete(folder, DONE)
    return record if record and hash_ in (None, record["hash"]) else {}


def recover(folder: Path) -> None:
    """Finish or undo what a killed commit left; changes nothing else. Call with the stage's lock."""
    part, old = part_of(folder), _sibling(folder, ".old")
    if _complete(part, RECORD):  # killed within a commit, before the second rename
        _swap_in(folder)
    elif old.is_dir() and not folder.exists():
        old.rename(folder)
    if folder.is_dir() and not (folder / DONE).exists():
        record = _complete(folder, RECORD)
        if record:  # killed between rename and marker
            write_json(folder / DONE, record)
    if old.is_dir() and folder.is_dir():
        shutil.rmtree(old)


def _swap_in(folder: Path) -> None:
    part, old = part_of(folder), _sibling(folder, ".old")
    for path in [*part.glob("checkpoint*"), *part.rglob(".*.tmp")]:  # only of use until here
        path.unlink()
    if folder.exists():
        if old.exists():
            shutil.rmtree(old)
        folder.rename(old)
    part.rename(folder)


def run_stage(
    run_dir: Path,
    name: str,
    hash_: str,
    work: Callable[[Path], dict | None],
    reuse: Iterable[Path] = (),
    replace: bool = False,
) -> dict:
    """Do ``work(part)`` unless ``run_dir/name`` is done for ``hash_``; returns the marker's content.

    A second process that wants the same stage waits for the first one.

    Args:
        run_dir: the run's folder.
        name: the stage's folder below it, e.g. "sft/seed-0".
        hash_: what the stage is done for (``run.Run.hash``).
        work: fills the folder ``part``, which may hold what an earlier, killed call for the same hash left
            there, and returns what the marker shall say besides (JSON-able).
        reuse: folders of other runs that may have the same stage done; it is copied from there.
        replace: may the stage replace one that is done for another hash? Else that is ``BadInput``.
    """
    folder = Path(run_dir) / name
    marker = done(folder, hash_)
    if marker and not _sibling(folder, ".old").exists():
        return marker
    with locked(lock_file(run_dir, name), wait=True):
        recover(folder)
        marker = done(folder, hash_)
        if marker:
            return marker
        if done(folder) and not replace:
            raise BadInput(str(folder), "the stage is finished with other settings", BRANCH_REMEDY)
        part = part_of(folder)
        if part.exists() and _record(part / RECORD).get("hash") != hash_:
            shutil.rmtree(part)
        if not adopt(folder, [Path(other) / name for other in reuse], hash_):
            part.mkdir(parents=True, exist_ok=True)
            write_json(part / RECORD, {"hash": hash_})
            begin = time.perf_counter()
            info = work(part) or {}
            seconds = round(time.perf_counter() - begin, 3)
            record = {"hash": hash_, "seconds": seconds, **info, "files": _files(part)}
            write_json(part / RECORD, record)
            _swap_in(folder)
            recover(folder)
        return done(folder, hash_)


def adopt(folder: Path, others: Iterable[Path], hash_: str) -> bool:
    """Copy the first of ``others`` that is done for ``hash_`` to ``folder``; was there one?"""
    part = part_of(folder)
    for other in others:
        record = done(other, hash_)
        if record:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            for file in record["files"]:
                (part / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(other / file, part / file)
            write_json(part / RECORD, record)
            _swap_in(folder)
            recover(folder)
            return True
    return False


def lock_file(run_dir: Path, name: str) -> Path:
    """The file whose lock guards the stage ``name`` of a run."""
    return Path(run_dir) / ".locks" / f"{name.replace('/', '-')}.lock"


@contextlib.contextmanager
def locked(path: Path, wait: bool) -> Iterator[None]:
    """Hold an exclusive lock that ends with the process, killed or not.

    ``wait=False``: if another process holds it, ``BadInput``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        rule = "another `streamrec reproduce` is at work in this folder"
        raise BadInput(str(path.parent.parent), rule, "wait for it, or give another --out") from None
    try:
        yield
    finally:
        lock.release()


def discard(path: Path) -> None:
    """Delete a file or folder; a folder is out of sight before it is half-deleted."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        trash = path.with_name(f".trash-{os.getpid()}-{path.name}")
        path.rename(trash)
        shutil.rmtree(trash)
