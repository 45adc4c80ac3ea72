"""The files of a source's folder, linked folders among them, and the count of what a reader passes over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.sources.errors import SourceError
from pipeline.sources.web.samples import Sample

ARCHIVES = (".tar", ".tgz", ".tar.gz")


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


def archives(folder: Path) -> list[Path]:
    """The tar files below a folder, in order."""
    return files_below(folder, ARCHIVES)


class PassedOver:
    """What a reader leaves out that is no image: counted by reason, so that millions of files are a few lines.

    Args:
        place: What the ids in the list begin with: the archive's, or the source's.
    """

    def __init__(self, place: str):
        self._place = place
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, name: str, reason: str) -> None:
        """Count one file."""
        count, first = self._found.get(reason, (0, name))
        self._found[reason] = (count + 1, first)

    def samples(self) -> Iterator[Sample]:
        """One sample a reason, under the name of the first file."""
        for reason, (count, first) in self._found.items():
            more = f" (and {count - 1} more)" if count > 1 else ""
            yield Sample(f"{self._place}/{printable(first)}", reason=f"{reason}{more}", is_image=False)


def printable(name: str) -> str:
    """A name that can be written: what is not UTF-8 is spelled out."""
    return name if name.isprintable() else ascii(name)[1:-1]
