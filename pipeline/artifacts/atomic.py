"""Atomic writes and hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PARTIAL = ".partial"


class ArtifactError(ValueError):
    """An artifact that is missing, damaged, or made by something else than expected."""


class StorageError(OSError):
    """A disk that has no room, or lets nothing be written; says for which file."""


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to (a file or a folder); rename it when the block succeeds.

    Nothing half-written stays: on an error the aside path is removed and `path` is untouched. Raises
    StorageError naming `path` where the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    settle(path)
    aside, old = _beside(path)
    try:
        yield aside
        if path.is_dir() and aside.is_dir():  # a folder cannot be renamed over another one
            os.replace(path, old)  # never half-removed under its own name
            os.replace(aside, path)  # a kill between the two: see `settle`
            _remove(old)
        else:
            os.replace(aside, path)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise StorageError(error.errno, f"cannot be written: {os.strerror(error.errno)}", str(path)) from error
    finally:
        _remove(aside)


def settle(path: str | Path) -> None:
    """Finish what a kill left of `write_atomically(path)`, and clear what it left beside it.

    A folder is replaced by two renames. Between them there is nothing at `path`, but what is new is complete.
    """
    path = Path(path)
    aside, old = _beside(path)
    if old.exists() and not path.exists():
        with contextlib.suppress(FileNotFoundError):  # another process of this run was quicker
            os.replace(aside if aside.exists() else old, path)
    for left in (aside, old):
        _remove(left)


def settle_only(folder: str | Path, names: Collection[str]) -> None:
    """`settle` what has one of these names in `folder`, and remove whatever else is there."""
    for name in names:
        settle(Path(folder) / name)
    for path in [path for path in Path(folder).glob("*") if path.name not in names]:
        _remove(path)


def final_path(path: Path) -> Path:
    """The path that something written by `write_atomically` has once it is complete, for messages."""
    parts = [
        part[1 : -len(_PARTIAL)] if part.startswith(".") and part.endswith(_PARTIAL) else part for part in path.parts
    ]
    return Path(*parts)


def _beside(path: Path) -> tuple[Path, Path]:
    """Where the new one is written, and where the old one waits to be removed."""
    return path.with_name(f".{path.name}{_PARTIAL}"), path.with_name(f".{path.name}.old")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        with contextlib.suppress(FileNotFoundError):  # another process of this run was quicker
            shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256_file(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """Sorted keys and a final newline: equal values are equal bytes."""
    with write_atomically(path) as aside:
        aside.write_text(
            json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )


def as_stored(value: Any) -> Any:
    """`value` as it comes back from JSON (a tuple as a list), to compare with what a file says."""
    return json.loads(json.dumps(value))


def read_json(path: str | Path) -> Any:
    path = Path(path)
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: not JSON ({error})") from None
