"""Atomic writes and hashes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class ArtifactError(ValueError):
    """An artifact that is missing, damaged, or made by something else than expected."""


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to (a file or a folder); rename it when the block succeeds.

    Nothing half-written stays: on an error the aside path is removed and `path` is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    _remove(aside)
    try:
        yield aside
        if path.is_dir() and aside.is_dir():  # a folder cannot be renamed over another one
            old = path.with_name(f".{path.name}.old")
            _remove(old)
            os.replace(path, old)  # never half-removed under its own name
            os.replace(aside, path)
            _remove(old)
        else:
            os.replace(aside, path)
    finally:
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256_file(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """Sorted keys and a final newline: equal values are equal bytes."""
    with write_atomically(path) as aside:
        aside.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def as_stored(value: Any) -> Any:
    """`value` as it comes back from JSON (a tuple as a list), to compare with what a file says."""
    return json.loads(json.dumps(value))


def read_json(path: str | Path) -> Any:
    path = Path(path)
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path}: not JSON ({error})") from None
