"""Bytes that stay where they are: a part of an archive, or a file of its own, named by place, offset and length."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pipeline.artifacts.atomic import ArtifactError

OPEN_AT_ONCE = 16
"""Archives that one reader keeps open."""


class Place(NamedTuple):
    """Where some bytes lie. Numbers are those that a 64-bit offset holds."""

    archive: str
    """The file's path relative to the working folder, which is the project's."""
    archive_size: int
    """Its bytes when the place was noted."""
    offset: int
    """The first byte that is meant."""
    length: int
    """How many are meant."""


def place_in(path: Path, offset: int, length: int) -> Place:
    """The place of `length` bytes from `offset` on in the file `path`."""
    return Place(Path(os.path.relpath(path)).as_posix(), path.stat().st_size, offset, length)


class ArchiveReader:
    """Reads places, with a few files kept open. Threads may share one."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, BinaryIO] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return ArchiveReader, ()  # another process opens the files itself

    def read(self, place: Place) -> bytes:
        """The bytes of a place.

        Raises:
            ArtifactError: The archive is gone, or has another size than when the place was noted; names it.
        """
        file = self._open.get(place.archive) or self._opened(place)
        content = os.pread(file.fileno(), place.length, place.offset)
        if len(content) != place.length:
            raise _changed(place, os.fstat(file.fileno()).st_size)
        return content

    def _opened(self, place: Place) -> BinaryIO:
        try:
            file = open(place.archive, "rb")  # noqa: SIM115  # closed when the reader lets go of it
        except OSError as error:
            reason = "is gone" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            raise ArtifactError(
                f"{place.archive}: the archive {reason} since the stage prepare noted what is in it"
            ) from None
        size = os.fstat(file.fileno()).st_size
        if size != place.archive_size:
            file.close()
            raise _changed(place, size)
        self._open[place.archive] = file
        if len(self._open) > OPEN_AT_ONCE:
            self._open.popitem(last=False)  # closed once no thread reads it any more
        return file


def _changed(place: Place, size: int) -> ArtifactError:
    return ArtifactError(
        f"{place.archive}: the archive has {size} bytes, and had {place.archive_size} when the stage prepare noted "
        "what is in it; run prepare again"
    )
