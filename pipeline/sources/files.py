"""The files of a source's folder, linked folders among them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.sources.errors import SourceError


def files_below(folder: Path, endings: tuple[str, ...] = ("",)) -> list[Path]:
    """The files below a folder in the order of their paths. Hidden ones are left out.

    Folders that are links are entered too, and each folder once, however many links lead to it.

    Args:
        folder: The source's folder.
        endings: What their names end with, in small letters.

    Raises:
        SourceError: A folder cannot be read.
    """
    names = (path / name for path, names in _folders(folder) for name in names if not name.startswith("."))
    return sorted(path for path in names if path.name.lower().endswith(endings))


def linked_folders(folder: Path) -> list[Path]:
    """The links to folders right in a folder. DVC does not look behind them."""
    return sorted(path for path in folder.iterdir() if path.is_symlink() and path.is_dir()) if folder.is_dir() else []


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder with the names of its files; those that only a link leads to come last."""
    seen: set[tuple[int, int]] = set()
    pending = [root]
    while pending:
        links = []
        for start in pending:
            for place, folders, names in os.walk(start, onerror=_refuse):
                facts = os.stat(place)
                if (facts.st_dev, facts.st_ino) in seen:
                    folders.clear()
                    continue
                seen.add((facts.st_dev, facts.st_ino))
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                links += [Path(place, name) for name in folders if os.path.islink(os.path.join(place, name))]
                yield Path(place), names
        pending = links


def _refuse(error: OSError) -> None:
    raise SourceError(f"{error.filename}: cannot be read ({error.strerror})")
